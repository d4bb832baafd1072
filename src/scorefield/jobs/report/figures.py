"""The figures of a report: evaluations, what came of them over training, likelihoods; all else they say as provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from scorefield.jobs.report.parts import Row, Value, flat, words
from scorefield.run.checkpoint_choice import conditions, is_evaluation, read_record
from scorefield.run.loading import LoadedCheckpoint
from scorefield.run.runner import JOB

NAMES = {  # of a figure, and what would be best
    "fréchet": ("Fréchet distance", "0 is best"),
    "fid": ("FID", "0 is best"),
    "kid": ("KID", "0 is best"),
    "inception_score": ("Inception score", "more is better"),
    "precision": ("Precision", "1 is best"),
    "recall": ("Recall", "1 is best"),
    "density": ("Density", "about 1 is best"),
    "coverage": ("Coverage", "1 is best"),
    "train_accuracy": ("1-NN accuracy, training data", "0.5 is best"),
    "train_n": ("Samples in that test", ""),
    "held_out_accuracy": ("1-NN accuracy, held-out data", "0.5 is best"),
    "held_out_n": ("Samples in that test", ""),
    "memorisation": ("Memorisation ratio", "1 is best, 0 are copies"),
    "classes": ("Classes that occur", ""),
    "rarest_class": ("Samples of the rarest class", ""),
}


def name_of(key: str) -> tuple[str, str]:
    """What to call a figure, and what would be best."""
    return NAMES.get(key, (words(key), ""))


def describe(record: Mapping[str, Any], opened: LoadedCheckpoint) -> dict[str, Any]:
    """An evaluation: its figures, and all else it says as provenance."""
    figures = {key: figure for key, figure in record["figures"].items() if isinstance(figure, Mapping)}
    floor = record.get("held_out_data") or {}
    rest = {key: value for key, value in record.items() if key not in ("figures", "held_out_data", "notes")}
    seeds, model = record.get("seeds", []), record["model"]
    notes = [f"{words(key)}: {note}" for key, note in (record.get("notes") or {}).items() if note]
    if model.get("weights") not in (None, opened.checkpoint.sha256):
        notes.insert(0, f"These are figures of step {model['step']}, not of the checkpoint of this page.")
    number, calls = record.get("n"), record.get("evaluations_per_sample")
    summary = f"{number:,} samples × {len(seeds)} seeds" if isinstance(number, int) else f"{len(seeds)} seeds"
    return {
        "summary": summary + (f", {calls:,} network evaluations for each sample." if isinstance(calls, int) else "."),
        "notes": notes,
        "seeds": seeds,
        "rows": [figure_row(key, figure, floor.get(key)) for key, figure in figures.items()],
        "provenance": [Row.of(name, value) for name, value in flat(rest)],
    }


def figure_row(key: str, figure: Mapping[str, Any], floor: Any) -> dict[str, Any]:
    """A line of the table of figures."""
    name, best = name_of(key)
    values = figure.get("values") or []
    mean, std = Value.of(figure.get("mean")) or Value("–", ""), figure.get("std")
    constant = all(a == b for a, b in pairwise(values))
    places = len(mean.text.partition(".")[2])
    return {
        "key": key,
        "name": name,
        "best": best,
        "mean": mean,
        "std": None if std is None or (constant and std == 0) else Value(f"{std:.{places or 1}f}", repr(std)),
        "floor": Value.of(floor) if isinstance(floor, float | int) else None,
        "each": [Value.of(value) or Value("–", "") for value in values],
    }


def history(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The means of the figures of several checkpoints, by step, as far as the newest can be compared; None of fewer than two."""
    comparable_records = [record for record in records if comparable(record) == comparable(records[-1])]
    by_step = {record["model"]["step"]: record["figures"] for record in comparable_records}
    if len(by_step) < 2:
        return None
    keys = [key for key in records[-1]["figures"] if not key.endswith("_n")]
    rows = []
    for step in sorted(by_step):
        means = [figure.get("mean") if isinstance(figure := by_step[step].get(key), Mapping) else None for key in keys]
        rows.append({"step": f"{step:,}", "cells": [Value.of(mean) for mean in means]})
    return {"names": [name_of(key)[0] for key in keys], "rows": rows}


def comparable(record: Mapping[str, Any]) -> tuple[str, bool]:
    """What the evaluations of checkpoints must share to stand in one table: all but the step."""
    return conditions(record), record["model"].get("ema", True)


def measured(folder: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """The likelihoods that lie in a run folder."""
    found = [(path, read_record(path)) for path in sorted(folder.glob("*.json"))]
    return [
        (path, item) for path, item in found if isinstance(item, Mapping) and "nats" in item and not is_evaluation(item)
    ]


def likelihood(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of likelihoods: its figures, and all else but the long lists."""
    rows = []
    for key, label in (("bits_per_dimension", "Bits per dimension"), ("nats", "log p in nats")):
        figure = record.get(key)
        for part, more in (
            ("mean", ""),
            ("standard_error", ", standard error"),
            ("spread_over_repeats", ", spread of repeats"),
        ):
            if isinstance(figure, Mapping) and isinstance(figure.get(part), float | int):
                rows.append(Row.of(label + more, figure[part]))
    left_out = ("bits_per_dimension", "nats", "nats_per_field", "indices", JOB)
    rest = {key: value for key, value in record.items() if key not in left_out}
    return {"name": name, "rows": rows, "provenance": [Row.of(*item) for item in flat(rest)]}
