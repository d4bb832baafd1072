"""The probability flow in an angle, where it is smooth and finite at both ends of every schedule.

With α = r cos φ, σ = r sin φ and u = x_t/r, the flow is du/dφ = v, v = E[cos φ ξ − sin φ x | x_t]. Nothing in it depends on
the schedule, which only tells at which t the denoiser is asked. φ runs from 0, the data, to π/2, where no signal is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.schedule import Schedule
from scorefield.core.sde import expand_like
from scorefield.foundation.random import Generators
from scorefield.samplers.ode import Solution, State, integrate
from scorefield.samplers.steps import Cond, Memory, Step


def angle(schedule: Schedule, t: Tensor) -> float:
    """φ = atan(σ/α)."""
    alpha, sigma = schedule(t.double())
    return math.atan2(float(sigma), float(alpha))


def time_at(schedule: Schedule, phi: Tensor) -> Tensor:
    """The t at which atan(σ/α) = φ."""
    return schedule.time(-2 * phi.tan().clamp(min=0).log())  # tan(π/2), rounded, is positive


def velocity(denoiser: DenoiserProtocol, u: Tensor, phi: Tensor, cond: Cond) -> Tensor:
    """v at u, with one φ per sample."""
    t = time_at(denoiser.sde.schedule, phi).to(u.dtype)  # coefficients of a batch in the precision of the network
    alpha, sigma = denoiser.sde.schedule(t)
    x_t = expand_like(torch.hypot(alpha, sigma), u) * u
    return denoiser.sde.velocity(denoiser(x_t, t, cond), x_t, t)


def of_rows(cond: Condition | None, rows: Tensor) -> Condition | None:
    """What some samples of a batch are conditioned on."""
    return None if cond is None else {name: value[rows] for name, value in cond.items()}


def follow(
    denoiser: DenoiserProtocol,
    x_t: Tensor,
    t: Tensor,
    s: Tensor,
    cond: Cond,
    tolerance: float,
    sizes: Tensor | None = None,
) -> Solution:
    """x_s by the probability flow, up or down, from t where α or σ may be 0; σ_s = 0 must not be."""

    def slope(rows: Tensor, phi: Tensor, state: State) -> State:
        return (velocity(denoiser, state[0], phi, of_rows(cond, rows)).to(state[0]),)

    schedule = denoiser.sde.schedule
    radius_t, radius_s = (float(torch.hypot(*schedule(time.double()))) for time in (t, s))
    solution = integrate(slope, (x_t / radius_t,), angle(schedule, t), angle(schedule, s), tolerance, sizes=sizes)
    return Solution((radius_s * solution.state[0],), solution.evaluations, solution.calls, solution.sizes)


@dataclass(frozen=True)
class Adaptive(Step):
    """The probability flow from t to s to a tolerance, each sample with steps of its own (Dormand and Prince 1980).

    One step of it does the whole way: `Sampler(steps=1, step=Adaptive(), denoise=False)`. Where σ_s = 0 the last stretch, in
    which the slope loses its digits, is one step of DDIM.

    Args:
        tolerance: of a step, for the root mean square over a field of error/(1 + |value|).
    """

    tolerance: float = 1e-4

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
        nearest = time_at(
            schedule, t.new_tensor(0.1 * math.sqrt(self.tolerance))
        )  # whose error is of order tolerance/100
        stop = s if schedule.sigma(s) > 0 else torch.minimum(nearest.maximum(s), t)
        solution = follow(denoiser, x_t, t, stop, cond, self.tolerance, memory)
        x_s = solution.state[0]
        if stop != s:
            x_s = schedule.alpha(s) * denoiser(x_s, stop, cond)
        return x_s, solution.sizes
