"""What is measured of a field, linear or not: any map that torch differentiates, and its Jacobian at a field."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError


@runtime_checkable
class LinearMap(Protocol):
    """A linear map with its adjoint, of batches."""

    def __call__(self, x: Tensor, /) -> Tensor: ...

    def adjoint(self, y: Tensor, /) -> Tensor: ...


class Operator(ABC):
    """A map A from fields to measurements, which works on each field of a batch by itself.

    Attributes:
        linear: whether A is linear, as `LinearOperator` says of itself: its Jacobian is A, at every x.
    """

    linear: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A(x)."""

    def jacobian(self, x: Tensor) -> LinearMap:
        """J = ∂A/∂x at each field of a batch, by automatic differentiation."""
        return Tangent(self, x.detach())


@dataclass(frozen=True, eq=False)
class Tangent:
    """The Jacobian J of an operator at each field of a batch: a linear map of batches of that size.

    Args:
        operator: A.
        x: where, (batch, channels, *grid).
    """

    operator: Operator
    x: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        """J v."""
        return torch.func.jvp(self.operator.__call__, (self.x,), (v.to(self.x),))[1]

    def adjoint(self, u: Tensor) -> Tensor:
        """J* u."""
        pull = torch.func.vjp(self.operator.__call__, self.x)[1]
        return pull(u.to(self.x))[0]


@dataclass(frozen=True)
class Differentiable(Operator):
    """y = f(x) for any function of tensors that torch differentiates; for linear ones take `as_operator`.

    >>> import torch
    >>> from scorefield.operators import Differentiable
    >>> energy = Differentiable(lambda x: x.square())
    >>> energy.jacobian(torch.full((1, 1, 2), 3.0)).adjoint(torch.ones(1, 1, 2))
    tensor([[[6., 6.]]])

    Args:
        function: f, from fields (batch, channels, *grid) to measurements (batch, ...), each field by itself.
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        y = self.function(x)
        if not y.is_floating_point() or len(y) != len(x):
            raise InputError(
                f"The function makes {tuple(y.shape)} of {tuple(x.shape)}: it is to give (batch, ...), real."
            )
        return y


@dataclass(frozen=True, eq=False)
class Moved(Operator):
    """y = A(s x + b): an operator of fields in other units.

    Args:
        operator: A.
        scale: s, broadcastable to x.
        shift: b, broadcastable to x.
    """

    operator: Operator
    scale: Tensor
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.operator(self.scale.to(x) * x + self.shift.to(x))


@dataclass(frozen=True)
class Saturated(Operator):
    """y = limit tanh(x / limit): a sensor that saturates, with a soft knee.

    Args:
        limit: the largest value that it gives, in the units of x.
    """

    limit: float = 1.0

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise InputError(f"Saturated needs a limit > 0, not {self.limit}.")

    def __call__(self, x: Tensor) -> Tensor:
        return self.limit * torch.tanh(x / self.limit)


@dataclass(frozen=True)
class FourierMagnitude(Operator):
    """y = √(|F x|² + ε²), the unitary Fourier transform without its phases: phase retrieval.

    The fields may be shifted and mirrored without a change of y: the posterior has as many modes.

    Args:
        floor: ε > 0, in the units of x, by which y has a derivative everywhere.
    """

    floor: float = 1e-3

    def __post_init__(self) -> None:
        if not self.floor > 0:
            raise InputError(f"FourierMagnitude needs a floor > 0, not {self.floor}.")

    def __call__(self, x: Tensor) -> Tensor:
        modes = torch.fft.fftn(x, dim=tuple(range(2, x.ndim)), norm="ortho")
        return (modes.real.square() + modes.imag.square() + self.floor**2).sqrt()
