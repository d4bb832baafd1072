"""Verbs that draw from a run: sample, restore; that denoise by it; and its likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from scorefield.cli.console import run_parser, say, warn

GIVEN = "condition sample i on what goes with field i of this split of the data, for networks that need that"


def sample(arguments: Sequence[str]) -> int:
    """Draw samples from a run into a folder; an interrupted call is completed by calling it again."""
    from tqdm import tqdm

    from scorefield.jobs import resolution, sampling
    from scorefield.jobs.class_guidance import add_arguments, label_of, steering
    from scorefield.run import checkpoint_choice as selection
    from scorefield.run import loading

    parser = run_parser("sample", sample.__doc__ or "")
    selection.add_arguments(parser)
    sampling.add_arguments(parser)
    add_arguments(parser)
    resolution.add_arguments(parser)
    parser.add_argument("--given", type=Literal["train", "valid"] | None, default=None, help=GIVEN)
    sampling.add_output_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, selection.chosen_step(settings.run, settings, warn))
    model = source.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    sampler = sampling.chosen(parser, settings, model.sampler)
    guide = steering(source, model, settings)
    grid = resolution.grid_of(model.shape[1:], settings.resolution)
    resolution.warn_of_mesh(model, grid, warn)
    beyond, denoiser = parser.instantiate(settings).beyond, guide.denoiser
    beyond = resolution.fitted(beyond, model, lambda: source.source(settings.trust).load("train"))
    if beyond is not None:
        denoiser = beyond(denoiser or model.generative, model.shape[1:])
    fields = settings.given and source.source(settings.trust).load(settings.given)
    job = sampling.Job(
        model,
        settings.number,
        settings.seed,
        sampler,
        settings.chunk,
        label_of(source, model, settings.label),
        denoiser,
        guide.classes,
        grid,
        resolution.conditions(fields, settings.number, grid) if fields else None,
    )
    output = sampling.output_of(settings, job)
    given = {"given": settings.given} if settings.given else {}
    given |= {"beyond": repr(beyond)} if beyond is not None else {}
    provenance = source.provenance | {"ema": settings.ema} | dict(guide.facts) | given
    with tqdm(total=settings.number, unit="sample", desc="sample", mininterval=1) as bar:
        sampling.complete(job, output, provenance=provenance, progress=bar.update)
    if settings.trajectory:
        from scorefield.jobs import pictures

        pictures.trajectory_of(job, settings.out / "trajectory.png")
    say(f"{settings.number} samples in {settings.out}")
    return 0


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
