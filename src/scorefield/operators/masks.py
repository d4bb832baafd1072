"""Operators that see a part of a field: some of its elements, their averages over channels or over boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.operators.operator import LinearOperator


@dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """y = x where it is known, and 0 elsewhere. What y holds elsewhere is never read: it may be NaN.

    Args:
        known: 1 where x is known and 0 elsewhere, broadcastable to x.
    """

    known: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(self._chosen(x), x, 0)

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(self._chosen(x), y, x)

    def _chosen(self, x: Tensor) -> Tensor:
        chosen = self.known.to(x.device) > 0
        try:
            return chosen.expand(torch.broadcast_shapes(chosen.shape, x.shape))
        except RuntimeError as error:
            shapes = f"{tuple(chosen.shape)} does not fit fields {tuple(x.shape[1:])}"
            raise InputError(f"The mask {shapes}: give one of their shape, or of their grid.") from error


@dataclass(frozen=True)
class Hole(LinearOperator):
    """y = x but for a box, where it is 0: a `Mask` that needs no file.

    Args:
        start: the first hidden index along each grid axis; negative ones count from the end.
        size: hidden elements along each grid axis.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.start) != len(self.size) or not self.size or min(self.size) < 1:
            raise InputError(f"A hole needs a start and a size >= 1 for each axis, not {self.start} and {self.size}.")

    def __call__(self, x: Tensor) -> Tensor:
        return self._mask(x)(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._mask(y)(y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return self._mask(x).project(x, y)

    def _mask(self, x: Tensor) -> Mask:
        grid = x.shape[2:]
        if len(grid) != len(self.start):
            raise InputError(f"A hole of {len(self.start)} axes does not fit fields {tuple(x.shape[1:])}.")
        first = [at % length for at, length in zip(self.start, grid, strict=True)]
        if any(a + n > length for a, n, length in zip(first, self.size, grid, strict=True)):
            raise InputError(f"The hole at {self.start} of size {self.size} reaches beyond the grid {tuple(grid)}.")
        known = torch.ones(tuple(grid), dtype=torch.bool, device=x.device)
        known[tuple(slice(a, a + n) for a, n in zip(first, self.size, strict=True))] = False
        return Mask(known)


@dataclass(frozen=True)
class Grey(LinearOperator):
    """y = Σ_c w_c x_c, a weighted average of the channels.

    Its projection moves a colour along w alone, orthogonally: with equal weights that is the decomposition into grey and chroma
    of Song et al. (2021, appendix I.3).

    Args:
        weights: w, one per channel.
    """

    weights: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)

    def __post_init__(self) -> None:
        if not any(self.weights):
            raise InputError("Grey needs a weight for each channel, not all of them 0.")

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[1] != len(self.weights):
            raise InputError(
                f"Grey has {len(self.weights)} weights, but the fields {x.shape[1]} channels: give a weight for each channel."
            )
        return (self._column(x) * x).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._column(y) * y

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.adjoint(y - self(x)) / sum(weight**2 for weight in self.weights)

    def _column(self, x: Tensor) -> Tensor:
        return torch.tensor(self.weights, dtype=x.dtype, device=x.device).reshape(-1, *(1,) * (x.ndim - 2))


@dataclass(frozen=True)
class Coarsen(LinearOperator):
    """y = the mean over boxes: fields on a coarser grid.

    Args:
        factor: elements of a box along every axis, or along each; the grid must be a multiple of it.
    """

    factor: int | Sequence[int] = 4

    def __post_init__(self) -> None:
        if min(self._factors(1)) < 1:
            raise InputError(f"Coarsen needs factors >= 1, not {self.factor}.")

    def __call__(self, x: Tensor) -> Tensor:
        factors = self._factors(x.ndim - 2)
        if len(factors) != x.ndim - 2 or any(n % f for n, f in zip(x.shape[2:], factors, strict=True)):
            raise InputError(
                f"The grid {tuple(x.shape[2:])} cannot be coarsened by {self.factor}: give divisors of it."
            )
        for axis, factor in enumerate(factors, start=2):
            x = x.unflatten(axis, (-1, factor)).mean(axis + 1)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return self._repeat(y) / math.prod(self._factors(y.ndim - 2))

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self._repeat(y - self(x))

    def _repeat(self, y: Tensor) -> Tensor:
        for axis, factor in enumerate(self._factors(y.ndim - 2), start=2):
            y = y.repeat_interleave(factor, dim=axis)
        return y

    def _factors(self, rank: int) -> tuple[int, ...]:
        return (self.factor,) * rank if isinstance(self.factor, int) else tuple(self.factor)
