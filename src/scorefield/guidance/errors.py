"""The noise n of y = A(x) + n: its covariance R, R⁻¹ and log det R, of the entries of y that are known."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.foundation.errors import InputError

Map = Callable[[Tensor], Tensor]
DENSE = 2048  # known values up to which matrices are formed


class Errors(ABC):
    """N(0, R) on tensors (batch, *shape of y) that are 0 where nothing is known.

    Attributes:
        variance: that of each entry, where R is a multiple of the identity.
    """

    variance: float | None = None

    @abstractmethod
    def covariance(self, v: Tensor) -> Tensor:
        """R v."""

    @abstractmethod
    def precision(self, v: Tensor) -> Tensor:
        """R⁻¹ v."""

    @abstractmethod
    def log_det(self) -> float:
        """log det R."""

    @abstractmethod
    def whitening(self, known: Tensor, like: Tensor) -> tuple[Map, Map]:
        """z ↦ L⁻¹ z and z ↦ L⁻ᵀ z, R = L Lᵀ, of the known entries of one y as rows, (batch, M), on the device of `like`.

        Args:
            known: which entries are, of the flattened y.
            like: a tensor on that device.
        """


@dataclass(frozen=True, eq=False)
class Same(Errors):
    """R = σ² I.

    Args:
        std: σ.
        count: how many entries are known.
    """

    std: float
    count: int

    @property
    def variance(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.std**2

    def covariance(self, v: Tensor) -> Tensor:
        return self.variance * v

    def precision(self, v: Tensor) -> Tensor:
        return v / self.variance

    def log_det(self) -> float:
        return self.count * math.log(self.variance)

    def whitening(self, known: Tensor, like: Tensor) -> tuple[Map, Map]:
        return lambda z: z / self.std, lambda z: z / self.std


@dataclass(frozen=True, eq=False)
class Each(Errors):
    """R = diag σ²: a standard deviation for each entry.

    Args:
        variances: σ², (1 or batch, *shape of y), of one field for `log_det`.
        known: which entries are.
    """

    variances: Tensor
    known: Tensor

    def covariance(self, v: Tensor) -> Tensor:
        return self.variances.to(v) * v

    def precision(self, v: Tensor) -> Tensor:
        return v / self.variances.to(v)

    def log_det(self) -> float:
        return float(self.variances.double().expand(self.known.shape)[self.known].log().sum())

    def whitening(self, known: Tensor, like: Tensor) -> tuple[Map, Map]:
        std = self.variances[0].to(like.device).double().sqrt().flatten()[known]
        return lambda z: z / std, lambda z: z / std


@dataclass(frozen=True, eq=False)
class OfField(Errors):
    """R = C of a noise, where all of y is known.

    Args:
        noise: its law.
        y: a tensor like y.
    """

    noise: Noise
    y: Tensor

    def covariance(self, v: Tensor) -> Tensor:
        return self.noise.covariance(v)

    def precision(self, v: Tensor) -> Tensor:
        return self.noise.precision(v)

    def log_det(self) -> float:
        return float(self.noise.log_det(self.y[:1].double())[0])

    def whitening(self, known: Tensor, like: Tensor) -> tuple[Map, Map]:
        return Part(self.noise, torch.ones_like(self.y[:1], dtype=torch.bool)).whitening(known, like)


@dataclass(frozen=True, eq=False)
class Part(Errors):
    """The part of C that belongs to the known entries, as a matrix.

    Args:
        noise: its law.
        known: which entries are, (1, *shape of y).
    """

    noise: Noise
    known: Tensor
    factor: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        chosen = self.known[0].flatten()
        if (count := int(chosen.sum())) > DENSE:
            raise InputError(
                f"Of noise with a covariance {count} of {len(chosen)} values are known, more than {DENSE} to invert: measure "
                "all, or give a standard deviation for each value."
            )
        unit = torch.eye(len(chosen), dtype=torch.float64)[chosen].reshape(count, *self.known.shape[1:])
        matrix = self.noise.covariance(unit).flatten(1)[:, chosen]
        object.__setattr__(self, "factor", torch.linalg.cholesky((matrix + matrix.T) / 2))

    def covariance(self, v: Tensor) -> Tensor:
        return torch.where(self.known.to(v.device), self.noise.covariance(v), 0)

    def precision(self, v: Tensor) -> Tensor:
        chosen = self.known[0].flatten()
        flat = v.flatten(1)
        found = torch.zeros_like(flat)
        found[:, chosen] = torch.cholesky_solve(flat[:, chosen].T.double(), self.factor.to(v.device)).T.to(v)
        return found.reshape(v.shape)

    def log_det(self) -> float:
        return float(2 * self.factor.diagonal().log().sum())

    def whitening(self, known: Tensor, like: Tensor) -> tuple[Map, Map]:
        factor = self.factor.to(like.device)

        def inverse(z: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(factor, z.T, upper=False).T

        def transposed(z: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(factor.T, z.T, upper=True).T

        return inverse, transposed
