"""The law of guidance: with y = A x + n measured, x̂_y = E[x | x_t, y] = x̂ + (σ²/α) C ∇log p(y | x_t).

It is again a denoiser of the same SDE, so that every sampler draws from p(x | y) with it. Methods differ in p(y | x_t). That
law is of E[x | x_t] alone: of the two-time denoiser of a flow map x̂ is asked for, wherever a jump is to end.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.flow_map import without_end
from scorefield.core.noise import Noise
from scorefield.core.schedule import Schedule
from scorefield.core.sde import SDE, Field, Time, expand_like
from scorefield.foundation.errors import InputError
from scorefield.guidance.coordinates import coordinates
from scorefield.guidance.errors import Each, Errors, OfField, Part, Same
from scorefield.guidance.noisy_field import NoisyField, noisy_field
from scorefield.guidance.observation import Comparison, Known, Local, Observation, damping, halved, linear_share
from scorefield.operators import Compose, LinearOperator, Moved, Operator, Scale

LEAST_SIGNAL = 1e-3  # α/σ below which x_t tells nothing of x: guidance divides by α and takes it no smaller


@dataclass(frozen=True, eq=False)
class Measurement(Observation):
    """y = A(x) + n, n ~ N(0, R), of one field (batch of 1) or of each field of a batch.

    Entries of y that a linear A leaves 0 whatever x is (a mask's hidden ones), and those with a noise of ∞, are never read:
    they may hold anything, NaN too.

    Args:
        operator: A; a `LinearOperator` where it is linear.
        y: what was measured, (1 or batch, channels, *grid).
        noise: its standard deviation in the units of y, 0 for an exact measurement; one for each entry, (1 or batch, channels,
            *grid) or what broadcasts to that, above 0; or any `Noise` on the grid of y, of which n is a draw.
        unit: what y was divided by: log p(y) is the density of y times this.

    Raises:
        InputError: a negative noise, or values that are not finite where A does measure.
    """

    operator: Operator
    y: Tensor
    noise: float | Tensor | Noise = 0.0
    unit: float = 1.0
    known: Tensor = field(init=False, repr=False)
    exact: bool = field(init=False, repr=False)
    errors: Errors = field(init=False, repr=False)

    def __post_init__(self) -> None:
        known = torch.ones_like(self.y, dtype=torch.bool)
        probe = None
        if self.operator.linear:
            shape = self._linear.adjoint(torch.zeros_like(self.y)).shape
            probe = 1 + torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(self.y)
            known = self.operator(probe) != 0  # where no field gives anything but 0, a random one does not
            if known.shape != self.y.shape:
                raise InputError(
                    f"The measurement is {tuple(self.y.shape[1:])}, where its operator gives {tuple(known.shape[1:])}."
                )
        known, errors = self._errors(known)
        y = torch.where(known, self.y, 0)
        if not bool(y.isfinite().all()):
            raise InputError("The measurement holds NaN or infinite values: mask them out, they are not measured.")
        exact = isinstance(self.noise, float | int) and self.noise == 0
        object.__setattr__(self, "known", known)
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "errors", errors)
        object.__setattr__(self, "exact", exact and probe is not None and self._projects(probe))
        if exact and probe is None:
            raise InputError("A measurement by an A that is not linear needs a noise > 0: nothing projects on it.")

    def _errors(self, known: Tensor) -> tuple[Tensor, Errors]:
        """What is known, and the law of its noise."""
        noise = self.noise
        if isinstance(noise, Noise):
            whole = bool(known.all())
            return known, OfField(noise, self.y) if whole else Part(noise, known[:1])
        if isinstance(noise, Tensor):
            try:
                each = noise.to(self.y).expand(self.y.shape)
            except RuntimeError as error:
                sizes = f"{tuple(noise.shape)}, where y is {tuple(self.y.shape)}"
                raise InputError(
                    f"The noise of the measurement has the shape {sizes}: give one for each entry."
                ) from error
            known = known & ~each.isinf()
            if not bool((each[known] > 0).all()):
                raise InputError("A noise for each entry is a standard deviation > 0, or ∞ where nothing is known.")
            return known, Each(torch.where(known, each, 1).square(), known)
        if not 0 <= noise < math.inf:
            raise InputError(f"The noise of a measurement is a standard deviation >= 0, not {noise}.")
        return known, Same(float(noise), int(known.sum()))

    def _projects(self, x: Tensor) -> bool:
        """Whether A has a projection."""
        try:
            self._linear.project(x, self.y)
        except InputError:
            return False
        return True

    @property
    def _linear(self) -> LinearOperator:
        return cast(LinearOperator, self.operator)

    @property
    def _hides(self) -> bool:
        """Whether A gives values where nothing is known."""
        return isinstance(self.noise, Tensor)

    def residual(self, x: Tensor) -> Tensor:
        """y − A(x), 0 where nothing is known."""
        found = self.y.to(x) - self.operator(x)
        return torch.where(self.known.to(x.device), found, 0) if self._hides else found

    def local(self, x: Tensor) -> Local:
        jacobian = self.operator.jacobian(x)
        near = Known(jacobian, self.known.to(x.device)) if self._hides else jacobian
        errors = self.errors
        normal = self._linear.normal if self.operator.linear and errors.variance is not None else None
        return Local(near, self.residual(x), errors.covariance, errors.variance, normal)

    def log_prob(self, x: Tensor) -> Tensor:
        residual = self.residual(x).double()
        if residual.shape[1:] != self.y.shape[1:]:
            raise InputError(
                f"The measurement is {tuple(self.y.shape[1:])}, where A gives {tuple(residual.shape[1:])}."
            )
        square = (residual * self.errors.precision(residual)).flatten(1).sum(1)
        return -0.5 * (square + self.errors.log_det()) - self._constant

    @property
    def _constant(self) -> float:
        return int(self.known.sum()) * (0.5 * math.log(2 * math.pi) + math.log(self.unit))

    def gradient(self, x: Tensor) -> Tensor:
        near = self.local(x)
        residual, errors = near.residual, self.errors
        if errors.variance is not None:  # which may be 0
            known = self.known.to(residual).expand_as(residual).flatten(1).sum(1)
            mean_square = residual.square().flatten(1).sum(1) / known.clamp(min=1)
            variance = mean_square.clamp(min=max(errors.variance, torch.finfo(residual.dtype).tiny))
            return near.jacobian.adjoint(residual / expand_like(variance, residual))
        pull = errors.precision(residual)
        return near.jacobian.adjoint(pull / damping(residual, pull, self.known.to(x.device)))

    def share(self, x: Tensor, change: Tensor) -> Tensor:
        white = self.errors.variance is not None
        found = linear_share(self.local(x), change, (lambda v: v) if white else self.errors.precision)
        return found if self.operator.linear else halved(self.log_prob, x, change, found)

    def moved(self, scale: Tensor, shift: Tensor) -> Observation:
        if not self.operator.linear or isinstance(self.noise, Noise):
            if not self.operator.linear:
                return Measurement(Moved(self.operator, scale, shift), self.y, self.noise, self.unit)
            y = torch.where(self.known.to(shift.device), self.y.to(shift) - self._linear(shift), torch.nan)
            return Measurement(Compose((Scale(scale), self._linear)), y.to(self.y.dtype), self.noise, self.unit)
        unit = float(scale.abs().max())
        y = torch.where(self.known.to(shift.device), (self.y.to(shift) - self._linear(shift)) / unit, torch.nan)
        noise = cast(Tensor, self.noise) / unit
        operator = Compose((Scale(scale / unit), self._linear))
        return Measurement(operator, y.to(self.y.dtype), noise, self.unit * unit)

    def matched(self, x: Tensor) -> Tensor:
        """The field nearest to x with A x = y, where y is exact and A has a projection, as E[x | x_t, y] has it; elsewhere x."""
        return self._linear.project(x, self.y.to(x)) if self.exact else x

    def plain(self, who: str) -> tuple[LinearOperator, Tensor, float]:
        if not self.operator.linear or not isinstance(self.noise, float | int):
            return super().plain(who)
        return self._linear, self.y, float(self.noise)

    @property
    def weighable(self) -> bool:
        return len(self.y) == 1 and self.errors.variance != 0

    def comparison(self, noise: Noise, shape: tuple[int, ...], like: Tensor) -> Comparison:
        if not self.weighable:
            raise InputError(
                "Particles need one field that was measured with a noise > 0: weights compare likelihoods."
            )
        return coordinates(self.operator, self.y, self.known, self.errors, self.unit, noise, like)

    def as_noisy_field(self, noise: Noise, shape: tuple[int, ...]) -> NoisyField | None:
        if not (self.operator.linear and self.weighable):
            return None
        found = noisy_field(self._linear, self.y, self.known, self.errors, noise, shape)
        return found and replace(found, log_det=found.log_det - int(self.known.sum()) * math.log(self.unit))


class Method(ABC):
    """A way to E[x | x_t, y]. It evaluates the denoiser once.

    Attributes:
        settles: its x̂, taken for x_t again and again at falling levels and without noise, comes to rest near E[x | y].
    """

    settles: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self, denoiser: DenoiserProtocol, measurement: Observation, x_t: Tensor, t: Tensor, cond: Condition | None
    ) -> Tensor: ...


class Guided:
    """The denoiser x̂_y(x_t, t) of p(x | y).

    >>> import torch
    >>> from scorefield.guidance import Guided, Measurement, MomentMatching
    >>> from scorefield.operators import Coarsen
    >>> from scorefield.core.oracle import Gaussian
    >>> from scorefield.core.schedule import VP
    >>> from scorefield.core.sde import SDE
    >>> prior = Gaussian(SDE(VP()), torch.full((1, 8), 0.25, dtype=torch.float64))
    >>> y = torch.ones(1, 1, 4, dtype=torch.float64)
    >>> posterior = Guided(prior, Measurement(Coarsen(2), y, noise=0.1), MomentMatching())
    >>> posterior(torch.zeros(3, 1, 8, dtype=torch.float64), torch.tensor(0.5)).shape
    torch.Size([3, 1, 8])

    Args:
        denoiser: E[x | x_t], itself perhaps guided.
        measurement: y, and how it came about, in model space: any `Observation`.
        method: how p(y | x_t) is approximated.
    """

    def __init__(self, denoiser: DenoiserProtocol, measurement: Observation, method: Method) -> None:
        self.denoiser, self.measurement, self.method = denoiser, measurement, method

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        return self.method(self.denoiser, self.measurement, x_t, t, without_end(cond))


Linear = Callable[[Tensor], Tensor]


def linearise(denoiser: DenoiserProtocol, x_t: Tensor, t: Tensor, cond: Condition | None) -> tuple[Tensor, Linear]:
    """x̂ and the map v ↦ Σ v, Σ = Cov[x | x_t] = (σ²/α) J C = (σ²/α) C Jᵀ with J = ∂x̂/∂x_t.

    One evaluation; each Σ v is a vector-Jacobian product.
    """
    x_t, t = with_signal(denoiser.sde.schedule, x_t, t)
    with torch.enable_grad():
        point = x_t.detach().requires_grad_()
        denoised = denoiser(point, t, cond)
    factor = gain(denoiser.sde, x_t, t)

    def covariance(v: Tensor) -> Tensor:
        (pulled,) = torch.autograd.grad(denoised, point, v, retain_graph=True)
        return factor * denoiser.sde.noise.covariance(pulled)

    return denoised.detach(), covariance


def gain(sde: SDE, x_t: Tensor, t: Tensor) -> Tensor:
    """σ²/α, by which C ∇log p(y | x_t) moves x̂."""
    alpha, sigma = sde.scales(t, x_t)
    return (sigma**2 / alpha).to(x_t)


def with_signal(schedule: Schedule, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t at the last time at which there is some signal: the same noise, since there x_t holds next to nothing else."""
    last = torch.minimum(t, schedule.time(torch.full_like(t, 2 * math.log(LEAST_SIGNAL))))
    ratio = torch.where(last < t, schedule.sigma(last) / schedule.sigma(t), 1)  # σ(t) = 0 is far from there
    return expand_like(ratio, x_t).to(x_t) * x_t, last
