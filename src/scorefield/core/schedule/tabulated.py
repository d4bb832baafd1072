"""Schedules given as tables of levels: those of NCSN and DDPM, or of your own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.core.schedule.base import Schedule, Time, require

GOLDEN = (1 + math.sqrt(5)) / 2


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
        require(self.alphas.shape == self.sigmas.shape and len(self.alphas) > 1, "as many alphas as sigmas, at least 2")
        require(
            bool((self.alphas > 0).all() and (self.sigmas > 0).all()), "tabulated alphas and sigmas must be positive"
        )
        self._log_alpha = self.alphas.log()
        self._log_snr = 2 * (self._log_alpha - self.sigmas.log())
        require(
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
    require(0 < sigma_min < sigma_max and levels > 1, "a geometric table needs 0 < sigma_min < sigma_max and 2 levels")
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
    require(dimension >= 5, f"technique 2 has no solution for data of dimension {dimension} < 5")

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


def level_number(sigma_min: float, sigma_max: float, ratio: float) -> int:
    """How many levels a geometric table needs for neighbours that are at most a ratio apart, ends included."""
    require(0 < sigma_min < sigma_max and ratio > 1, "levels need 0 < sigma_min < sigma_max and a ratio above 1")
    return 1 + math.ceil(math.log(sigma_max / sigma_min) / math.log(ratio) - 1e-9)


def langevin_step(sigma_min: float, ratio: float, repeats: int) -> float:
    """ε of the smallest level for T steps on each (Song and Ermon 2020, technique 4).

    With r = ε/σ_L², T steps bring the variance of x on a level, relative to the level's own, from γ² to
    (1 − r)^{2T} (γ² − 2/(2 − r)) + 2/(2 − r), which is always above 1: r in (0, 1) brings it nearest to 1.
    """
    require(
        sigma_min > 0 and ratio > 1 and repeats >= 1, "a step needs sigma_min > 0, a ratio above 1 and repeats >= 1"
    )

    def variance(r: float) -> float:
        left = 2 / (2 - r)
        return (1 - r) ** (2 * repeats) * (ratio**2 - left) + left

    low, high = 0.0, 1.0
    for _ in range(200):  # golden section: it falls, then rises
        a, b = high - (high - low) / GOLDEN, low + (high - low) / GOLDEN
        low, high = (low, b) if variance(a) < variance(b) else (a, high)
    return (low + high) / 2 * sigma_min**2
