"""Losses that learn from undersampled, noisy measurements alone: y = A x + σ n, A another one for each example.

u = Aᴴy/σ² is all that y tells of x, u ~ N(Qx, Q) with Q = AᴴA/σ². For such laws Stein's lemma reads
E (u − Qx)ᵀf(u) = E tr(Q ∂f/∂u) (Eldar 2009, IEEE Trans. Signal Process. 57, theorem 1). Here f(u) = h(v) = x̂(α v, t_w) with
v = σ²u = Aᴴy, the zero-filled image, hence ∂f/∂u = σ² J with J = ∂h/∂v. Noise that is not white is whitened first: with
L Lᴴ = C, take L⁻¹y for y and L⁻¹A for A, so that u = AᴴC⁻¹y, and σ = 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.sde import expand_like
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.divergence import Derivative, FiniteDifference, full_precision
from scorefield.losses.loss import Loss, Metric
from scorefield.losses.sure import level_of, noise_of
from scorefield.operators import LinearOperator, Sense

Seen = Literal["projected", "measured"]
ITERATIONS, TOLERANCE = (1000, 1e-10)  # of the solver for A⁺y, in float64: to 1e-6 where σ_min is 1e-2 σ_max
CONVERGED = 1e-8  # of AᴴA A⁺y = Aᴴy, relative


class Acquisition(ABC):
    """How the fields of a batch were measured."""

    @abstractmethod
    def __call__(self, batch: Batch) -> LinearOperator:
        """A, which may be another for each sample."""


@dataclass(frozen=True, eq=False)
class PerSample(LinearOperator):
    """Every sample of a batch through an operator of its own.

    Args:
        operators: one for each sample.
    """

    operators: Sequence[LinearOperator]

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([A(row[None]) for A, row in zip(self.operators, x, strict=True)])

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.cat([A.adjoint(row[None]) for A, row in zip(self.operators, y, strict=True)])

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        rows = zip(self.operators, x, y, strict=True)
        return torch.cat([A.project(first[None], second[None]) for A, first, second in rows])


@dataclass(frozen=True)
class SampledKSpace(Acquisition):
    """A = M F S: `batch.given` holds the sampled points, `mask` (batch, *grid), and coil maps, `maps` (batch, coils, *grid)."""

    def __call__(self, batch: Batch) -> LinearOperator:
        missing = [name for name in ("mask", "maps") if name not in batch.given]
        if missing:
            raise InputError(
                f"The data do not bring the {' and '.join(missing)} that their k-space was sampled with: take them from "
                "scorefield.mri.Undersampled, or a source of your own that sets Batch.given."
            )
        pairs = zip(batch.given["maps"], batch.given["mask"], strict=True)
        return PerSample([Sense(maps, mask, ITERATIONS, TOLERANCE) for maps, mask in pairs])


@dataclass(frozen=True)
class GSURE(Loss):
    """mean[‖A h‖² − 2 hᵀAᴴy + 2σ² zᵀJz], z = Aᴴw, w = ±1: the error in what was measured (after Eldar 2009, eq. 36).

    Estimand: E GSURE = E[‖A(h(v) − x)‖² − ‖A x‖²]/D with D the elements of x, exactly, for every h. What A never sees, with one
    and the same A for all examples, is never learnt: A must vary, and training warns where it does not.

    With norm "projected" it is Eldar's mean[‖P h‖² − 2 hᵀA⁺y + 2σ² zᵀJz], z = P w, P = A⁺A, and the estimand
    E[‖P(h(v) − x)‖² − ‖P x‖²]/D: the same where the singular values of A are 0 or 1, as for one coil. Where they are not, as for
    many coils, A⁺ amplifies the noise by their inverse, and takes hundreds of iterations in float64: fewer are no projection, and
    bias the estimate.

    Args:
        acquisition: A.
        derivative: how Jz is found.
        norm: that of the error.

    Raises:
        InputError: "projected", where A⁺y is not found.
    """

    acquisition: Acquisition = field(default_factory=SampledKSpace)
    derivative: Derivative = field(default_factory=FiniteDifference)
    norm: Seen = "measured"

    @property
    def figures(self) -> tuple[Metric, ...]:
        """NRMSE of noise and image, as far as A sees it."""
        loss = replace(self, norm="measured")
        return MeasuredError(loss, of_noise=True), MeasuredError(loss, of_noise=False)

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        y, A = measured(batch, self.acquisition)
        v = A.adjoint(y)
        noise, function = input_of(denoiser, batch)
        whole = self.norm == "measured"
        w = generator.rademacher(y.shape if whole else v.shape, like=v)
        z = A.adjoint(w) if whole else ranged(A, w)
        with full_precision(v):
            h, slope = self.derivative(function, v, z, noise)
        matched = v if whole else pseudo_inverse(A, y)
        products = (h * matched).flatten(1).sum(1) - noise.square() * slope.flatten(1).sum(1)
        return (energy(A, h, self.norm) - 2 * products) / v[0].numel()


@dataclass(frozen=True)
class SupervisedGSURE(Loss):
    """mean ‖A(h(v) − x)‖², with the clean x: what `GSURE` estimates without it, up to E ‖A x‖²; the reference for it.

    Estimand: itself. Its gradient is that of `GSURE` in the mean.

    Args:
        acquisition: A.
        norm: "measured", or "projected": ‖P(h(v) − x)‖².
    """

    acquisition: Acquisition = field(default_factory=SampledKSpace)
    norm: Seen = "measured"

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        y, A = measured(batch, self.acquisition)
        v = A.adjoint(y)
        return energy(A, input_of(denoiser, batch)[1](v) - batch.x, self.norm) / v[0].numel()


@dataclass(frozen=True)
class MeasuredError(Metric):
    """NRMSE of what was measured, ‖A(h − x)‖/‖A x‖, or of its noise, ‖n̂ − n‖/‖n‖ with n̂ = y − A h: the same error.

    From measurements alone: ‖A x‖² = ‖y‖² − σ² M and ‖n‖² = σ² M in the mean, M the real numbers that were measured, where y ≠ 0.

    Args:
        loss: whose estimate it is, of norm "measured".
        of_noise: what the error is compared with.
    """

    loss: GSURE
    of_noise: bool

    @property
    def name(self) -> str:
        """That of `SURE`'s, too."""
        return "noise_nrmse" if self.of_noise else "image_nrmse"

    def __call__(
        self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        y, noise = measured(batch, self.loss.acquisition)[0].flatten(1), noise_of(batch)
        noisy = noise.square() * (y != 0).sum(1) / batch.x[0].numel()
        signal = y.square().sum(1) / batch.x[0].numel() - noisy
        error = self.loss(denoiser, batch, generator=generator) + signal
        return error, noisy if self.of_noise else signal


def measured(batch: Batch, acquisition: Acquisition) -> tuple[Tensor, LinearOperator]:
    """y, and its operator. Raises InputError where the data have no measurements."""
    if batch.y is None:
        raise InputError(
            "This loss learns from measurements y = A x + n, and the data have none: take them from "
            "scorefield.mri.Undersampled, or a source of your own that sets Batch.y, given and noise."
        )
    return batch.y.to(batch.x), acquisition(batch)


def input_of(denoiser: DenoiserProtocol, batch: Batch) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """σ of each sample, and h: v ↦ x̂(α v, t_w)."""
    noise, t = level_of(denoiser, batch)
    alpha = denoiser.sde.schedule.alpha(t)
    return noise, lambda v: denoiser(expand_like(alpha, v) * v, t, batch.cond)


def energy(A: LinearOperator, x: Tensor, norm: Seen) -> Float[Tensor, " batch"]:
    """‖A x‖², or ‖P x‖² = xᵀP x, of which the gradient 2 P x needs none of the solver."""
    if norm == "measured":
        return A(x).square().flatten(1).sum(1)
    seen = ranged(A, x)
    return (seen * (2 * x - seen)).flatten(1).sum(1)


def ranged(A: LinearOperator, x: Tensor) -> Tensor:
    """P x = A⁺A x, a constant to what x depends on."""
    return pseudo_inverse(A, A(x.detach().double())).to(x)


@torch.no_grad()
def pseudo_inverse(A: LinearOperator, y: Tensor) -> Tensor:
    """A⁺y, solved for in float64. Raises InputError where AᴴA A⁺y = Aᴴy is not reached."""
    whole = y.double()
    pulled = A.adjoint(whole)
    found = A.project(torch.zeros_like(pulled), whole)
    left = (A.normal(found) - pulled).flatten(1).norm(dim=1)
    if bool((left > CONVERGED * pulled.flatten(1).norm(dim=1)).any()):
        raise InputError(
            "What these measurements project on is not found: their singular values are too small. Take norm measured."
        )
    return found.to(y)
