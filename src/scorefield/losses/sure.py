"""Losses that need no clean field: y = x + σ_w n is all that is known of x, and σ_w.

In the terms of the SDE, α y is x_t at the time t_w at which σ/α = σ_w, so that E[x | y] = x̂(α y, t_w): the same network that is
a prior at all other times. Stein's lemma, E nᵀh(y) = σ_w E tr ∂h/∂y, tells its error without x (Stein 1981). The value of such a
loss on a few samples may well be negative: only its mean is an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.schedule import Schedule, time_of_noise
from scorefield.core.sde import expand_like
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.denoising import Denoising, mean_known
from scorefield.losses.divergence import Derivative, FiniteDifference, full_precision
from scorefield.losses.loss import Loss, Metric
from scorefield.losses.times import TimeDistribution, UniformTime
from scorefield.losses.weights import SNR, Unweighted, Weight


def noise_of(batch: Batch) -> Float[Tensor, " batch"]:
    """σ_w of each sample, in model space. Raises InputError where the data do not tell it."""
    if batch.noise is None:
        raise InputError(
            "This loss learns from noisy fields, and the data do not say how noisy they are: wrap their source in "
            "scorefield.data.Measured (noisy already) or scorefield.data.Noisy (noise is to be added)."
        )
    return batch.noise.to(batch.x)


def level_of(denoiser: DenoiserProtocol, batch: Batch) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """σ_w of each sample, and t_w. Raises InputError where x_t has other noise than the data, or the schedule no such level."""
    first = batch.x[:1]
    if not torch.equal(denoiser.sde.noise.covariance(first), first):
        raise InputError(
            "The noise of the data is taken to be white, and that of the model is not: give White for sde.noise."
        )
    noise = noise_of(batch)
    return noise, time_of_noise(denoiser.sde.schedule, noise)


@dataclass(frozen=True)
class SURE(Loss):
    """w(t_w) · mean[(h − y)² − σ_w² + 2σ_w² z ⊙ (Jz)], h = x̂(α y, t_w), J = ∂h/∂y, z = ±1 at random (Stein 1981; Ramani et
    al. 2008).

    Estimand: E SURE = w E mean (h(y) − x)², exactly, for every h: least for h = E[x | y]. Of a field, only the elements where
    the mask is 1 count. σ_w, `batch.noise`, may differ between samples.

    Args:
        derivative: how Jz is found.
        weight: w, so that it can be one of several losses.
    """

    derivative: Derivative = field(default_factory=FiniteDifference)
    weight: Weight = field(default_factory=Unweighted)

    @property
    def figures(self) -> tuple[Metric, ...]:
        return NoiseError(self), ImageError(self)

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        return self.with_denoised(denoiser, batch, generator=generator)[0]

    def with_denoised(
        self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators
    ) -> tuple[Float[Tensor, " batch"], Tensor]:
        """The loss, and h(y)."""
        t = level_of(denoiser, batch)[1]
        error, denoised = self.error(denoiser, batch, t, generator=generator)
        return self.weight(denoiser.sde.schedule, t) * error, denoised

    def error(
        self, denoiser: DenoiserProtocol, batch: Batch, t: Tensor, *, generator: Generators
    ) -> tuple[Float[Tensor, " batch"], Tensor]:
        """The estimate of mean (h(y) − x)², and h(y)."""
        y, noise = batch.x, noise_of(batch)
        alpha = expand_like(denoiser.sde.schedule.alpha(t), y)
        z = generator.rademacher(y.shape, like=y)
        z = z if batch.mask is None else z * batch.mask.to(z)
        with full_precision(y):
            denoised, slope = self.derivative(lambda y: denoiser(alpha * y, t, batch.cond), y, z, noise)
        variance = expand_like(noise.square(), y)
        return mean_known((denoised - y).square() - variance + 2 * variance * slope, batch.mask), denoised


@dataclass(frozen=True)
class SUREScore(Loss):
    """w(t_w) SURE + r · denoising of h(y): one network that denoises y by SURE and learns the score of what it denoised
    (Aali et al. 2023, arXiv 2305.01166). h(y) is a constant to the second term, w its weight; r grows over the first epochs.

    Estimand: at t_w, E[x | y]; at all other times E[x′ | α x′ + σ ξ] with x′ = E[x | y]. That is the prior of *denoised* fields,
    not of x: for x ~ N(0, C) its covariance is C(C + σ_w²)⁻¹C, smaller than C, and most where C < σ_w². `Ambient` learns the
    prior of x. Near t_w both terms want something of the same network, and it is between the two.

    Args:
        score: the second term.
        derivative: of the first.
        ramp: epochs over which r goes from 0 to 1.
    """

    score: Denoising = field(default_factory=Denoising)
    derivative: Derivative = field(default_factory=FiniteDifference)
    ramp: int = 1

    def __post_init__(self) -> None:
        if self.ramp < 0:
            raise InputError(f"SUREScore needs ramp >= 0 epochs, not {self.ramp}.")

    @property
    def sure(self) -> SURE:
        """The first term."""
        return SURE(self.derivative, self.score.weight)

    @property
    def figures(self) -> tuple[Metric, ...]:
        return self.sure.figures

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        value, denoised = self.sure.with_denoised(denoiser, batch, generator=generator)
        learnt = replace(batch, x=denoised.detach(), noise=None)
        return value + self._share(batch).to(value) * self.score(denoiser, learnt, generator=generator)

    def _share(self, batch: Batch) -> Tensor:
        """r of each sample."""
        if batch.key is None or not self.ramp:
            return torch.ones(len(batch))
        return (batch.key[:, 1] / self.ramp).clamp(max=1)


@dataclass(frozen=True)
class Ambient(Loss):
    """w(t) · mean (ŷ(x_t) − y)² at levels above that of the data: x_t = α (y + √(σ²/α² − σ_w²) ξ) and, with ρ = (α σ_w/σ)²,
    ŷ = E[y | x_t] = (1 − ρ) x̂(x_t) + ρ x_t/α (Daras et al. 2024, arXiv 2404.10177).

    Estimand: x̂ = E[x | x_t] for every σ/α > σ_w: (σ² E[y | x_t] − σ_w² x_t)/(σ² − σ_w²), where α = 1. This is right for the
    prior: of x ~ N(0, C) it has C, not the smaller covariance that denoised fields have. At σ_w itself it learns nothing, which
    `SURE` beside it makes good (`Sum`), and below σ_w nothing can be learnt so: samplers end there, with x̂.

    Args:
        time: the law of t, given that its level is above that of the data.
        weight: w(t), as of `Denoising`.
    """

    time: TimeDistribution = field(default_factory=UniformTime)
    weight: Weight = field(default_factory=SNR)

    @property
    def figures(self) -> tuple[Metric, ...]:
        """Those of `SURE` at σ_w, the end of the levels that it learns."""
        return SURE().figures

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        y, schedule = batch.x, denoiser.sde.schedule
        noise, least = level_of(denoiser, batch)
        t = above(self.time, generator.rand((len(batch),), like=y), least, schedule)
        alpha, sigma = denoiser.sde.scales(t, y)
        variance, ratio = expand_like(noise.square(), y), sigma / alpha
        added = (ratio.square() - variance).clamp(min=0).sqrt()
        noisier = y + added * denoiser.sde.noise.sample(y.shape, generator=generator, like=y)
        share = (variance / ratio.square()).clamp(max=1)
        error = (1 - share) * denoiser(alpha * noisier, t, batch.cond) + share * noisier - y
        return self.weight(schedule, t) * mean_known(error.square(), batch.mask)


def above(
    law: TimeDistribution, u: Tensor, least: Float[Tensor, " batch"], schedule: Schedule
) -> Float[Tensor, " batch"]:
    """The u-quantile of a law of t, given that t > least."""
    low, high = torch.zeros_like(u, dtype=torch.float64), torch.ones_like(u, dtype=torch.float64)
    for _ in range(40):  # bisection of the quantile function, which does not fall
        middle = (low + high) / 2
        below = law(middle, schedule) <= least
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    t = law(high + (1 - high) * u.double(), schedule).to(u)
    if bool((high >= 1 - 1e-9).any()):
        raise InputError(
            "The law of t has no times at which there is more noise than in the data: widen it or the schedule."
        )
    return t.maximum(least)


@dataclass(frozen=True)
class Sum(Loss):
    """Σ λ_i L_i: several losses of one network, such as `Ambient` and `SURE`.

    Args:
        losses: the L_i.
        factors: the λ_i; 1 each by default.
    """

    losses: list[Loss]
    factors: list[float] | None = None

    def __post_init__(self) -> None:
        if not self.losses or (self.factors is not None and len(self.factors) != len(self.losses)):
            raise InputError("Sum needs at least one loss, and a factor for each or none at all.")

    @property
    def one_step(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(loss.one_step for loss in self.losses)

    @property
    def figures(self) -> tuple[Metric, ...]:
        return tuple({figure.name: figure for loss in self.losses for figure in loss.figures}.values())

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        factors = self.factors or [1.0] * len(self.losses)
        values = [loss(denoiser, batch, generator=generator) for loss in self.losses]
        return torch.stack([factor * value for factor, value in zip(factors, values, strict=True)]).sum(0)


# ------------------------------------------------------------------------------------------------------------- figures
@dataclass(frozen=True)
class Relative(Metric, ABC):
    """The error of h(y) by SURE, from noisy fields alone. Abstract: what it is compared with is left open.

    Args:
        sure: whose estimate it is.
    """

    sure: SURE

    @abstractmethod
    def power(self, batch: Batch) -> Float[Tensor, " batch"]:
        """The mean square of what the error is compared with."""

    def __call__(
        self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        t = level_of(denoiser, batch)[1]
        return self.sure.error(denoiser, batch, t, generator=generator)[0], self.power(batch)


@dataclass(frozen=True)
class NoiseError(Relative):
    """NRMSE of the noise: ‖n̂ − n‖/‖n‖, n̂ = y − h(y). 1 where nothing is denoised."""

    name: str = "noise_nrmse"

    def power(self, batch: Batch) -> Float[Tensor, " batch"]:
        return noise_of(batch).square()


@dataclass(frozen=True)
class ImageError(Relative):
    """NRMSE of the image: ‖h(y) − x‖/‖x‖, with ‖x‖² = ‖y‖² − σ_w² D in the mean."""

    name: str = "image_nrmse"

    def power(self, batch: Batch) -> Float[Tensor, " batch"]:
        return mean_known(batch.x.square(), batch.mask) - noise_of(batch).square()
