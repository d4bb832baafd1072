"""Numbers of which float32 loses what tells fields apart: a small spread about a large offset. They are kept in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scorefield.foundation.errors import InputError

LARGE = 1e5  # spreads that an offset has at least for float64: float32 would round by 1/300 of a spread
LOST = 3e-3  # of a spread: the same, for what float32 really does to some values
INTEGERS = 2**24, 2**53  # integers beyond are rounded by float32, by float64
FIELDS, VALUES = 32, 2**22  # looked at, at most


def spread_rows(n: int, size: int) -> np.ndarray:
    """The numbers of the fields to look at, of n fields of `size` values: a few, evenly spread, (k) int64."""
    return np.unique(np.linspace(0, n - 1, min(n, FIELDS, max(2, VALUES // max(size, 1)))).round().astype(np.int64))


def fits_float32(dtype: np.dtype) -> bool:
    """Whether float32 holds all numbers of a type, or all that its files can tell apart, without looking at them."""
    return dtype.itemsize <= {"f": 4, "c": 8}.get(dtype.kind, 2) or dtype.kind == "b"


def needed(x: np.ndarray, origin: str) -> torch.dtype:
    """The type that some fields (n, channels, *grid) need.

    It is float64 where float32 would round them by more than 1/300 of their spread, over a channel or from field to field at a
    point, and for integers above 2²⁴; else float32.

    Raises:
        InputError: integers that not even float64 holds.
    """
    if fits_float32(x.dtype) or x.size == 0:
        return torch.float32
    if x.dtype.kind in "iu":
        largest = max(abs(int(x.min())), abs(int(x.max())))
        if largest > INTEGERS[1]:
            raise InputError(
                f"{origin} holds integers up to {largest}, beyond 2^53: save their difference to an offset."
            )
        return torch.float64 if largest > INTEGERS[0] else torch.float32
    rows = np.moveaxis(x.astype(np.float64), 1, 0).reshape(x.shape[1], len(x), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        lost = rows - rows.astype(np.float32)
    if (bad := ~np.isfinite(lost)).any():  # unknown, or beyond float32, which is refused where it is read
        lost, rows = (np.where(bad, np.nan, part) for part in (lost, rows))
    return torch.float64 if any(map(_rounded, lost, rows)) else torch.float32


def _rounded(lost: np.ndarray, channel: np.ndarray) -> bool:
    """Whether what is lost of a channel (n, points) is much of its spread; what never varies is no matter."""
    known = np.isfinite(channel)
    if not known.any():
        return False
    error = float(np.sqrt(np.mean(np.square(lost[known]))))
    spreads = [float(channel[known].std())]
    if len(channel) > 1:
        columns = known.all(0)
        spreads.append(float(np.sqrt(channel[:, columns].var(0).mean())) if columns.any() else 0.0)
    return any(error > LOST * spread for spread in spreads if spread > 1e-14 * float(np.abs(channel[known]).max()))


def of_offset(shift: Tensor, scale: Tensor) -> torch.dtype:
    """The type of shift + scale z, (channels), for z of about 1: float64 where an offset is more than 10⁵ times the scale."""
    if shift.numel() and bool((shift.abs() > LARGE * scale.abs()).any()):
        return torch.float64
    return torch.float32
