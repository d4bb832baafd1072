"""How far k-space was encoded, and how much of that was sampled: scanners fill up its edges with zeros to an image's matrix.

Such zeros leave an image what it is but for its resolution, whereas lines that were left out between others alias it, and
lines that are missing on one side (partial Fourier) blur it and hide what its phase does.
"""

from __future__ import annotations

import numpy as np

WHOLE = 0.95  # of what was encoded: sampled less, images are aliased
LEAST = 0.5  # of an axis is encoded: a narrower middle is one of calibration lines
LOPSIDED = 0.8  # of the longer side of k-space: if the shorter one reaches less far, it may have been sampled in part
ONE_SIDED = 7  # lines that are the outermost and all on one side: by chance once in 2^6


def encoded(mask: np.ndarray) -> tuple[slice, ...]:
    """The box of k-space beyond which nothing was sampled on either side, symmetric about the centre n // 2 of each axis.

    Of k-space that was sampled in part, on one side, it has both sides. It has all of an axis of which less than half lies in it,
    and where the edges are no wider than gaps between lines: undersampled k-space ends anywhere.

    Args:
        mask: where k-space was sampled, of any number of axes.
    """
    found = []
    for axis, size in enumerate(mask.shape):
        places = _sampled(mask, axis)
        if not len(places):
            found.append(slice(0, size))
            continue
        below, above = _reach(places, size)
        edge = min(size // 2 - below, size - 1 - size // 2 - above)
        below, above = max(below, above), max(above, below - 1)  # an even number of points has one more below
        padded = below + above + 1 >= LEAST * size and edge >= int(np.diff(places).max(initial=1))
        found.append(slice(max(size // 2 - below, 0), size // 2 + above + 1) if padded else slice(0, size))
    return tuple(found)


def share_of(mask: np.ndarray, acquired: np.ndarray | None = None) -> float:
    """The share that is sampled of what was encoded: 1/R.

    Args:
        mask: what is sampled, (height, width).
        acquired: what was, where the mask is but a part of it.
    """
    return float(mask[encoded(mask if acquired is None else acquired)].mean())


def partial_fourier(mask: np.ndarray) -> str:
    """A warning where one side of k-space was left out, which random sampling seldom does; else nothing."""
    for axis, name in ((0, "height"), (1, "width")):
        places, size = _sampled(mask, axis), mask.shape[axis]
        if not len(places):
            return ""
        below, above = _reach(places, size)
        shorter, longer = min(below, above), max(below, above)
        alone = int((np.abs(places - size // 2) > shorter).sum())
        if shorter < LOPSIDED * longer and longer > size // 4 and alone >= ONE_SIDED:
            return (
                f"k-space reaches {below} points to one side of the centre of its {name} and {above} to the other: "
                "with partial Fourier sampling, what is missing is left to the prior, not to symmetry."
            )
    return ""


def _sampled(mask: np.ndarray, axis: int) -> np.ndarray:
    """The places along an axis at which anything is sampled."""
    return np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))


def _reach(places: np.ndarray, size: int) -> tuple[int, int]:
    """How many points sampling reaches below and above the centre."""
    return size // 2 - int(places[0]), int(places[-1]) - size // 2
