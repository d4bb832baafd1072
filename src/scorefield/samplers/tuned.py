"""Levels and corrections of a few steps, fitted to a fine solution of the probability flow of the same denoiser.

From the same noise ξ a sampler of n steps ends at x(p; ξ), with p its levels and corrections, and the flow at x*(ξ). The p that
make E ‖x(p; ξ) − x*(ξ)‖² least are found by damped least squares (Levenberg 1944), which needs no derivative of the network:
a few tens of numbers have as many differences. Whether they are better is measured on noise that was not fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.schedule import Schedule
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.samplers.grid import EDMGrid, TimeGrid, TimeTable
from scorefield.samplers.loop import Sampler
from scorefield.samplers.steps import Cond, DPMSolverPP2M, Memory, Step

DIFFERENCE = 0.01  # of a parameter, for slopes
DAMPINGS = (1e-4, 1e-2, 1.0, 100.0)  # tried in turn, in parts of the curvature along each parameter
LOWEST, HIGHEST = 1e-3, 1e3  # σ/α of levels, where the schedule goes further
APART = 1e-3  # of neighbouring levels in log σ/α, at least
PATIENCE = 1e-3  # a round that lowers the error by less than this part is the last


@dataclass(frozen=True)
class CorrectedMultistep(Step):
    """x_s = (σ_s/σ_t) x_t + α_s (1 − e⁻ʰ) (x̂ + c_i h/(2h') (x̂ − x̂')), of x̂' the step before, whose log(α/σ) changed by h'.

    With c_i = 1 it is `DPMSolverPP2M`, with 0 DDIM, which the first step always is.

    Args:
        corrections: c_i of each step after the first.
    """

    corrections: Sequence[float]

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
        (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        denoised = target = denoiser(x_t, t, cond)
        number = 0
        if memory is not None:
            last, h_last, number = memory
            if number > len(self.corrections):
                raise InputError(
                    f"CorrectedMultistep has corrections for {len(self.corrections) + 1} steps: give as many as there are."
                )
            if torch.isfinite(h):
                target = denoised + self.corrections[number - 1] * h / (2 * h_last) * (denoised - last)
        return sigma_s / sigma_t * x_t - alpha_s * torch.expm1(-h) * target, (denoised, h, number + 1)


class Tuned(NamedTuple):
    """What was fitted to a flow.

    Attributes:
        times: the levels.
        corrections: of the steps after the first.
        error: the root mean square over fields and elements by which it misses the flow on fresh noise, in model space.
        before: likewise, of the sampler that it was fitted from.
        numbers: how many were fitted; 0 where they made nothing better.
    """

    times: tuple[float, ...]
    corrections: tuple[float, ...]
    error: float
    before: float
    numbers: int

    @property
    def sampler(self) -> Sampler:
        return corrected(self.times, self.corrections)


def corrected(times: Sequence[float], corrections: Sequence[float]) -> Sampler:
    """The sampler of some levels and corrections."""
    return Sampler(len(times), CorrectedMultistep(tuple(corrections)), TimeTable(tuple(times)))


def tune(
    solve: Callable[[Sampler, int], Tensor],
    schedule: Schedule,
    steps: int,
    *,
    fine: int = 64,
    rounds: int = 12,
    grids: Sequence[TimeGrid] = (EDMGrid(),),
    progress: Callable[[int, float], None] = lambda _round, _error: None,
) -> Tuned:
    """The sampler of some steps that comes nearest to the flow.

    Args:
        solve: where a sampler ends from noise of part 0, which is fitted, and of part 1, which is not, in model space.
        schedule: of the denoiser.
        steps: evaluations, of which the last one ends with x̂.
        fine: steps of the fine solution.
        rounds: of fitting, at most; each solves about 2 · steps + 1 times.
        grids: to begin with: DPM++ 2M on the best of them.
        progress: called with the number of a round and the error after it.
    """
    if steps < 2:
        raise InputError(f"Of {steps} step there is nothing to tune: give 2 or more.")
    goals = [solve(Sampler(fine, DPMSolverPP2M(), grids[0]), part).cpu().double() for part in (0, 1)]

    def missed(of: tuple[Sequence[float], Sequence[float]], part: int) -> Tensor:
        return (solve(corrected(*of), part).cpu().double() - goals[part]).flatten()

    families = [_Family(schedule, steps, grid) for grid in grids]
    family = min(families, key=lambda each: _size(missed(each(each.first), 0)))
    found, first = family(fit(lambda p: missed(family(p), 0), family.first, rounds, progress)), family(family.first)
    before, error = (_size(missed(each, 1)) for each in (first, found))
    if error >= before:
        return Tuned(*first, before, before, 0)
    return Tuned(*found, error, before, len(family.first))


def fit(
    residual: Callable[[Tensor], Tensor],
    first: Tensor,
    rounds: int,
    progress: Callable[[int, float], None] = lambda _round, _error: None,
) -> Tensor:
    """Parameters whose residuals have a smaller sum of squares, by damped least squares with slopes from differences."""

    def here(p: Tensor) -> Tensor:  # where the parameters are, and as precisely
        return residual(p).to(first)

    p, r = first, here(first)
    for number in range(rounds):
        columns = [(here(p + DIFFERENCE * step) - r) / DIFFERENCE for step in torch.eye(len(p), dtype=p.dtype)]
        slopes = torch.stack(columns, dim=1).nan_to_num(0.0, 0.0, 0.0)
        curvature, pull = slopes.T @ slopes, slopes.T @ r
        size = _size(r)
        if not curvature.diagonal().max() > 0:  # nothing depends on them
            break
        for damping in DAMPINGS:
            scale = curvature.diagonal() + 1e-12 * curvature.diagonal().max()
            trial = p - torch.linalg.solve(curvature + damping * scale.diag(), pull).clamp(-1, 1)
            other = here(trial)
            if _size(other) < _size(r):
                p, r = trial, other
                break
        progress(number, _size(r))
        if _size(r) > (1 - PATIENCE) * size:
            break
    return p


class _Family:
    """Samplers by their parameters: log σ/α of the first level, logs of the distances between levels in it, and corrections."""

    def __init__(self, schedule: Schedule, steps: int, grid: TimeGrid) -> None:
        self.schedule, self.steps = schedule, steps
        levels = -schedule.log_snr(grid(schedule, steps)) / 2
        if not bool(levels.isfinite().all()):
            raise InputError("The first grid has a level without noise, or without signal: begin with EDMGrid.")
        corrections = torch.ones(self.steps - 2, dtype=torch.float64)
        self.first = torch.cat((levels[:1], (-levels.diff()).log(), corrections))
        ends = -schedule.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)) / 2
        lowest, highest = ends.clamp(math.log(LOWEST), math.log(HIGHEST))
        apart = APART * torch.arange(self.steps, dtype=torch.float64)  # at an end of the schedule levels go on falling
        self.floor, self.ceiling = lowest + apart.flip(0), highest - apart

    def __call__(self, p: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Times and corrections."""
        falls, corrections = p[1 : self.steps].exp(), p[self.steps :]
        levels = torch.cat((p[:1], p[:1] - falls.cumsum(0))).maximum(self.floor).minimum(self.ceiling)
        times = self.schedule.time(-2 * levels)
        return tuple(times.tolist()), tuple(corrections.tolist())


def _size(r: Tensor) -> float:
    """The root mean square; ∞ where there is none."""
    size = float(r.square().mean().sqrt())
    return size if math.isfinite(size) else math.inf
