"""Verbs that tell what samples are worth: evaluate, compare, make-reference, report."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.cli.words import run_parser, say, warn


def evaluate(arguments: Sequence[str]) -> int:
    """Compare samples of a run with its data; writes metrics.json and pictures into the run folder."""
    from scorefield import sampling, selection
    from scorefield.evaluation import job

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
    from scorefield.evaluation import standalone

    parser = Parser.named("scorefield make-reference", make_reference.__doc__ or "")
    standalone.add_reference_arguments(parser)
    settings = parser.read(arguments)
    found = standalone.make_reference(parser, settings)
    say(f"statistics of {found.n} fields in {settings.out}")
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Compare samples on disk with statistics of data, with data or with other samples; writes a JSON file."""
    from scorefield.config import Parser
    from scorefield.evaluation import standalone

    parser = Parser.named("scorefield compare", compare.__doc__ or "")
    standalone.add_compare_arguments(parser)
    if table := standalone.compare(parser, parser.read(arguments), say):
        print(table)
    return 0


def report(arguments: Sequence[str]) -> int:
    """Write one HTML page about a run: configuration, curves, samples, metrics. It loads nothing and runs no script."""
    from scorefield import loading, selection
    from scorefield import report as pages

    parser = run_parser("report", report.__doc__ or "")
    selection.add_arguments(parser)
    pages.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, selection.chosen_step(settings.run, settings, warn))
    folder = loading.run_folder(source.path)
    out = settings.out or folder / "report.html"
    pages.write(source, folder, out)
    say(f"report in {out}")
    return 0
