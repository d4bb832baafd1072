"""Langevin steps, x ← x + ε score + √(2ε) ξ on one level: they leave the law of x_t alone, up to the finite size of ε.

As correctors they follow or precede a predictor. With `NoPredictor` for a predictor they are annealed Langevin sampling, whose
last level is denoised (Tweedie's formula) instead of being left with the noise of its last step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.sde import SDE, expand_like
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.samplers.steps import Cond


class Corrector(ABC):
    """What moves x within the law of its level. No `Step`: neither can take the other's place.

    Attributes:
        repeats: corrections per level, of one draw of noise each.
    """

    repeats: int

    @abstractmethod
    def __call__(
        self, denoiser: DenoiserProtocol, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, *, generator: Generators
    ) -> Tensor:
        """Another x at level t of a grid that goes on to s."""


class LangevinCorrector(Corrector):
    """x ← x + ε score + √(2ε) ξ. Abstract: the rule for ε is left open.

    Attributes:
        quiet_end: no noise in the very last step on the last level.
    """

    quiet_end: bool = False

    @abstractmethod
    def size(self, sde: SDE, t: Tensor, s: Tensor, score: Tensor, noise: Tensor) -> Tensor:
        """ε at level t of a grid that goes on to s, a scalar or one per sample."""

    def __call__(
        self, denoiser: DenoiserProtocol, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, *, generator: Generators
    ) -> Tensor:
        sde = denoiser.sde
        if sde.schedule.sigma(t) == 0:
            return x_t  # data: no noise is left to correct, and no score to do it with
        for number in range(self.repeats):
            quiet = self.quiet_end and number == self.repeats - 1 and bool(s == t)
            noise = sde.noise.sample(x_t.shape, generator=generator, like=x_t)
            score = sde.score(denoiser(x_t, t, cond), x_t, t)
            size = expand_like(self.size(sde, t, s, score, noise), x_t)
            x_t = x_t + size * score + (0 if quiet else (2 * size).sqrt() * noise)
        return x_t


def _check_repeats(corrector: Corrector) -> None:
    if corrector.repeats < 1:
        raise InputError(f"{type(corrector).__name__} needs repeats >= 1, not {corrector.repeats}.")


@dataclass(frozen=True)
class Langevin(LangevinCorrector):
    """ε = 2a² (r ‖ξ‖/‖score‖)², each sample's own, a = α_t/α_s (Song et al. 2021, algorithm 4).

    It fluctuates with ξ and x, which multiplies the variance of mode k by about 1 + 2 C_k/Σ C + 2 (C_k²/Λ_k)/Σ (C²/Λ), whatever
    r, with Λ the covariance of x_t: 1 + 4/d for d white pixels, but a good deal for the leading modes of a smooth field noise.

    Args:
        snr: the signal-to-noise ratio r of a step.
        repeats: corrections per level.
        batch_norms: norms averaged over the batch, as the original code does it; for comparison with it only, since a sample then
            depends on the others of its batch.
    """

    snr: float = 0.16
    repeats: int = 1
    batch_norms: bool = False

    def __post_init__(self) -> None:
        _check_repeats(self)
        if not self.snr > 0:
            raise InputError(f"Langevin needs snr > 0, not {self.snr}.")

    def size(self, sde: SDE, t: Tensor, s: Tensor, score: Tensor, noise: Tensor) -> Tensor:
        a, _ = sde.transition(s, t)
        noise_norm, score_norm = noise.flatten(1).norm(dim=1), score.flatten(1).norm(dim=1)
        if self.batch_norms:
            noise_norm, score_norm = noise_norm.mean().expand(len(score)), score_norm.mean().expand(len(score))
        ratio = torch.where(
            score_norm > 0, noise_norm / score_norm, 0
        )  # no step where no score is left of the rounding
        return 2 * a**2 * (self.snr * ratio) ** 2


@dataclass(frozen=True)
class AnnealedLangevin(LangevinCorrector):
    """ε = 2a² (rσ_t)², a = α_t/α_s: in proportion to the noise of the level (Song et al. 2021, their "ald" corrector).

    It multiplies the variance of a mode by up to 1/(1 − (a r)²), where the noise dominates.

    Args:
        snr: the signal-to-noise ratio r of a step; Song's is 0.176.
        repeats: steps per level, Song's T.
    """

    snr: float = 0.176
    repeats: int = 5

    def __post_init__(self) -> None:
        _check_repeats(self)
        if not 0 < self.snr < 1:
            raise InputError(f"AnnealedLangevin diverges unless 0 < snr < 1: it is {self.snr}.")

    def size(self, sde: SDE, t: Tensor, s: Tensor, score: Tensor, noise: Tensor) -> Tensor:
        a, _ = sde.transition(s, t)
        return 2 * (a * self.snr * sde.schedule.sigma(t)) ** 2


@dataclass(frozen=True)
class NCSNLangevin(LangevinCorrector):
    """ε = step σ_t²/σ(0)², σ(0) the smallest level (Song and Ermon 2019, algorithm 1; 2020, algorithm 1). Needs σ(0) > 0.

    It multiplies the variance of a mode by up to 1/(1 − step/(2 σ(0)²)), where the noise dominates. Under a field noise it is
    the sampler of Lim et al. (2023), x ← x + (e_j/2) score + √e_j ξ with e_j = e σ_j²/σ_L², with step = e/2.

    Args:
        step: ε at the smallest level, below 2 σ(0)²; NCSNv2 has 6.2e-6 for CIFAR-10, where σ(0) = 0.01.
        repeats: steps per level, T; theirs is 5.
        quiet_end: no noise in the very last step, for samples that are not denoised at the end.
    """

    step: float = 6.2e-6
    repeats: int = 5
    quiet_end: bool = False

    def __post_init__(self) -> None:
        _check_repeats(self)

    def size(self, sde: SDE, t: Tensor, s: Tensor, score: Tensor, noise: Tensor) -> Tensor:
        smallest = sde.schedule.sigma(torch.zeros_like(t))
        if not 0 < self.step < 2 * smallest**2:
            reason = "σ(0) = 0" if smallest == 0 else f"it diverges unless 0 < step < 2 σ(0)² = {2 * smallest**2:.3g}"
            raise InputError(
                f"NCSNLangevin with step {self.step:g} is undefined here, as {reason}: take AnnealedLangevin, or change step."
            )
        return self.step * (sde.schedule.sigma(t) / smallest) ** 2


@dataclass(frozen=True)
class VarianceLangevin(LangevinCorrector):
    """ε = step (σ_t/σ(0))⁴, σ(0) the smallest level: `NCSNLangevin` with σ² for σ, as the code of Lim et al. (2023) has it.

    Args:
        step: ε at the smallest level, below 2 σ(0)⁴/σ(1)².
        repeats: steps per level.
        quiet_end: no noise in the very last step, for samples that are not denoised at the end.
    """

    step: float
    repeats: int = 5
    quiet_end: bool = False

    def __post_init__(self) -> None:
        _check_repeats(self)

    def size(self, sde: SDE, t: Tensor, s: Tensor, score: Tensor, noise: Tensor) -> Tensor:
        smallest, largest = (sde.schedule.sigma(torch.full_like(t, end)) for end in (0.0, 1.0))
        if not 0 < self.step < 2 * smallest**4 / largest**2:
            raise InputError(
                f"VarianceLangevin with step {self.step:g} diverges: it needs 0 < step < 2 σ(0)⁴/σ(1)² = "
                f"{2 * float(smallest**4 / largest**2):.3g}; take AnnealedLangevin, or change step."
            )
        return self.step * (sde.schedule.sigma(t) / smallest) ** 4
