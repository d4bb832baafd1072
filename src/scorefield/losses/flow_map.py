"""Learning the two-time denoiser D(x_t; t, s) (scorefield.core.flow_map): from data where s = t, from itself elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.flow_map import jumped, mean_denoised, share
from scorefield.core.schedule import Schedule
from scorefield.core.sde import expand_like
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.denoising import mean_known, squared
from scorefield.losses.loss import Loss, Metric
from scorefield.losses.times import TimeDistribution, UniformTime
from scorefield.losses.weights import SNR, Norm, Weight


@dataclass(frozen=True)
class SelfDistillation(Loss):
    """w(t) · mean((D(x_t; t, s) − D*)²) with D* = w D(x_t; t, r) + (1 − w) D(x_r; r, s), which is held fixed, s ≤ r < t.

    A jump from t to s is to equal that to r and on from there (Boffi et al. 2024; Guo et al. 2025), whose beginning for r near
    t is a step of the flow (Geng et al. 2024; Sabour et al. 2025): the exact D has no residual, for any r. A share of each batch
    learns the denoiser, s = t, from the data as `Denoising` does, and it alone sees them.

    Args:
        time: the law of t.
        weight: w(t).
        denoising: the share of a batch that learns the denoiser.
        to_data: the share of jumps that end at t = 0; others end anywhere, uniformly in log σ/α.
        reach: the largest log of σ/α from t to r; the smaller, the less of D is built on what is not yet learnt.
        norm: of the difference, as for `Denoising`.
    """

    time: TimeDistribution = field(default_factory=UniformTime)
    weight: Weight = field(default_factory=SNR)
    denoising: float = 0.25
    to_data: float = 0.5
    reach: float = 1.0
    norm: Norm | None = None
    jumps = True

    def __post_init__(self) -> None:
        if not (0 < self.denoising < 1 and 0 <= self.to_data <= 1 and self.reach > 0):
            raise InputError("SelfDistillation needs 0 < denoising < 1, 0 <= to_data <= 1 and reach > 0.")

    @property
    def figures(self) -> tuple[Metric, ...]:
        return (SemigroupDefect(self),)

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        error, t, _ = self.residual(denoiser, batch, generator)
        known = mean_known(squared(error, self.norm, denoiser.sde.noise, batch), batch.mask)
        return self.weight(denoiser.sde.schedule, t) * known

    def residual(
        self, denoiser: DenoiserProtocol, batch: Batch, generator: Generators
    ) -> tuple[Tensor, Tensor, Tensor]:
        """D − D* of each sample, its t, and whether it jumps at all; x̂ − x where it does not."""
        schedule = denoiser.sde.schedule
        t = self.time(generator.rand((len(batch),), like=batch.x), schedule)
        s, r, jumps = self._ends(schedule, t, generator, batch.x)
        x_t, _ = denoiser.sde.perturb(batch.x, t, generator=generator)
        with torch.no_grad():
            first = mean_denoised(denoiser, x_t, t, r, batch.cond)
            x_r = jumped(denoiser.sde, first, x_t, t, r)
            rest = mean_denoised(denoiser, x_r, r, s, batch.cond)
            part = expand_like(share(schedule, t, r, s), x_t)
            goal = torch.where(expand_like(jumps, x_t), part * first + (1 - part) * rest, batch.x)
        return mean_denoised(denoiser, x_t, t, torch.where(jumps, s, t), batch.cond) - goal, t, jumps

    def _ends(
        self, schedule: Schedule, t: Tensor, generator: Generators, like: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """s and r of each sample, and whether it jumps at all."""
        u, v, kind = generator.rand((len(t), 3), like=like).unbind(1)
        lowest = schedule.time(t.new_tensor(16.0).expand(len(t)))  # log σ/α of −8 at least
        start, floor = -schedule.log_snr(t) / 2, -schedule.log_snr(lowest) / 2
        end = floor + u * (start - floor)
        kind = (kind - self.denoising) / (1 - self.denoising)
        whole = start - end.where(kind >= self.to_data, floor)
        near = start - v * whole.clamp(
            max=self.reach
        )  # between the two ends: a jump compared with itself teaches nothing
        s = torch.where(kind < self.to_data, torch.zeros_like(t), schedule.time(-2 * end)).minimum(t)
        r = schedule.time(-2 * near).minimum(t).maximum(s)
        return s, r, kind >= 0


@dataclass(frozen=True)
class SemigroupDefect(Metric):
    """√(mean (D − D*)² / mean x²) over the samples that jump: by how much jumps do not compose. 0 for the exact map.

    Args:
        loss: whose jumps.
    """

    loss: SelfDistillation
    name = "defect"

    def __call__(
        self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        error, _, jumps = self.loss.residual(denoiser, batch, generator)
        return jumps * mean_known(error.square(), batch.mask), jumps * mean_known(batch.x.square(), batch.mask)
