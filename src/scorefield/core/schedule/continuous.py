"""The published schedules with a formula for everything: VE, VP, sub-VP, cosine, EDM, rectified flow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from scorefield.core.schedule.base import Schedule, Time, require


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding: α = 1, σ = σ_min (σ_max/σ_min)^t (Song et al. 2021, eq. 30).

    Args:
        sigma_min: the smallest noise scale, in units of the normalised data.
        sigma_max: the largest; as large as the largest distance between two data (Song and Ermon 2020, technique 1).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        require(0 < self.sigma_min < self.sigma_max, "VE needs 0 < sigma_min < sigma_max")

    @property
    def _growth(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Time) -> Time:
        return torch.ones_like(t)

    def sigma(self, t: Time) -> Time:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t  # exp(growth · t) in float32 is 5e-7 off

    def drift(self, t: Time) -> Time:
        return torch.zeros_like(t)

    def diffusion(self, t: Time) -> Time:
        return self.sigma(t) * math.sqrt(2 * self._growth)

    def invert(self, log_snr: Time) -> Time:
        return (-log_snr / 2 - math.log(self.sigma_min)) / self._growth


@dataclass(frozen=True)
class LinearBeta(Schedule):
    """Schedules with f = −β/2, β(t) = β_min + (β_max − β_min) t, hence −log α = β_min t/2 + (β_max − β_min) t²/4.

    Args:
        beta_min: β(0).
        beta_max: β(1).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        require(0 <= self.beta_min <= self.beta_max and self.beta_max > 0, "0 <= beta_min <= beta_max must hold")

    def decay(self, t: Time) -> Time:
        """−log α(t)."""
        return 0.5 * self.beta_min * t + 0.25 * (self.beta_max - self.beta_min) * t**2

    def time_of_decay(self, decay: Time) -> Time:
        """The t at which −log α(t) = decay: the root of a quadratic, in the form that loses no digits near 0."""
        root = (self.beta_min**2 + 4 * (self.beta_max - self.beta_min) * decay).sqrt()
        return torch.where(decay > 0, 4 * decay / (self.beta_min + root), 0)

    def alpha(self, t: Time) -> Time:
        return (-self.decay(t)).exp()

    def drift(self, t: Time) -> Time:
        return -0.5 * self._beta(t)

    def _beta(self, t: Time) -> Time:
        return self.beta_min + (self.beta_max - self.beta_min) * t


@dataclass(frozen=True)
class VP(LinearBeta):
    """Variance preserving: σ² = 1 − α² (Song et al. 2021, eq. 29), the limit of DDPM."""

    def sigma(self, t: Time) -> Time:
        return (-torch.expm1(-2 * self.decay(t))).sqrt()  # 1 − α² loses every digit as t → 0

    def diffusion(self, t: Time) -> Time:
        return self._beta(t).sqrt()

    def invert(self, log_snr: Time) -> Time:
        return self.time_of_decay(torch.nn.functional.softplus(-log_snr) / 2)


@dataclass(frozen=True)
class SubVP(LinearBeta):
    """Sub-variance preserving: σ = 1 − α² (Song et al. 2021, eq. 29)."""

    def sigma(self, t: Time) -> Time:
        return -torch.expm1(-2 * self.decay(t))

    def diffusion(self, t: Time) -> Time:
        return (-self._beta(t) * torch.expm1(-4 * self.decay(t))).sqrt()

    def invert(self, log_snr: Time) -> Time:
        return self.time_of_decay(torch.asinh((-log_snr / 2).exp() / 2))  # α/σ = 1 / (2 sinh(−log α))


@dataclass(frozen=True)
class Cosine(Schedule):
    """α = cos φ / cos φ₀, σ² = 1 − α², φ from φ₀ to π/2 (Nichol and Dhariwal 2021, eq. 17); plain for offset 0.

    Args:
        offset: Nichol's s; φ₀ = (π/2) s/(1 + s). Theirs is 0.008.
    """

    offset: float = 0.0

    def __post_init__(self) -> None:
        require(self.offset >= 0, "Cosine needs offset >= 0")

    @property
    def _start(self) -> float:
        return math.pi / 2 * self.offset / (1 + self.offset)

    @property
    def _speed(self) -> float:
        return math.pi / 2 - self._start

    def _angle(self, t: Time) -> Time:
        return self._start + self._speed * t

    def _cosine(self, t: Time) -> Time:
        return (self._speed * (1 - t)).sin()  # cos φ = sin(π/2 − φ): exactly 0 at t = 1 and all digits near it

    def _tangent(self, t: Time) -> Time:
        return self._angle(t).sin() / self._cosine(t)

    def alpha(self, t: Time) -> Time:
        return self._cosine(t) / math.cos(self._start)

    def sigma(self, t: Time) -> Time:
        rise = (self._speed * t).sin() * (self._angle(t) + self._start).sin()  # cos²φ₀ − cos²φ
        return rise.clamp(min=0).sqrt() / math.cos(self._start)

    def drift(self, t: Time) -> Time:
        return -self._speed * self._tangent(t)

    def diffusion(self, t: Time) -> Time:
        return (2 * self._speed * self._tangent(t)).sqrt()

    def invert(self, log_snr: Time) -> Time:
        sine = math.sin(self._start) ** 2 + math.cos(self._start) ** 2 * torch.sigmoid(-log_snr)
        cosine = math.cos(self._start) * torch.sigmoid(log_snr).sqrt()
        return (torch.atan2(sine.sqrt(), cosine) - self._start) / self._speed


@dataclass(frozen=True)
class EDM(Schedule):
    """α = 1, σ = (σ_min^{1/ρ} + t (σ_max^{1/ρ} − σ_min^{1/ρ}))^ρ (Karras et al. 2022, eq. 5, as a function of time).

    Args:
        sigma_min: the smallest noise scale, in units of the normalised data.
        sigma_max: the largest.
        rho: how much the levels crowd towards σ_min.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        require(0 < self.sigma_min < self.sigma_max and self.rho > 0, "EDM needs 0 < sigma_min < sigma_max and rho > 0")

    @property
    def _ends(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def alpha(self, t: Time) -> Time:
        return torch.ones_like(t)

    def sigma(self, t: Time) -> Time:
        start, end = self._ends
        return (start + t * (end - start)) ** self.rho

    def drift(self, t: Time) -> Time:
        return torch.zeros_like(t)

    def diffusion(self, t: Time) -> Time:
        start, end = self._ends
        return self.sigma(t) * (2 * self.rho * (end - start) / (start + t * (end - start))).sqrt()

    def invert(self, log_snr: Time) -> Time:
        start, end = self._ends
        return ((-log_snr / (2 * self.rho)).exp() - start) / (end - start)


@dataclass(frozen=True)
class Rectified(Schedule):
    """Straight paths: α = 1 − t, σ = t (Liu et al. 2023; Lipman et al. 2023)."""

    def alpha(self, t: Time) -> Time:
        return 1 - t

    def sigma(self, t: Time) -> Time:
        return t.clone()

    def drift(self, t: Time) -> Time:
        return -1 / (1 - t)

    def diffusion(self, t: Time) -> Time:
        return (2 * t / (1 - t)).sqrt()

    def invert(self, log_snr: Time) -> Time:
        return torch.sigmoid(-log_snr / 2)
