"""Two methods without a gradient through the denoiser, for measurements of many values: they cost but A and A*."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.sde import expand_like
from scorefield.foundation.errors import InputError
from scorefield.guidance.measurement import Method, with_signal
from scorefield.guidance.observation import Observation
from scorefield.guidance.posterior import check_solver
from scorefield.operators import conjugate_gradients


@dataclass(frozen=True)
class Proximal(Method):
    """argmin_x ‖y − A x‖²/noise² + ‖x − x̂‖²/ρ², ρ² = spread² σ²σ_d²/(σ² + α²σ_d²), by conjugate gradients from x̂.

    It is E[x | x_t, y] where p(x | x_t) is N(x̂, ρ² I): white data of standard deviation σ_d, with spread 1 (Zhu et al. 2023,
    DiffPIR; Chung et al. 2024, DDS). ΠGDM has the same ρ, and besides the gradient through the denoiser, by which what was not
    measured learns of y; here it does so by x_t alone, from step to step. The step must be one that draws (ancestral, or
    DPM++ with η = 1), or the samples differ too little.

    Args:
        sigma_data: σ_d, the standard deviation of the data in model space.
        spread: of x given x_t, beside that of white data. Denoisers of images are surer than that: below 1.
        iterations: at most so many of the solver, each a product by A* A.
        tolerance: of the solver, relative.
    """

    settles: ClassVar[bool] = True
    sigma_data: float = 1.0
    spread: float = 1.0
    iterations: int = 10
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_solver("Proximal", self.iterations, self.tolerance)
        if not (self.sigma_data > 0 and self.spread > 0):
            raise InputError(f"Proximal needs sigma_data > 0 and spread > 0, not {self.sigma_data} and {self.spread}.")

    def __call__(
        self, denoiser: DenoiserProtocol, measurement: Observation, x_t: Tensor, t: Tensor, cond: Condition | None
    ) -> Tensor:
        operator, y, noise = measurement.plain("Proximal")
        denoised = denoiser(x_t, t, cond)
        alpha, sigma = denoiser.sde.scales(t, denoised)
        variance = (self.spread * sigma * self.sigma_data) ** 2 / (sigma**2 + (alpha * self.sigma_data) ** 2)
        damping = (noise**2 / variance).to(denoised)

        def matrix(v: Tensor) -> Tensor:
            return operator.normal(v) + damping * v

        residual = operator.adjoint(y.to(denoised)) - operator.normal(denoised)
        return denoised + conjugate_gradients(matrix, residual, iterations=self.iterations, tolerance=self.tolerance)


@dataclass(frozen=True)
class NoisyLikelihood(Method):
    """x̂ + (σ²/α²) A*(y − A x_t/α)/(noise² + σ²/α²): y compared with x_t itself, whose noise is added to that of y.

    For α = 1 the score becomes s + A*(y − A x_t)/(noise² + σ²), the data-consistency gradient of annealed Langevin sampling
    for MRI (Jalal et al. 2021, eq. 4). Exact where A is orthogonal on its range and x is unlikely to be anything else; it needs
    no solver, but many small steps: take `NoPredictor` with `AnnealedLangevin`, and singular values of A of at most 1.
    """

    def __call__(
        self, denoiser: DenoiserProtocol, measurement: Observation, x_t: Tensor, t: Tensor, cond: Condition | None
    ) -> Tensor:
        operator, y, noise = measurement.plain("NoisyLikelihood")
        x_t, t = with_signal(denoiser.sde.schedule, x_t, t)
        denoised = denoiser(x_t, t, cond)
        alpha, sigma = denoiser.sde.scales(t, x_t)
        inflated = expand_like((sigma / alpha) ** 2, x_t)
        weight = (inflated / (noise**2 + inflated)).to(x_t)
        return denoised + weight * operator.adjoint(y.to(x_t) - operator(x_t / alpha.to(x_t)))
