"""Every denoising loss is a weight w(t) on a norm of x̂ − x, whatever the network predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.schedule import Schedule
from scorefield.foundation.errors import InputError


class Weight(ABC):
    """w(t) on ‖x̂ − x‖²."""

    @abstractmethod
    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class SNR(Weight):
    """w = α²/σ²: ‖ε̂ − ε‖², which is denoising score matching with λ = σ² (Song et al. 2021; NCSNv2; DDPM)."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        return (alpha / sigma) ** 2


@dataclass(frozen=True)
class ScorePower(Weight):
    """w = σᵖ α²/σ⁴: σᵖ times the squared error of the score (Lim et al. 2023 take p = 2, 1, ½, −1 and −2). p = 2 is `SNR`.

    Args:
        power: p.
    """

    power: float = 2.0

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        return sigma ** (self.power - 4) * alpha**2


@dataclass(frozen=True)
class Likelihood(Weight):
    """w = g²α²/σ⁴: λ = g², which bounds the negative log-likelihood (Song et al. 2021, Maximum likelihood training)."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        return (schedule.diffusion(t) * alpha / sigma**2) ** 2


@dataclass(frozen=True)
class EDMWeight(Weight):
    """w = (σ² + α²σ_d²)/(σσ_d)²: equal weight for the network's own output under `Karras` (Karras et al. 2022, table 1).

    Args:
        sigma_data: standard deviation σ_d of the normalised data.
    """

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise InputError(f"EDMWeight needs sigma_data > 0, not {self.sigma_data}.")

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        return (alpha / sigma) ** 2 + 1 / self.sigma_data**2


@dataclass(frozen=True)
class Unweighted(Weight):
    """w = 1: ‖x̂ − x‖²."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class FlowMatching(Weight):
    """w = (1 + α/σ)²: ‖û − u‖² for u = ξ − x, the loss of flow matching (Lipman et al. 2023; Liu et al. 2023)."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        return (1 + alpha / sigma) ** 2


@dataclass(frozen=True)
class ImportanceSampledLikelihood(Weight):
    """w = Z α²/σ², Z = ∫ g²/σ² dt = λ(t_min) − λ(t_max): `Likelihood` over the density of the time law `ImportanceSampled`.

    With t ~ U[t_min, t_max) likelihood weighting estimates the same mean, up to the length of that interval, with a variance
    that diverges as σ → 0 (Song et al. 2021, Maximum likelihood training, section 3.3).

    Args:
        t_min: that of the time law.
        t_max: that of the time law.
    """

    t_min: float = 1e-5
    t_max: float = 1.0

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        first, last = schedule.log_snr(torch.tensor([self.t_min, self.t_max], dtype=torch.float64))
        return float((first - last) / (self.t_max - self.t_min)) * (alpha / sigma) ** 2


class Norm(ABC):
    """A squared norm as a density: numbers, one per element of a field, whose sum it is.

    Attributes:
        local: each depends on its own element alone.
    """

    local: bool

    @abstractmethod
    def __call__(self, error: Tensor, noise: Noise) -> Tensor: ...


@dataclass(frozen=True)
class SquaredError(Norm):
    """‖x̂ − x‖²: every element counts the same, and so every mode by its variance. The leading modes of a field decide."""

    local = True

    def __call__(self, error: Tensor, noise: Noise) -> Tensor:
        return error.square()


@dataclass(frozen=True)
class Mahalanobis(Norm):
    """‖C^−½(x̂ − x)‖² = ⟨x̂ − x, C⁻¹(x̂ − x)⟩: every mode counts in units of its noise.

    Its mean is that of |x̂_k − x_k|²/λ_k over the modes of the grid. Needs a noise with a `precision`.
    """

    local = False

    def __call__(self, error: Tensor, noise: Noise) -> Tensor:
        return error * noise.precision(error)
