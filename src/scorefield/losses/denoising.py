"""Denoising score matching: E w(t) ‖x̂(x_t, t) − x‖² is least for x̂ = E[x | x_t] (Vincent 2011), for every weight and time law."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.denoiser import Denoises
from scorefield.losses.loss import Loss
from scorefield.losses.times import TimeLaw, UniformTime
from scorefield.losses.weights import SNR, Weight
from scorefield.random import Generators


@dataclass(frozen=True)
class Denoising(Loss):
    """w(t) · mean((x̂ − x)²) over the known elements of each sample; or w(t) · ½ sum, the ancestors' other reduction.

    Args:
        time: the law of t.
        weight: w(t).
        reduction: "mean", which is independent of the size of a field, or "half_sum", half of the sum.
    """

    time: TimeLaw = field(default_factory=UniformTime)
    weight: Weight = field(default_factory=SNR)
    reduction: Literal["mean", "half_sum"] = "mean"

    def __call__(self, denoiser: Denoises, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        schedule = denoiser.sde.schedule
        t = self.time(generator.rand((len(batch),), like=batch.x), schedule)
        x_t, _ = denoiser.sde.perturb(batch.x, t, generator=generator)
        error = (denoiser(x_t, t, batch.cond) - batch.x).square()
        reduce = mean_known if self.reduction == "mean" else half_sum_known
        return self.weight(schedule, t) * reduce(error, batch.mask)


def half_sum_known(error: Float[Tensor, "batch *rest"], mask: Tensor | None) -> Float[Tensor, " batch"]:
    """Half the sum over all elements of each sample, or over those where the mask is 1."""
    known = error if mask is None else error.where(mask.expand_as(error) > 0, 0)
    return 0.5 * known.flatten(1).sum(1)


def mean_known(error: Float[Tensor, "batch *rest"], mask: Tensor | None) -> Float[Tensor, " batch"]:
    """Mean over all elements of each sample, or over those where the mask is 1 (0 where nothing is known)."""
    if mask is None:
        return error.flatten(1).mean(1)
    known = mask.expand_as(error).to(error).flatten(1)
    return (error.flatten(1).where(known > 0, 0)).sum(1) / known.sum(1).clamp(min=1)
