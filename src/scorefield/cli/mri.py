"""The verb for MRI: reconstruct."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scorefield.cli.console import run_parser, say, warn
from scorefield.foundation.errors import InputError


def reconstruct(arguments: Sequence[str]) -> int:
    """Reconstruct MR images from undersampled k-space: members of p(image | k-space), their mean and spread, and baselines."""
    from tqdm import tqdm

    from scorefield.jobs import sampling
    from scorefield.mri import reconstruction
    from scorefield.mri import reconstruction_report as reconstructed
    from scorefield.mri.files import open_kspace
    from scorefield.run import loading, recipe

    parser = run_parser("reconstruct", reconstruct.__doc__ or "")
    reconstruction.add_arguments(parser)
    settings = parser.read(with_mask_files(arguments))
    opened = loading.open_checkpoint(settings.run, settings.step)
    kspace = open_kspace(settings.kspace)
    say(kspace.layout)
    if kspace.note:
        warn(kspace.note)
    model = opened.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    job = reconstruction.job_of(
        model,
        kspace,
        recipe.build(parser, settings),
        sampler=sampling.chosen(parser, settings, reconstruction.own_sampler(model)),
        facts=opened.provenance | {"ema": settings.ema},
    )
    with tqdm(total=len(job.numbers), unit="slice", desc="reconstruct", mininterval=1) as bar:
        found = reconstruction.reconstruct(job, settings.out, say=warn, progress=bar.update)
    print(reconstructed.table(found, settings.samples))
    say(f"images in {settings.out}, a picture beside it")
    return 0


def with_mask_files(arguments: Sequence[str]) -> list[str]:
    """`--mask FILE.npy`, as a path is what one types first, for `--mask MaskFile --mask.path FILE.npy`."""
    found: list[str] = []
    for word in arguments:
        name = word.removeprefix("--mask=") if word.startswith("--mask=") else word if found[-1:] == ["--mask"] else ""
        if not name.endswith(".npy") and not Path(name).is_file():
            found.append(word)
        elif not name.endswith(".npy"):
            raise InputError(f"--mask {name} is a file of no known kind: give a mask as .npy.")
        else:
            found = found[:-1] if found[-1:] == ["--mask"] else found
            found += ["--mask", "MaskFile", "--mask.path", name]
    return found
