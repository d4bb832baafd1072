"""Phase in radians, from whatever unit a scanner or a converter left it in.

Siemens stores 0..4095 or −4096..4094, GE thousandths of radians, Philips radians; converters multiply by a slope, or drop it.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np

from scorefield.foundation.errors import InputError

LEVELS = tuple(2**bits - 1 for bits in range(8, 17))  # steps in the whole circle, of phase stored as whole numbers
# ranges that are the whole circle
CIRCLES = (*(2.0**bits for bits in range(8, 17)), 2000.0, 2000.0 * math.pi, 2 * math.pi, 360.0)
CLOSE = 0.02  # of a range: its ends are missed by so much where no pixel has the largest phase
LEAST = 0.1  # radians, below which phase of an MR image would be none


def radians(phase: np.ndarray, path: Path) -> np.ndarray:
    """Phase in radians: as it is within ±π, unless it takes the 2ⁿ levels of stored whole numbers; else by its range.

    Warns where the range is none that is known to be 2π.

    Raises:
        InputError: a range with which none of this goes: phase that was unwrapped, a few whole numbers, or no phase at all.
    """
    low, high = float(phase.min()), float(phase.max())
    if high == low:
        raise InputError(f"{path} is constant: it holds no phase.")
    span, largest = high - low, max(-low, high)
    for levels in LEVELS:
        if _takes(phase, low, span, levels):
            return _turned(phase, low, span * (1 + 1 / levels))
    whole = bool((phase == np.round(phase)).all())
    if largest <= math.pi * 1.01 and not whole and largest >= LEAST:
        if abs(largest - 1) < CLOSE:
            warnings.warn(
                f"{path} goes from {low:g} to {high:g}, taken for radians: multiply half turns by π.", stacklevel=2
            )
        return phase
    lopsided = abs(high + low) > 2 * CLOSE * span and abs(low) > CLOSE * span
    if lopsided or largest < LEAST or (whole and span < LEVELS[0]):
        raise InputError(
            f"{path} goes from {low:g} to {high:g}, neither in radians nor from −a to a or from 0 to a: is it wrapped phase? "
            "Give it in radians, as decimal numbers."
        )
    if not any(abs(span / circle - 1) < CLOSE for circle in CIRCLES):
        warnings.warn(f"{path} goes from {low:g} to {high:g}, taken for 2π: if it is not, give radians.", stacklevel=2)
    return _turned(phase, low, span)


def _takes(phase: np.ndarray, low: float, span: float, levels: int) -> bool:
    """Whether phase is 2ⁿ evenly spaced values from −a to a, or from 0 to a; of the two ends one may be missing."""
    if abs(2 * low + span) > 2.5 * span / levels and low != 0:
        return False
    places = (phase.astype(np.float64) - low) * (levels / span)
    return bool((np.abs(places - np.round(places)) < 0.01).all())


def _turned(phase: np.ndarray, low: float, circle: float) -> np.ndarray:
    """Phase from −a to a, or from 0 to a, in radians from −π to π."""
    return (phase * (2 * math.pi / circle) - (math.pi if low >= 0 else 0)).astype(np.float32)
