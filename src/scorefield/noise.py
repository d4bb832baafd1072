"""Noise: the Gaussian measure N(0, C) that ξ is drawn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Size, Tensor

from scorefield.random import Generators


class Noise(ABC):
    """A centred Gaussian measure on fields with covariance C."""

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


@dataclass(frozen=True)
class White(Noise):
    """C = I: unit variance per pixel. Its law depends on the mesh; fields on several grids want a field noise."""

    def sample(self, shape: Sequence[int] | Size, *, generator: Generators, like: Tensor) -> Tensor:
        return generator.randn(shape, like=like)

    def covariance(self, x: Tensor) -> Tensor:
        return x

    def precision(self, x: Tensor) -> Tensor:
        return x

    def log_det(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))
