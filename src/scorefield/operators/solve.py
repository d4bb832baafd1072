"""Linear systems with an operator: conjugate gradients, the pseudo-inverse and the projection onto what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.operators.operator import LinearOperator

ROUNDING = 8  # times the precision of numbers, below which residuals hold nothing else


def conjugate_gradients(
    matrix: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    iterations: int,
    tolerance: float,
    seen: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """x with M x = b, M symmetric and positive semi-definite, for each sample of a batch by itself (Hestenes and Stiefel 1952).

    From x = 0, so that x lies in the range of M; a sample rests once ‖b − M x‖ <= tolerance ‖b‖, or is rounding: what is left
    lies outside of the range then, where steps have no bound.

    Args:
        matrix: v ↦ M v.
        b: (batch, ...), real or complex.
        iterations: at most so many, each with one product by M.
        tolerance: relative to ‖b‖.
        seen: called with the number of iterations made and x, after each of them.
    """
    if iterations < 1 or not 0 <= tolerance < 1:
        raise InputError(
            f"Conjugate gradients need iterations >= 1 and 0 <= tolerance < 1, not {iterations}, {tolerance}."
        )

    def dot(u: Tensor, v: Tensor) -> Tensor:
        product = (u.conj() * v).real if u.is_complex() else u * v
        return product.flatten(1).sum(1).reshape(-1, *(1,) * (u.ndim - 1))

    x, residual, direction = torch.zeros_like(b), b, b
    square = dot(b, b)
    enough = max(tolerance, ROUNDING * torch.finfo(b.dtype).eps) ** 2 * square
    for number in range(iterations):
        active = square > enough
        if not bool(active.any()):
            break
        moved = matrix(direction)
        curvature = dot(direction, moved)
        step = torch.where(active & (curvature > 0), square / curvature, 0)
        x, residual = x + step * direction, residual - step * moved
        before, square = square, dot(residual, residual)
        direction = residual + torch.where(before > 0, square / before, 0) * direction
        if seen is not None:
            seen(number + 1, x)
    return x


def least_squares(
    operator: LinearOperator, y: Tensor, *, damping: float = 0.0, iterations: int = 30, tolerance: float = 1e-6
) -> Tensor:
    """argmin ‖A x − y‖² + damping ‖x‖², by conjugate gradients on the normal equations; the least of all where damping is 0.

    With damping 0 and iterations enough it is A⁺y, the pseudo-inverse. Few iterations regularise, too: those that an
    ill-conditioned A needs for its smallest singular values amplify the noise of y.
    """
    if not damping >= 0:
        raise InputError(f"Least squares need a damping >= 0, not {damping}.")

    def matrix(x: Tensor) -> Tensor:
        return operator.normal(x) + damping * x

    return conjugate_gradients(matrix, operator.adjoint(y), iterations=iterations, tolerance=tolerance)


def project_range(operator: LinearOperator, x: Tensor, *, iterations: int = 30, tolerance: float = 1e-6) -> Tensor:
    """P x = A⁺A x, the part of x that A measures; P is symmetric and P² = P as far as the iterations converge."""
    normal = operator.normal(x)
    return conjugate_gradients(operator.normal, normal, iterations=iterations, tolerance=tolerance)


def largest_singular_value(operator: LinearOperator, shape: Sequence[int], iterations: int = 30) -> float:
    """‖A‖ for fields (channels, *grid), by power iterations on A* A from a random field: from below, to a percent or so."""
    x = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    for _ in range(iterations):
        x = operator.normal(x / x.norm())
    return math.sqrt(float(x.norm()))
