"""Spectral densities S(ω) of stationary isotropic fields, in physical units, up to a factor.

Each is a mixture of Gaussians, S(ω) = Σ_q w_q exp(−u_q |ω|²). A sum of S over a lattice is then one of products over its axes,
which makes the normalisation over infinitely many modes, and the folding of aliases, exact in any dimension.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.foundation.errors import InputError

STEP = 0.25  # of the quadrature in log u: its error is about exp(−π²/STEP) = 7e-18
DIGITS = 37.0  # −log of what is left out
FINEST = 20.0  # log of the largest ω²/κ² for which S is exact


class SpectralDensity(ABC):
    """S(ω), ω in radians per unit of length.

    Attributes:
        nugget: variance that every mode of the domain has besides, relative to that of the field: it keeps C invertible.
    """

    nugget: float = 0.0

    @property
    @abstractmethod
    def reach(self) -> float:
        """The correlation length ℓ, in units of length."""

    @abstractmethod
    def __call__(self, squared: Tensor, rank: int) -> Tensor:
        """S at |ω|² in so many dimensions."""

    @abstractmethod
    def mixture(self, rank: int) -> tuple[Float[Tensor, " terms"], Float[Tensor, " terms"]]:
        """u_q, falling towards 0, and w_q, in float64."""

    @abstractmethod
    def kernel(self, distance: Tensor, rank: int) -> Tensor:
        """The correlation at a distance in free space, 1 at distance 0."""


class InversePower(SpectralDensity):
    """S = (κ² + ω²)^−a: abstract, κ and a are left open. With ν = a − d/2 > 0 its kernel is Matérn's."""

    @property
    @abstractmethod
    def kappa(self) -> float:
        """κ, the inverse of a length."""

    @abstractmethod
    def power(self, rank: int) -> float:
        """a."""

    def __call__(self, squared: Tensor, rank: int) -> Tensor:
        return (self.kappa**2 + squared) ** -self.power(rank)

    def mixture(self, rank: int) -> tuple[Tensor, Tensor]:
        """(κ² + ω²)^−a = 1/Γ(a) ∫ uᵃ exp(−u(κ² + ω²)) d log u, by the trapezoidal rule."""
        a, smoothness = self.power(rank), self.power(rank) - rank / 2
        last, first = math.log(DIGITS + 13 + 10 * a), -DIGITS / smoothness - FINEST
        u = torch.arange(last, first, -STEP, dtype=torch.float64).exp()  # in units of 1/κ²
        weight = (a * u.log() - u - math.lgamma(a) - 2 * a * math.log(self.kappa)).exp() * STEP
        return u / self.kappa**2, weight

    def kernel(self, distance: Tensor, rank: int) -> Tensor:
        """2^(1−ν)/Γ(ν) (κr)^ν K_ν(κr)."""
        from scipy.special import kve

        smoothness, r = self.power(rank) - rank / 2, (self.kappa * distance).double().clamp(min=1e-12)
        bessel = torch.as_tensor(kve(smoothness, r.cpu().numpy())).to(r) * (-r).exp()
        value = (1 - smoothness) * math.log(2) - math.lgamma(smoothness) + smoothness * r.log()
        return torch.where(distance > 0, value.exp() * bessel, 1.0).to(distance)


@dataclass(frozen=True)
class Matern(InversePower):
    """S = (2ν/ℓ² + ω²)^−(ν + d/2): draws are ⌈ν⌉ − 1 times differentiable (Stein 1999, 2.10).

    Args:
        length: ℓ, in units of length.
        smoothness: ν.
        nugget: variance of every mode of the domain besides, relative to that of the field.
    """

    length: float
    smoothness: float = 1.0
    nugget: float = 0.0

    def __post_init__(self) -> None:
        _check("Matern", length=self.length, smoothness=self.smoothness)
        _check_nugget(self)

    @property
    def reach(self) -> float:
        return self.length

    @property
    def kappa(self) -> float:
        return math.sqrt(2 * self.smoothness) / self.length

    def power(self, rank: int) -> float:
        return self.smoothness + rank / 2


@dataclass(frozen=True)
class Exponential(InversePower):
    """S = (1/ℓ² + ω²)^−(d + 1)/2, the kernel exp(−r/ℓ): Matérn's with ν = ½, continuous and nowhere differentiable.

    Args:
        length: ℓ, in units of length.
        nugget: variance of every mode of the domain besides, relative to that of the field.
    """

    length: float
    nugget: float = 0.0

    def __post_init__(self) -> None:
        _check("Exponential", length=self.length)
        _check_nugget(self)

    @property
    def reach(self) -> float:
        return self.length

    @property
    def kappa(self) -> float:
        return 1 / self.length

    def power(self, rank: int) -> float:
        return (rank + 1) / 2


@dataclass(frozen=True)
class VonKarman(InversePower):
    """S = (κ² + ω²)^(−p/2), κ = 2π/outer: a power law ω^−p that levels off beyond an outer scale (von Kármán 1948).

    Turbulence has p = 11/3 in two dimensions of phase, p = 5/3 + d for velocities. The variance is finite for p > d alone.

    Args:
        outer: the outer scale, in units of length.
        exponent: p, above the number of dimensions.
        nugget: variance of every mode of the domain besides, relative to that of the field.
    """

    outer: float
    exponent: float = 11 / 3
    nugget: float = 0.0

    def __post_init__(self) -> None:
        _check("VonKarman", outer=self.outer, exponent=self.exponent)
        _check_nugget(self)

    @property
    def reach(self) -> float:
        return self.outer / (2 * math.pi)

    @property
    def kappa(self) -> float:
        return 2 * math.pi / self.outer

    def power(self, rank: int) -> float:
        if self.exponent <= rank:
            raise InputError(
                f"VonKarman needs an exponent above {rank} for fields of {rank} dimensions, not {self.exponent:g}: "
                "their variance would be infinite."
            )
        return self.exponent / 2


@dataclass(frozen=True)
class SquaredExponential(SpectralDensity):
    """S = exp(−ℓ²ω²/2), the kernel exp(−r²/2ℓ²). It falls so fast that C has an inverse only with a nugget.

    Args:
        length: ℓ, in units of length.
        nugget: variance of every mode of the domain besides, relative to that of the field.
    """

    length: float
    nugget: float = 1e-6

    def __post_init__(self) -> None:
        _check("SquaredExponential", length=self.length)
        _check_nugget(self)

    @property
    def reach(self) -> float:
        return self.length

    def __call__(self, squared: Tensor, rank: int) -> Tensor:
        return (-0.5 * self.length**2 * squared).exp()

    def mixture(self, rank: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([0.5 * self.length**2], dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def kernel(self, distance: Tensor, rank: int) -> Tensor:
        return (-0.5 * (distance / self.length) ** 2).exp()


def _check(kind: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise InputError(f"{kind} needs {name} > 0, not {value}.")


def _check_nugget(density: SpectralDensity) -> None:
    if not 0 <= density.nugget < math.inf:
        raise InputError(f"{type(density).__name__} needs nugget >= 0, not {density.nugget}.")
