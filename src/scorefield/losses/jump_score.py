"""Proper scores of the draws of a flow map, which see what distillation left wrong: the map learns from its own draws."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from jaxtyping import Float, Int
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

log = logging.getLogger("scorefield")

BY_CHANCE = {"label", "augment"}  # conditions that no two of a batch may have, though others have
FEW = 0.25  # part of a batch that has one of its condition, below which it is said that little is compared
DEFAULT = (EnergyScore(), EnergyScore(8), EnergyScore(4))


@dataclass(frozen=True)
class JumpScore(Loss):
    """Distillation + λ Σ_k S_k of draws by jumps against data (scorefield.losses.ensemble).

    A draw is D(x_t; t, 0), of noise at t = 1 or, for half of the samples, of a draw before it with noise put back at one of some
    levels, as `Jump` with γ = 1 takes it; only its last jump has a gradient. The scores are least where the law of draws
    is that of the data, whatever the flow says of them, so that they correct a map in the few evaluations that it is used in.

    With one member each draw is compared with all data of its condition that are computed at once, and with all other draws of as
    many jumps: the energy distance of two sets (Székely and Rizzo 2013), of which as many draws tell far more than two for each
    field do. That takes data without a condition, or with a class that others have, too.

    Args:
        distillation: goes on with what made it a flow map. None leaves it out: then only the jumps that are scored are
            taught, from t = 1 and from `levels` to 0, and x̂ is not kept.
        scores: the S_k; by default the energy score of the whole and of patches of 4 and 8 points.
        factor: λ.
        levels: σ/α where noise is put back.
        members: draws for each field of a batch, of as many jumps each; 2 or more where fields have conditions of their own, or
            are known in part.
    """

    distillation: SelfDistillation | None = field(default_factory=SelfDistillation)
    scores: Sequence[Score] | None = None
    factor: float = 1.0
    levels: Sequence[float] = (1.0,)
    members: int = 1
    jumps = True

    def __post_init__(self) -> None:
        if (self.scores is not None and not self.scores) or self.members < 1 or not self.factor > 0:
            raise InputError("JumpScore needs at least one score, members >= 1 and factor > 0.")
        if not self.levels or not all(level > 0 for level in self.levels):
            raise InputError(f"JumpScore needs levels above 0, not {list(self.levels)}.")

    @property
    def figures(self) -> tuple[Metric, ...]:
        return () if self.distillation is None else self.distillation.figures

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        score = self.of_draws(denoiser, batch, generator)
        return score if self.distillation is None else self.distillation(denoiser, batch, generator=generator) + score

    @property
    def together(self) -> int:
        return 2 if self.members == 1 else 1

    def of_draws(self, denoiser: DenoiserProtocol, batch: Batch, generator: Generators) -> Float[Tensor, " batch"]:
        """λ Σ_k S_k."""
        if self.members == 1:
            kind = self.kinds(batch, generator)
            return self.among_all(self.draw(denoiser, batch, kind, generator), kind, batch)
        scores = DEFAULT if self.scores is None else self.scores
        known = torch.ones_like(batch.x) if batch.mask is None else batch.mask.expand_as(batch.x).to(batch.x)
        kind = self.kinds(batch, generator)  # one for all: of a mixture, one jump would make up for the errors of two
        draws = [self.draw(denoiser, batch, kind, generator) for _ in range(self.members)]
        errors = [(x - batch.x).where(known > 0, 0) for x in draws]
        return fair(scores, [self.factor] * len(scores), errors, known)

    def among_all(self, draws: Tensor, kind: Int[Tensor, " batch"], batch: Batch) -> Float[Tensor, " batch"]:
        """λ Σ_k mean_j d(X_i, x_j) − ½ mean_{j ≠ i} d(X_i, X_j), j of the condition of i, in the second mean of as many jumps.

        A draw that no other is like has no second mean, and so no part.

        Args:
            draws: one for each field of the batch.
            kind: how each was made, see `draw`.
            batch: the data.
        """
        scores = DEFAULT if self.scores is None else self.scores
        if batch.mask is not None and not bool(batch.mask.all()):
            raise InputError(
                "Draws are compared with whole fields, and some are known in part: take flow-map-scored with "
                "train.loss.members 2."
            )
        alike = same_condition(batch.cond, batch.x)
        paired = int((alike.sum(1) > 1).sum())
        if len(alike) > 1 and not paired and not batch.cond.keys() <= BY_CHANCE:
            raise InputError(
                "Draws are compared with fields of the same condition, and no two have one: take flow-map-scored with "
                "train.loss.members 2."
            )
        if len(alike) > 1 and paired < FEW * len(alike):
            say_few(len(alike))
        others = alike & (kind[:, None] == kind) & ~torch.eye(len(kind), dtype=torch.bool, device=kind.device)
        count = others.sum(1)
        from_data = torch.stack([score.pairs(draws, batch.x) for score in scores]).sum(0)
        apart = torch.stack([score.pairs(draws, draws) for score in scores]).sum(0)
        found = (from_data * alike).sum(1) / alike.sum(1) - (apart * others).sum(1) / (2 * count.clamp(min=1))
        return self.factor * found.where(count > 0, 0)

    def kinds(self, batch: Batch, generator: Generators) -> Tensor:
        """How each sample of a batch is drawn: 0 by one jump, 1 + k by another from level k."""
        again, place = generator.rand((len(batch), 2), like=batch.x).unbind(1)
        place = (place * len(self.levels)).long().clamp(max=len(self.levels) - 1)
        return (1 + place).where(again < 0.5, 0)

    def draw(self, denoiser: DenoiserProtocol, batch: Batch, kind: Tensor, generator: Generators) -> Tensor:
        """A draw for each sample of a batch, by as many jumps as its kind says."""
        sde, like = denoiser.sde, batch.x
        one, start = torch.ones((), dtype=torch.float64), like.new_ones(len(like))
        noise = sde.prior(like.shape, one, generator=generator, like=like)
        level = torch.tensor(self.levels, dtype=torch.float64, device=like.device)[(kind - 1).clamp(min=0)]
        t = torch.where(kind > 0, sde.schedule.time(-2 * level.log()).to(like), start)
        with (
            torch.no_grad()
        ):  # of the whole batch: dropout is that of its samples, and processes pass the network alike often
            before = mean_denoised(denoiser, noise, start, torch.zeros_like(start), batch.cond)
        x_t, _ = sde.perturb(before, t, generator=generator)
        x_t = torch.where(expand_like(kind > 0, noise), x_t, noise)
        return mean_denoised(denoiser, x_t, t, torch.zeros_like(t), batch.cond)


@cache
def say_few(n: int) -> None:
    """Say it once, not at every step."""
    log.warning(
        f"Of {n} fields that JumpScore is given at once less than a quarter have another of their class among them, and draws of "
        "the others teach nothing: raise train.batch_size, or give train.loss.members 2."
    )


def same_condition(cond: Mapping[str, Tensor] | None, like: Tensor) -> Tensor:
    """Which samples have the same condition in all its parts, (batch, batch)."""
    alike = torch.ones((len(like), len(like)), dtype=torch.bool, device=like.device)
    for value in (cond or {}).values():
        rows = value.reshape(len(value), -1)
        if value.is_floating_point():  # what is not known is alike, where torch tells NaN from NaN
            rows = torch.cat((rows.nan_to_num(), rows.isnan().to(rows)), dim=1)
        _, group = torch.unique(rows, dim=0, return_inverse=True)
        alike &= group[:, None] == group
    return alike
