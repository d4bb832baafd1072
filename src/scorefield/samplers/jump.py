"""Steps of a flow map: from noise to data in one to a few evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.flow_map import jumped, mean_denoised
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.samplers.steps import Cond, Memory, Step


@dataclass(frozen=True)
class Jump(Step):
    """x_s by one evaluation of the two-time denoiser, however far s is; the last one goes to t = 0.

    With `renoise` γ it jumps to (1 − γ) σ_s/α_s and puts noise back, up to s: γ = 1 is consistency sampling (Song et al. 2023,
    algorithm 1), which forgets the errors of jumps before, 0 follows the flow. For a denoiser without a second time 0 is DDIM.

    Args:
        renoise: γ.
    """

    renoise: float = 0.0
    jumps = True

    def __post_init__(self) -> None:
        if not 0 <= self.renoise <= 1:
            raise InputError(f"Jump needs 0 <= renoise <= 1, not {self.renoise}.")

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
        sde, end = denoiser.sde, self._end(denoiser, s)
        x_s = jumped(sde, mean_denoised(denoiser, x_t, t, end, cond), x_t, t, end)
        if end == s:
            return x_s, None
        a, q = sde.transition(end, s)
        return a * x_s + q * sde.noise.sample(x_t.shape, generator=generator, like=x_t), None

    def _end(self, denoiser: DenoiserProtocol, s: Tensor) -> Tensor:
        """The t at which σ/α is 1 − γ times that of s."""
        if self.renoise in (0, 1):
            return s if self.renoise == 0 else torch.zeros_like(s)
        schedule = denoiser.sde.schedule
        return schedule.time(schedule.log_snr(s) - 2 * math.log1p(-self.renoise)).minimum(s)

    def finish(self, denoiser: DenoiserProtocol, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return mean_denoised(denoiser, x_t, t, torch.zeros_like(t), cond)
