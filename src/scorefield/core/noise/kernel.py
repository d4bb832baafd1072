"""Gaussian fields on scattered points, by the factor of their covariance matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Size, Tensor

from scorefield.core.noise.density import SpectralDensity
from scorefield.core.noise.noise import Noise
from scorefield.foundation.errors import InputError
from scorefield.foundation.precision import product
from scorefield.foundation.random import Generators


@dataclass(frozen=True)
class KernelField(Noise):
    """C_ij = variance · (K(|x_i − x_j|) + nugget δ_ij) on n scattered points, fields (batch, channels, n).

    O(n³) once and O(n²) per draw, n² numbers in memory: for points without a grid. On a grid take `GaussianField`.

    Args:
        points: their coordinates, n lists of 1 to 3 numbers, in the unit of the density's lengths.
        density: whose kernel K is.
        variance: of a point.
    """

    points: Sequence[Sequence[float]]
    density: SpectralDensity
    variance: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(tuple(float(x) for x in point) for point in self.points))
        ranks = {len(point) for point in self.points}
        if len(ranks) != 1 or not ranks <= {1, 2, 3} or not 0 < self.variance < math.inf:
            raise InputError(
                "KernelField needs points of 1 to 3 coordinates, as many for each, and variance > 0, not points of "
                f"{sorted(ranks)} coordinates and {self.variance}."
            )

    def _check(self, grid: Sequence[int] | Size) -> None:
        if tuple(grid) != (len(self.points),):
            raise InputError(
                f"The noise is defined on {len(self.points)} scattered points, and the fields have the grid {tuple(grid)}: "
                "a network that needs a grid wants GaussianField."
            )

    def sample(self, shape: Sequence[int] | Size, *, generator: Generators, like: Tensor) -> Tensor:
        self._check(shape[2:])
        return product(generator.randn(shape, like=like), _factor(self).to(like).T)

    def covariance(self, x: Tensor) -> Tensor:
        self._check(x.shape[2:])
        factor = _factor(self).to(x)
        return product(product(x, factor), factor.T)

    def precision(self, x: Tensor) -> Tensor:
        self._check(x.shape[2:])
        rows = x.flatten(0, 1).T.double()
        return torch.cholesky_solve(rows, _factor(self).to(x.device)).T.reshape(x.shape).to(x)

    def log_det(self, x: Tensor) -> Tensor:
        self._check(x.shape[2:])
        return (2 * x.shape[1] * _factor(self).diagonal().log().sum()).to(x).expand(len(x))


@lru_cache(maxsize=4)
def _factor(field: KernelField) -> Tensor:
    """The lower triangular factor of C, in float64."""
    points = torch.tensor(field.points, dtype=torch.float64)
    kernel = field.density.kernel(
        torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist"), points.shape[1]
    )
    kernel = kernel + field.density.nugget * torch.eye(len(points), dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(field.variance * kernel)
    if int(failed):
        raise InputError(
            f"The covariance of {len(points)} points is singular to rounding: points coincide or lie too near for so "
            "smooth a kernel; give its density a nugget, such as 1e-6."
        )
    return factor
