"""The verb for MRI: reconstruct."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.cli.words import run_parser, say, warn


def reconstruct(arguments: Sequence[str]) -> int:
    """Reconstruct MR images from undersampled k-space: members of p(image | k-space), their mean and spread, and baselines."""
    from tqdm import tqdm

    from scorefield import loading, recipe, reconstructed, reconstruction, sampling
    from scorefield.data.mri.kspace import open_kspace

    parser = run_parser("reconstruct", reconstruct.__doc__ or "")
    reconstruction.add_arguments(parser)
    settings = parser.read(arguments)
    opened = loading.open_checkpoint(settings.run, settings.step)
    model = opened.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    job = reconstruction.job_of(
        model,
        open_kspace(settings.kspace),
        recipe.build(parser, settings),
        sampler=sampling.chosen(parser, settings, reconstruction.OWN),
        facts=opened.provenance | {"ema": settings.ema},
    )
    with tqdm(total=len(job.numbers), unit="slice", desc="reconstruct", mininterval=1) as bar:
        found = reconstruction.reconstruct(job, settings.out, say=warn, progress=bar.update)
    print(reconstructed.table(found["slices"], found["volume"], settings.samples))
    say(f"images in {settings.out}, a picture beside it")
    return 0
