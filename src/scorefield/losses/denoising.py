"""Denoising score matching: E w(t) ‖x̂(x_t, t) − x‖² is least for x̂ = E[x | x_t] (Vincent 2011), for every weight and time law.

And for every norm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.noise import Noise
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.holes import interpolated
from scorefield.losses.loss import Loss
from scorefield.losses.times import TimeDistribution, UniformTime
from scorefield.losses.weights import SNR, Mahalanobis, Norm, SquaredError, Weight


@dataclass(frozen=True)
class Denoising(Loss):
    """w(t) · mean((x̂ − x)²) over the known elements of each sample; or w(t) · ½ sum, as the original codes have it.

    Under a field noise the norm is ‖C^−½(x̂ − x)‖², with `SNR` the loss of ε in function space, unless another is given.

    Args:
        time: the law of t.
        weight: w(t).
        reduction: "mean", which is independent of the size of a field, or "half_sum", half of the sum.
        norm: of x̂ − x. By default `Mahalanobis` where the noise's covariance is diagonal in modes of the grid and every element
            of the fields is known, else `SquaredError`.
        interpolate: unknown elements of x_t are `interpolated` between known ones, where they would be 0, the mean of the data.
            For fields with holes, each in another place: draws have none, and a network that has seen 0 in its place at every
            level takes what is near 0 for a hole, and leaves it rough.
    """

    time: TimeDistribution = field(default_factory=UniformTime)
    weight: Weight = field(default_factory=SNR)
    reduction: Literal["mean", "half_sum"] = "mean"
    norm: Norm | None = None
    interpolate: bool = False

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        schedule = denoiser.sde.schedule
        t = self.time(generator.rand((len(batch),), like=batch.x), schedule)
        whole = interpolated(batch.x, batch.mask) if self.interpolate else batch.x
        x_t, _ = denoiser.sde.perturb(whole, t, generator=generator)
        error = squared(denoiser(x_t, t, batch.cond) - batch.x, self.norm, denoiser.sde.noise, batch)
        reduce = mean_known if self.reduction == "mean" else half_sum_known
        return self.weight(schedule, t) * reduce(error, batch.mask)


def known_all(batch: Batch, noise: Noise) -> bool:
    """Whether every element that has noise is known."""
    if batch.mask is None:
        return True
    inside = noise.support(batch.x.shape[2:])
    return inside is not None and bool((batch.mask.bool() | ~inside.to(batch.x.device)).all())


def squared(
    error: Float[Tensor, "batch *rest"], norm: Norm | None, noise: Noise, batch: Batch
) -> Float[Tensor, "batch *rest"]:
    """The square of an error by a norm, or without one by that of the noise where it is diagonal and every element known."""
    norm = norm or (Mahalanobis() if noise.diagonal and batch.mask is None else SquaredError())
    if not norm.local and not known_all(batch, noise):
        raise InputError(
            f"The norm {type(norm).__name__} mixes the elements of a field, and some are unknown here: take SquaredError."
        )
    return norm(error, noise)


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
