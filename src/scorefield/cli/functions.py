"""Verbs for functions: finer fields that agree with coarse ones, and pictures of noise."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.cli.console import run_parser, say, warn


def superres(arguments: Sequence[str]) -> int:
    """Draw functions on a fine grid that agree with a given one on a coarse grid, by the posterior of the model."""
    from tqdm import tqdm

    from scorefield.functions import super_resolution as finer
    from scorefield.jobs import resolution, restoring, sampling
    from scorefield.jobs.class_guidance import class_of
    from scorefield.run import checkpoint_choice as selection
    from scorefield.run import loading, recipe

    parser = run_parser("superres", superres.__doc__ or "")
    selection.add_arguments(parser)
    finer.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, selection.chosen_step(settings.run, settings, warn))
    model = source.model(ema=settings.ema, trust=settings.trust)
    built = recipe.build(parser, settings)
    grid = resolution.grid_of(model.shape[1:], settings.resolution)
    resolution.warn_of_mesh(model, grid, warn)
    beyond = resolution.fitted(built.beyond, model, lambda: source.source(settings.trust).load("train"))
    facts = source.provenance | {"ema": settings.ema}
    torus = model.sde.noise.periodic
    case = finer.read_case(
        settings.field, model.shape[0], grid, periodic=torus, noise=settings.noise, truth=settings.truth
    )
    with tqdm(total=settings.samples, unit="sample", desc="superres", mininterval=1) as bar:
        figures = restoring.restore(
            settings.out,
            model.to(settings.device),
            case,
            method=built.method or finer.usual(settings.noise),
            sampler=sampling.chosen(parser, settings, model.sampler),
            n=settings.samples,
            seed=settings.seed,
            chunk=settings.chunk,
            label=class_of(source, model, settings.label),
            provenance=facts if beyond is None else facts | {"beyond": repr(beyond)},
            progress=bar.update,
            grid=grid,
            prior=None if beyond is None else beyond(model.generative, model.shape[1:]),
        )
    interpolated = finer.interpolate(settings.out, case)
    print(restoring.table(figures, settings.out))
    if interpolated is not None:
        print(f"  PSNR of interpolation  {interpolated:.2f} dB   (without a model)")
    return 0


def plot(arguments: Sequence[str]) -> int:
    """Picture the noise of a run, its covariance, an example under growing noise, and samples; as PNG and PDF."""
    from scorefield.functions import noise_plots as illustrate
    from scorefield.run import loading

    parser = run_parser("plot", plot.__doc__ or "")
    illustrate.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    fields = source.source(settings.trust).load("valid")
    illustrate.write_all(settings.out, model, fields, n=settings.number, seed=settings.seed)
    say(f"pictures in {settings.out}")
    return 0
