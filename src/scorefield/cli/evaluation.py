"""Verbs that tell what samples are worth: evaluate, compare, make-reference, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scorefield.cli.console import run_parser, say, warn
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from scorefield.run.loading import LoadedCheckpoint


def evaluate(arguments: Sequence[str]) -> int:
    """Compare samples of a run with its data; writes metrics.json and pictures into the run folder."""
    from scorefield.jobs import sampling
    from scorefield.jobs.evaluation import job
    from scorefield.run import checkpoint_choice as selection

    parser = run_parser("evaluate", evaluate.__doc__ or "")
    selection.add_arguments(parser)
    job.add_arguments(parser)
    sampling.add_arguments(parser)
    settings = parser.read(arguments)
    print(job.evaluate(parser, settings, notify=say))
    return 0


def make_reference(arguments: Sequence[str]) -> int:
    """Write statistics of the features of data, to evaluate samples against without the data."""
    from scorefield.jobs.evaluation import standalone
    from scorefield.run.configuration import Parser

    parser = Parser.named("scorefield make-reference", make_reference.__doc__ or "")
    standalone.add_reference_arguments(parser)
    settings = parser.read(arguments)
    found = standalone.make_reference(parser, settings)
    say(f"statistics of {found.n} fields in {settings.out}")
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Compare samples on disk with statistics of data, with data or with other samples; writes a JSON file."""
    from scorefield.jobs.evaluation import standalone
    from scorefield.run.configuration import Parser

    parser = Parser.named("scorefield compare", compare.__doc__ or "")
    standalone.add_compare_arguments(parser)
    if table := standalone.compare(parser, parser.read(arguments), say):
        print(table)
    return 0


def report(arguments: Sequence[str]) -> int:
    """Write one HTML page about a run: configuration, curves, samples, metrics. It loads nothing and runs no script."""
    from scorefield.jobs.report import page as pages
    from scorefield.run import checkpoint_choice as selection
    from scorefield.run import loading

    parser = run_parser("report", report.__doc__ or "")
    selection.add_arguments(parser)
    pages.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, selection.chosen_step(settings.run, settings, warn))
    folder = loading.run_folder(source.path)
    if settings.draw and settings.run.is_dir():
        _draw_trajectory(source, settings, folder / "trajectory.png")
    out = settings.out or folder / "report.html"
    pages.write(source, folder, out)
    say(f"report in {out}")
    return 0


def _draw_trajectory(source: LoadedCheckpoint, settings: Namespace, path: Path) -> None:
    """Draw a few samples on their way from noise, where the model can, and nobody has."""
    from scorefield.jobs import pictures, sampling
    from scorefield.jobs.class_guidance import label_of

    try:
        model = source.model(ema=settings.ema, trust=settings.trust)
        if not (path.exists() or model.classes or model.denoiser.net.cond_channels):
            job = sampling.Job(model, 8, 0, model.sampler, label=label_of(source, model))
            pictures.trajectory_of(job, path)
    except InputError as error:
        warn(f"no trajectory is drawn: {error}")
