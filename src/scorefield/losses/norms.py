"""Norms of x̂ − x: in which space its square is taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from scorefield.core.noise import Noise


class Norm(ABC):
    """A squared norm as a density: numbers, one per element of a field, whose sum it is.

    Attributes:
        local: each depends on its own element alone.
    """

    local: bool

    @abstractmethod
    def __call__(self, error: Tensor, noise: Noise) -> Tensor: ...


@dataclass(frozen=True)
class SquaredError(Norm):
    """‖x̂ − x‖²: every element counts the same, and so every mode by its variance. The leading modes of a field decide."""

    local = True

    def __call__(self, error: Tensor, noise: Noise) -> Tensor:
        return error.square()


@dataclass(frozen=True)
class Mahalanobis(Norm):
    """‖C^−½(x̂ − x)‖² = ⟨x̂ − x, C⁻¹(x̂ − x)⟩: every mode counts in units of its noise.

    Its mean is that of |x̂_k − x_k|²/λ_k over the modes of the grid. Needs a noise with a `precision`.
    """

    local = False

    def __call__(self, error: Tensor, noise: Noise) -> Tensor:
        return error * noise.precision(error)
