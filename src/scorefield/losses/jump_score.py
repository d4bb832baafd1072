"""Proper scores of the draws of a flow map, which see what distillation left wrong: the map learns from its own draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.flow_map import mean_denoised
from scorefield.core.sde import expand_like
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.ensemble import EnergyScore, Score, fair
from scorefield.losses.flow_map import SelfDistillation
from scorefield.losses.loss import Loss, Metric

DEFAULT = (EnergyScore(), EnergyScore(8), EnergyScore(4))


@dataclass(frozen=True)
class JumpScore(Loss):
    """Distillation + λ Σ_k S_k of M draws by jumps against x (scorefield.losses.ensemble).

    A draw is D(x_t; t, 0), of noise at t = 1 or, for half of the samples, of a draw before it with noise put back at one of some
    levels, as `Jump` with γ = 1 takes it; only its last jump has a gradient. The scores are least where the law of draws
    is that of the data, whatever the flow says of them, so that they correct a map in the few evaluations that it is used in.

    Args:
        distillation: goes on with what made it a flow map.
        scores: the S_k; by default the energy score of the whole and of patches of 4 and 8 points.
        factor: λ.
        levels: σ/α where noise is put back.
        members: M.
    """

    distillation: SelfDistillation = field(default_factory=SelfDistillation)
    scores: Sequence[Score] | None = None
    factor: float = 1.0
    levels: Sequence[float] = (1.0,)
    members: int = 2
    jumps = True

    def __post_init__(self) -> None:
        if (self.scores is not None and not self.scores) or self.members < 2 or not self.factor > 0:
            raise InputError("JumpScore needs at least one score, members >= 2 and factor > 0.")
        if not self.levels or not all(level > 0 for level in self.levels):
            raise InputError(f"JumpScore needs levels above 0, not {list(self.levels)}.")

    @property
    def figures(self) -> tuple[Metric, ...]:
        return self.distillation.figures

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        score = self.of_draws(denoiser, batch, generator)
        return self.distillation(denoiser, batch, generator=generator) + score

    def of_draws(self, denoiser: DenoiserProtocol, batch: Batch, generator: Generators) -> Float[Tensor, " batch"]:
        """λ Σ_k S_k."""
        known = torch.ones_like(batch.x) if batch.mask is None else batch.mask.expand_as(batch.x).to(batch.x)
        draws = [self.draw(denoiser, batch, generator) for _ in range(self.members)]
        errors = [(x - batch.x).where(known > 0, 0) for x in draws]
        scores = DEFAULT if self.scores is None else self.scores
        return fair(scores, [self.factor] * len(scores), errors, known)

    def draw(self, denoiser: DenoiserProtocol, batch: Batch, generator: Generators) -> Tensor:
        """A draw for each sample of a batch, given what goes with it."""
        sde, like = denoiser.sde, batch.x
        one, kind = torch.ones((), dtype=torch.float64), generator.rand((len(batch), 2), like=like)
        noise = sde.prior(like.shape, one, generator=generator, like=like)
        start = torch.ones_like(kind[:, 0])
        with torch.no_grad():
            before = mean_denoised(denoiser, noise, start, torch.zeros_like(start), batch.cond)
        place = (kind[:, 1] * len(self.levels)).long().clamp(max=len(self.levels) - 1)
        level = torch.tensor(self.levels, dtype=torch.float64, device=like.device)[place]
        t = sde.schedule.time(-2 * level.log()).to(like)
        x_t, _ = sde.perturb(before, t, generator=generator)
        again = kind[:, 0] < 0.5
        t, x_t = torch.where(again, t, start), torch.where(expand_like(again, noise), x_t, noise)
        return mean_denoised(denoiser, x_t, t, torch.zeros_like(t), batch.cond)
