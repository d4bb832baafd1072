"""The figures of a set of samples: as a record with all they were computed from, and as a table."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield.foundation.files import strict
from scorefield.foundation.locks import ChunkLocks
from scorefield.jobs.evaluation.reference import Data, Reference
from scorefield.metrics.coverage import class_coverage
from scorefield.metrics.features import known
from scorefield.metrics.figures import figures, summary
from scorefield.metrics.frechet import note_on
from scorefield.metrics.manifold import DENSITY_K, PRECISION_K
from scorefield.metrics.neighbours import memorisation_ratio, two_sample_accuracy
from scorefield.metrics.statistics import Statistics
from scorefield.training.loop import versions

LINES = (  # name, figure, note
    ("Fréchet distance", "fréchet", "{dimensions} {features} features, 0 is best"),
    ("kernel distance", "kernel", "n = {kept_n:.0f}, 0 is best"),
    ("precision", "precision", f"n = {{kept_n:.0f}}, k = {PRECISION_K}, 1 is best"),
    ("recall", "recall", f"n = {{kept_n:.0f}}, k = {PRECISION_K}, 1 is best"),
    ("density", "density", f"n = {{kept_n:.0f}}, k = {DENSITY_K}, 1 for the same law"),
    ("coverage", "coverage", f"n = {{kept_n:.0f}}, k = {DENSITY_K}, 1 is best"),
    ("Inception score", "inception_score", "in {inception_score_splits:.0f} splits, more is better"),
    ("1-NN accuracy against training", "train_accuracy", "n = {train_n:.0f}, 0.5 is best"),
    ("1-NN accuracy against held out", "held_out_accuracy", "n = {held_out_n:.0f}, 0.5 is best"),
    ("memorisation ratio", "memorisation", "1 is best, 0 are copies"),
    ("circular variance", "w_var", "Wasserstein distance, 0 is best"),
    ("circular skewness", "w_skew", "Wasserstein distance, 0 is best"),
    ("circular variance + skewness", "w_total", "blind to order in space"),
    ("fields with a skewness", "skewed", "share of samples or data, the less"),
    ("density of phase residues", "residues", "difference, 0 is best"),
    ("spectrum of the phasor", "phase_spectrum", "mean |ln ratio| over bands"),
    ("spectrum", "spectrum", "mean |ln ratio| over bands"),
    ("spectrum, worst band", "spectrum_worst", "|ln ratio|"),
    ("spectrum, new bands", "spectrum_new", "mean ln ratio, above 0 for too much power"),
    ("values", "values", "Wasserstein distance / standard deviation"),
    ("classes that occur", "classes", "classifier of accuracy {classifier_accuracy:.3f}"),
    ("samples of the rarest class", "rarest_class", ""),
)


def compare(samples: Statistics, x: Tensor, reference: Reference, *, generated: bool = True) -> dict[str, float]:
    """The figures of one set of samples; of held-out data as the floor that a perfect model would reach.

    Args:
        samples: the statistics of their features.
        x: the samples, (n, channels, *grid).
        reference: what they are compared with.
        generated: they are samples, not held-out data.
    """
    row = figures(samples, reference.statistics, customary=reference.extractor.features.customary)
    if reference.data is not None:
        row |= compare_values(x, reference.data, generated)
    return row


def compare_values(x: Tensor, data: Data, generated: bool) -> dict[str, float]:
    """The figures that need the values themselves."""
    n = min(len(x), len(data.train))
    x, train, valid = known(x), known(data.train), known(data.valid)
    row: dict[str, float] = {"train_accuracy": two_sample_accuracy(train[:n], x[:n]).accuracy, "train_n": n}
    if generated:
        m = min(len(x), len(valid))
        row["held_out_accuracy"] = two_sample_accuracy(valid[:m], x[:m]).accuracy
        row["held_out_n"] = m
        row["memorisation"] = memorisation_ratio(x, valid, train).mean
    if data.classifier is not None:
        coverage = class_coverage(data.classifier.predict(x), data.classes)
        row["classes"] = data.classes - len(coverage.missing)
        row["rarest_class"] = min(coverage.counts)
    return row


def notes(n: int, reference: Reference) -> str:
    """What limits the meaning of a Fréchet distance of n samples; empty if nothing does."""
    known = reference.statistics.n if reference.statistics.counted else n
    return note_on(min(n, known), len(reference.statistics.mean))


def record_of(rows: Sequence[dict[str, float]], n: int, reference: Reference) -> dict[str, Any]:
    """The figures of several sets of n samples, with what they were compared with."""
    return {
        "figures": {name: summary([row[name] for row in rows]) for name in rows[0]},
        "held_out_data": {},
        "notes": {"samples": notes(n, reference)},
        "n": n,
        "reference": reference.facts,
        "versions": versions(),
    }


def add_line(path: Path, record: dict[str, Any]) -> None:
    """Append an evaluation to those before it, as one line of strict JSON: its figures' means, and what they are of. One that is
    there, by another process or an earlier call, stays as it is; processes wait for each other, and a line that was cut short as
    its process was killed is taken out.
    """
    row = {name: record[name] for name in ("model", "n", "seeds", "sampler", "label", "vector") if name in record}
    row["figures"] = {name: entry["mean"] for name, entry in record["figures"].items()}
    line = json.dumps(strict(row), allow_nan=False).encode() + b"\n"
    locks = ChunkLocks(path)  # on the file itself, which therefore keeps its place on the disk
    with locks.hold(0, wait=True), path.open("r+b") as file:
        before = file.read()
        whole = before[: before.rfind(b"\n") + 1]
        if line not in whole.splitlines(keepends=True):
            file.seek(len(whole))
            file.truncate()
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    locks.close()


def table(record: dict[str, Any]) -> str:
    """A few lines for people."""
    figures, floor, remarks = record["figures"], record["held_out_data"], record["notes"]
    facts = record["reference"] | {name: entry["mean"] for name, entry in figures.items()}
    held_out = f"{'held out':>10s}" if floor else ""
    lines = [f"  {'':34s}{'samples':>9s}{'':10s}{held_out}"]
    for name, key, note in LINES:
        if key in figures:
            lines.append(line(name, figures[key], floor.get(key), note.format_map(facts)))
        if key == "fréchet" and key in figures:
            who = {"samples": "samples", "held_out_data": "held out"}
            lines += [f"    {who[kind]}: {text}" for kind, text in remarks.items() if text]
    return "\n".join([*lines, *curve_lines(record)])


def line(name: str, entry: dict[str, Any], floor: float | None, note: str) -> str:
    """One figure: mean and spread over the sets, the floor, what it is."""
    mean = math.nan if entry["mean"] is None else entry["mean"]
    spread = "" if entry["std"] is None else f" ± {entry['std']:.2g}"
    own = " " * 10 if floor is None else f"{floor:10.4g}"
    return f"  {name:34s}{mean:9.4g}{spread:10s}{own}   {note}".rstrip()


def curve_lines(record: dict[str, Any]) -> list[str]:
    """The Fréchet distance against n."""
    if "curve" not in record:
        return []
    lines = ["  Fréchet distance against n"]
    lines += [
        line(f"  n = {row['n']}", row, None, f"{len(row['values'])} disjoint sets") for row in record["curve"]["rows"]
    ]
    limit = record["curve"]["extrapolated"]
    return lines if limit is None else [*lines, f"  {'  n → ∞, over 1/n':34s}{limit:9.4g}"]
