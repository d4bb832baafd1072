"""Four approximations of p(y | x_t), from a projection to the one that is exact for Gaussian data.

Each docstring says where it is right; elsewhere it is an approximation of unknown error, which `scorefield.Particles` corrects.

With r = y − A x̂ and Σ = Cov[x | x_t], all but the first give x̂ + c Σ A* u, u for (noise² I + A Σ A*)⁻¹ r and 0 <= c <= 1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.sde import SDE, expand_like
from scorefield.foundation.errors import InputError
from scorefield.guidance.measurement import Linear, Method, linearise
from scorefield.guidance.observation import Observation


@dataclass(frozen=True)
class Replacement(Method):
    """x̂ with what was measured put in its place: x̂ + A⁺(y − A x̂). For exact measurements.

    Song et al. (2021, appendix I.2) overwrite the measured part of x_t by α y + σ ξ. Here x̂ is overwritten, and the sampler's own
    step then makes that part α y + σ ξ: by the draws of each sample's generator, and with the ξ that it has had so far in a
    step without noise. What was measured is returned as it is by samplers that end with x̂.

    The rest of x̂ learns of y only through the x_t of the next step, so that the samples are not those of p(x | y), whatever the
    number of steps (Trippe et al. 2023); a corrector between the steps brings them nearer. It costs no gradient.
    """

    def __call__(
        self, denoiser: DenoiserProtocol, measurement: Observation, x_t: Tensor, t: Tensor, cond: Condition | None
    ) -> Tensor:
        operator, y, noise = measurement.plain("Replacement")
        if noise:
            raise InputError("Replacement takes the measurement as exact: give noise 0, or take MomentMatching.")
        denoised = denoiser(x_t, t, cond)
        return operator.project(denoised, y.to(denoised))


class Gradient(Method):
    """x̂ + c Σ w with w ≈ A* V⁻¹ r: the methods that follow a gradient through the denoiser. Abstract: w is left open.

    0 <= c <= 1 is where ‖r − c A Σ w‖ is least: ‖y − A x̂‖ never grows, whatever the denoiser. c = 1 where w and Σ are of one law.
    Where Σ is larger than w takes it for, Σ w goes too far, by a factor of up to σ²/σ_d² for the low frequencies of images; the
    next step swings back further, and without c all is lost within 20 steps. It costs one A.

    What was measured without noise is put in its place afterwards, where A has a projection.
    """

    def __call__(
        self, denoiser: DenoiserProtocol, measurement: Observation, x_t: Tensor, t: Tensor, cond: Condition | None
    ) -> Tensor:
        denoised, covariance = linearise(denoiser, x_t, t, cond)
        change = covariance(self.pulled(measurement, denoised, covariance, denoiser.sde, t))
        share = measurement.share(denoised, change).to(change)
        return measurement.matched(denoised + expand_like(share, change) * change)

    @abstractmethod
    def pulled(self, measurement: Observation, denoised: Tensor, covariance: Linear, sde: SDE, t: Tensor) -> Tensor:
        """w, a field, for x̂ and its Σ."""


@dataclass(frozen=True)
class DPS(Gradient):
    """u = ζ r / max(noise², ‖r‖²/M) for M measured values: p(y | x_t) ≈ p(y | x̂) (Chung et al. 2023, theorem 1).

    That approximation has no room for the uncertainty of x̂, and with the true noise its steps would be far too long; Chung et al.
    divide by ‖r‖ instead and tune ζ for each sampler. A denoiser knows no steps: here the residual itself is the
    estimate of its variance. The posterior is too narrow or too wide, depending on ζ. A long step does not fit all that was
    measured at once: it takes more steps than the others.

    It is right nowhere, and serves everywhere: of any `Observation` it takes log p(y | x̂) and its gradient alone.

    Args:
        scale: ζ.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError(f"DPS needs a scale > 0, not {self.scale}.")

    def pulled(self, measurement: Observation, denoised: Tensor, covariance: Linear, sde: SDE, t: Tensor) -> Tensor:
        return self.scale * measurement.gradient(denoised)


@dataclass(frozen=True)
class PiGDM(Gradient):
    """u = (noise² I + ρ² A C A*)⁻¹ r, ρ² = σ²σ_d²/(σ² + α²σ_d²): Cov[x | x_t] ≈ ρ² C (Song et al. 2023, ΠGDM).

    Exact where the data are N(0, σ_d² C), A is linear and the noise Gaussian. Where A is not linear, or y are counts, it takes
    the linearisation at x̂. Song et al. weight the gradient by ρ² instead of σ²/α: stable, but not exact.
    w = (noise² I + ρ² A* A C)⁻¹ A* r is found by conjugate residuals, in one iteration where A* A is a projection and C white.

    Args:
        sigma_data: σ_d, the standard deviation of the data in model space. Only where σ exceeds it does it matter much.
        iterations: at most so many of the solver.
        tolerance: of the solver, relative to r.
    """

    sigma_data: float = 1.0
    iterations: int = 30
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_solver("PiGDM", self.iterations, self.tolerance)
        if not self.sigma_data > 0:
            raise InputError(f"PiGDM needs sigma_data > 0, not {self.sigma_data}.")

    def pulled(self, measurement: Observation, denoised: Tensor, covariance: Linear, sde: SDE, t: Tensor) -> Tensor:
        near = measurement.local(denoised)
        alpha, sigma = sde.scales(t, denoised)
        variance = ((sigma * self.sigma_data) ** 2 / (sigma**2 + (alpha * self.sigma_data) ** 2)).to(denoised)
        jacobian, normal, level = near.jacobian, near.normal, near.variance
        if normal is not None and level is not None:
            field = jacobian.adjoint(near.residual)
            return conjugate_residuals(
                lambda v: level * v + normal(variance * sde.noise.covariance(v)), field, self.iterations, self.tolerance
            )

        def matrix(v: Tensor) -> Tensor:
            return near.covariance(v) + jacobian(variance * sde.noise.covariance(jacobian.adjoint(v)))

        return jacobian.adjoint(conjugate_residuals(matrix, near.residual, self.iterations, self.tolerance))


@dataclass(frozen=True)
class MomentMatching(Gradient):
    """u = (noise² I + A Σ A*)⁻¹ r with the denoiser's own Σ = (σ²/α) J C (Rozet et al. 2024; Boys et al. 2024).

    p(x | x_t) is taken to be Gaussian with its true mean and covariance: exact for Gaussian data, white or not,
    linear A and Gaussian noise, of any covariance; of others it takes the linearisation at x̂. Every iteration
    of the solver, and one more, is a vector-Jacobian product, about two evaluations' cost; the denoiser itself is evaluated once.
    Where the noise is strong, σ² magnifies the errors of a network's Jacobian: more iterations than a few fit these.

    Args:
        iterations: at most so many of the solver.
        tolerance: of the solver, relative to r.
    """

    iterations: int = 5
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_solver("MomentMatching", self.iterations, self.tolerance)

    def pulled(self, measurement: Observation, denoised: Tensor, covariance: Linear, sde: SDE, t: Tensor) -> Tensor:
        near = measurement.local(denoised)
        jacobian = near.jacobian

        def matrix(v: Tensor) -> Tensor:
            return near.covariance(v) + jacobian(covariance(jacobian.adjoint(v)))

        return jacobian.adjoint(conjugate_residuals(matrix, near.residual, self.iterations, self.tolerance))


def check_solver(name: str, iterations: int, tolerance: float) -> None:
    """Refuse settings with which nothing is solved."""
    if iterations < 1 or not 0 <= tolerance < 1:
        raise InputError(f"{name} needs iterations >= 1 and 0 <= tolerance < 1, not {iterations} and {tolerance}.")


def conjugate_residuals(matrix: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float) -> Tensor:
    """x with M x = b for each sample of a batch by itself, the least ‖b − M x‖ over the directions b, M b, M² b, ... so far.

    Generalised conjugate residuals (Eisenstat, Elman and Schultz 1983). For a symmetric positive M it converges as conjugate
    gradients do. But the covariance of a network's denoiser is neither where the noise is strong, and there conjugate gradients
    take steps of any length, while this residual never grows. A sample rests once ‖b − M x‖ <= tolerance ‖b‖.
    """
    x, residual = torch.zeros_like(b), b
    enough = tolerance**2 * dot(b, b)
    directions: list[tuple[Tensor, Tensor]] = []
    for _ in range(iterations):
        active = dot(residual, residual) > enough
        if not bool(active.any()):
            break
        direction, moved = residual, matrix(residual)
        for before, moved_before in directions:
            share = along(moved, moved_before)
            direction, moved = direction - share * before, moved - share * moved_before
        step = torch.where(expand_like(active, b), along(residual, moved), 0)
        x, residual = x + step * direction, residual - step * moved
        directions.append((direction, moved))
    return x


def dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ of each sample."""
    return (a * b).flatten(1).sum(1)


def along(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩/⟨b, b⟩ of each sample, shaped to multiply fields; 0 where b is."""
    square = dot(b, b)
    return expand_like(torch.where(square > 0, dot(a, b) / square, 0), b)
