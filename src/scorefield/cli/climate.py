"""Verbs for climate data: baseline, correct."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.cli.console import say


def baseline(arguments: Sequence[str]) -> int:
    """Fit what a downscaling model has to beat - Bilinear, DressedBilinear, HourlyResidual, Ridge, DressedRidge, BCSD - and
    write what it draws.
    """
    from scorefield.climate import baselines
    from scorefield.climate.baselines import job
    from scorefield.run.configuration import Parser

    parser = Parser.named("scorefield baseline", baseline.__doc__ or "")
    job.add_arguments(parser)
    named = bool(arguments) and arguments[0] in baselines.__all__
    settings = parser.read(["--baseline", *arguments] if named else arguments)
    job.run(parser.instantiate(settings).baseline, settings)
    say(f"{settings.members} members in {settings.out}")
    return 0


def correct(arguments: Sequence[str]) -> int:
    """Map the quantiles of predictions to the truth's in each grid box; with --map.wet both are wet equally often."""
    from scorefield.climate.baselines import correction
    from scorefield.run.configuration import Parser

    parser = Parser.named("scorefield correct", correct.__doc__ or "")
    correction.add_arguments(parser)
    settings = parser.read(arguments)
    correction.run(parser.instantiate(settings).map, settings)
    say(f"corrected predictions in {settings.out}")
    return 0
