"""Regridding: every value of the new grid is a weighted mean of values of the old one; weights are found once.

A mean leaves out what is not known and divides by the weights of the rest; with less than half of the weight known, it is NaN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from scorefield.climate.grid import CURVILINEAR, GEOGRAPHIC, Grid, factor_between, same_points, spacing, unit_vectors
from scorefield.foundation.errors import InputError

KNOWN = 0.5  # the least share of the weight that must be known
SLACK = 1e-6  # of an axis, by which a point may lie outside: files round


class Regridder(ABC):
    """Carries fields from one grid to another, or to a part of it."""

    @abstractmethod
    def used(self) -> np.ndarray:
        """Which values of the old grid have any weight, (y, x) bool."""

    @abstractmethod
    def __call__(self, field: np.ndarray, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Fields (..., y, x) on the old grid to (..., rows, columns) of the new one, float32, or float64 if they are."""


class Regrid(ABC):
    """How fields come from one grid to another."""

    @abstractmethod
    def between(self, source: Grid, target: Grid) -> Regridder:
        """The weights. Raises InputError where the grids do not allow them or the source does not cover the target."""


@dataclass(frozen=True)
class Bilinear(Regrid):
    """Linear in both coordinates between the four points around; constant from the outermost points to their cells' edges."""

    def between(self, source: Grid, target: Grid) -> Regridder:
        if source.shares_lines_with(target) and (source.kind != CURVILINEAR or coarsens(target, source)):
            along_y, along_x = _along_y(source, target.y), _along_x(source, target.x)
            return Separable(along_y.matrix(len(source.y)), along_x.matrix(len(source.x)))
        if source.kind != GEOGRAPHIC:
            raise InputError(f"Bilinear regridding from a grid of the mapping {source.kind} to another: use Nearest.")
        latitude, longitude = (values.ravel() for values in target.points())
        pairs = _along_y(source, latitude), _along_x(source, longitude)
        return Gathered(_at_points(*pairs, source.shape), target.shape, source.shape)


@dataclass(frozen=True)
class Nearest(Regrid):
    """The value of the nearest point on the sphere."""

    def between(self, source: Grid, target: Grid) -> Regridder:
        from scipy.spatial import KDTree

        distance, nearest = KDTree(_on_sphere(*source.points())).query(_on_sphere(*target.points()))
        latitude, longitude = source.points()
        reach = 2 * np.radians(max(spacing(latitude, longitude), 1e-9))
        if (distance > reach).any():
            raise InputError("The predictors' grid does not cover the target's: the nearest point is two cells away.")
        n, m = int(np.prod(target.shape)), int(np.prod(source.shape))
        return Gathered(_sparse(np.ones(n), np.arange(n), np.asarray(nearest), (n, m)), target.shape, source.shape)


@dataclass(frozen=True)
class Conservative(Regrid):
    """The mean over the area of each new cell, on a sphere where the coordinates are angles: sums are kept."""

    def between(self, source: Grid, target: Grid) -> Regridder:
        if not source.shares_lines_with(target):
            raise InputError("Conservative regridding needs grids with parallel lines: use Bilinear or Nearest.")
        if source.kind == CURVILINEAR:
            if not coarsens(source, target):
                raise InputError("Curvilinear grids are averaged over blocks of their own points alone: use Nearest.")
            along = overlap(source.y_edges, target.y_edges), overlap(source.x_edges, target.x_edges)
            return Weighted(source.areas(), Separable(*along))
        y_source, y_target = (_heights(grid) for grid in (source, target))
        return Separable(overlap(y_source, y_target), overlap(source.x_edges, _branch(source, target)))


def _branch(source: Grid, target: Grid) -> np.ndarray:
    """Edges of the target's columns, on the source's branch of longitude."""
    edges = target.x_edges
    return edges - 360 * np.floor((edges.mean() - source.x_edges.min()) / 360) if source.spherical else edges


class Separable(Regridder):
    """W_y F W_xᵀ."""

    def __init__(self, along_y: Any, along_x: Any) -> None:
        self.along_y, self.along_x = along_y, along_x

    def used(self) -> np.ndarray:
        rows, columns = (np.asarray(matrix.astype(bool).sum(0)).ravel() > 0 for matrix in (self.along_y, self.along_x))
        return rows[:, None] & columns[None]

    def __call__(self, field: np.ndarray, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        along_y, along_x = self.along_y[rows], self.along_x[columns]
        # Only what these rows and columns need: a tile of a large grid would else cost as much as the whole.
        top, left = (np.unique(matrix.indices) for matrix in (along_y, along_x))
        part = field[..., top[0] : top[-1] + 1, left[0] : left[-1] + 1]
        along_y, along_x = along_y[:, top[0] : top[-1] + 1], along_x[:, left[0] : left[-1] + 1]

        def apply(flat: np.ndarray) -> np.ndarray:
            n, rows, columns = flat.shape
            half = (along_y @ flat.transpose(1, 0, 2).reshape(rows, -1)).reshape(-1, n, columns)
            return (along_x @ half.transpose(2, 1, 0).reshape(columns, -1)).reshape(-1, n, len(half)).transpose(1, 2, 0)

        return _weighted(part, apply)


class Weighted(Regridder):
    """Σ a f / Σ a with areas a of single points: where a mean along lines of latitude is not enough."""

    def __init__(self, areas: np.ndarray, mean: Separable) -> None:
        self.areas, self.mean = areas / areas.mean(), mean

    def used(self) -> np.ndarray:
        return self.mean.used()

    def __call__(self, field: np.ndarray, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        known = np.where(np.isfinite(field), self.areas, np.nan)
        found = self.mean(field * self.areas, rows, columns) / self.mean(known, rows, columns)
        return found.astype(np.float64 if field.dtype == np.float64 else np.float32)


def coarsens(fine: Grid, coarse: Grid) -> bool:
    """Whether the cells of one curvilinear grid are blocks of the other's: their middles are where its points are."""
    factor = round(coarse.step[0] / fine.step[0])
    if factor < 1 or any(n // factor < m for n, m in zip(fine.shape, coarse.shape, strict=True)):
        return False
    ours = fine.coarsened(factor)
    return ours.shape == coarse.shape and same_points(ours.points(), coarse.points())


def bilinear(coarse: np.ndarray, factor: tuple[int, int]) -> np.ndarray:
    """Coarse fields (..., Y, X) at the centres of factor[0] × factor[1] equal cells of each of theirs, as `Bilinear` has them."""

    def along(n: int, parts: int) -> Any:
        return between(np.arange(n), (np.arange(n * parts) + 0.5) / parts - 0.5, -0.5, n - 0.5).matrix(n)

    return Separable(*(along(n, parts) for n, parts in zip(coarse.shape[-2:], factor, strict=True)))(coarse)


def block_mean(fine: np.ndarray, factor: tuple[int, int], area: np.ndarray | None = None) -> np.ndarray:
    """The mean over each block of cells, by area: what fine fields (..., y, x) are on the coarse grid.

    Args:
        fine: fields.
        factor: cells of a block along y and x.
        area: relative areas, (y, x); equal by default.
    """
    area = np.ones(fine.shape[-2:]) if area is None else area
    factor_between((fine.shape[-2] // factor[0], fine.shape[-1] // factor[1]), fine.shape)

    def blocks(x: np.ndarray) -> np.ndarray:
        y, x_ = x.shape[-2] // factor[0], x.shape[-1] // factor[1]
        return x.reshape(*x.shape[:-2], y, factor[0], x_, factor[1]).sum((-3, -1), dtype=float)

    return blocks(fine * area) / blocks(area)


def spreading(source: Grid, target: Grid) -> Separable:
    """Each cell's value to the points inside of it; a point on a line between cells gets the mean of both by their shares.

    Where the cells of the target make up those of the source exactly, means over the source's cells give its values back.
    """
    blocks = source.kind != CURVILINEAR or coarsens(target, source)
    if not source.shares_lines_with(target) or not blocks:
        raise InputError("Values spread to grids with parallel lines alone.")
    y_target, y_source = (_heights(grid) for grid in (target, source))
    return Separable(
        _by_column(overlap(y_target, y_source)), _by_column(overlap(target.x_edges, _branch(target, source)))
    )


def _by_column(weights: Any) -> Any:
    """The transpose, each of its rows adding up to 1."""
    from scipy.sparse import diags

    transposed = weights.T.tocsr()
    total = np.asarray(transposed.sum(1)).ravel()
    return (diags(1 / np.where(total > 0, total, 1)) @ transposed).tocsr()


class Gathered(Regridder):
    """W F for fields as one column.

    Args:
        matrix: weights (points of the new grid, points of the old one).
        shape: of the new grid.
        source: of the old one.
    """

    def __init__(self, matrix: Any, shape: tuple[int, int], source: tuple[int, int]) -> None:
        self.matrix, self.shape, self.source = matrix, shape, source

    def used(self) -> np.ndarray:
        return (np.asarray(self.matrix.astype(bool).sum(0)).ravel() > 0).reshape(self.source)

    def __call__(self, field: np.ndarray, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        chosen = np.arange(np.prod(self.shape)).reshape(self.shape)[rows, columns]
        matrix = self.matrix[chosen.ravel()]
        return _weighted(field, lambda flat: (matrix @ flat.reshape(len(flat), -1).T).T.reshape(-1, *chosen.shape))


class Between(NamedTuple):
    """For each point wanted the two points of an axis around it, and the weight of the second."""

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray

    def matrix(self, size: int) -> Any:
        """Weights (wanted, size)."""
        n = len(self.first)
        weights = np.concatenate((1 - self.weight, self.weight))
        return _sparse(weights, np.tile(np.arange(n), 2), np.concatenate((self.first, self.second)), (n, size))


def between(source: np.ndarray, wanted: np.ndarray, low: float, high: float) -> Between:
    """Linear interpolation along an axis, from points (n) to others (m), constant beyond the outermost up to low and high."""
    if (outside := (wanted < low - SLACK * (high - low)) | (wanted > high + SLACK * (high - low))).any():
        raise InputError(
            f"The predictors' grid goes from {low:.5g} to {high:.5g} and does not cover {float(wanted[outside][0]):.5g} "
            "of the target's grid: give predictors of the whole region."
        )
    order = np.argsort(source)
    rising = source[order]
    if len(source) == 1:
        zero = np.zeros(len(wanted), int)
        return Between(zero, zero, np.zeros(len(wanted)))
    upper = np.searchsorted(rising, wanted).clip(1, len(source) - 1)
    weight = ((wanted - rising[upper - 1]) / (rising[upper] - rising[upper - 1])).clip(0, 1)
    return Between(order[upper - 1], order[upper], weight)


def _along_y(source: Grid, wanted: np.ndarray) -> Between:
    return between(source.y, wanted, source.y_edges.min(), source.y_edges.max())


def _along_x(source: Grid, wanted: np.ndarray) -> Between:
    """Longitudes are taken on the branch of the source, which may close a full circle."""
    low, high = float(source.x_edges.min()), float(source.x_edges.max())
    if not source.spherical:
        return between(source.x, wanted, low, high)
    start = low - SLACK * 360
    wanted = (wanted - start) % 360 + start
    if high - low < 360 - 1e-3:
        return between(source.x, wanted, low, high)
    turned = np.concatenate((source.x - 360, source.x, source.x + 360))
    found = between(turned, wanted, float(turned.min()), float(turned.max()))
    return Between(found.first % len(source.x), found.second % len(source.x), found.weight)


def _at_points(along_y: Between, along_x: Between, source: tuple[int, int]) -> Any:
    """Bilinear weights (points, cells of the source) at single points."""
    n = len(along_y.first)
    columns, weights = [], []
    for y, wy in ((along_y.first, 1 - along_y.weight), (along_y.second, along_y.weight)):
        for x, wx in ((along_x.first, 1 - along_x.weight), (along_x.second, along_x.weight)):
            columns.append(y * source[1] + x)
            weights.append(wy * wx)
    return _sparse(
        np.concatenate(weights), np.tile(np.arange(n), 4), np.concatenate(columns), (n, source[0] * source[1])
    )


def overlap(source: np.ndarray, target: np.ndarray) -> Any:
    """Weights (target, source): the share of each target cell, given by its edges, that lies in each source cell."""
    low_s, high_s = np.minimum(source[:-1], source[1:]), np.maximum(source[:-1], source[1:])
    low_t, high_t = np.minimum(target[:-1], target[1:]), np.maximum(target[:-1], target[1:])
    order = np.argsort(low_s)
    first = np.searchsorted(high_s[order], low_t, side="right")
    last = np.searchsorted(low_s[order], high_t, side="left")
    counts = (last - first).clip(0)
    rows = np.repeat(np.arange(len(low_t)), counts)
    columns = (
        order[np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])] if counts.sum() else rows
    )
    common = np.minimum(high_s[columns], high_t[rows]) - np.maximum(low_s[columns], low_t[rows])
    weights = common / (high_t - low_t)[rows]
    covered = np.bincount(rows, weights, len(low_t))
    if (covered < 1 - 1e-3).any():
        place = float(low_t[covered < 1 - 1e-3][0])
        raise InputError(f"The source grid does not cover the cell at {place:.5g} of the target grid.")
    return _sparse(weights, rows, columns, (len(low_t), len(low_s)))


def _weighted(field: np.ndarray, apply: Any) -> np.ndarray:
    flat = field.reshape(-1, *field.shape[-2:]).astype(np.float64)
    known = np.isfinite(flat)
    out = apply(np.where(known, flat, 0.0))
    if not known.all():
        weight = apply(known.astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            out = np.where(weight >= KNOWN, out / weight, np.nan)
    kept = np.float64 if field.dtype == np.float64 else np.float32
    return np.ascontiguousarray(out.reshape(*field.shape[:-2], *out.shape[-2:]), kept)


def _heights(grid: Grid) -> np.ndarray:
    return np.sin(np.radians(grid.y_edges)) if grid.spherical else grid.y_edges


def _sparse(weights: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_matrix

    matrix = csr_matrix((weights, (rows, columns)), shape=shape)
    matrix.sort_indices()
    return matrix


def _on_sphere(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    return unit_vectors(latitude.ravel(), longitude.ravel())
