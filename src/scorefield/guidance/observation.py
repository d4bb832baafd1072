"""What is known of a field: a likelihood p(y | x), and how much of its structure methods may use.

All that guides is an `Observation`: its log-likelihood and the gradient, which DPS and particles take; its linearisation, y −
A(x′) ≈ r − J (x′ − x) with noise of covariance R, which PiGDM and moment matching take, and which is exact for linear A and
Gaussian noise; and the coordinates by which particles compare fields with y.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.sde import expand_like
from scorefield.foundation.errors import InputError
from scorefield.guidance.noisy_field import NoisyField
from scorefield.operators import LinearMap, LinearOperator, Moved, Operator

LEAST_RATE = 1e-6  # counts expected, below which a rate is taken for this one
HALVINGS = 12  # of a step that makes the likelihood smaller


@dataclass(frozen=True, eq=False)
class Local:
    """y − A(x′) ≈ r − J (x′ − x), with noise n ~ N(0, R): a likelihood near x.

    Args:
        jacobian: J.
        residual: r = y − A(x), 0 where nothing is known.
        covariance: v ↦ R v, of what is known.
        variance: that of each entry, where R is a multiple of the identity.
        normal: v ↦ J* J v, where there is a shorter way than by J.
    """

    jacobian: LinearMap
    residual: Tensor
    covariance: Callable[[Tensor], Tensor]
    variance: float | None = None
    normal: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """A likelihood by coordinates z of fields, (batch, M), with a spread: log ∫ p(y | z′) N(z′; z, diag r) dz′, or near it.

    Args:
        of: x ↦ z, in float64.
        density: (z, r) ↦ log p(y | z, r), (batch), r (M); that of the observation itself where r is 0.
        spread: (z of some fields, z of their estimates) ↦ r.
        movable: where z is linear in x and its coordinates are independent under noise, how they are moved.
    """

    of: Callable[[Tensor], Tensor]
    density: Callable[[Tensor, Tensor], Tensor]
    spread: Callable[[Tensor, Tensor], Tensor] = field(default=lambda z, estimate: (z - estimate).square().mean(0))
    movable: Movable | None = None


@dataclass(frozen=True, eq=False)
class Movable:
    """Coordinates z = B x, independent under noise C, with unit noise in y.

    Args:
        y: what was measured, in z, (M).
        variances: D, those of z under noise, (M): B C B* = diag D.
        lift: (batch, M) ↦ C B*, a field (batch, channels, *grid).
    """

    y: Tensor
    variances: Tensor
    lift: Callable[[Tensor], Tensor]


class Observation(ABC):
    """p(y | x) of one field, or of each of a batch."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(y | x) of each field, (batch), in float64, differentiable."""

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """∇ log p(y | x), a field; where y is far off, of a noise that is as large as what is left."""

    @abstractmethod
    def share(self, x: Tensor, change: Tensor) -> Tensor:
        """0 <= c <= 1, (batch), with which x + c change explains y best, as far as its linearisation tells, and no worse than
        x.
        """

    @abstractmethod
    def moved(self, scale: Tensor, shift: Tensor) -> Observation:
        """What is known of z, x = scale z + shift."""

    @abstractmethod
    def comparison(self, noise: Noise, shape: tuple[int, ...], like: Tensor) -> Comparison:
        """Coordinates for particles of fields (channels, *grid) that go by noise C."""

    def local(self, x: Tensor) -> Local:
        """The likelihood near x. Raises InputError where it has no such structure."""
        raise InputError(
            f"{type(self).__name__} has no measured values to be linearised: take DPS, alone or as the proposal of Particles."
        )

    def as_noisy_field(self, noise: Noise, shape: tuple[int, ...]) -> NoisyField | None:
        """What was measured as a field (channels, *grid) with noise C of some strength; None where it is no such field."""
        return None

    def matched(self, x: Tensor) -> Tensor:
        """The field nearest to x that agrees with an exact measurement; x where it is none."""
        return x

    def plain(self, who: str) -> tuple[LinearOperator, Tensor, float]:
        """A, y and σ of y = A x + σ n, A linear, n white. Raises InputError for anything else."""
        raise InputError(
            f"{who} takes a linear A and white noise of one standard deviation: take DPS, PiGDM or Particles."
        )

    @property
    def weighable(self) -> bool:
        """Whether likelihoods of different fields can be compared: there is noise, and one field was measured."""
        return True


@dataclass(frozen=True, eq=False)
class LogLikelihood(Observation):
    """What is known of a field as any log-likelihood ℓ(x): robust errors, censored values, a classifier, limits.

    DPS takes it, and corrected by `Particles` it is exact in the limit; PiGDM and moment matching refuse it, as there are no
    measured values to linearise. By `Particles` it should be the likelihood with all its constants, or log p(y) is off by them.

    Args:
        function: ℓ, from fields (batch, channels, *grid) to (batch), differentiable by torch.
        values: how many independent values it judges, about; by it particles are led from the prior to it.
    """

    function: Callable[[Tensor], Tensor]
    values: int = 1

    def __post_init__(self) -> None:
        if self.values < 1:
            raise InputError(f"LogLikelihood needs values >= 1, not {self.values}.")

    def log_prob(self, x: Tensor) -> Tensor:
        found = self.function(x)
        if found.shape != x.shape[:1]:
            raise InputError(
                f"The log-likelihood gives {tuple(found.shape)} of {len(x)} fields: give one number of each."
            )
        return found.double()

    def gradient(self, x: Tensor) -> Tensor:
        return self._slopes(x)[1]

    def share(self, x: Tensor, change: Tensor) -> Tensor:
        point, slope = self._slopes(x, graph=True)
        along = (slope * change).flatten(1).sum(1)
        bend = torch.zeros_like(along)
        if along.requires_grad:
            with torch.enable_grad():
                (twice,) = torch.autograd.grad(along.sum(), point, allow_unused=True)
            bend = bend if twice is None else -(twice * change).flatten(1).sum(1)
        whole = torch.where(bend > 0, along.detach() / bend.clamp(min=torch.finfo(bend.dtype).tiny), 1).clamp(0, 1)
        return halved(self.log_prob, x, change, whole)

    def moved(self, scale: Tensor, shift: Tensor) -> Observation:
        function = self.function
        return replace(self, function=lambda z: function(scale.to(z) * z + shift.to(z)))

    def comparison(self, noise: Noise, shape: tuple[int, ...], like: Tensor) -> Comparison:
        """z = ℓ(x), tempered: ℓ/(1 + r), r the mean loss of ℓ by estimates of fields: as a noise that grows by the factor 1 +
        r.
        """

        def density(z: Tensor, r: Tensor) -> Tensor:
            return (z / (1 + r))[:, 0]

        def spread(z: Tensor, estimate: Tensor) -> Tensor:
            return (2 * (estimate - z).mean(0) / self.values).clamp(min=0)

        return Comparison(lambda x: self.log_prob(x)[:, None], density, spread)

    def _slopes(self, x: Tensor, graph: bool = False) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.log_prob(point).sum(), point, create_graph=graph)
        return point, slope


@dataclass(frozen=True, eq=False)
class Poisson(Observation):
    """Counts y ~ Poisson(λ), λ = exposure · A(x) + background: photons, events.

    Near x it is a measurement with noise of variance λ, y − λ(x′) ≈ y − λ(x) − J (x′ − x), by which PiGDM and moment matching
    take it: good where counts are many. `Particles` need no such approximation. Rates below 1e-6 are taken for 1e-6.

    Args:
        operator: A, linear or not, of values >= 0.
        y: the counts, (1 or batch, ...): whole numbers >= 0; NaN where nothing was counted.
        exposure: counts for each unit of A(x).
        background: counts that are expected where A(x) is 0.
    """

    operator: Operator
    y: Tensor
    exposure: float = 1.0
    background: float = 0.0
    known: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        known = ~self.y.isnan()
        y = torch.where(known, self.y, 0)
        if bool((y < 0).any()) or bool((y != y.round()).any()) or not bool(y.isfinite().all()):
            raise InputError("Poisson takes counts, whole numbers of at least 0, NaN where nothing was counted.")
        if not (self.exposure > 0 and self.background >= 0):
            raise InputError(f"Poisson needs exposure > 0, background >= 0, not {self.exposure}, {self.background}.")
        object.__setattr__(self, "known", known)
        object.__setattr__(self, "y", y)

    def rate(self, x: Tensor) -> Tensor:
        """λ(x)."""
        found = self.exposure * self.operator(x) + self.background
        if found.shape[1:] != self.y.shape[1:]:
            raise InputError(f"The counts are {tuple(self.y.shape[1:])}, where A gives {tuple(found.shape[1:])}.")
        return found.clamp(min=LEAST_RATE)

    def log_prob(self, x: Tensor) -> Tensor:
        rate, y = self.rate(x).double(), self.y.to(x.device).double()
        return torch.where(self.known.to(x.device), y * rate.log() - rate - torch.lgamma(y + 1), 0).flatten(1).sum(1)

    def local(self, x: Tensor) -> Local:
        rate, known = self.rate(x), self.known.to(x.device)
        residual = torch.where(known, self.y.to(x) - rate, 0)
        jacobian = Known(self.operator.jacobian(x), known, self.exposure)
        return Local(jacobian, residual, lambda v: rate * v)

    def gradient(self, x: Tensor) -> Tensor:
        near, rate = self.local(x), self.rate(x)
        pull = near.residual / rate
        return near.jacobian.adjoint(pull / damping(near.residual, pull, self.known))

    def share(self, x: Tensor, change: Tensor) -> Tensor:
        near, rate = self.local(x), self.rate(x)
        return halved(self.log_prob, x, change, linear_share(near, change, lambda v: v / rate))

    def moved(self, scale: Tensor, shift: Tensor) -> Observation:
        y = torch.where(self.known, self.y, torch.nan)
        return Poisson(Moved(self.operator, scale, shift), y, self.exposure, self.background)

    def comparison(self, noise: Noise, shape: tuple[int, ...], like: Tensor) -> Comparison:
        """z = λ; a rate with variance r, by a Gamma law, makes negative binomial counts."""
        if len(self.y) != 1:
            raise InputError("Particles need what was measured of one field.")
        known = self.known.flatten().to(like.device)
        y = self.y.flatten().to(like.device)[known].double()

        def density(z: Tensor, r: Tensor) -> Tensor:
            plain = y * z.log() - z
            wide = (r > 1e-5 * z) & (r > 0)
            shape = z.square() / torch.where(wide, r, 1)
            total = torch.log(shape + z)
            spread = (
                torch.lgamma(y + shape) - torch.lgamma(shape) + shape * (shape.log() - total) + y * (z.log() - total)
            )
            return (torch.where(wide, spread, plain) - torch.lgamma(y + 1)).sum(1)

        return Comparison(lambda x: self.rate(x).flatten(1)[:, known].double(), density)

    @property
    def weighable(self) -> bool:
        return len(self.y) == 1


@dataclass(frozen=True, eq=False)
class Known:
    """factor · J, and 0 for what is not known.

    Args:
        jacobian: J.
        known: which entries are.
        factor: of them.
    """

    jacobian: LinearMap
    known: Tensor
    factor: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(self.known, self.factor * self.jacobian(x), 0)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.jacobian.adjoint(torch.where(self.known, self.factor * y, 0))


def damping(residual: Tensor, pull: Tensor, known: Tensor) -> Tensor:
    """max(1, rᵀR⁻¹r/M) for M known values, shaped as r, of pull = R⁻¹r: by how much the noise is smaller than what is left."""
    count = known.to(residual).expand_as(residual).flatten(1).sum(1).clamp(min=1)
    return expand_like(((residual * pull).flatten(1).sum(1) / count).clamp(min=1), residual)


def linear_share(near: Local, change: Tensor, precision: Callable[[Tensor], Tensor]) -> Tensor:
    """0 <= c <= 1 where (r − c J change)ᵀ R⁻¹ (r − c J change) is least."""
    moved = near.jacobian(change)
    pulled = precision(moved)
    square, product = (moved * pulled).flatten(1).sum(1), (near.residual * pulled).flatten(1).sum(1)
    return torch.where(square > 0, product / square, 0).clamp(0, 1)


def halved(log_prob: Callable[[Tensor], Tensor], x: Tensor, change: Tensor, share: Tensor) -> Tensor:
    """A share, halved until log p(y | x + share · change) is no less than log p(y | x); 0 if it never is."""
    with torch.no_grad():
        before = log_prob(x)
        for _ in range(HALVINGS):
            worse = ~(log_prob(x + expand_like(share, change) * change) >= before) & (share > 0)
            if not bool(worse.any()):
                return share
            share = torch.where(worse, 0.5 * share, share)
        return torch.where(worse, 0, share)
