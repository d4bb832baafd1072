"""Linear measurements y = A x of fields (batch, channels, *grid), each with its adjoint: ⟨A x, y⟩ = ⟨x, A* y⟩.

The inner product is the plain sum over all elements. A complex field is a pair of real channels per channel (real part, imaginary
part), for which that sum is the real part of the complex product: Fourier and coil operators are linear maps like any other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.errors import InputError

Field = Float[Tensor, "batch channels *grid"]
Boundary = Literal["periodic", "zero", "reflect"]


class LinearOperator(ABC):
    """A linear map A from fields to measurements, which work on each field of a batch by itself."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A* y."""

    @abstractmethod
    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """x + A⁺(y − A x), the field nearest to x that measures y; A⁺y is `project` of zeros.

        Raises:
            InputError: where A⁺ does not exist in closed form, or would amplify noise without bound.
        """


@dataclass(frozen=True)
class Identity(LinearOperator):
    """y = x: denoising."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return y.expand_as(x)


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
            raise InputError(f"Grey has {len(self.weights)} weights, but the fields {x.shape[1]} channels.")
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

    factor: int | tuple[int, ...] = 4

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


@dataclass(frozen=True)
class Blur(LinearOperator):
    """y = k * x with a Gaussian kernel k of unit sum, one axis after the other.

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

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        raise InputError("A blur is undone by no projection, which would amplify its noise: take MomentMatching.")

    def _matrices(self, x: Tensor) -> list[Tensor]:
        """The map of each axis. As matrices, every boundary has its exact adjoint and a kernel may be longer than the grid."""
        widths = self._widths(x.ndim - 2)
        if len(widths) != x.ndim - 2:
            raise InputError(f"Blur has {len(widths)} widths, but the fields {x.ndim - 2} axes.")
        return [blur_matrix(n, width, self.boundary).to(x) for n, width in zip(x.shape[2:], widths, strict=True)]

    def _widths(self, rank: int) -> tuple[float, ...]:
        return (self.std,) * rank if isinstance(self.std, int | float) else tuple(self.std)


@lru_cache(maxsize=32)  # a solver asks for the same few again and again
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


@dataclass(frozen=True, eq=False)
class Scale(LinearOperator):
    """y = s x, elementwise: a change of units.

    Args:
        factor: s, nowhere 0, broadcastable to x.
    """

    factor: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor.to(x) * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.factor.to(y) * y

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return (y / self.factor.to(y)).expand_as(x)


@dataclass(frozen=True)
class Compose(LinearOperator):
    """y = A_n ... A_1 x.

    Args:
        operators: A_1, which sees x, to A_n.
    """

    operators: Sequence[LinearOperator]

    def __call__(self, x: Tensor) -> Tensor:
        for operator in self.operators:
            x = operator(x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        for operator in reversed(self.operators):
            y = operator.adjoint(y)
        return y

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """Projects what A_1 measures of x by the others, then x by A_1: A x′ = y, though x′ need not be the nearest to x.

        Raises:
            InputError: also where A_1 cannot measure what the others ask for, as after a mask.
        """
        if not self.operators:
            return y.expand_as(x)
        first, rest = self.operators[0], Compose(self.operators[1:])
        measured = first(x)
        wanted = rest.project(measured, y) if rest.operators else y
        found = first.project(x, wanted)
        if rest.operators and not torch.allclose(
            first(found), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())
        ):
            raise InputError(f"{rest} after {first} has no projection in closed form: take MomentMatching.")
        return found
