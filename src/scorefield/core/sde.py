"""The law: x_t = α(t) x + σ(t) ξ, ξ ~ N(0, C), for t in [0, 1], and what follows from it without a network.

In this code base `score` means C ∇log p(x_t) = (α x̂ − x_t)/σ² with x̂ = E[x | x_t]: the drift of every sampler and corrector
needs the score only multiplied by the noise's covariance. For white noise it is the score itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Size, Tensor

from scorefield.core.noise import Noise, White
from scorefield.core.schedule import Schedule
from scorefield.foundation.random import Generators

Field = Float[Tensor, "batch channels *grid"]
Time = Float[Tensor, "*batch"]


def expand_like(t: Tensor, x: Tensor) -> Tensor:
    """Append singleton dimensions to t, shape () or (batch), until it broadcasts against x, shape (batch, *)."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


@dataclass(frozen=True)
class SDE:
    """The forward process dx = f x dt + g C^½ dw with the marginals of the schedule.

    Args:
        schedule: the scales α(t), σ(t).
        noise: the measure of ξ.
    """

    schedule: Schedule
    noise: Noise = White()

    def scales(self, t: Time, x: Tensor) -> tuple[Tensor, Tensor]:
        """α(t), σ(t), shaped to broadcast against x."""
        alpha_t, sigma_t = self.schedule(t)
        return expand_like(alpha_t, x), expand_like(sigma_t, x)

    def perturb(self, x: Field, t: Time, *, generator: Generators) -> tuple[Field, Field]:
        """x_t = α x + σ ξ and its ξ."""
        alpha_t, sigma_t = self.scales(t, x)
        noise = self.noise.sample(x.shape, generator=generator, like=x)
        return alpha_t * x + sigma_t * noise, noise

    def prior(self, shape: Sequence[int] | Size, t: Time, *, generator: Generators, like: Tensor) -> Field:
        """N(0, σ(t)² C): the law of x_t where no signal is left, t near 1."""
        noise = self.noise.sample(shape, generator=generator, like=like)
        return expand_like(self.schedule.sigma(t), noise) * noise

    def log_prior(self, x: Field, t: Time) -> Float[Tensor, " batch"]:
        """log N(x; 0, σ(t)² C) in nats, with respect to Lebesgue measure on the grid's values."""
        variance = self.schedule.sigma(t) ** 2
        square = (x * self.noise.precision(x)).flatten(1).sum(1) / variance
        return -0.5 * (
            square + self.noise.log_det(x) + self.noise.dimension(x.shape[1:]) * (2 * math.pi * variance).log()
        )

    def transition(self, s: Time, t: Time) -> tuple[Time, Time]:
        """The forward kernel from s to t > s: x_t = a x_s + q ξ, a = α_t/α_s, q² = σ_t² − a² σ_s² = −σ_t² expm1(λ_t − λ_s).

        Finite at α_t = 0 and at σ_s = 0, and without cancellation for near s and t.
        """
        a = self.schedule.alpha(t) / self.schedule.alpha(s)
        fall = self.schedule.log_snr(t) - self.schedule.log_snr(s)
        return a, self.schedule.sigma(t) * (-torch.expm1(fall.clamp(max=0))).sqrt()  # s = t but for rounding is no NaN

    def drift(self, x: Field, t: Time) -> Field:
        """f(t) x."""
        return expand_like(self.schedule.drift(t), x) * x

    def diffusion(self, t: Time) -> Time:
        """g(t)."""
        return self.schedule.diffusion(t)

    def score(self, denoised: Field, x_t: Field, t: Time) -> Field:
        """C ∇log p(x_t) = (α x̂ − x_t)/σ²."""
        alpha_t, sigma_t = self.scales(t, x_t)
        return (alpha_t * denoised - x_t) / sigma_t**2

    def denoised_from_score(self, score: Field, x_t: Field, t: Time) -> Field:
        """x̂ = (x_t + σ² score)/α, Tweedie's formula."""
        alpha_t, sigma_t = self.scales(t, x_t)
        return (x_t + sigma_t**2 * score) / alpha_t

    def epsilon(self, denoised: Field, x_t: Field, t: Time) -> Field:
        """ε = E[ξ | x_t] = (x_t − α x̂)/σ."""
        alpha_t, sigma_t = self.scales(t, x_t)
        return (x_t - alpha_t * denoised) / sigma_t

    def denoised_from_epsilon(self, epsilon: Field, x_t: Field, t: Time) -> Field:
        """x̂ = (x_t − σ ε)/α."""
        alpha_t, sigma_t = self.scales(t, x_t)
        return (x_t - sigma_t * epsilon) / alpha_t

    def velocity(self, denoised: Field, x_t: Field, t: Time) -> Field:
        """v = (α ε − σ x̂)/√(α² + σ²) (Salimans and Ho 2022, with the scales' norm restored)."""
        alpha_t, sigma_t = self.scales(t, x_t)
        return (alpha_t * self.epsilon(denoised, x_t, t) - sigma_t * denoised) / torch.hypot(alpha_t, sigma_t)

    def denoised_from_velocity(self, velocity: Field, x_t: Field, t: Time) -> Field:
        """x̂ = (α x_t − σ √(α² + σ²) v)/(α² + σ²)."""
        alpha_t, sigma_t = self.scales(t, x_t)
        radius = torch.hypot(alpha_t, sigma_t)
        return (alpha_t / radius * x_t - sigma_t * velocity) / radius
