"""Coarse fields as functions see them: with fewer modes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from scorefield.cosine import resample
from scorefield.errors import InputError
from scorefield.operators.operator import LinearOperator


@dataclass(frozen=True)
class CosineCoarsen(LinearOperator):
    """y = the function x on a coarser grid, without the modes that this lacks: neither averages nor every second point.

    With C the orthonormal DCT-II and P the choice of the lowest modes, A = √(m/n) C_mᵀ P C_n along every axis, so that constants
    stay what they are. A A* = (m/n) I: the projection is closed.

    Args:
        fine: grid of x.
        coarse: grid of y, along no axis larger.
    """

    fine: tuple[int, ...]
    coarse: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.fine) != len(self.coarse) or not all(
            1 <= m <= n for m, n in zip(self.coarse, self.fine, strict=True)
        ):
            raise InputError(
                f"The grid {self.fine} cannot be coarsened to {self.coarse}: give sizes from 1 to its own, one for each axis."
            )

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, self.fine)
        return resample(x, self.coarse)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.coarse)
        return resample(y, self.fine) * (math.prod(self.coarse) / math.prod(self.fine))

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return x + resample(y - self(x), self.fine)

    def _check(self, x: Tensor, grid: tuple[int, ...]) -> None:
        if tuple(x.shape[2:]) != tuple(grid):
            raise InputError(
                f"CosineCoarsen from {self.fine} to {self.coarse} does not fit fields of the grid {tuple(x.shape[2:])}."
            )
