"""Sampling at given numbers: `--vector 0.3,1.2`, for networks that were trained on fields with vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from scorefield.foundation.errors import InputError, brief
from scorefield.jobs.class_guidance import knows_none
from scorefield.model import Model
from scorefield.run.loading import LoadedCheckpoint

Vector = tuple[float, ...]


def spelled(words: Sequence[str]) -> list[str]:
    """A command line in which `--vector -3e-1,1.2` is `--vector -0.3 1.2`, as the parser takes several numbers."""
    found: list[str] = []
    for word in words:
        if word.startswith("--vector="):
            found += ["--vector", *_numbers(word.partition("=")[2])]
        elif found[-1:] == ["--vector"]:
            found += _numbers(word)
        else:
            found.append(word)
    return found


def _numbers(word: str) -> list[str]:
    """The numbers of a word, without exponents, which the parser takes for options where they are negative."""
    parts = [part.strip() for part in word.strip("[]").split(",")]
    if len(parts) > 1 and not all(parts):
        raise InputError(
            f"--vector {brief(word)} has a gap between its commas: give a number for each, such as 0.3,1.2."
        )
    return [_plain(part) for part in parts if part] or [word]


def _plain(number: str) -> str:
    try:
        exact = Decimal(number)
    except InvalidOperation:
        return number
    return format(exact, "f") if exact.is_finite() and abs(exact.adjusted()) < 400 else number


def check_vector(model: Model, vector: Vector | None) -> None:
    """Raise InputError for a vector that the network does not take."""
    if vector is None:
        return
    given = ",".join(f"{value:g}" for value in vector[:6]) + (",..." if len(vector) > 6 else "")
    if not model.vector:
        raise InputError(f"The network takes no vector: leave out {given}.")
    if len(vector) != model.vector:
        raise InputError(f"The network takes vectors of {model.vector} numbers, not {given}, which are {len(vector)}.")
    if not all(math.isfinite(value) for value in vector):
        raise InputError(f"The vector is {given}: give finite numbers, in the units of the data.")


def vector_of(
    checkpoint: LoadedCheckpoint, model: Model, vector: Vector | None, *, given: bool = False
) -> Vector | None:
    """The vector; InputError where there is none, and the network has never learnt to do without one.

    Args:
        checkpoint: of the model.
        model: the model.
        vector: what was asked for.
        given: whether the vectors of data are taken.
    """
    if vector is None and model.vector and not given and not knows_none(checkpoint):
        raise InputError(
            f"The network has learnt vectors, and never to do without one: say which by --vector, {model.vector} numbers with "
            "commas between them, in the units of the data."
        )
    return vector
