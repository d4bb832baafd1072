"""What an operator must give, and how operators are joined."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.operators.nonlinear import Operator


class LinearOperator(Operator):
    """A linear map A from fields to measurements, which work on each field of a batch by itself.

    Attributes:
        shape: (channels, *grid) of x; needed where `adjoint` is to be derived.
    """

    linear: ClassVar[bool] = True
    shape: Sequence[int] = ()

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x."""

    def jacobian(self, x: Tensor) -> LinearOperator:
        """A itself, at every x."""
        return self

    def adjoint(self, y: Tensor) -> Tensor:
        """A* y: by default the vector-Jacobian product of A, which is the same at any x.

        Raises:
            InputError: by default, where `shape` is not given, or A cannot be differentiated.
        """
        if not self.shape:
            raise InputError(f"{type(self).__name__} has no adjoint: give it one, or the `shape` of x to derive it.")
        with torch.enable_grad():
            x = y.new_zeros(len(y), *self.shape).requires_grad_()
            value = self(x)
            if not value.requires_grad:
                raise InputError(
                    "The function cannot be differentiated by torch: write it in torch, or give its adjoint."
                )
            return torch.autograd.grad(value, x, y, create_graph=y.requires_grad)[0]

    def normal(self, x: Tensor) -> Tensor:
        """A* A x; an operator that knows a shorter way than through A x may say so."""
        return self.adjoint(self(x))

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """x + A⁺(y − A x), the field nearest to x that measures y; A⁺y is `project` of zeros. An operator need not have one.

        Raises:
            InputError: by default, which is right where A⁺ has no closed form, or would amplify noise without bound.
        """
        raise InputError(
            f"{type(self).__name__} has no projection: take MomentMatching, PiGDM or DPS, or give it `project`."
        )


@dataclass(frozen=True)
class Identity(LinearOperator):
    """y = x: denoising."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return y.expand_as(x)


@dataclass(frozen=True, eq=False)
class Scale(LinearOperator):
    """y = s x, elementwise: a change of units.

    Args:
        factor: s, nowhere 0, broadcastable to x.
    """

    factor: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor.to(x) * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.factor.to(y) * y

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return (y / self.factor.to(y)).expand_as(x)


@dataclass(frozen=True)
class Compose(LinearOperator):
    """y = A_n ... A_1 x.

    Args:
        operators: A_1, which sees x, to A_n.
    """

    operators: Sequence[LinearOperator]

    def __call__(self, x: Tensor) -> Tensor:
        for operator in self.operators:
            x = operator(x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        for operator in reversed(self.operators):
            y = operator.adjoint(y)
        return y

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """Projects what A_1 measures of x by the others, then x by A_1: A x′ = y, though x′ need not be the nearest to x.

        Raises:
            InputError: also where A_1 cannot measure what the others need, as after a mask.
        """
        if not self.operators:
            return y.expand_as(x)
        first, rest = self.operators[0], Compose(self.operators[1:])
        measured = first(x)
        wanted = rest.project(measured, y) if rest.operators else y
        found = first.project(x, wanted)
        if rest.operators and not torch.allclose(
            first(found), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())
        ):
            raise InputError(f"{rest} after {first} has no projection in closed form: take MomentMatching.")
        return found
