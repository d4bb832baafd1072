"""Numbers that fields are conditioned on: `cond["vector"]`, (fields, entries) in data units; a row is NaN where it is unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.foundation.errors import InputError

MOST_ENTRIES = 10_000  # more than that are fields of their own


def check_vectors(vectors: Any, n: int, origin: str) -> Tensor:
    """Vectors (n, entries) in float64 of (n) or (n, entries) numbers, or InputError. A row may be NaN as a whole."""
    found = np.asarray(vectors)
    if found.dtype.kind not in "biuf" or found.ndim not in (1, 2) or len(found) != n or found.size == 0:
        raise InputError(
            f"Vectors of {origin} are {found.dtype} {found.shape}: give a number, or a row of numbers, for each of {n} fields."
        )
    found = found.reshape(n, -1).astype(np.float64)
    if found.shape[1] > MOST_ENTRIES:
        raise InputError(f"Vectors of {origin} have {found.shape[1]} entries: give at most {MOST_ENTRIES}.")
    return check_rows(torch.from_numpy(found), origin)


def check_rows(vectors: Tensor, origin: str) -> Tensor:
    """Vectors (n, entries), each finite or NaN as a whole, or InputError."""
    bad = ~vectors.isfinite().all(dim=1) & ~vectors.isnan().all(dim=1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        values = ", ".join(f"{value:g}" for value in vectors[row, :6].tolist())
        raise InputError(
            f"Vector {row} of {origin} is {values}: give finite numbers, or NaN in all entries where they are unknown."
        )
    return vectors


def notes_on(vectors: Tensor, origin: str) -> tuple[str, ...]:
    """What was read as vectors (n, entries), for those who look at data first; and where it looks like classes."""
    entries = vectors.shape[1]
    found = [
        f"Labels of {origin} are floats: they are vectors of {entries} {'number' if entries == 1 else 'numbers'}, no classes."
    ]
    if entries == 1 and bool((vectors == vectors.floor()).all()) and len(vectors.unique()) < min(len(vectors), 1000):
        found.append("All of them are whole: save them as integers if they are classes.")
    return tuple(found)
