"""Verbs that tell what samples are worth: evaluate, compare, make-reference, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scorefield.cli.words import run_parser, say, warn
from scorefield.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from scorefield.loading import Opened


def evaluate(arguments: Sequence[str]) -> int:
    """Compare samples of a run with its data; writes metrics.json and pictures into the run folder."""
    from scorefield.jobs import sampling, selection
    from scorefield.jobs.evaluation import job

    parser = run_parser("evaluate", evaluate.__doc__ or "")
    selection.add_arguments(parser)
    job.add_arguments(parser)
    sampling.add_arguments(parser)
    settings = parser.read(arguments)
    print(job.evaluate(parser, settings, notify=say))
    return 0


def make_reference(arguments: Sequence[str]) -> int:
    """Write statistics of the features of data, to evaluate samples against without the data."""
    from scorefield.config import Parser
    from scorefield.jobs.evaluation import standalone

    parser = Parser.named("scorefield make-reference", make_reference.__doc__ or "")
    standalone.add_reference_arguments(parser)
    settings = parser.read(arguments)
    found = standalone.make_reference(parser, settings)
    say(f"statistics of {found.n} fields in {settings.out}")
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Compare samples on disk with statistics of data, with data or with other samples; writes a JSON file."""
    from scorefield.config import Parser
    from scorefield.jobs.evaluation import standalone

    parser = Parser.named("scorefield compare", compare.__doc__ or "")
    standalone.add_compare_arguments(parser)
    if table := standalone.compare(parser, parser.read(arguments), say):
        print(table)
    return 0


def report(arguments: Sequence[str]) -> int:
    """Write one HTML page about a run: configuration, curves, samples, metrics. It loads nothing and runs no script."""
    from scorefield import loading
    from scorefield.jobs import selection
    from scorefield.jobs.report import page as pages

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


def _draw_trajectory(source: Opened, settings: Namespace, path: Path) -> None:
    """Draw a few samples on their way from noise, where the model can, and nobody has."""
    from scorefield.jobs import pictures, sampling
    from scorefield.jobs.steering import label_of

    try:
        model = source.model(ema=settings.ema, trust=settings.trust)
        if not (path.exists() or model.classes or model.denoiser.net.cond_channels):
            job = sampling.Job(model, 8, 0, model.sampler, label=label_of(source, model))
            pictures.trajectory_of(job, path)
    except InputError as error:
        warn(f"no trajectory is drawn: {error}")
