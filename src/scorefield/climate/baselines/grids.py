"""How coarse and fine fields come from one grid to the other: cells that divide evenly, or any two grids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Num, Shaped

from scorefield.climate.grid import CURVILINEAR, GEOGRAPHIC, Grid, factor_between, spacing, unit_vectors
from scorefield.climate.regrid import Bilinear, Regridder, bilinear, block_mean
from scorefield.foundation.errors import InputError

AROUND = 4  # points that a value between curved lines is made of


class Grids(ABC):
    """A coarse and a fine grid of one region."""

    @abstractmethod
    def up(self, coarse: Num[np.ndarray, "*batch Y X"]) -> Float[np.ndarray, "*batch y x"]:
        """Interpolated to the fine points; where nothing around is known, the nearest that is; NaN where nothing is."""

    @abstractmethod
    def down(self, fine: Num[np.ndarray, "*batch y x"]) -> Float[np.ndarray, "*batch Y X"]:
        """The mean of what is known in each coarse cell, NaN where nothing is."""

    @abstractmethod
    def spread(self, coarse: Shaped[np.ndarray, "*batch Y X"]) -> Shaped[np.ndarray, "*batch y x"]:
        """The value of each coarse cell at all fine points in it."""


@dataclass(frozen=True)
class Blocks(Grids):
    """Coarse cells made up by factor[0] × factor[1] equal fine ones each."""

    factor: tuple[int, int]

    @classmethod
    def of(cls, coarse: Num[np.ndarray, "*n Y X"], fine: Num[np.ndarray, "*m y x"]) -> Blocks:
        """By the sizes of fields. InputError where they do not divide evenly."""
        return cls(factor_between(coarse.shape, fine.shape))

    def up(self, coarse: Num[np.ndarray, "*batch Y X"]) -> Float[np.ndarray, "*batch y x"]:
        return filled(bilinear(coarse, self.factor))

    def down(self, fine: Num[np.ndarray, "*batch y x"]) -> Float[np.ndarray, "*batch Y X"]:
        known = np.isfinite(fine)
        if known.all():
            return block_mean(fine, self.factor)
        with np.errstate(invalid="ignore"):
            return block_mean(np.where(known, fine, 0.0), self.factor) / block_mean(known, self.factor)

    def spread(self, coarse: Shaped[np.ndarray, "*batch Y X"]) -> Shaped[np.ndarray, "*batch y x"]:
        return coarse.repeat(self.factor[0], -2).repeat(self.factor[1], -1)


@dataclass(frozen=True, eq=False)
class AnyGrids(Grids):
    """Two grids of any kind and size. Between lines of one kind interpolation is bilinear, constant as far as one coarse cell
    beyond the outermost points; between curved ones it weighs the four nearest points by their inverse distance.

    Args:
        coarse: the grid of the predictors.
        fine: that of the truth.

    Raises:
        InputError: the fine grid reaches further than one coarse cell beyond the coarse one.
    """

    coarse: Grid
    fine: Grid

    @cached_property
    def _regridder(self) -> Regridder:
        lines = self.coarse.shares_lines_with(self.fine) or self.coarse.kind == GEOGRAPHIC
        if lines and CURVILINEAR not in (
            self.coarse.kind,
            *([self.fine.kind] if self.coarse.kind != GEOGRAPHIC else []),
        ):
            edges = {name: _wider(getattr(self.coarse, name)) for name in ("y_edges", "x_edges")}
            if self.coarse.spherical and abs(edges["x_edges"][-1] - edges["x_edges"][0]) > 360:
                edges["x_edges"] = self.coarse.x_edges
            return Bilinear().between(replace(self.coarse, **edges), self.fine)
        from scipy.spatial import KDTree

        points = (unit_vectors(*grid.points()).reshape(-1, 3) for grid in (self.coarse, self.fine))
        coarse, fine = points
        distance, place = KDTree(coarse).query(fine, k=min(AROUND, len(coarse)))
        reach = 1.5 * np.radians(spacing(*self.coarse.points()))
        if (worst := float(distance.min(-1).max())) > reach:
            raise InputError(
                f"The predictors' grid does not cover the truth's: a point is {np.degrees(worst):.3g} degrees from the "
                f"nearest, and points lie {np.degrees(reach) / 1.5:.3g} apart. Give predictors of the whole region."
            )
        return InverseDistance(
            place.reshape(len(fine), -1), distance.reshape(len(fine), -1), self.fine.shape, self.coarse.shape
        )

    @cached_property
    def _cell(self) -> np.ndarray:
        """The coarse cell that each fine point lies in, (fine points)."""
        if self.coarse.shares_lines_with(self.fine) and self.coarse.kind != CURVILINEAR:
            y, x = (
                _inside(getattr(self.coarse, a), getattr(self.fine, a), a == "x" and self.fine.spherical) for a in "yx"
            )
            return (y[:, None] * len(self.coarse.x) + x[None]).ravel()
        from scipy.spatial import KDTree

        coarse, fine = (unit_vectors(*grid.points()).reshape(-1, 3) for grid in (self.coarse, self.fine))
        return np.asarray(KDTree(coarse).query(fine)[1])

    def up(self, coarse: Num[np.ndarray, "*batch Y X"]) -> Float[np.ndarray, "*batch y x"]:
        return filled(self._regridder(coarse))

    def down(self, fine: Num[np.ndarray, "*batch y x"]) -> Float[np.ndarray, "*batch Y X"]:
        flat = fine.reshape(-1, self._cell.size).astype(float)
        known, area, cells = np.isfinite(flat), self.fine.areas().ravel(), int(np.prod(self.coarse.shape))

        def total(x: np.ndarray) -> np.ndarray:
            return np.stack([np.bincount(self._cell, row * area, cells) for row in x])

        with np.errstate(invalid="ignore"):
            means = total(np.where(known, flat, 0.0)) / total(known.astype(float))
        return means.reshape(*fine.shape[:-2], *self.coarse.shape)

    def spread(self, coarse: Shaped[np.ndarray, "*batch Y X"]) -> Shaped[np.ndarray, "*batch y x"]:
        return coarse.reshape(*coarse.shape[:-2], -1)[..., self._cell].reshape(*coarse.shape[:-2], *self.fine.shape)


class InverseDistance(Regridder):
    """Means of the nearest points, weighted by the inverse of their distance.

    Args:
        place: the points around each that is wanted, (wanted, around).
        distance: how far they are, likewise.
        shape: rows and columns that are wanted.
        given: those of the old grid.
    """

    def __init__(self, place: np.ndarray, distance: np.ndarray, shape: tuple[int, int], given: tuple[int, int]) -> None:
        self.place, self.weight, self.shape, self.given = place, 1 / np.maximum(distance, 1e-9), shape, given

    def used(self) -> np.ndarray:
        found = np.zeros(self.given, bool)
        found.flat[self.place] = True
        return found

    def __call__(self, field: np.ndarray, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        around = field.reshape(*field.shape[:-2], -1)[..., self.place]
        known = np.isfinite(around)
        with np.errstate(invalid="ignore"):
            found = (np.where(known, around, 0.0) * self.weight).sum(-1) / (known * self.weight).sum(-1)
        return found.reshape(*field.shape[:-2], *self.shape).astype(np.float32)[..., rows, columns]


def filled(fields: Float[np.ndarray, "*batch y x"]) -> Float[np.ndarray, "*batch y x"]:
    """NaN replaced by the nearest value of the same field, by numbers of rows and columns; fields without any stay."""
    unknown = np.isnan(fields)
    if not unknown.any():
        return fields
    from scipy.ndimage import distance_transform_edt

    found = fields.reshape(-1, *fields.shape[-2:]).copy()
    masks, which = np.unique(np.packbits(unknown.reshape(len(found), -1), axis=1), axis=0, return_inverse=True)
    for number in range(len(masks)):
        chosen = (which.ravel() == number).nonzero()[0]
        gaps = np.isnan(found[chosen[0]])
        if gaps.any() and not gaps.all():
            y, x = np.asarray(distance_transform_edt(gaps, return_distances=False, return_indices=True))
            found[chosen] = found[chosen][:, y, x]
    return found.reshape(fields.shape)


def _wider(edges: np.ndarray) -> np.ndarray:
    """Edges whose outermost cells reach one cell further."""
    wide = edges.copy()
    wide[0] -= edges[1] - edges[0]
    wide[-1] += edges[-1] - edges[-2]
    return wide


def _inside(coarse: np.ndarray, fine: np.ndarray, turning: bool) -> np.ndarray:
    away = fine[:, None] - coarse[None]
    return np.abs((away + 180) % 360 - 180 if turning else away).argmin(1)
