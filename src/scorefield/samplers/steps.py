"""Steps from t to s < t, first to second order, of the reverse SDE and of the probability flow.

With λ = log(α²/σ²), a = α_t/α_s, q² = σ_t² − a²σ_s² and ε = (x_t − α_t x̂)/σ_t. t and s are scalars in float64, so that the
coefficients cost nothing and lose nothing. State is explicit: a multistep method hands its memory on, so each step is pure.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators

Cond = Condition | None
Memory = Any  # whatever a multistep method hands to its next step; None at the start


class Step(ABC):
    """One step of a sampler.

    Attributes:
        jumps: whether it goes by the two-time denoiser of a flow map, and not by x̂.
    """

    jumps: ClassVar[bool] = False

    @abstractmethod
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
        """x_s and the memory for the next step."""

    def finish(self, denoiser: DenoiserProtocol, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """What is made of x_t at the last level: x̂."""
        return denoiser(x_t, t, cond)


@dataclass(frozen=True)
class EulerMaruyama(Step):
    """x_s = x_t − (f x_t − g² score) h + g √h ξ, h = t − s (Song et al. 2021, eq. 6). Undefined where α_t = 0.

    Args:
        probability_flow: half the score and no noise: Euler's method for the flow.
    """

    probability_flow: bool = False

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
        sde, h = denoiser.sde, t - s
        drift, diffusion = sde.schedule.drift(t), sde.schedule.diffusion(t)
        _finite(drift + diffusion, t)
        score = sde.score(denoiser(x_t, t, cond), x_t, t)
        if self.probability_flow:
            return x_t - (drift * x_t - 0.5 * diffusion**2 * score) * h, None
        noise = sde.noise.sample(x_t.shape, generator=generator, like=x_t)
        return x_t - (drift * x_t - diffusion**2 * score) * h + diffusion * h.sqrt() * noise, None


@dataclass(frozen=True)
class ReverseDiffusion(Step):
    """x_s = (2 − a) x_t + q² score + q ξ: the forward transition turned round (Song et al. 2021, appendix E).

    Undefined where α_t = 0.

    Args:
        probability_flow: half the score and no noise.
    """

    probability_flow: bool = False

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
        sde = denoiser.sde
        _finite(sde.schedule.drift(t) + sde.schedule.diffusion(t), t)
        a, q = sde.transition(s, t)
        score = sde.score(denoiser(x_t, t, cond), x_t, t)
        if self.probability_flow:
            return (2 - a) * x_t + 0.5 * q**2 * score, None
        noise = sde.noise.sample(x_t.shape, generator=generator, like=x_t)
        return (2 - a) * x_t + q**2 * score + q * noise, None


@dataclass(frozen=True)
class Ancestral(Step):
    """x_s = (a σ_s²/σ_t²) x_t + (α_s q²/σ_t²) x̂ + w ξ: the posterior of x_s given x_t and x̂ (Ho et al. 2020, eq. 7).

    Args:
        upper: w = q, the variance of the forward step (Song's VP), instead of the posterior's w = q σ_s/σ_t
            (Song's VE; DDIM with η = 1).
    """

    upper: bool = False

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
        sde = denoiser.sde
        (_, sigma_t), (alpha_s, sigma_s), (a, q) = sde.schedule(t), sde.schedule(s), sde.transition(s, t)
        w = q if self.upper else q * sigma_s / sigma_t
        mean = (a * (sigma_s / sigma_t) ** 2) * x_t + (alpha_s * (q / sigma_t) ** 2) * denoiser(x_t, t, cond)
        return mean + w * sde.noise.sample(x_t.shape, generator=generator, like=x_t), None


@dataclass(frozen=True)
class DDIM(Step):
    """x_s = α_s x̂ + √(σ_s² − w²) ε + w ξ, w = η q σ_s/σ_t (Song et al. 2020, eq. 12).

    Args:
        eta: 0 is the first-order step of the probability flow, 1 is ancestral sampling.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise InputError(f"DDIM needs 0 <= eta <= 1, not {self.eta}.")

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
        sde = denoiser.sde
        (_, sigma_t), (alpha_s, sigma_s), (_, q) = sde.schedule(t), sde.schedule(s), sde.transition(s, t)
        denoised = denoiser(x_t, t, cond)
        w = self.eta * q * sigma_s / sigma_t
        x_s = alpha_s * denoised + (sigma_s**2 - w**2).clamp(min=0).sqrt() * sde.epsilon(denoised, x_t, t)
        if self.eta == 0:
            return x_s, None
        return x_s + w * sde.noise.sample(x_t.shape, generator=generator, like=x_t), None


@dataclass(frozen=True)
class Heun(Step):
    """The trapezoidal rule for the probability flow in σ/α: two evaluations, second order (Karras et al. 2022, algorithm 1).

    At α_t = 0 (or next to nothing of α_s) and at σ_s = 0, where one of the slopes does not exist, it falls back to DDIM's
    first-order step.
    """

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
        sde = denoiser.sde
        (alpha_t, sigma_t), (alpha_s, sigma_s) = sde.schedule(t), sde.schedule(s)
        denoised = denoiser(x_t, t, cond)
        epsilon_t = sde.epsilon(denoised, x_t, t)
        x_s = alpha_s * denoised + sigma_s * epsilon_t
        if alpha_t < 1e-6 * alpha_s or sigma_s == 0:
            return x_s, None
        epsilon_s = sde.epsilon(denoiser(x_s, s, cond), x_s, s)
        return x_s + 0.5 * (sigma_s - alpha_s * sigma_t / alpha_t) * (epsilon_s - epsilon_t), None


@dataclass(frozen=True)
class StochasticHeun(Step):
    """Heun after a short step back into the noise, σ/α → (1 + churn) σ/α (Karras et al. 2022, algorithm 2).

    Args:
        churn: γ = min(S_churn/N, √2 − 1) of the paper, for N steps.
        ratio_min: S_tmin, the smallest σ/α at which noise is added.
        ratio_max: S_tmax, the largest.
        inflate: S_noise, the factor on the added noise.
    """

    churn: float = 0.4
    ratio_min: float = 0.05
    ratio_max: float = 50.0
    inflate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.churn <= math.sqrt(2) - 1 + 1e-6:
            raise InputError(f"StochasticHeun needs 0 <= churn <= √2 − 1, not {self.churn}.")
        if not self.ratio_min <= self.ratio_max:
            raise InputError(f"StochasticHeun needs ratio_min <= ratio_max, not {self.ratio_min} and {self.ratio_max}.")

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
        sde = denoiser.sde
        log_snr = sde.schedule.log_snr(t)
        if self.ratio_min <= (-log_snr / 2).exp() <= self.ratio_max:
            back = sde.schedule.time(log_snr - 2 * math.log1p(self.churn))
            a, q = sde.transition(t, back)
            noise = sde.noise.sample(x_t.shape, generator=generator, like=x_t)
            x_t, t = a * x_t + self.inflate * q * noise, back
        return Heun()(denoiser, x_t, t, s, cond, generator=generator, memory=memory)


@dataclass(frozen=True)
class DPMSolverPP2M(Step):
    """DPM-Solver++(2M): x_s = (σ_s/σ_t) e^(−ηh) x_t − α_s expm1(−(1+η)h) D + σ_s √(−expm1(−2ηh)) ξ, h = (λ_s − λ_t)/2.

    D extrapolates x̂ from the last two evaluations: one evaluation per step, second order (Lu et al. 2022, algorithm 2); with
    η = 1 the moments of Gaussian laws are of second order too. The first step is of first order, and so are those that start
    at α_t = 0 or end at σ_s = 0.

    Args:
        eta: 0 follows the probability flow, 1 is the solver of the reverse SDE, "DPM++ 2M SDE" (ibid., SDE-DPM-Solver++).
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not self.eta >= 0:
            raise InputError(f"DPMSolverPP2M needs eta >= 0, not {self.eta}.")

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
        sde = denoiser.sde
        (_, sigma_t), (alpha_s, sigma_s) = sde.schedule(t), sde.schedule(s)
        h = (sde.schedule.log_snr(s) - sde.schedule.log_snr(t)) / 2
        denoised = target = denoiser(x_t, t, cond)
        if memory is not None and torch.isfinite(h):
            last, h_last = memory
            target = denoised + h / (2 * h_last) * (denoised - last)  # h_last = ∞ after α = 0: first order
        forget = (-self.eta * h).exp() if self.eta else 1.0  # 0·∞ is no number
        x_s = (sigma_s / sigma_t * forget) * x_t - alpha_s * torch.expm1(-(1 + self.eta) * h) * target
        if self.eta:
            noise = sde.noise.sample(x_t.shape, generator=generator, like=x_t)
            x_s = x_s + sigma_s * (-torch.expm1(-2 * self.eta * h)).sqrt() * noise
        return x_s, (denoised, h)


@dataclass(frozen=True)
class NoPredictor(Step):
    """x_s = (α_s/α_t) x_t, no predictor: the signal keeps its scale, and x is left alone where α = 1. Undefined where α_t = 0.

    With a Langevin corrector it is annealed Langevin sampling (Song and Ermon 2019, algorithm 1).
    """

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
        alpha_t, alpha_s = denoiser.sde.schedule.alpha(t), denoiser.sde.schedule.alpha(s)
        _finite(alpha_s / alpha_t, t)
        return (alpha_s / alpha_t) * x_t, None


def _finite(coefficient: Tensor, t: Tensor) -> None:
    if not bool(torch.isfinite(coefficient)):
        raise InputError(
            f"EulerMaruyama, ReverseDiffusion and NoPredictor are undefined at t = {t.item():.3g}, where α = 0: give a grid with "
            "t_max < 1, or take Ancestral, DDIM, Heun or DPMSolverPP2M."
        )
