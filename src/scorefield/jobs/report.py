"""A report of a run: one HTML page that holds everything it shows, loads nothing and runs no script.

What a run folder has is shown (configuration, curves, samples, trajectory, metrics, likelihoods), what it lacks is left out or
named with the command that makes it. Every figure is written twice: rounded for people, and in full in its `value` attribute.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from scorefield.config import Parser
from scorefield.errors import InputError
from scorefield.files import write_text
from scorefield.jobs.outputs import UNREADABLE
from scorefield.jobs.plots import Line, curve_svg
from scorefield.jobs.selection import conditions, evaluations, is_evaluation, losses, read_record
from scorefield.loading import Opened
from scorefield.train.log import read_table

MARK = "· scorefield</title>"  # by which a page of ours is told
SHOWN = 8  # pictures of training, at most
WIDEST = 1200  # pixels of a picture; larger ones are scaled down
SMALL = 600  # pixels below which a picture is enlarged without blur
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


def add_arguments(parser: Parser) -> None:
    """Where to, and whether to draw what is missing."""
    parser.add_argument("--out", type=Path | None, default=None, help="HTML file to write; RUN/report.html by default")
    parser.add_argument(
        "--draw",
        type=bool,
        default=True,
        help="draw RUN/trajectory.png, samples on their way from noise, if there is none",
    )


# ------------------------------------------------------------------------------------------------------------ the parts
@dataclass(frozen=True)
class Value:
    """A number as people read it, and in full."""

    text: str
    exact: str

    @classmethod
    def of(cls, value: float | int | None) -> Value | None:
        """Three decimals, or three digits of what is smaller than 0.1; counts in full."""
        if value is None or isinstance(value, bool):
            return None
        if isinstance(value, int) or value.is_integer():
            return cls(f"{int(value):,}", repr(value))
        return cls(f"{value:,.3f}" if abs(value) >= 0.1 else f"{value:.3g}", repr(value))


@dataclass(frozen=True)
class Row:
    """A line of facts: text, or a number with its exact value."""

    name: str
    text: str
    exact: str | None = None

    @classmethod
    def of(cls, name: str, value: Any) -> Row:
        number = Value.of(value) if isinstance(value, float | int) else None
        return cls(name, str(value)) if number is None else cls(name, number.text, number.exact)


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with its words."""

    source: str
    alt: str
    caption: str
    width: int
    height: int

    @property
    def small(self) -> bool:
        """Whether its pixels should stay sharp when it is enlarged."""
        return self.width < SMALL

    @classmethod
    def read(cls, path: Path, alt: str, caption: str) -> Picture | None:
        """A picture file; None where there is none that can be read."""
        try:
            with Image.open(path) as image:
                shown = image.convert("RGB")
        except UNREADABLE:
            return None
        if shown.width > WIDEST:
            shown = shown.resize((WIDEST, max(1, round(shown.height * WIDEST / shown.width))), Image.Resampling.LANCZOS)
        data = BytesIO()
        shown.save(data, format="PNG", optimize=True)
        return cls(f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}", alt, caption, *shown.size)


@dataclass(frozen=True)
class Curve:
    """A drawn curve with its words."""

    svg: Markup
    alt: str
    caption: str


# ------------------------------------------------------------------------------------------------------------- the page
def write(opened: Opened, folder: Path, out: Path) -> None:
    """Write the page; a file that is there is replaced if it is such a page.

    Args:
        opened: the checkpoint to tell of.
        folder: its run folder.
        out: where to.
    """
    if out.is_dir() or (out.exists() and MARK not in _text(out)):
        raise InputError(f"{out} exists and is no report: give another --out.")
    write_text(out, page(opened, folder))


def page(opened: Opened, folder: Path) -> str:
    """The page of a run."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((files("scorefield.jobs") / "report.html.jinja").read_text(encoding="utf-8"))
    return template.render(content(opened, folder)) + "\n"


def content(opened: Opened, folder: Path) -> dict[str, Any]:
    """All that the page shows."""
    records = evaluations(folder)
    evaluation = describe(records[-1], opened) if records else None
    likelihoods = [likelihood(path.stem, record) for path, record in measured(folder)]
    curves, trajectory = (
        draw_curves(folder),
        Picture.read(
            folder / "trajectory.png",
            "A row for each sample: noise on the left, less of it in each column, the sample on the right.",
            "Samples on their way from noise (left) to data (right).",
        ),
    )
    sections = [("samples", "Samples")]
    sections += [("trajectory", "From noise to data")] if trajectory else []
    sections += [("metrics", "Metrics")]
    sections += [("likelihood-1", "Likelihood")] if likelihoods else []
    sections += [("curves", "Training")] if curves else []
    return {
        "title": folder.absolute().name,
        "lead": lead(opened.config),
        "folder": str(folder),
        "version": version("scorefield"),
        "tiles": tiles(opened, folder, records),
        "sections": [*sections, ("run", "The run"), ("configuration", "Configuration")],
        "latest": latest_samples(folder),
        "progress": progress(folder),
        "trajectory": trajectory,
        "evaluation": evaluation,
        "history": history(records),
        "likelihoods": likelihoods,
        "curves": curves,
        "details": details(opened),
        "configuration": [(name.capitalize(), _yaml(group)) for name, group in opened.config.items()],
    }


def lead(config: Mapping[str, Any]) -> str:
    """What is learnt, from what: network, law, data, in the names of their classes."""
    model = config["model"]
    parts = [_short(model.get("net")), _short(model.get("precondition")), _short(model.get("sde", {}).get("schedule"))]
    shape = "×".join(map(str, model.get("shape", ())))
    return " · ".join(part for part in (*parts, f"{_short(config.get('data'))} {shape}".strip()) if part)


def parameters(opened: Opened) -> int:
    """Trained numbers: all that are averaged; imported weights may lack an average and are counted as they are."""
    weights = opened.checkpoint.group("ema") or opened.checkpoint.group("net")
    return sum(tensor.numel() for tensor in weights.values())


def tiles(opened: Opened, folder: Path, records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The figures that are asked for first."""
    facts = opened.checkpoint.facts
    found = {"Parameters": parameters(opened), "Steps": facts["step"], "Samples seen": facts.get("samples")}
    rows = losses(folder)
    last = rows.get(facts["step"]) or (rows[max(rows)] if rows else {})
    found["Validation loss, averaged weights"] = last.get("loss_ema")
    for name, figure in list(records[-1]["figures"].items())[:1] if records else []:
        found[_name(name)[0]] = figure["mean"] if isinstance(figure, Mapping) else None
    return [Row.of(name, value) for name, value in found.items() if value is not None]


def details(opened: Opened) -> list[Row]:
    """Which weights these are, and what made them."""
    facts = opened.checkpoint.facts
    train = opened.config.get("train", {})
    rows = {"Checkpoint": opened.path.name, "Step": facts["step"], "Planned steps": train.get("steps")}
    rows |= {"Batch size": train.get("batch_size"), "Samples seen": facts.get("samples"), "Seed": facts.get("seed")}
    rows |= {"Parameters": parameters(opened), "SHA-256 of the checkpoint": opened.checkpoint.sha256}
    rows |= {f"Version of {name}": text for name, text in facts.get("versions", {}).items()}
    return [Row.of(name, value) for name, value in rows.items() if value is not None]


# ------------------------------------------------------------------------------------------------------------- pictures
def latest_samples(folder: Path) -> Picture | None:
    """Samples of the last evaluation, or those that were drawn into the run folder."""
    found = sorted(folder.glob("evaluation/**/samples.png"), key=lambda path: path.stat().st_mtime_ns)
    words = ("A grid of samples from the trained model.", "Samples of the model, drawn at random, none chosen.")
    pictures = (Picture.read(path, *words) for path in (folder / "samples.png", *reversed(found)))
    return next((picture for picture in pictures if picture is not None), None)


def progress(folder: Path) -> list[Picture]:
    """Samples at several steps of training, evenly chosen with the first and the last."""
    found = sorted((folder / "samples").glob("step-*.png"))
    last = len(found) - 1
    chosen = sorted({round(i * last / max(1, SHOWN - 1)) for i in range(SHOWN)}) if found else []
    steps = [(found[i], f"{int(found[i].stem.removeprefix('step-')):,}") for i in chosen]
    pictures = [
        Picture.read(path, f"A grid of samples after {step} steps.", f"After {step} steps") for path, step in steps
    ]
    return [picture for picture in pictures if picture is not None]


def draw_curves(folder: Path) -> list[Curve]:
    """Losses, norm of the gradient and learning rate against the number of samples seen."""
    table = folder / "logs" / "train.csv"
    rows, valid = read_table(table) if table.is_file() else [], list(losses(folder).values())

    def column(name: str) -> tuple[list[float], list[float]]:
        return [float(row["samples"]) for row in rows], [float(row[name]) for row in rows]

    def held_out(name: str) -> tuple[list[float], list[float]]:
        return [row["samples"] for row in valid], [row[name] for row in valid]

    drawn = [
        draw("loss", "loss", Line("training", *column("loss")), Line("validation", *held_out("loss")),
             Line("validation, averaged weights", *held_out("loss_ema"))),
        draw("gradient", "norm of the gradient", Line("norm of the gradient", *column("gradient_norm"))),
        draw("rate", "learning rate", Line("learning rate", *column("learning_rate")), log=False),
    ]  # fmt: skip
    return [curve for curve in drawn if curve is not None]


def draw(key: str, ylabel: str, *lines: Line, log: bool = True) -> Curve | None:
    """Curves with the value at the end of each; None where there is nothing to draw."""
    known = [line for line in lines if line.x]
    if not known:
        return None
    ends = ", ".join(f"{line.name} {line.y[-1]:.4g}" for line in known)
    svg = curve_svg(
        key, known, xlabel="samples seen", ylabel=ylabel, log=log and min(map(min, (k.y for k in known))) > 0
    )
    return Curve(svg, f"{ylabel.capitalize()} against samples seen; at the end: {ends}.", f"At the end: {ends}.")


# -------------------------------------------------------------------------------------------------------------- figures
def describe(record: Mapping[str, Any], opened: Opened) -> dict[str, Any]:
    """An evaluation: its figures, and all else it says as provenance."""
    figures = {key: figure for key, figure in record["figures"].items() if isinstance(figure, Mapping)}
    floor = record.get("held_out_data") or {}
    rest = {key: value for key, value in record.items() if key not in ("figures", "held_out_data", "notes")}
    seeds, model = record.get("seeds", []), record["model"]
    notes = [f"{_words(key)}: {note}" for key, note in (record.get("notes") or {}).items() if note]
    if model.get("weights") not in (None, opened.checkpoint.sha256):
        notes.insert(0, f"These are figures of step {model['step']}, not of the checkpoint this page tells of.")
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
    name, best = _name(key)
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
    alike = [record for record in records if comparable(record) == comparable(records[-1])]
    by_step = {record["model"]["step"]: record["figures"] for record in alike}
    if len(by_step) < 2:
        return None
    keys = [key for key in records[-1]["figures"] if not key.endswith("_n")]
    rows = []
    for step in sorted(by_step):
        means = [figure.get("mean") if isinstance(figure := by_step[step].get(key), Mapping) else None for key in keys]
        rows.append({"step": f"{step:,}", "cells": [Value.of(mean) for mean in means]})
    return {"names": [_name(key)[0] for key in keys], "rows": rows}


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
    for key, words in (("bits_per_dimension", "Bits per dimension"), ("nats", "log p in nats")):
        figure = record.get(key)
        for part, more in (
            ("mean", ""),
            ("standard_error", ", standard error"),
            ("spread_over_repeats", ", spread of repeats"),
        ):
            if isinstance(figure, Mapping) and isinstance(figure.get(part), float | int):
                rows.append(Row.of(words + more, figure[part]))
    left_out = ("bits_per_dimension", "nats", "nats_per_field", "indices")
    rest = {key: value for key, value in record.items() if key not in left_out}
    return {"name": name, "rows": rows, "provenance": [Row.of(*item) for item in flat(rest)]}


# ---------------------------------------------------------------------------------------------------------------- words
def flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """The leaves of a record with their path in words."""
    if isinstance(value, Mapping):
        return [
            leaf
            for key, item in value.items()
            for leaf in flat(item, f"{name} · {_words(key)}" if name else _words(key))
        ]
    return [] if value is None else [(name, json.dumps(value) if isinstance(value, list | bool) else value)]


def _name(key: str) -> tuple[str, str]:
    return NAMES.get(key, (_words(key), ""))


def _words(key: Any) -> str:
    text = str(key).replace("_", " ").replace("sha256", "SHA-256")
    return text[:1].upper() + text[1:]


def _short(part: Any) -> str:
    """The class of a part of a configuration, without its module."""
    return str(part.get("class_path", "")).rpartition(".")[2] if isinstance(part, Mapping) else ""


def _yaml(group: Any) -> str:
    return yaml.safe_dump(group, sort_keys=False, allow_unicode=True)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
