"""Schedules: the signal and noise scales (α, σ) of x_t = α(t) x + σ(t) ξ, t in [0, 1], 0 = data, 1 = noise.

Everything else follows from the two. With the log-signal-to-noise ratio λ = log(α²/σ²), which falls strictly, the linear SDE
dx = f x dt + g dw that has these marginals is f = (log α)′, g² = α² (σ²/α²)′ = −σ² λ′ (Kingma et al. 2021, appendix B).

Endpoints: σ(0) may be positive (VE, EDM, Tabulated: the smallest level), α(1) may be 0 (Rectified, Cosine).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.errors import InputError

Time = Float[Tensor, "*batch"]


class Schedule(ABC):
    """Signal and noise scales. Give the five functions below, or derive from `Numerical` and give the first two."""

    @abstractmethod
    def alpha(self, t: Time) -> Time:
        """Signal scale α(t)."""

    @abstractmethod
    def sigma(self, t: Time) -> Time:
        """Noise scale σ(t)."""

    @abstractmethod
    def drift(self, t: Time) -> Time:
        """f(t) = (log α)′, with dx = f x dt + g dw."""

    @abstractmethod
    def diffusion(self, t: Time) -> Time:
        """g(t) = √(−σ² λ′)."""

    @abstractmethod
    def invert(self, log_snr: Time) -> Time:
        """The t at which λ(t) = log_snr, for values that the schedule reaches. Callers use `time`."""

    def __call__(self, t: Time) -> tuple[Time, Time]:
        return self.alpha(t), self.sigma(t)

    def log_snr(self, t: Time) -> Time:
        """λ(t) = log(α²/σ²); +∞ where σ = 0 and −∞ where α = 0."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: Time) -> Time:
        """The t at which λ(t) = log_snr; values out of reach give the nearest end of [0, 1]."""
        start, end = self.log_snr(log_snr.new_tensor([0.0, 1.0]))
        return self.invert(log_snr.clamp(end, start)).clamp(0, 1)


class Numerical(Schedule):
    """For a schedule of your own: give α(t) and σ(t) alone, smooth in t.

    The derivatives come from automatic differentiation and the inverse from bisection, both in float64.
    """

    def drift(self, t: Time) -> Time:
        return _derivative(lambda t: self.alpha(t).log(), t)

    def diffusion(self, t: Time) -> Time:
        return (-_derivative(self.log_snr, t)).sqrt() * self.sigma(t)

    def invert(self, log_snr: Time) -> Time:
        low, high = torch.zeros_like(log_snr, dtype=torch.float64), torch.ones_like(log_snr, dtype=torch.float64)
        for _ in range(60):
            middle = (low + high) / 2
            before = self.log_snr(middle) > log_snr
            low, high = torch.where(before, middle, low), torch.where(before, high, middle)
        return ((low + high) / 2).to(log_snr.dtype)


def _derivative(function, t: Tensor) -> Tensor:  # noqa: ANN001
    with torch.enable_grad():
        point = t.detach().double().requires_grad_()
        value = function(point).sum() + 0 * point.sum()  # so that a constant, too, has a derivative
        return torch.autograd.grad(value, point)[0].to(t.dtype)


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
        _require(0 < self.sigma_min < self.sigma_max, "VE needs 0 < sigma_min < sigma_max")

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
        _require(0 <= self.beta_min <= self.beta_max and self.beta_max > 0, "0 <= beta_min <= beta_max must hold")

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
        _require(self.offset >= 0, "Cosine needs offset >= 0")

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
        _require(
            0 < self.sigma_min < self.sigma_max and self.rho > 0, "EDM needs 0 < sigma_min < sigma_max and rho > 0"
        )

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


class Tabulated(Schedule):
    """A table of levels k = 0..N−1 in order of growing noise, at t_k = k/(N−1).

    The entries themselves are returned bit-exactly; between them log α and λ are linear in t.

    Args:
        alphas: signal scales, positive.
        sigmas: noise scales, positive; α/σ falls strictly.
    """

    def __init__(self, alphas: Tensor | Sequence[float], sigmas: Tensor | Sequence[float]) -> None:
        self.alphas = torch.as_tensor(alphas, dtype=torch.float64)
        self.sigmas = torch.as_tensor(sigmas, dtype=torch.float64)
        _require(
            self.alphas.shape == self.sigmas.shape and len(self.alphas) > 1, "as many alphas as sigmas, at least 2"
        )
        _require(
            bool((self.alphas > 0).all() and (self.sigmas > 0).all()), "tabulated alphas and sigmas must be positive"
        )
        self._log_alpha = self.alphas.log()
        self._log_snr = 2 * (self._log_alpha - self.sigmas.log())
        _require(
            bool((self._log_snr.diff() < 0).all()), "the table must be in order of growing noise (alpha/sigma falls)"
        )

    def __len__(self) -> int:
        return len(self.alphas)

    def alpha(self, t: Time) -> Time:
        return self._look_up(self.alphas, t)

    def sigma(self, t: Time) -> Time:
        return self._look_up(self.sigmas, t)

    def drift(self, t: Time) -> Time:
        return self._slope(self._log_alpha, t)

    def diffusion(self, t: Time) -> Time:
        return self.sigma(t) * (-self._slope(self._log_snr, t)).sqrt()

    def invert(self, log_snr: Time) -> Time:
        falling = -self._log_snr.to(log_snr)
        k = (torch.searchsorted(falling, -log_snr.contiguous(), right=True) - 1).clamp(0, len(self) - 2)
        weight = (-log_snr - falling[k]) / (falling[k + 1] - falling[k])
        return (k + weight) / (len(self) - 1)

    def index(self, t: Time) -> Time:
        """The position k = t (N−1) in the table."""
        return table_position(t, len(self))

    def _look_up(self, table: Tensor, t: Tensor) -> Tensor:
        """Linear in the logarithm between entries; at them the weight is 0 and the entry comes back bit-exactly."""
        position = self.index(t).cpu()
        k = position.long().clamp(0, len(self) - 1)
        above = (k + 1).clamp(max=len(self) - 1)
        return (table[k] * (table[above] / table[k]) ** (position - k)).to(t)

    def _slope(self, table: Tensor, t: Tensor) -> Tensor:
        above = self.index(t).cpu().ceil()  # steps go down: at an entry, the slope below it
        k = (above - 1).clamp(0, len(self) - 2).long()
        return ((table[k + 1] - table[k]) * (len(self) - 1)).to(t)


def table_position(t: Time, levels: int) -> Time:
    """k = t (N−1), in float64; whole at the entries t_k = k/(N−1), to which t was rounded in its own precision."""
    position = t.double() * (levels - 1)
    whole = position.round()
    return torch.where((position - whole).abs() <= levels * torch.finfo(t.dtype).eps, whole, position)


def geometric(sigma_min: float, sigma_max: float, levels: int) -> Tabulated:
    """NCSN's table: α = 1 and σ geometric from σ_min to σ_max (Song and Ermon 2019)."""
    _require(0 < sigma_min < sigma_max and levels > 1, "a geometric table needs 0 < sigma_min < sigma_max and 2 levels")
    sigmas = torch.linspace(math.log(sigma_min), math.log(sigma_max), levels, dtype=torch.float64).exp()
    return Tabulated(torch.ones_like(sigmas).tolist(), sigmas.tolist())


def ddpm(beta_min: float = 0.1, beta_max: float = 20.0, levels: int = 1000) -> Tabulated:
    """DDPM's table: β_k linear from β_min/N to β_max/N, α_k² = Π(1 − β_i), σ² = 1 − α² (Ho et al. 2020)."""
    betas = torch.linspace(beta_min / levels, beta_max / levels, levels, dtype=torch.float64)
    log_alpha = 0.5 * torch.log1p(-betas).cumsum(0)
    return Tabulated(log_alpha.exp().tolist(), (-torch.expm1(2 * log_alpha)).sqrt().tolist())


def level_ratio(dimension: int) -> float:
    """The ratio γ = σ_{i−1}/σ_i > 1 of NCSNv2's levels for data of the given dimension D (Song and Ermon 2020, technique 2).

    Solves Φ(√(2D)(γ−1) + 3γ) − Φ(√(2D)(γ−1) − 3γ) = 0.5: neighbouring levels overlap by half.
    """
    _require(dimension >= 5, f"technique 2 has no solution for data of dimension {dimension} < 5")

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    def overlap(gamma: float) -> float:
        shift = math.sqrt(2 * dimension) * (gamma - 1)
        return normal(shift + 3 * gamma) - normal(shift - 3 * gamma)

    low, high = 1.0, 2 / (1 - 3 / math.sqrt(2 * dimension))  # twice the γ that makes the second Φ a half
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if overlap(middle) > 0.5 else (low, middle)
    return (low + high) / 2


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message + ".")
