"""Which checkpoint of a run: that of a step, the best by a recorded figure, or the last.

A run folder records its figures in two places: the validation losses in `logs/valid.csv`, by step, and evaluations in
`metrics.json` and in JSON files below `evaluation/`, which hold `figures` {name: {"mean": ...}} and `model` {"step": ...}.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scorefield.foundation.errors import InputError
from scorefield.run.verb import log
from scorefield.training import checkpoint as checkpoints
from scorefield.training.log import read_table

LOSS = "loss"  # of validation
HIGH = ("inception_score", "precision", "recall", "density", "coverage", "classes", "rarest_class")  # more is better
BALANCED = {"train_accuracy": 0.5, "held_out_accuracy": 0.5, "memorisation": 1.0}  # the figure of a perfect model
LOW = (
    *(LOSS, "frechet", "kernel", "w_var", "w_skew", "w_total", "residues", "phase_spectrum"),
    *("spectrum", "spectrum_worst", "values"),
)
SHORT = {"fid": "frechet", "kid": "kernel", "is": "inception_score"}


def best_step(path: Path, best: str, ema: bool, ema_width: float | None = None) -> int:
    """The step of the checkpoint with the best recorded figure, see `shortfall_of`. InputError where none is recorded."""
    figures = recorded(path, best.partition(":")[0], ema, ema_width)
    found = checkpoints.steps(path / "checkpoints")
    if not (present := figures.keys() & set(found)):
        raise InputError(
            f"No checkpoint of {path} has a recorded {best}; there are {', '.join(names(path)) or 'no figures'} "
            f"(call scorefield evaluate {path} for others), and checkpoints of {', '.join(map(str, found)) or 'no steps'}."
        )
    shortfall = shortfall_of(best)
    overall, step = (min(steps, key=lambda s: (shortfall(figures[s]), -s)) for steps in (figures.keys(), present))
    if overall != step:
        log.warning(f"the best {best} was at step {overall}, of which no checkpoint is left: taking step {step}")
    return step


def keep_best(path: Path, ema: bool, ema_width: float | None = None) -> None:
    """Keep the best checkpoint of a run by each recorded figure, as `best/NAME.safetensors`, where nothing prunes it."""
    found = set(checkpoints.steps(path / "checkpoints"))
    for name in names(path):
        figures = recorded(path, name, ema, ema_width)
        if name not in (*HIGH, *LOW, *BALANCED) or not figures:
            continue
        shortfall = shortfall_of(name)
        best = min(figures, key=lambda step: (shortfall(figures[step]), -step))
        if best in found:
            checkpoints.keep_best(path / "checkpoints", best, name)


def shortfall_of(best: str) -> Callable[[float], float]:
    """How far a figure is from the best there could be, for the figure and direction of `--best`."""
    name, _, direction = best.partition(":")
    name = plain(name)
    if direction not in ("", "min", "max"):
        raise InputError(f"--best {best} names no direction: give {name}:min or {name}:max.")
    if direction == "max" or (not direction and name in HIGH):
        return lambda value: -value
    if direction == "min" or name in LOW:
        return lambda value: value
    if name in BALANCED:
        return lambda value: abs(value - BALANCED[name])
    raise InputError(f"Is more or less of {name} better? Give --best {name}:min or --best {name}:max.")


def recorded(path: Path, name: str, ema: bool, ema_width: float | None = None) -> dict[int, float]:
    """The values of a figure by step, of weights that are averaged or not, or with a width; those of evaluations only as far as
    they can be compared with the newest one: the same n, sampler, class and reference.
    """
    if plain(name) == LOSS:
        column = "loss_ema" if ema else "loss"
        return {step: row[column] for step, row in losses(path).items() if math.isfinite(row[column])}
    found = [
        (record, figure["mean"])
        for record in evaluations(path)
        if record["model"].get("ema", True) == ema and record["model"].get("ema_width") == ema_width
        for key, figure in record["figures"].items()
        if plain(key) == plain(name) and isinstance(figure, Mapping) and isinstance(figure.get("mean"), float | int)
    ]
    return {
        record["model"]["step"]: float(value)
        for record, value in found
        if conditions(record) == conditions(found[-1][0]) and math.isfinite(value)
    }


def losses(path: Path) -> dict[int, dict[str, float]]:
    """The rows of `logs/valid.csv` by step."""
    table = path / "logs" / "valid.csv"
    rows = read_table(table) if table.is_file() else []
    return {int(row["step"]): {name: float(value) for name, value in row.items()} for row in rows}


def evaluations(path: Path) -> list[dict[str, Any]]:
    """The evaluations that a run folder records, the newest last."""
    files = {*path.glob("metrics*.json"), *path.glob("evaluation/**/*.json")}
    found = (read_record(file) for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name)))
    return [record for record in found if is_evaluation(record)]


def read_record(path: Path) -> Any:
    """What a JSON file holds; None if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None


def is_evaluation(record: Any) -> bool:
    """Whether a record has figures of a checkpoint."""
    if not isinstance(record, Mapping) or not isinstance(record.get("figures"), Mapping):
        return False
    model = record.get("model")
    return isinstance(model, Mapping) and isinstance(model.get("step"), int)


def names(path: Path) -> list[str]:
    """What can be chosen by."""
    found = {plain(name) for record in evaluations(path) for name in record["figures"]}
    return sorted(found | ({LOSS} if losses(path) else set()))


def conditions(record: Mapping[str, Any]) -> str:
    """What two evaluations must share for their figures to be compared."""
    reference = record.get("reference")
    drawn = record["model"] if isinstance(record.get("model"), Mapping) else {}
    compared = [record.get(name) for name in ("n", "sampler", "label", "vector")]
    compared += [drawn.get(name) for name in ("resolution", "beyond", "ema_width")]
    return json.dumps([*compared, reference.get("moments_sha256") if isinstance(reference, Mapping) else reference])


def plain(name: str) -> str:
    """A name without accents and capitals, as it is typed, and in full: fréchet and FID are frechet."""
    letters = unicodedata.normalize("NFKD", name.strip().lower())
    typed = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return SHORT.get(typed, typed)
