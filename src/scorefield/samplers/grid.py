"""Time grids: the levels at which a sampler evaluates the denoiser, from t_max down to t_min, in float64."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from scorefield.core.schedule import Schedule
from scorefield.foundation.errors import InputError

Times = Float64[Tensor, " levels"]


class TimeGrid(ABC):
    """Falling times for a schedule."""

    @abstractmethod
    def __call__(self, schedule: Schedule, levels: int) -> Times: ...


def _check(levels: int, t_min: float, t_max: float) -> None:
    if levels < 1 or not 0 <= t_min < t_max <= 1:
        raise InputError(f"A time grid needs levels >= 1 and 0 <= t_min < t_max <= 1, not {levels}, {t_min}, {t_max}.")


@dataclass(frozen=True)
class UniformGrid(TimeGrid):
    """Equal steps in t. With levels = N it is the table of a `Tabulated` schedule.

    Args:
        t_min: the last time. Song et al. take 1e-5 (VE) and 1e-3 (VP, sub-VP).
        t_max: the first time.
    """

    t_min: float = 1e-3
    t_max: float = 1.0

    def __call__(self, schedule: Schedule, levels: int) -> Times:
        _check(levels, self.t_min, self.t_max)
        return torch.linspace(self.t_max, self.t_min, levels, dtype=torch.float64)


@dataclass(frozen=True)
class EDMGrid(TimeGrid):
    """σ/α = (σ_max^{1/ρ} + i/(n−1) (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ (Karras et al. 2022, eq. 5).

    Args:
        rho: how much the levels crowd towards the smallest noise.
        ratio_min: the smallest σ/α, if the schedule goes so low; by default the schedule's own, or 0.002 where that is 0.
        ratio_max: the largest σ/α, if the schedule goes so high; by default its own, or 80 where that is infinite.
    """

    rho: float = 7.0
    ratio_min: float | None = None
    ratio_max: float | None = None

    def __call__(self, schedule: Schedule, levels: int) -> Times:
        _check(levels, 0.0, 1.0)
        lowest, highest = (-schedule.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)) / 2).exp().tolist()
        smallest = max(lowest, self.ratio_min or (0.0 if lowest else 0.002))
        largest = min(highest, self.ratio_max or (80.0 if math.isinf(highest) else highest))
        if not (0 < smallest < largest and self.rho > 0):
            raise InputError(
                f"An EDM grid needs rho > 0 and 0 < ratio_min < ratio_max, not {smallest:g} and {largest:g}."
            )
        first, last = largest ** (1 / self.rho), smallest ** (1 / self.rho)
        roots = first + torch.linspace(0, 1, levels, dtype=torch.float64) * (last - first)
        return schedule.time(-2 * self.rho * roots.log())


@dataclass(frozen=True)
class LogSNRGrid(TimeGrid):
    """Equal steps in λ = log(α²/σ²), between λ(t_max) and λ(t_min).

    Args:
        t_min: the last time; σ must be positive there.
        t_max: the first time; α must be positive there.
    """

    t_min: float = 1e-3
    t_max: float = 1.0

    def __call__(self, schedule: Schedule, levels: int) -> Times:
        _check(levels, self.t_min, self.t_max)
        ends = torch.tensor([self.t_max, self.t_min], dtype=torch.float64)
        first, last = schedule.log_snr(ends)
        if not bool(torch.isfinite(first) & torch.isfinite(last)):
            raise InputError(
                "log-SNR is infinite at an end of the grid: give t_max < 1 where α(1) = 0, t_min > 0 where σ(0) = 0."
            )
        times = schedule.time(first + torch.linspace(0, 1, levels, dtype=torch.float64) * (last - first))
        times[0], times[-1] = ends if levels > 1 else (ends[0], ends[0])
        return times


@dataclass(frozen=True)
class TimeTable(TimeGrid):
    """A given list of falling times; the number of levels asked for must be its length.

    Args:
        times: times in [0, 1], falling.
    """

    times: Sequence[float]

    def __call__(self, schedule: Schedule, levels: int) -> Times:
        times = torch.tensor(self.times, dtype=torch.float64)
        if len(times) != levels:
            raise InputError(f"The time table has {len(times)} levels but {levels} were asked for.")
        if not bool((times.diff() < 0).all() and times[0] <= 1 and times[-1] >= 0):
            raise InputError("A time table must fall strictly within [0, 1].")
        return times
