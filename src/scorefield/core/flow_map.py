"""The two-time denoiser D(x_t; t, s): the flow map in the currency.

With u = x_t/α_t and ρ = σ_t/α_t the probability flow is du/dρ = (u − x̂)/ρ, and what it makes of x_t at s can be written as

    u_s = (ρ_s/ρ_t) u_t + (1 − ρ_s/ρ_t) D(x_t; t, s),

DDIM's step with D for x̂: D is the mean of x̂ along the way, with the weight dρ/ρ². D(x_t; t, t) = E[x | x_t], the
denoiser itself, and D(x_t; t, 0) is the consistency function (Song et al. 2023). Whoever knows no second time answers with x̂, and
its jump is DDIM's step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.core.denoiser import UNTIL, Condition, DenoiserProtocol
from scorefield.core.schedule import Schedule
from scorefield.core.sde import SDE, Field, Time
from scorefield.foundation.errors import InputError

Scales = tuple[Tensor, Tensor]  # α and σ


def mean_denoised(denoiser: DenoiserProtocol, x_t: Field, t: Time, s: Time, cond: Condition | None = None) -> Field:
    """D(x_t; t, s), for a denoiser that knows a second time; x̂(x_t, t) for any other."""
    return denoiser(x_t, t, {**(cond or {}), UNTIL: s.expand(len(x_t))})


def without_end(cond: Condition | None) -> Condition | None:
    """A condition without the second time: a denoiser then answers with x̂ = E[x | x_t]."""
    return None if cond is None else {name: value for name, value in cond.items() if name != UNTIL} or None


def jumped(sde: SDE, mean: Field, x_t: Field, t: Time, s: Time) -> Field:
    """x_s = α_s D + σ_s (x_t − α_t D)/σ_t."""
    alpha_s, sigma_s = sde.scales(s, x_t)
    return alpha_s * mean + sigma_s * sde.epsilon(mean, x_t, t)


def mean_gain(variance: tuple[Tensor, Tensor], start: Scales, stop: Scales) -> Tensor:
    """Of D(x_t; t, s) for x ~ N(0, Λ): (√(Λ_s/Λ_t) − σ_s/σ_t)/(α_s − α_t σ_s/σ_t), no number for s = t.

    Args:
        variance: Λ_t and Λ_s.
        start: α_t and σ_t.
        stop: α_s and σ_s.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = start, stop
    ratio = sigma_s / sigma_t
    return ((variance[1] / variance[0]).sqrt() - ratio) / (alpha_s - alpha_t * ratio)


def share(schedule: Schedule, t: Time, r: Time, s: Time) -> Time:
    """w of D(x_t; t, s) = w D(x_t; t, r) + (1 − w) D(x_r; r, s), s ≤ r ≤ t: w = (1/ρ_r − 1/ρ_t)/(1/ρ_s − 1/ρ_t).

    0 for s = 0, where σ = 0: then D is the same along the whole way. 1 for r = s = t.
    """
    inverse_t, inverse_r, inverse_s = ((schedule.log_snr(time) / 2).exp() for time in (t, r, s))
    whole = inverse_s - inverse_t
    return torch.where(whole > 0, (inverse_r - inverse_t) / whole, 1.0).nan_to_num(1.0)  # ∞/∞ where r = s = 0


def refuse_jumps(cond: Condition | None) -> None:
    """Refuse a second time where only x̂ can be changed, as by a classifier or a weaker model."""
    if cond is not None and UNTIL in cond:
        raise InputError(
            "Jump follows a flow map, which no classifier or weaker model guides: take a step of the denoiser, as "
            "--sampler DPMSolverPP2M --sampler.eta 1 --steps 18."
        )
