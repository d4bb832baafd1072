"""The law of guidance: with y = A x + n measured, x̂_y = E[x | x_t, y] = x̂ + (σ²/α) C ∇log p(y | x_t).

It is again a denoiser of the same SDE, so that every sampler draws from p(x | y) with it. Methods differ in p(y | x_t).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.flow_map import refuse_jumps
from scorefield.core.schedule import Schedule
from scorefield.core.sde import SDE, Field, Time, expand_like
from scorefield.foundation.errors import InputError
from scorefield.operators import LinearOperator

LEAST_SIGNAL = 1e-3  # α/σ below which x_t tells nothing of x: guidance divides by α and takes it no smaller


@dataclass(frozen=True, eq=False)
class Measurement:
    """y = A x + n, n ~ N(0, noise² I), of one field (batch of 1) or of each field of a batch.

    Entries of y that A leaves 0 whatever x is (a mask's hidden ones) are never read: they may hold anything, NaN too.

    Args:
        operator: A.
        y: what was measured, (1 or batch, channels, *grid).
        noise: its standard deviation in the units of y; 0 for an exact measurement.

    Raises:
        InputError: a negative noise, or values that are not finite where A does measure.
    """

    operator: LinearOperator
    y: Tensor
    noise: float = 0.0
    known: Tensor = field(init=False, repr=False)
    exact: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.noise >= 0:
            raise InputError(f"The noise of a measurement is a standard deviation >= 0, not {self.noise}.")
        shape = self.operator.adjoint(torch.zeros_like(self.y)).shape
        probe = 1 + torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(self.y)
        known = self.operator(probe) != 0  # where no field gives anything but 0, a random one does not
        if known.shape != self.y.shape:
            raise InputError(
                f"The measurement is {tuple(self.y.shape[1:])}, where its operator gives {tuple(known.shape[1:])}."
            )
        y = torch.where(known, self.y, 0)
        if not bool(y.isfinite().all()):
            raise InputError("The measurement holds NaN or infinite values: mask them out, they are not measured.")
        object.__setattr__(self, "known", known)
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "exact", self.noise == 0 and self._projects(probe))

    def _projects(self, x: Tensor) -> bool:
        """Whether A has a projection."""
        try:
            self.operator.project(x, self.y)
        except InputError:
            return False
        return True

    def residual(self, x: Tensor) -> Tensor:
        """y − A x."""
        return self.y.to(x) - self.operator(x)

    def matched(self, x: Tensor) -> Tensor:
        """The field nearest to x with A x = y, where y is exact and A has a projection, as E[x | x_t, y] has it; elsewhere x."""
        return self.operator.project(x, self.y.to(x)) if self.exact else x


class Method(ABC):
    """A way to E[x | x_t, y]. It evaluates the denoiser once.

    Attributes:
        settles: its x̂, taken for x_t again and again at falling levels and without noise, comes to rest near E[x | y].
    """

    settles: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self, denoiser: DenoiserProtocol, measurement: Measurement, x_t: Tensor, t: Tensor, cond: Condition | None
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
        measurement: y, and how it came about, in model space.
        method: how p(y | x_t) is approximated.
    """

    def __init__(self, denoiser: DenoiserProtocol, measurement: Measurement, method: Method) -> None:
        self.denoiser, self.measurement, self.method = denoiser, measurement, method

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        refuse_jumps(cond)
        return self.method(self.denoiser, self.measurement, x_t, t, cond)


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
