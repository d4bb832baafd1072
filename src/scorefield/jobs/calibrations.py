"""What `calibrate` found of a run's posteriors, kept with the run, for `restore --calibrated`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.foundation.locks import ChunkLocks
from scorefield.guidance import Method
from scorefield.inverse import InverseProblem
from scorefield.jobs.draws import Draws
from scorefield.run.runner import digest
from scorefield.run.shipped import results_of

NAME = "calibrations.json"
DECISIVE = ("operator", "noise", "method", "sampler", "particles", "n", "model")  # of how is drawn
WEIGHTS = ("weights", "ema", "ema_width", "precision")  # of a job's identity, what says which weights draw


def place_of(checkpoint: Path) -> Path:
    """Where calibrations of a checkpoint are kept: in its run folder; of a shipped model in the working directory."""
    shipped = results_of(checkpoint)
    if shipped is not None:
        return shipped / NAME
    folder = checkpoint.absolute().parent
    return (folder.parent if folder.name == "checkpoints" else folder) / NAME


def posterior_facts(draws: Draws, case: InverseProblem, method: Method, particles: int) -> dict[str, Any]:
    """What decides a posterior beside what was measured."""
    facts = case.facts
    return {
        "operator": facts["operator"],
        "noise": facts["noise"],
        "method": repr(method),
        "sampler": repr(draws.sampler),
        "particles": particles,
        "n": draws.n,
        "model": {name: str(value) for name, value in draws.facts.items() if name in WEIGHTS},
    }


def key_of(how: Mapping[str, Any]) -> str:
    """What has to be the same for a factor to hold: the measurement, and how is drawn, by which weights."""
    return digest({name: how.get(name) for name in DECISIVE})


def keep(checkpoint: Path, how: Mapping[str, Any], found: Mapping[str, Any]) -> Path:
    """Add a calibration to those of a run, in the place of one of the same posterior."""
    path = place_of(checkpoint)
    with (
        closing(ChunkLocks(path.with_name(f".{NAME}.lock"))) as locks,
        locks.hold(0, wait=True),
    ):  # others may add theirs
        every = _read(path)
        every[key_of(how)] = {**{name: how.get(name) for name in DECISIVE}, **found}
        write_json(path, every)
    return path


def factor_for(checkpoint: Path, how: Mapping[str, Any]) -> float:
    """κ of a posterior that was calibrated.

    Raises:
        InputError: it was not, or another one was.
    """
    path = place_of(checkpoint)
    every = _read(path)
    if (found := every.get(key_of(how))) is not None:
        return float(found["factor"])
    if not every:
        raise InputError(f"{path} is not there: scorefield calibrate RUN with the same task, noise and -n comes first.")
    asked = json.loads(json.dumps({name: how.get(name) for name in DECISIVE}, default=str))
    differences = ([name for name in DECISIVE if one.get(name) != asked[name]] for one in every.values())
    differ = min(differences, key=len)
    raise InputError(
        f"{path} has no calibration of this posterior, and one that differs in {', '.join(differ)}: calibrate "
        "with the same task, noise, method, steps and -n."
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: delete it, and calibrate again.") from error
    if not isinstance(found, dict) or not all(isinstance(one, dict) and "factor" in one for one in found.values()):
        raise InputError(f"{path} holds no calibrations: delete it, and calibrate again.")
    return found
