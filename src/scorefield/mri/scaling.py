"""The scale of an MR image: its units are arbitrary, so each slice is divided by a robust maximum, and multiplied again."""

from __future__ import annotations

import numpy as np

BRIGHT = 0.1  # of the 99.9th percentile: what is brighter is foreground
QUANTILE = 99.0  # of the foreground, which becomes 1


def foreground(image: np.ndarray) -> np.ndarray:
    """Where |image| is above a tenth of its 99.9th percentile."""
    magnitude = np.abs(image)
    return magnitude > BRIGHT * np.percentile(magnitude, 99.9)


def scale_of(image: np.ndarray) -> float:
    """The 99th percentile of the magnitude of the foreground; 1 for an image of zeros."""
    inside = np.abs(image)[foreground(image)]
    return float(np.percentile(inside, QUANTILE)) if inside.size else 1.0


def fit_matrix(image: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    """The last axes cut or filled up with zeros, about their centres n // 2, to a given size."""
    for axis, size in zip(range(-len(matrix), 0), matrix, strict=True):
        before = size // 2 - image.shape[axis] // 2
        after = size - image.shape[axis] - before
        keep = [slice(None)] * image.ndim
        keep[axis] = slice(max(-before, 0), image.shape[axis] - max(-after, 0))
        fill = [(0, 0)] * image.ndim
        fill[axis] = (max(before, 0), max(after, 0))
        image = np.pad(image[tuple(keep)], fill)
    return image
