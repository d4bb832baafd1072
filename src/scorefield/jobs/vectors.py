"""Sampling at given numbers: `--vector 0.3,1.2`, for networks that were trained on fields with vectors."""

from __future__ import annotations

import math

from scorefield.foundation.errors import InputError
from scorefield.model import Model

Vector = tuple[float, ...]


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


def vector_of(model: Model, vector: Vector | None, *, given: bool = False) -> Vector | None:
    """The vector; InputError where there is none, and the network has never learnt to do without one.

    Args:
        model: the model.
        vector: what was asked for.
        given: whether the vectors of data are taken.
    """
    if vector is None and model.vector and not given and not model.knows_none:
        raise InputError(
            f"The network has learnt vectors, and never to do without one: say which by --vector, {model.vector} numbers with "
            "commas between them, in the units of the data."
        )
    return vector
