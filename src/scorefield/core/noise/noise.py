"""The Gaussian measure N(0, C) that ξ is drawn from, and the white ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from scorefield.core.noise.boundary import Boundary, Periodic
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators


class Noise(ABC):
    """A centred Gaussian measure on fields with covariance C, the same and independent in every channel."""

    @property
    def white(self) -> bool:
        """Whether C is a multiple of the identity: the noise of pixels, not of functions."""
        return False

    @property
    def diagonal(self) -> bool:
        """Whether C, no multiple of the identity, has an inverse and is diagonal in modes of the grid: `precision` is cheap."""
        return False

    @property
    def periodic(self) -> bool:
        """Whether a draw is a function on a torus. White noise, as well in Fourier modes as in others, is on none."""
        return False

    def support(self, grid: Sequence[int] | Size) -> Tensor | None:
        """Where on a grid there is any noise, (*grid), as fields are known there alone; None for everywhere."""
        return None

    def within(self, x: Tensor) -> Tensor:
        """x, 0 where there is no noise."""
        inside = self.support(x.shape[2:])
        return x if inside is None else x.where(inside.to(x.device), 0.0)

    def dimension(self, shape: Sequence[int] | Size) -> int:
        """How many elements of a field (channels, *grid) have noise."""
        inside = self.support(shape[1:])
        return math.prod(shape) if inside is None else shape[0] * int(inside.sum())

    @abstractmethod
    def sample(self, shape: Sequence[int] | Size, *, generator: Generators, like: Tensor) -> Tensor:
        """C^½ z of the full shape (batch, channels, *grid), z standard normal."""

    @abstractmethod
    def covariance(self, x: Tensor) -> Tensor:
        """C x."""

    @abstractmethod
    def precision(self, x: Tensor) -> Tensor:
        """C⁻¹ x; raises `InputError` where C has no usable inverse."""

    @abstractmethod
    def log_det(self, x: Tensor) -> Tensor:
        """log det C on the grid of x, over all elements of a field, one per field; `InputError` where C has no density."""

    def whitened(self, x: Tensor) -> Tensor:
        """W x, WᵀW = C⁻¹: white where x is noise; `InputError` where there is no such map of fields."""
        raise InputError(f"{type(self).__name__} cannot be whitened: take a MaskedField.")

    def basis(self, rank: int) -> tuple[Boundary, tuple[float, ...]]:
        """The modes in which C is diagonal, and the lengths of the domain; `InputError` where there are none."""
        raise InputError(
            f"{type(self).__name__} is not diagonal in modes of a grid: take a GaussianField or White noise."
        )

    def eigenvalues(self, grid: Sequence[int] | Size) -> Tensor:
        """λ_k, the variance of each mode of a draw, in float64; `InputError` where C is not diagonal in modes."""
        raise InputError(
            f"{type(self).__name__} is not diagonal in modes of a grid: take a GaussianField or White noise."
        )

    def on_torus(self) -> Noise:
        """A noise diagonal in modes of the grid, with the spectrum that this one has away from edges: this one, if it is."""
        return self

    def limited(self, grid: Sequence[int] | Size) -> Noise:
        """The same noise without the modes that a grid of so many points lacks; `InputError` where there is no such noise."""
        raise InputError(f"{type(self).__name__} cannot be limited to a band: take a GaussianField.")


@dataclass(frozen=True)
class White(Noise):
    """C = I: unit variance per pixel. Its law depends on the mesh: the variance of a mode falls with the number of pixels."""

    @property
    def white(self) -> bool:
        return True

    def sample(self, shape: Sequence[int] | Size, *, generator: Generators, like: Tensor) -> Tensor:
        return generator.randn(shape, like=like)

    def covariance(self, x: Tensor) -> Tensor:
        return x

    def precision(self, x: Tensor) -> Tensor:
        return x

    def log_det(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))

    def basis(self, rank: int) -> tuple[Boundary, tuple[float, ...]]:
        return Periodic(), (1.0,) * rank

    def eigenvalues(self, grid: Sequence[int] | Size) -> Tensor:
        return torch.full(tuple(grid), 1 / math.prod(grid), dtype=torch.float64)


@dataclass(frozen=True)
class WhiteModes(Noise):
    """C = (N/points) I on N pixels: every mode has the variance 1/points on every grid, and the pixels one that grows with N.

    Args:
        points: pixels of the grid on which a pixel has unit variance; usually that of training.
    """

    points: int

    def __post_init__(self) -> None:
        if self.points < 1:
            raise InputError(f"WhiteModes needs points >= 1, not {self.points}.")

    def _variance(self, grid: Sequence[int] | Size) -> float:
        return math.prod(grid) / self.points

    @property
    def white(self) -> bool:
        return True

    def sample(self, shape: Sequence[int] | Size, *, generator: Generators, like: Tensor) -> Tensor:
        return math.sqrt(self._variance(shape[2:])) * generator.randn(shape, like=like)

    def covariance(self, x: Tensor) -> Tensor:
        return self._variance(x.shape[2:]) * x

    def precision(self, x: Tensor) -> Tensor:
        return x / self._variance(x.shape[2:])

    def log_det(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), x[0].numel() * math.log(self._variance(x.shape[2:])))

    def basis(self, rank: int) -> tuple[Boundary, tuple[float, ...]]:
        return Periodic(), (1.0,) * rank

    def eigenvalues(self, grid: Sequence[int] | Size) -> Tensor:
        return torch.full(tuple(grid), 1 / self.points, dtype=torch.float64)
