"""Probes: directions z with E zzᵀ = 1, so that the mean of zᵀJz is the trace of J (Hutchinson 1990)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators


class Probes(ABC):
    """Directions in which a divergence is measured, the same all along the way of a sample.

    Attributes:
        drawn: whether they are others each time, by the generator.
    """

    drawn: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, shape: Sequence[int], *, generator: Generators, like: Tensor) -> Tensor:
        """Directions (probes, batch, channels, *grid) for fields of a shape (batch, channels, *grid)."""


@dataclass(frozen=True)
class Rademacher(Probes):
    """z = ±1 by the toss of a coin: of all independent entries those with the least variance, 2 Σ_{i≠j} J_ij² for symmetric J.

    Args:
        count: directions per sample.
    """

    count: int = 1

    def __post_init__(self) -> None:
        _check(self.count)

    def __call__(self, shape: Sequence[int], *, generator: Generators, like: Tensor) -> Tensor:
        return torch.stack([generator.rademacher(shape, like=like) for _ in range(self.count)])


@dataclass(frozen=True)
class Normal(Probes):
    """z ~ N(0, 1): of variance 2 Σ J_ij² for symmetric J.

    Args:
        count: directions per sample.
    """

    count: int = 1

    def __post_init__(self) -> None:
        _check(self.count)

    def __call__(self, shape: Sequence[int], *, generator: Generators, like: Tensor) -> Tensor:
        return torch.stack([generator.randn(shape, like=like) for _ in range(self.count)])


@dataclass(frozen=True)
class Sphere(Probes):
    """z uniform on the sphere ‖z‖² = D: exact where J is a multiple of 1.

    Args:
        count: directions per sample.
    """

    count: int = 1

    def __post_init__(self) -> None:
        _check(self.count)

    def __call__(self, shape: Sequence[int], *, generator: Generators, like: Tensor) -> Tensor:
        z = Normal(self.count)(shape, generator=generator, like=like)
        norm = z.flatten(2).norm(dim=2).reshape(*z.shape[:2], *(1,) * (z.ndim - 2))
        return z * (math.sqrt(math.prod(shape[1:])) / norm)


@dataclass(frozen=True)
class Exact(Probes):
    """All D axes, √D long: the trace itself, at the price of D backward passes. For small D.

    Args:
        limit: the largest D that is taken on.
    """

    limit: int = 1024
    drawn: ClassVar[bool] = False

    def __call__(self, shape: Sequence[int], *, generator: Generators, like: Tensor) -> Tensor:
        size = math.prod(shape[1:])
        if size > self.limit:
            raise InputError(f"Exact divergences of {size} dimensions take as many backward passes: take Rademacher.")
        axes = math.sqrt(size) * torch.eye(size, device=like.device, dtype=like.dtype)
        return axes.reshape(size, 1, *shape[1:]).expand(-1, shape[0], *shape[1:])


def _check(count: int) -> None:
    if count < 1:
        raise InputError(f"At least one probe is needed, not {count}.")
