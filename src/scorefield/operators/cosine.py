"""Coarse fields as functions see them: with fewer modes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.foundation import cosine, fourier
from scorefield.foundation.errors import InputError
from scorefield.operators.operator import LinearOperator


@dataclass(frozen=True)
class _Coarsen(LinearOperator):
    """y = the function x on a coarser grid, without the modes that this lacks: neither averages nor every second point.

    Abstract, the modes are left open. With R the resampling, A A⁺ = 1 for A⁺ = R back to the fine grid: the projection is closed.

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

    @staticmethod
    @abstractmethod
    def _resample(x: Tensor, grid: Sequence[int]) -> Tensor:
        """R."""

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, self.fine)
        return self._resample(x, self.coarse)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self._resample(y - self(x), self.fine)

    def _check(self, x: Tensor, grid: tuple[int, ...]) -> None:
        if tuple(x.shape[2:]) != tuple(grid):
            raise InputError(
                f"{type(self).__name__} from {self.fine} to {self.coarse} does not fit fields of the grid {tuple(x.shape[2:])}."
            )


@dataclass(frozen=True)
class CosineCoarsen(_Coarsen):
    """Cosine modes, those of functions with edges.

    With C the orthonormal DCT-II and P the choice of the lowest modes, A = √(m/n) C_mᵀ P C_n along every axis, so that constants
    stay what they are, and A A* = (m/n) I.

    Args:
        fine: grid of x.
        coarse: grid of y, along no axis larger.
    """

    @staticmethod
    def _resample(x: Tensor, grid: Sequence[int]) -> Tensor:
        return cosine.resample(x, grid)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.coarse)
        return cosine.resample(y, self.fine) * (math.prod(self.coarse) / math.prod(self.fine))


@dataclass(frozen=True)
class FourierCoarsen(_Coarsen):
    """Fourier modes, those of functions on a torus.

    Of the two modes ±m/2 that an even coarse grid cannot tell apart it has the sum, which is twice their share of the finer grid.

    Args:
        fine: grid of x.
        coarse: grid of y, along no axis larger.
    """

    @staticmethod
    def _resample(x: Tensor, grid: Sequence[int]) -> Tensor:
        return fourier.resample(x, grid)

    def adjoint(self, y: Tensor) -> Tensor:
        """(m/n) R y along every axis, with its last mode doubled where m is even."""
        self._check(y, self.coarse)
        for axis, (m, n) in enumerate(zip(self.coarse, self.fine, strict=True), 2):
            if m < n and m % 2 == 0:
                y = y + _alternating(y, axis)
        return fourier.resample(y, self.fine) * (math.prod(self.coarse) / math.prod(self.fine))


def _alternating(y: Tensor, axis: int) -> Tensor:
    """The mode m/2 of an axis of even length: the part of y that changes sign from each point to the next."""
    signs = 1 - 2 * (torch.arange(y.shape[axis], device=y.device) % 2).to(y)
    signs = signs.reshape(-1, *(1,) * (y.ndim - axis - 1))
    return (y * signs).mean(axis, keepdim=True) * signs
