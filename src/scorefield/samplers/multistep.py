"""Steps of any order along the probability flow from evaluations that were made before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.schedule import Schedule
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.samplers.steps import Cond, Memory, Step

Evaluations = tuple[tuple[Tensor, Tensor], ...]  # of x̂, the last one first, each with its log(α/σ)


@dataclass(frozen=True)
class UniPC(Step):
    """x_s = (σ_s/σ_t) x_t + α_s ∫₀ʰ e^(τ−h) D(τ) dτ, h the change of log(α/σ), D the polynomial in log(α/σ) through the last x̂.

    The predictor goes through `order` evaluations; with the evaluation at its end, the corrector takes the step once more
    before the next one starts: one evaluation per step, and errors of one order more (UniPC, Zhao et al. 2023, all coefficients
    from the conditions of order). The first step is of first order, of second when it is corrected, so that the whole is of third
    at most; steps that start at α_t = 0 or end at σ_s = 0 are of first.

    Args:
        order: evaluations that the predictor goes through, 1 to 4; 1 without a corrector is DDIM, 2 is `DPMSolverPP2M`
            with an exact integral.
        correct: whether to correct.
    """

    order: int = 2
    correct: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 4:
            raise InputError(f"UniPC needs an order from 1 to 4, not {self.order}.")

    def __call__(
        self,
        denoiser: DenoiserProtocol,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Cond,
        *,
        generator: Generators,
        memory: Memory,
    ) -> tuple[Tensor, Memory]:
        schedule = denoiser.sde.schedule
        past: Evaluations = ()
        now = (schedule.log_snr(t) / 2, denoiser(x_t, t, cond))
        if memory is not None:
            x_r, r, past = memory
            if self.correct:
                x_t = moved(schedule, x_r, r, t, (now, *past[: self.order]))
        known = (now, *past)[: self.order]
        return moved(schedule, x_t, t, s, known), (x_t, t, known)


def moved(schedule: Schedule, x_t: Tensor, t: Tensor, s: Tensor, known: Evaluations) -> Tensor:
    """x_s, with the polynomial through some evaluations; with that at t alone where the integral has an infinite end."""
    (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    start = schedule.log_snr(t) / 2
    h = schedule.log_snr(s) / 2 - start
    if torch.isfinite(h):
        known = tuple(one for one in known if torch.isfinite(one[0]))
        shares = weights(h, [level - start for level, _ in known])
    else:
        known = tuple(one for one in known if one[0] == start)
        shares = [-torch.expm1(-h)]
    target = sum(share * denoised for share, (_, denoised) in zip(shares, known, strict=True))
    return (sigma_s / sigma_t) * x_t + alpha_s * target


def weights(h: Tensor, nodes: Sequence[Tensor]) -> Sequence[Tensor]:
    """w_j = ∫₀ʰ e^(τ−h) L_j(τ) dτ with Lagrange's polynomials of the nodes: Σ_j w_j τ_jᵏ = ∫₀ʰ e^(τ−h) τᵏ dτ for each k."""
    places = torch.stack([node / h for node in nodes])
    moments = [-torch.expm1(-h)]
    for k in range(1, len(nodes)):
        moments.append(torch.ones_like(h) - k / h * moments[-1])
    powers = torch.stack([places**k for k in range(len(nodes))])
    return torch.linalg.solve(powers, torch.stack(moments)).unbind()
