"""The currency: x̂(x_t, t) = E[x | x_t], a network F between the coefficients of a preconditioner.

x̂ = c_skip x_t + c_out F(c_in x_t, c_noise). A denoiser is anything with this call and an `sde`: guidance wraps one in another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from scorefield.core.schedule import Schedule, table_position
from scorefield.core.sde import SDE, Field, Time, expand_like
from scorefield.foundation.arithmetic import placed
from scorefield.foundation.errors import InputError
from scorefield.nn.network import Network

Condition = Mapping[str, Tensor]
UNTIL = (
    "until"  # of s in a condition, (batch), with which a denoiser may give D(x_t; t, s): see scorefield.core.flow_map
)


class Coefficients(NamedTuple):
    """c_skip, c_out, c_in and c_noise of a preconditioner, each of the shape of t."""

    skip: Tensor
    out: Tensor
    scale: Tensor
    label: Tensor


@runtime_checkable
class DenoiserProtocol(Protocol):
    """What samplers and losses ask for: a denoiser, or one that wraps a denoiser."""

    @property
    def sde(self) -> SDE: ...

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor: ...


# ------------------------------------------------------------------------------------------------------- noise labels
class Label(ABC):
    """How the noise level is given to the network."""

    @abstractmethod
    def __call__(self, schedule: Schedule, t: Time) -> Time: ...

    @abstractmethod
    def invert(self, schedule: Schedule, label: Time) -> Time:
        """The t of a label."""


@dataclass(frozen=True)
class LogNoise(Label):
    """scale · log(σ/α). EDM's c_noise is scale = 1/4; NCSN++ with its Fourier embedding takes scale = 1."""

    scale: float = 0.25

    def __call__(self, schedule: Schedule, t: Time) -> Time:
        alpha, sigma = schedule(t)
        ratio = (sigma / alpha.clamp(min=1e-6)).clamp(min=1e-6)  # finite at both ends of every schedule
        return self.scale * ratio.log()

    def invert(self, schedule: Schedule, label: Time) -> Time:
        return schedule.time(-2 * label / self.scale)


@dataclass(frozen=True)
class Times(Label):
    """scale · t. DDPM++ takes scale = 999."""

    scale: float = 999.0

    def __call__(self, schedule: Schedule, t: Time) -> Time:
        return self.scale * t

    def invert(self, schedule: Schedule, label: Time) -> Time:
        return label / self.scale


@dataclass(frozen=True)
class NoiseRatio(Label):
    """σ/α; σ itself where α = 1."""

    def __call__(self, schedule: Schedule, t: Time) -> Time:
        alpha, sigma = schedule(t)
        return sigma / alpha

    def invert(self, schedule: Schedule, label: Time) -> Time:
        return schedule.time(-2 * label.log())


@dataclass(frozen=True)
class Index(Label):
    """The position in a table of N levels: 0 = least noise (DDPM), or reversed, 0 = most noise (NCSN, NCSNv2).

    Args:
        levels: N.
        reverse: count from the noisiest level.
    """

    levels: int
    reverse: bool = False

    def __call__(self, schedule: Schedule, t: Time) -> Time:
        position = table_position(t, self.levels)
        return self.levels - 1 - position if self.reverse else position

    def invert(self, schedule: Schedule, label: Time) -> Time:
        position = self.levels - 1 - label if self.reverse else label
        return position / (self.levels - 1)


# ---------------------------------------------------------------------------------------------------- preconditioners
class Preconditioner(ABC):
    """How a network becomes a denoiser.

    Attributes:
        label: how the noise level is given to the network.
        sigma_data: the standard deviation that the data are taken to have, where the coefficients depend on it.
        one_step: whether the result is a draw of p(x | cond) for noise at t = 1, and nothing at any other time.
    """

    label: Label
    sigma_data: float | None = None
    one_step: bool = False

    @abstractmethod
    def evaluate(self, net: Network, sde: SDE, x_t: Field, t: Time, cond: Condition | None) -> Tensor:
        """F(c_in x_t, c_noise)."""

    @abstractmethod
    def denoise(self, net: Network, sde: SDE, x_t: Field, t: Time, cond: Condition | None) -> Field:
        """x̂ = c_skip x_t + c_out F(c_in x_t, c_noise)."""

    @abstractmethod
    def score(self, net: Network, sde: SDE, x_t: Field, t: Time, cond: Condition | None) -> Field:
        """C ∇log p(x_t) = (α x̂ − x_t)/σ², without the cancellation of α x̂ and x_t where the noise is weak."""


class ScalarPreconditioner(Preconditioner):
    """One with numbers as coefficients: x̂ = c_skip x_t + c_out F(c_in x_t, c_noise) at time t. Abstract: they are left open."""

    @abstractmethod
    def __call__(self, schedule: Schedule, t: Time) -> Coefficients: ...

    def evaluate(self, net: Network, sde: SDE, x_t: Field, t: Time, cond: Condition | None) -> Tensor:
        return evaluate(net, x_t, self(sde.schedule, t), cond)

    def denoise(self, net: Network, sde: SDE, x_t: Field, t: Time, cond: Condition | None) -> Field:
        c = self(sde.schedule, t)
        skip, out = expand_like(c.skip, x_t), expand_like(c.out, x_t)
        return skip * x_t + out * evaluate(net, x_t, c, cond)

    def score(self, net: Network, sde: SDE, x_t: Field, t: Time, cond: Condition | None) -> Field:
        """((α c_skip − 1) x_t + α c_out F)/σ², its coefficients in float64."""
        alpha, sigma = sde.schedule(t.double())
        exact = self(sde.schedule, t.double())
        keep, gain = (alpha * exact.skip - 1) / sigma**2, alpha * exact.out / sigma**2
        keep, gain = (expand_like(placed(v.to(x_t.dtype), x_t.device), x_t) for v in (keep, gain))
        return keep * x_t + gain * self.evaluate(net, sde, x_t, t, cond)


@dataclass(frozen=True)
class EpsilonPrediction(ScalarPreconditioner):
    """The network predicts the noise: x̂ = (x_t − σF)/α (Ho et al. 2020, eq. 15). Undefined where α = 0.

    Args:
        label: how the noise level is given to the network.
    """

    label: Label = Times()

    def __call__(self, schedule: Schedule, t: Time) -> Coefficients:
        alpha, sigma = schedule(t)
        return Coefficients(1 / alpha, -sigma / alpha, torch.ones_like(alpha), self.label(schedule, t))


@dataclass(frozen=True)
class ScorePrediction(ScalarPreconditioner):
    """The network predicts σ times the score: x̂ = (x_t + σF)/α (Song et al. 2021). Undefined where α = 0.

    With another power p it predicts σᵖ times the score, x̂ = (x_t + σ²⁻ᵖF)/α; p = 0 is the score itself (NCSN).

    Args:
        label: how the noise level is given to the network.
        power: p.
    """

    label: Label = LogNoise(1.0)
    power: float = 1.0

    def __call__(self, schedule: Schedule, t: Time) -> Coefficients:
        alpha, sigma = schedule(t)
        out = sigma ** (2 - self.power) / alpha
        return Coefficients(1 / alpha, out, torch.ones_like(alpha), self.label(schedule, t))


@dataclass(frozen=True)
class EDMPreconditioner(ScalarPreconditioner):
    """Unit variance in and out of the network (Karras et al. 2022, table 1, with the signal scale α restored).

    With r² = α²σ_d² + σ²: c_skip = ασ_d²/r², c_out = σσ_d/r, c_in = 1/r. Defined everywhere.

    Args:
        sigma_data: standard deviation σ_d of the normalised data.
        label: how the noise level is given to the network.
    """

    sigma_data: float = 1.0
    label: Label = LogNoise()

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise InputError(f"EDMPreconditioner needs sigma_data > 0, not {self.sigma_data}.")

    def __call__(self, schedule: Schedule, t: Time) -> Coefficients:
        alpha, sigma = schedule(t)
        r = torch.hypot(alpha * self.sigma_data, sigma)
        skip = alpha * self.sigma_data**2 / r**2
        return Coefficients(skip, sigma * self.sigma_data / r, 1 / r, self.label(schedule, t))


@dataclass(frozen=True)
class VelocityPrediction(ScalarPreconditioner):
    """The network predicts v = (αξ − σx)/√(α² + σ²) (Salimans and Ho 2022). Defined everywhere.

    Args:
        label: how the noise level is given to the network.
    """

    label: Label = Times()

    def __call__(self, schedule: Schedule, t: Time) -> Coefficients:
        alpha, sigma = schedule(t)
        r = torch.hypot(alpha, sigma)
        return Coefficients(alpha / r**2, -sigma / r, torch.ones_like(alpha), self.label(schedule, t))


@dataclass(frozen=True)
class FlowPrediction(ScalarPreconditioner):
    """The network predicts u = ξ − x: x̂ = (x_t − σu)/(α + σ) (Lipman et al. 2023). Defined everywhere.

    Args:
        label: how the noise level is given to the network.
    """

    label: Label = Times()

    def __call__(self, schedule: Schedule, t: Time) -> Coefficients:
        alpha, sigma = schedule(t)
        total = alpha + sigma
        return Coefficients(1 / total, -sigma / total, torch.ones_like(alpha), self.label(schedule, t))


@dataclass(frozen=True)
class DataPrediction(ScalarPreconditioner):
    """The network is the denoiser: x̂ = F.

    Args:
        label: how the noise level is given to the network.
    """

    label: Label = Times()

    def __call__(self, schedule: Schedule, t: Time) -> Coefficients:
        alpha = schedule.alpha(t)
        one = torch.ones_like(alpha)
        return Coefficients(torch.zeros_like(alpha), one, one, self.label(schedule, t))


ONE_STEP = (
    "The model draws in one evaluation of noise at t = 1, and knows no other noise level: it takes --steps 1, and has no score, "
    "likelihood or posterior; for these take a model trained by Denoising."
)


@dataclass(frozen=True)
class OneStep(ScalarPreconditioner):
    """x̂ = F(x_1/σ(1)), a draw of p(x | cond) with the noise for its input, at t = 1 alone: trained by `EnsembleScore`.

    It is no E[x | x_t], and so refuses all that follows from one: other times, scores, likelihoods, posteriors.

    Args:
        label: how the noise level is given to the network.

    Raises:
        InputError: another time than 1.
    """

    label: Label = Times(1.0)
    one_step = True

    def __call__(self, schedule: Schedule, t: Time) -> Coefficients:
        if bool((t < 1 - 1e-6).any()):
            raise InputError(ONE_STEP)
        sigma = schedule.sigma(t)
        return Coefficients(torch.zeros_like(sigma), torch.ones_like(sigma), 1 / sigma, self.label(schedule, t))

    def score(self, net: Network, sde: SDE, x_t: Field, t: Time, cond: Condition | None) -> Field:
        raise InputError(ONE_STEP)


# ----------------------------------------------------------------------------------------------------------- denoiser
class Denoiser(nn.Module):
    """x̂ = E[x | x_t] as c_skip x_t + c_out F(c_in x_t, c_noise), 0 where there is no noise, as fields in model space are there.

    Args:
        net: the network F.
        sde: the law of x_t.
        precondition: the coefficients.
    """

    def __init__(self, net: Network, sde: SDE, precondition: Preconditioner) -> None:
        super().__init__()
        self.net, self.sde, self.precondition = net, sde, precondition

    def forward(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        found = self.precondition.denoise(self.net, self.sde, x_t, t, self._seen(x_t, t, cond))
        return self.sde.noise.within(found)

    def _seen(self, x_t: Tensor, t: Tensor, cond: Condition | None) -> Condition | None:
        """For the network: the two ends of a jump as noise levels."""
        if cond is None or UNTIL not in cond:
            return cond
        rest = {name: value for name, value in cond.items() if name != UNTIL}
        if not self.net.jumps:
            return rest
        ends = (LogNoise()(self.sde.schedule, time.to(x_t.device)).expand(len(x_t)) for time in (t, cond[UNTIL]))
        return {**rest, "jump": torch.stack(tuple(ends), dim=1)}

    def score(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        """C ∇log p(x_t) = (α x̂ − x_t)/σ², without the cancellation of α x̂ and x_t where the noise is weak."""
        return self.sde.noise.within(self.precondition.score(self.net, self.sde, x_t, t, cond))


def evaluate(net: Network, x_t: Field, c: Coefficients, cond: Condition | None) -> Tensor:
    """F(c_in x_t, c_noise)."""
    return net.evaluate(expand_like(c.scale, x_t).to(x_t.dtype) * x_t, c.label, cond)
