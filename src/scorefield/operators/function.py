"""A linear operator from a function of tensors: its adjoint by automatic differentiation, its projection by least squares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError, brief
from scorefield.operators.operator import LinearOperator
from scorefield.operators.solve import least_squares

Linear = Callable[[Tensor], Tensor]
NEAR = 1e-3  # relative, of what a function in single precision makes of sums


def as_operator(
    function: Linear, shape: Sequence[int], *, adjoint: Linear | None = None, iterations: int = 50
) -> LinearOperator:
    """y = f(x) as a `LinearOperator`.

    >>> import torch
    >>> from scorefield.operators import as_operator
    >>> columns = as_operator(lambda x: x.sum(-1), shape=(1, 2, 3))
    >>> columns.adjoint(torch.ones(1, 1, 2)).shape
    torch.Size([1, 1, 2, 3])

    Args:
        function: f, linear, from fields (batch, channels, *grid) to measurements (batch, ...), each field by itself.
        shape: (channels, *grid) of x.
        adjoint: f*, where it is not to be the vector-Jacobian product of f.
        iterations: of the conjugate gradients in `project`, which refuses an f that they do not invert.

    Raises:
        InputError: f does not make float32 tensors (batch, ...) of such, is not linear, mixes the fields of a batch, or cannot be
            differentiated and has no `adjoint`.
    """
    _try(function, shape)
    single = _single(function, shape)

    class Function(LinearOperator):
        def __call__(self, x: Tensor) -> Tensor:
            return function(x.float()).to(x.dtype) if single else function(x)

        def adjoint(self, y: Tensor) -> Tensor:
            if adjoint is None:
                return super().adjoint(y)
            return adjoint(y.float()).to(y.dtype) if single else adjoint(y)

        def project(self, x: Tensor, y: Tensor) -> Tensor:
            found = x + least_squares(self, y - self(x), iterations=iterations)
            if not torch.allclose(self(found), y.expand_as(self(x)), rtol=NEAR, atol=NEAR * float(y.abs().max())):
                raise InputError(
                    "The function has no projection that least squares find: take MomentMatching, PiGDM or DPS."
                )
            return found

    operator = Function()
    operator.shape = tuple(shape)
    _check(operator, shape)
    return operator


def _try(function: Any, shape: Sequence[int]) -> None:
    """Refuse what does not make a batch of real values of a batch of fields."""
    x = torch.zeros(2, *shape)
    wanted = f"a float32 tensor (batch, {', '.join(map(str, shape))}) is to be made one (batch, ...)"
    try:
        y = function(x)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"The function fails ({brief(error)}): {wanted}, with its constants as c.to(x).") from error
    if not isinstance(y, Tensor):
        raise InputError(f"The function gives {type(y).__name__}, not a tensor: {wanted}.")
    if y.is_complex():
        raise InputError(
            "The function gives complex values: give these as two channels, torch.cat((y.real, y.imag), dim=1)."
        )
    if y.ndim < 2 or len(y) != len(x):
        raise InputError(f"The function makes {tuple(y.shape)} of {tuple(x.shape)}: {wanted}, of two axes or more.")


def _single(function: Linear, shape: Sequence[int]) -> bool:
    """Whether a function takes float32 alone, as one with constants of its own does."""
    try:
        function(torch.zeros(1, *shape, dtype=torch.float64))
    except RuntimeError:
        return True
    return False


def _check(operator: LinearOperator, shape: Sequence[int]) -> None:
    """Refuse what is not linear, on fields of very different size, and what has no adjoint."""
    a, b = (torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    b = 1e3 * b
    of_a, of_b = operator(a), operator(b)
    cases = {
        "f(2 x) is not 2 f(x)": (operator(2 * a), 2 * of_a),
        "f(x + y) is not f(x) + f(y)": (operator(a + b), of_a + of_b),
        "it mixes the fields of a batch": (operator(torch.cat((a, b))), torch.cat((of_a, of_b))),
    }
    for what, (found, expected) in cases.items():
        if found.shape != expected.shape or not torch.allclose(
            found, expected, rtol=NEAR, atol=NEAR * float(expected.abs().max())
        ):
            raise InputError(
                f"The function is no linear measurement ({what}): guidance takes linear ones, field by field."
            )
    pulled = operator.adjoint(of_a)
    if pulled.shape != a.shape:
        raise InputError(
            f"The adjoint gives {tuple(pulled.shape[1:])}, not fields of {tuple(shape)}: give the shape of x."
        )
    left, right = float((of_b * of_a).sum()), float((b * pulled).sum())
    if abs(left - right) > NEAR * float(of_b.norm() * of_a.norm()):
        raise InputError("The adjoint does not belong to the function: <f(x), y> is not <x, f*(y)>; leave it out.")
