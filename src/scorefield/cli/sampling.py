"""Verbs that draw from a run: sample, restore; that denoise by it; and its likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scorefield.cli.console import run_parser, warn


def denoise(arguments: Sequence[str]) -> int:
    """Denoise fields in files: the mean of all that each may have been, given white noise of a known or estimated strength."""
    from scorefield.jobs import denoising
    from scorefield.run import loading

    parser = run_parser("denoise", denoise.__doc__ or "")
    denoising.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    facts = source.provenance | {"ema": settings.ema}
    record = denoising.denoise(
        settings.out,
        model,
        settings.files,
        phases=settings.phases,
        noise=settings.noise,
        chunk=settings.chunk,
        provenance=facts,
    )
    print(denoising.table(record))
    return 0


def restore(arguments: Sequence[str]) -> int:
    """Restore a measured image: draws from all that it may have been, by --task inpaint, colourise, superres or deblur."""
    from tqdm import tqdm

    from scorefield.jobs import restoring, sampling
    from scorefield.jobs.class_guidance import class_of
    from scorefield.run import checkpoint_choice as selection
    from scorefield.run import loading, recipe

    parser = run_parser("restore", restore.__doc__ or "")
    selection.add_arguments(parser)
    restoring.add_arguments(parser)
    settings = parser.read(restoring.named(arguments))
    source = loading.open_checkpoint(settings.run, selection.chosen_step(settings.run, settings, warn))
    model = source.model(ema=settings.ema, trust=settings.trust)
    built = recipe.build(parser, settings)
    case = restoring.read_case(
        built.task,
        settings.image,
        model.shape,
        noise=settings.noise,
        degrade=settings.degrade,
        truth=settings.truth,
        seed=settings.seed,
    )
    with tqdm(total=settings.samples, unit="sample", desc="restore", mininterval=1) as bar:
        figures = restoring.restore(
            settings.out,
            model.to(settings.device),
            case,
            method=built.method,
            sampler=sampling.chosen(parser, settings, model.sampler),
            n=settings.samples,
            seed=settings.seed,
            chunk=settings.chunk,
            label=class_of(source, model, settings.label),
            provenance=source.provenance | {"ema": settings.ema},
            progress=bar.update,
        )
    print(restoring.table(figures, settings.out))
    return 0


def likelihood(arguments: Sequence[str]) -> int:
    """Measure log p of fields by the probability flow: nats for each, their mean, bits per dimension of quantised data."""
    from tqdm import tqdm

    from scorefield.jobs import densities
    from scorefield.jobs import likelihood as job
    from scorefield.run import loading

    parser = run_parser("likelihood", likelihood.__doc__ or "")
    job.add_arguments(parser)
    parser.add_argument(
        "--resolutions",
        type=list[int],
        default=[],
        help="of functions, under field noise: the densities on these grids, points along the first axis",
    )
    settings = parser.read(arguments)
    job.check_free(settings.out)
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    densities.check(model.sde.noise, settings.resolutions)
    built = parser.instantiate(settings)
    fields = (built.data or source.source(settings.trust)).load(settings.split)
    facts = {"split": settings.split, "model": source.provenance | {"ema": settings.ema}}
    facts |= {} if settings.data is None else {"data": str(settings.data.as_dict())}
    with tqdm(unit="field", desc="likelihood", mininterval=1) as bar:
        how: dict[str, Any] = {
            "repeats": settings.repeats,
            "flow": job.flow_of(built),
            "seed": settings.seed,
            "chunk": settings.chunk,
            "bar": bar,
            "facts": facts,
            "unfinished": job.unfinished(settings.out),
        }
        if settings.resolutions:
            record = densities.compare(model, fields, settings.number, settings.resolutions, **how)
        else:
            record = job.measure(model, fields, settings.number, **how)
    job.write(settings.out, record)
    print(densities.table(record) if settings.resolutions else job.table(record))
    return 0
