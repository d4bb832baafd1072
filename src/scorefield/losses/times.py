"""Time laws: where on [0, 1] a training example is placed. Independent of the loss weight."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.schedule import Schedule
from scorefield.foundation.errors import InputError


class TimeDistribution(ABC):
    """A law of t, given by its quantile function so that one uniform draw per sample decides."""

    @abstractmethod
    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The u-quantile of t, u in [0, 1)."""


@dataclass(frozen=True)
class Within(TimeDistribution):
    """Times of [t_min, t_max). Abstract: how they are spread is left open."""

    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max <= 1:
            raise InputError(f"{type(self).__name__} needs 0 <= t_min < t_max <= 1, not {self.t_min} and {self.t_max}.")


class UniformTime(Within):
    """t ~ U[t_min, t_max) (Song et al. 2021).

    Args:
        t_min: the smallest time; above 0 where σ(0) = 0 and the weight diverges there.
        t_max: the largest time.
    """

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        return self.t_min + (self.t_max - self.t_min) * u


@dataclass(frozen=True)
class LogNormal(TimeDistribution):
    """log(σ/α) ~ N(mean, std²), kept within the schedule's reach (Karras et al. 2022, table 1: −1.2, 1.2 at σ_data = 0.5).

    Args:
        mean: mean of log(σ/α).
        std: standard deviation of log(σ/α).
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise InputError(f"LogNormal needs std > 0, not {self.std}.")

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        log_sigma = self.mean + self.std * torch.special.ndtri(u.double().clamp(1e-12, 1 - 1e-12)).to(u)
        return schedule.time(-2 * log_sigma)


@dataclass(frozen=True)
class UniformLevels(TimeDistribution):
    """t uniform over the N entries t_k = k/(N−1) of a table: the discrete losses of SMLD and DDPM.

    Args:
        levels: N.
    """

    levels: int

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise InputError(f"UniformLevels needs levels >= 2, not {self.levels}.")

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        return (u * self.levels).floor().clamp(max=self.levels - 1) / (self.levels - 1)


class ImportanceSampled(Within):
    """t ∝ g²/σ² on [t_min, t_max): importance sampling for likelihood weighting, to go with `ImportanceSampledLikelihood`.

    Since g² = −σ² λ′, this is λ = log(α²/σ²) uniform between its values at the ends: exact, for every schedule.

    Args:
        t_min: the smallest time, above 0 where σ(0) = 0.
        t_max: the largest time, below 1 where α(1) = 0.
    """

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        first, last = schedule.log_snr(torch.tensor([self.t_min, self.t_max], dtype=torch.float64)).tolist()
        if not math.isfinite(first - last):
            raise InputError(
                "ImportanceSampled has no density up to an infinite log-SNR: give t_min > 0 where σ(0) = 0, "
                "t_max < 1 where α(1) = 0."
            )
        return schedule.time(first + (last - first) * u).clamp(self.t_min, self.t_max)
