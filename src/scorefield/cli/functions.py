"""Verbs for functions: finer fields that agree with coarse ones, and pictures of noise."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.cli.drawing import draw_case
from scorefield.cli.words import run_parser, say, warn


def superres(arguments: Sequence[str]) -> int:
    """Draw functions on a fine grid that agree with a given one on a coarse grid, by the posterior of the model."""
    from scorefield import finer, loading, recipe, resolution, restoring

    parser = run_parser("superres", superres.__doc__ or "")
    finer.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust)
    built = recipe.build(parser, settings)
    grid = resolution.grid_of(model.shape[1:], settings.resolution)
    resolution.warn_of_mesh(model, grid, warn)
    case = finer.read_case(settings.field, model.shape[0], grid, noise=settings.noise, truth=settings.truth)
    method = built.method or finer.usual(settings.noise)
    figures = draw_case(parser, settings, source, model, case, method, grid)
    finer.interpolate(settings.out, case)
    print(restoring.table(figures, settings.out))
    return 0


def plot(arguments: Sequence[str]) -> int:
    """Picture the noise of a run, its covariance, an example under growing noise, and samples; as PNG and PDF."""
    from scorefield import illustrate, loading

    parser = run_parser("plot", plot.__doc__ or "")
    illustrate.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    fields = source.source(settings.trust).load("valid")
    illustrate.write_all(settings.out, model, fields, n=settings.number, seed=settings.seed)
    say(f"pictures in {settings.out}")
    return 0
