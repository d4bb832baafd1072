"""What a schedule must give, and how it follows from α and σ alone."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.foundation.errors import InputError

Time = Float[Tensor, "*batch"]
OFF = 1e-3  # how far the level of a time may be from the noise it stands for, relatively: far above the rounding of float32


class Schedule(ABC):
    """Signal and noise scales. Give the five functions below, or derive from `Numerical` and give the first two."""

    @abstractmethod
    def alpha(self, t: Time) -> Time:
        """Signal scale α(t)."""

    @abstractmethod
    def sigma(self, t: Time) -> Time:
        """Noise scale σ(t)."""

    @abstractmethod
    def drift(self, t: Time) -> Time:
        """f(t) = (log α)′, with dx = f x dt + g dw."""

    @abstractmethod
    def diffusion(self, t: Time) -> Time:
        """g(t) = √(−σ² λ′)."""

    @abstractmethod
    def invert(self, log_snr: Time) -> Time:
        """The t at which λ(t) = log_snr, for values that the schedule reaches. Callers use `time`."""

    def __call__(self, t: Time) -> tuple[Time, Time]:
        return self.alpha(t), self.sigma(t)

    def log_snr(self, t: Time) -> Time:
        """λ(t) = log(α²/σ²); +∞ where σ = 0 and −∞ where α = 0."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: Time) -> Time:
        """The t at which λ(t) = log_snr; values out of reach give the nearest end of [0, 1]."""
        start, end = self.log_snr(log_snr.new_tensor([0.0, 1.0]))
        return self.invert(log_snr.clamp(end, start)).clamp(0, 1)


class Numerical(Schedule):
    """For a schedule of your own: give α(t) and σ(t) alone, smooth in t.

    The derivatives come from automatic differentiation and the inverse from bisection, both in float64.
    """

    def drift(self, t: Time) -> Time:
        return _derivative(lambda t: self.alpha(t).log(), t)

    def diffusion(self, t: Time) -> Time:
        return (-_derivative(self.log_snr, t)).sqrt() * self.sigma(t)

    def invert(self, log_snr: Time) -> Time:
        low, high = torch.zeros_like(log_snr, dtype=torch.float64), torch.ones_like(log_snr, dtype=torch.float64)
        for _ in range(60):
            middle = (low + high) / 2
            before = self.log_snr(middle) > log_snr
            low, high = torch.where(before, middle, low), torch.where(before, high, middle)
        return ((low + high) / 2).to(log_snr.dtype)


def _derivative(function, t: Tensor) -> Tensor:  # noqa: ANN001
    with torch.enable_grad():
        point = t.detach().double().requires_grad_()
        value = function(point).sum() + 0 * point.sum()  # so that a constant, too, has a derivative
        return torch.autograd.grad(value, point)[0].to(t.dtype)


def levels(schedule: Schedule) -> tuple[float, float]:
    """The smallest and the largest σ/α."""
    low, high = (-schedule.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)) / 2).exp().tolist()
    return low, high


def time_of_noise(schedule: Schedule, noise: Time) -> Time:
    """The t at which σ/α is a given noise: there x_t/α = x + noise n. Raises InputError where the schedule has no such level."""
    t = schedule.time(-2 * noise.double().log())
    alpha, sigma = schedule(t)
    if not bool(((sigma / alpha / noise - 1).abs() < OFF).all()):
        low, high = levels(schedule)
        raise InputError(
            f"The noise of the data, {float(noise.min()):.4g} to {float(noise.max()):.4g} in model space, is no level of the "
            f"schedule, which has those from {low:.4g} to {high:.4g}: widen model.sde.schedule, or divide the data by less."
        )
    return t.to(noise.dtype)


def require(condition: bool, message: str) -> None:
    """Raise InputError unless a condition holds."""
    if not condition:
        raise InputError(message + ".")
