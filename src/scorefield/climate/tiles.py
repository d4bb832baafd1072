"""Tiles: parts of one size of a large domain, each a field of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scorefield.foundation.errors import InputError


@dataclass(frozen=True)
class Tiles:
    """Tiles on a regular raster, of which those that are known and wet enough are taken.

    Args:
        size: rows and columns of a tile.
        stride: from one tile to the next, in points; the size where 0, so that tiles do not overlap.
        most_missing: the largest share of unknown values in a tile.
        least_wet: the smallest share of values of the first variable above `wet`.
        wet: in its units.
    """

    size: tuple[int, int] = (64, 64)
    stride: int = 0
    most_missing: float = 0.0
    least_wet: float = 0.0
    wet: float = 0.1

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.stride < 0:
            raise InputError(f"Tiles need a size >= 1 and a stride >= 0, not {self.size} and {self.stride}.")

    def corners(self, places: np.ndarray) -> np.ndarray:
        """First row and column of the tiles whose points are all in places (rows, columns) bool, (tiles, 2)."""
        rows, columns = self.size
        steps = (self.stride or rows, self.stride or columns)
        if places.shape[0] < rows or places.shape[1] < columns:
            raise InputError(
                f"The grid is {places.shape[0]}×{places.shape[1]}, too small for tiles of {rows}×{columns}."
            )
        y, x = (range(0, n - size + 1, step) for n, size, step in zip(places.shape, self.size, steps, strict=True))
        inside = window_means(places.astype(np.float32), self.size, steps) > 1 - 0.5 / (rows * columns)
        return np.array([(r, c) for i, r in enumerate(y) for j, c in enumerate(x) if inside[i, j]], int).reshape(-1, 2)

    def fitting(self, field: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """Which tiles of a field (channels, rows, columns) are known and wet enough, (tiles) bool."""
        kept = np.zeros(len(corners), bool)
        for i, (row, column) in enumerate(corners):
            tile = field[:, row : row + self.size[0], column : column + self.size[1]]
            if np.isnan(tile).mean() <= self.most_missing:
                with np.errstate(invalid="ignore"):
                    kept[i] = not self.least_wet or (tile[0] > self.wet).mean() > self.least_wet
        return kept


def window_means(field: np.ndarray, size: tuple[int, int], steps: tuple[int, int]) -> np.ndarray:
    """Means of a field (rows, columns) over windows of a size at regular steps, one for each window, by running sums."""
    sums = np.pad(field.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = (np.arange(0, n - s + 1, step) for n, s, step in zip(field.shape, size, steps, strict=True))
    low, high, left, right = rows, rows + size[0], columns, columns + size[1]
    total = sums[np.ix_(high, right)] - sums[np.ix_(low, right)] - sums[np.ix_(high, left)] + sums[np.ix_(low, left)]
    return total / (size[0] * size[1])
