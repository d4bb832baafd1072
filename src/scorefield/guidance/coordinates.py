"""Coordinates of measured values in which they are independent under the noise of a sampler, for particles.

With R = L Lᵀ, B = L⁻¹A and B C B* = U D Uᵀ, z = Uᵀ B x has Cov z = D under noise C, and y is z with unit noise. C B* U D⁻¹
moves x by what z is to change, and leaves what is independent of z alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.guidance.errors import DENSE, Errors
from scorefield.guidance.observation import Comparison, Movable
from scorefield.operators import LinearOperator, Operator

LEAST = 1e-9  # of the largest variance, below which a coordinate is constant


def coordinates(
    operator: Operator, y: Tensor, known: Tensor, errors: Errors, unit: float, noise: Noise, like: Tensor
) -> Comparison:
    """Independent coordinates where A is linear and B C B* is diagonal or small enough; the entries of y as they are elsewhere.

    Args:
        operator: A.
        y: what was measured of one field, (1, ...).
        known: which entries.
        errors: R.
        unit: what y was divided by.
        noise: C.
        like: a tensor of the type and on the device of x.

    Raises:
        InputError: noise with a covariance of too many values.
    """
    known, size = known[0].flatten().to(like.device), y.shape[1:]
    whiten, unwhiten = errors.whitening(known, like)
    y = whiten(y.to(like.device).flatten(1)[:, known].double())[0]
    constant = len(y) * math.log(unit) + 0.5 * errors.log_det()

    def values(x: Tensor) -> Tensor:
        return whiten(operator(x).flatten(1)[:, known].double())

    def density(z: Tensor, r: Tensor, target: Tensor = y) -> Tensor:
        total = 1 + r
        return -0.5 * ((target - z).square() / total + (2 * math.pi * total).log()).sum(1) - constant

    if not operator.linear:
        return Comparison(values, density)
    linear = cast(LinearOperator, operator)

    def field(z: Tensor) -> Tensor:
        """C B* z."""
        flat = like.new_zeros((len(z), len(known)))
        flat[:, known] = unwhiten(z).to(like)
        return noise.covariance(linear.adjoint(flat.reshape(len(z), *size)))

    found = _modes(lambda z: values(field(z)), len(y), y)
    if found is None:
        return Comparison(values, density)
    basis, variances = found
    turned = y if basis is None else y @ basis

    def of(x: Tensor) -> Tensor:
        return values(x) if basis is None else values(x) @ basis

    def lift(z: Tensor) -> Tensor:
        return field(z if basis is None else z @ basis.T)

    return Comparison(of, lambda z, r: density(z, r, turned), movable=Movable(turned, variances, lift))


def _modes(gram: Callable[[Tensor], Tensor], count: int, like: Tensor) -> tuple[Tensor | None, Tensor] | None:
    """U and D of B C B*; no U where it is diagonal; None where it is too large a matrix."""
    probe = torch.randn((2, count), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)
    probe[0] = 1
    diagonal, seen = gram(probe)
    if bool((diagonal > 0).all()) and torch.allclose(
        seen, diagonal * probe[1], rtol=1e-4, atol=1e-5 * float(seen.abs().max())
    ):
        return None, diagonal
    if count > DENSE:
        return None
    matrix = torch.cat([gram(part) for part in torch.eye(count, dtype=torch.float64, device=like.device).split(256)])
    variances, basis = torch.linalg.eigh((matrix + matrix.T) / 2)
    return basis, variances.clamp(min=LEAST * float(variances.max()))
