"""What stands in x_t where a field is not known, while a denoiser learns from what is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SWEEPS = 8
POOLS = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def interpolated(
    x: Float[Tensor, "batch channels *grid"], mask: Tensor | None
) -> Float[Tensor, "batch channels *grid"]:
    """x with its unknown elements between those around them: means of the nearest that are known, smoothed.

    An unknown element gets the mean over the smallest of the boxes of 1, 2, 4, ... points of a pyramid that holds a known one,
    and is then replaced by the mean of its 3^rank neighbours, 8 times over: nearly a harmonic function with the known values at
    its boundary. 0 in fields of which nothing is known.

    Args:
        x: anything finite where it is not known.
        mask: 1 where x is known, broadcastable to x; none where it is everywhere.
    """
    if mask is None:
        return x
    known = mask.bool().expand(x.shape)
    if bool(known.all()):
        return x
    pool = POOLS[x.ndim - 3]
    weight = known.to(x)
    filled = _nearest(torch.where(known, x, 0), weight, pool)
    for _ in range(SWEEPS):
        around = pool(filled, 3, stride=1, padding=1, count_include_pad=False)
        filled = torch.where(known, x, around)
    return filled


def _nearest(total: Tensor, weight: Tensor, pool: Callable[..., Tensor]) -> Tensor:
    """total/weight, and where the weight is 0 that of boxes twice as wide."""
    seen = weight > 0
    mean = total / torch.where(seen, weight, 1)
    if bool(seen.all()) or max(total.shape[2:]) == 1:
        return mean
    wider = _nearest(pool(total, 2, ceil_mode=True), pool(weight, 2, ceil_mode=True), pool)
    for axis, points in enumerate(total.shape[2:], start=2):
        wider = wider.repeat_interleave(2, axis).narrow(axis, 0, points)
    return torch.where(seen, mean, wider)
