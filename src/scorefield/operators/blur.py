"""Blurs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.operators.operator import LinearOperator

WIDEST = 10  # grids: a kernel's standard deviation at most; of wider ones nothing but the mean is left
Boundary = Literal["periodic", "zero", "reflect"]


@dataclass(frozen=True)
class Blur(LinearOperator):
    """y = k * x with a Gaussian kernel k of unit sum, one axis after the other. It has no projection, which would amplify noise.

    Args:
        std: standard deviation of the kernel in pixels, for every axis or for each; 0 leaves an axis alone.
        boundary: what lies beyond the grid: the field again, zeros, or its mirror image.
    """

    std: float | tuple[float, ...] = 2.0
    boundary: Boundary = "periodic"

    def __post_init__(self) -> None:
        if min(self._widths(1)) < 0:
            raise InputError(f"Blur needs std >= 0, not {self.std}.")

    def __call__(self, x: Tensor) -> Tensor:
        for axis, matrix in enumerate(self._matrices(x), start=2):
            x = torch.movedim(torch.movedim(x, axis, -1) @ matrix.mT, -1, axis)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        for axis, matrix in enumerate(self._matrices(y), start=2):
            y = torch.movedim(torch.movedim(y, axis, -1) @ matrix, -1, axis)
        return y

    def _matrices(self, x: Tensor) -> list[Tensor]:
        """The map of each axis. As matrices, every boundary has its exact adjoint and a kernel may be longer than the grid."""
        widths = self._widths(x.ndim - 2)
        if len(widths) != x.ndim - 2:
            raise InputError(f"Blur has {len(widths)} widths, but the fields {x.ndim - 2} axes.")
        pairs = list(zip(x.shape[2:], widths, strict=True))
        if any(not width <= WIDEST * n for n, width in pairs):
            raise InputError(
                f"A blur of std {self.std} is more than {WIDEST} times as wide as the grid {tuple(x.shape[2:])}."
            )
        return [blur_matrix(n, width, self.boundary).to(x) for n, width in pairs]

    def _widths(self, rank: int) -> tuple[float, ...]:
        return (self.std,) * rank if isinstance(self.std, int | float) else tuple(self.std)


@lru_cache(maxsize=32)  # a solver needs the same few again and again
def blur_matrix(size: int, std: float, boundary: Boundary) -> Tensor:
    """(size, size) in float64: row i holds the kernel around i, its tails folded back as the boundary has it."""
    reach = math.ceil(4 * std)
    offset = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offset / max(std, 1e-9)).double() ** 2)
    kernel = kernel / kernel.sum()
    row = torch.arange(size)[:, None].expand(-1, len(offset))
    column = row + offset
    weight = kernel.expand(size, -1)
    if boundary == "zero":
        weight = weight.where((column >= 0) & (column < size), 0)
    if boundary == "reflect":
        column = column % (2 * size)
        column = torch.minimum(column, 2 * size - 1 - column)
    return torch.zeros(size, size, dtype=torch.float64).index_put((row, column % size), weight, accumulate=True)
