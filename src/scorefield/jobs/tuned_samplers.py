"""Samplers that were fitted to a run, kept with it: `tuned/steps-N.json` in its folder, of a shipped model in NAME-results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.run.loading import run_folder
from scorefield.run.runner import check_out
from scorefield.samplers import Sampler
from scorefield.samplers.tuned import Tuned, corrected

WEIGHTS = ("weights", "ema", "ema_width")  # of a verb's provenance, what has to be the same


def path_of(checkpoint: Path, steps: int) -> Path:
    """Where the sampler of so many steps is kept."""
    return run_folder(checkpoint) / "tuned" / f"steps-{steps}.json"


def check_place(path: Path) -> None:
    """Refuse what cannot be kept with a run, before anything is fitted."""
    check_out(path, advice="call from a folder that can be written to, or copy the run into one")


def keep(checkpoint: Path, weights: Mapping[str, Any], found: Tuned, seconds: float) -> dict[str, Any]:
    """Keep what was found for some weights in the place of what was there; returns the record."""
    record = {
        "steps": len(found.times),
        "times": list(found.times),
        "corrections": list(found.corrections),
        "error": found.error,
        "untuned": found.before,
        "numbers": found.numbers,
        "seconds": round(seconds, 1),
        "model": {name: weights.get(name) for name in WEIGHTS},
    }
    write_json(path_of(checkpoint, len(found.times)), record)
    return record


def read(checkpoint: Path, weights: Mapping[str, Any], steps: int) -> Sampler:
    """The sampler of so many steps that was fitted to these weights. InputError where there is none, or it is of others."""
    path = path_of(checkpoint, steps)
    if not path.is_file():
        others = sorted(int(other.stem.removeprefix("steps-")) for other in path.parent.glob("steps-*.json"))
        there = f"; there are those of {', '.join(map(str, others))}" if others else ""
        first = f"No sampler of {steps} steps was tuned for the run{there}"
        raise InputError(f"{first}: scorefield tune-sampler RUN --steps {steps}.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        times, corrections = (tuple(map(float, record[name])) for name in ("times", "corrections"))
        before = dict(record["model"])
        falls = all(0 <= s < t <= 1 for t, s in pairwise(times)) and all(map(math.isfinite, corrections))
        if not (falls and len(times) == steps == len(corrections) + 2):
            raise ValueError(f"{len(times)} times and {len(corrections)} corrections")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no tuned sampler: delete it, and call scorefield tune-sampler again."
        ) from error
    if before != {name: weights.get(name) for name in WEIGHTS}:
        raise InputError(
            f"{path} was tuned for other weights of the run: scorefield tune-sampler RUN --steps {steps} with the same "
            "--step, --ema and --ema-width."
        )
    return corrected(times, corrections)
