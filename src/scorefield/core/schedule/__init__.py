"""Schedules: the signal and noise scales (α, σ) of x_t = α(t) x + σ(t) ξ, t in [0, 1], 0 = data, 1 = noise.

Everything else follows from the two. With the log-signal-to-noise ratio λ = log(α²/σ²), which falls strictly, the linear SDE
dx = f x dt + g dw that has these marginals is f = (log α)′, g² = α² (σ²/α²)′ = −σ² λ′ (Kingma et al. 2021, appendix B).

Endpoints: σ(0) may be positive (VE, EDM, Tabulated: the smallest level), α(1) may be 0 (Rectified, Cosine).
"""

from scorefield.core.schedule.base import OFF, Numerical, Schedule, Time, levels, time_of_noise
from scorefield.core.schedule.continuous import EDM, VE, VP, Cosine, LinearBeta, Rectified, SubVP
from scorefield.core.schedule.tabulated import (
    Tabulated,
    ddpm,
    geometric,
    langevin_step,
    level_number,
    level_ratio,
    table_position,
)

__all__ = [
    "EDM", "OFF", "VE", "VP", "Cosine", "LinearBeta", "Numerical", "Rectified", "Schedule", "SubVP", "Tabulated", "Time",
    "ddpm", "geometric", "langevin_step", "level_number", "level_ratio", "levels", "table_position", "time_of_noise",
]  # fmt: skip
