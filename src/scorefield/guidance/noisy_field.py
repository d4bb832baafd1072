"""Measurements that are fields with the noise of the process: of these log p(y) is a marginal density of the process itself.

Where A is square and A C A* = R/r, x′ = A⁻¹ y = r C A* R⁻¹ y is x + √r ξ with ξ ~ N(0, C), hence x_t/α at the level σ/α = √r. So
log p(y) = log p(x′) + log |det A⁻¹|, and |det A|² det C = det R r⁻ᴹ for M values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.guidance.errors import Errors
from scorefield.operators import LinearOperator

SAME = 1e-4  # to which A C A* has to be R/r: far above the rounding of units, and log p(y) hardly differs by it


@dataclass(frozen=True, eq=False)
class NoisyField:
    """x + level · ξ, ξ ~ N(0, C), as which y can be read.

    Args:
        x: that field, (1, channels, *grid), in float64.
        level: σ/α.
        log_det: log |det ∂x/∂y|, by which log p(y) in nats exceeds that of the field.
    """

    x: Tensor
    level: float
    log_det: float


def noisy_field(
    operator: LinearOperator, y: Tensor, known: Tensor, errors: Errors, noise: Noise, shape: tuple[int, ...]
) -> NoisyField | None:
    """y as a field (channels, *grid) with noise C; None where it is no such field.

    Args:
        operator: A.
        y: what was measured of one field, (1, ...).
        known: which entries.
        errors: R.
        noise: C.
        shape: of the field.
    """
    count = int(known.sum())
    if count != noise.dimension(shape):
        return None

    def precision(v: Tensor) -> Tensor:
        """R⁻¹ v, of what is known."""
        return torch.where(known, errors.precision(torch.where(known, v, 0)), 0)

    def spread(v: Tensor) -> Tensor:
        """C A* v."""
        return noise.covariance(operator.adjoint(v))

    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probe = torch.where(known, probe.to(y.device), 0)
    seen = precision(operator(spread(probe)))
    ratio = float((probe * seen).sum() / probe.square().sum())
    if not torch.allclose(seen / ratio, probe, rtol=SAME, atol=SAME):
        return None
    own = float(noise.log_det(torch.zeros(1, *shape, dtype=torch.float64, device=y.device)))
    log_det = 0.5 * (own - errors.log_det() - count * math.log(ratio))
    return NoisyField(spread(precision(y.double())) / ratio, ratio**-0.5, log_det)
