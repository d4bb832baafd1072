"""Fields on a torus, on grids of any size: by their Fourier modes, differentiable and on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Size, Tensor


def resample(x: Float[Tensor, "batch channels *grid"], size: Sequence[int] | Size) -> Tensor:
    """x on another grid of the same periodic domain, whose first point is the same.

    On fewer points it is without the modes that these lack, on more with no others. Up after down is the orthogonal projection on
    the modes that both grids have.

    Args:
        x: the fields.
        size: the grid.
    """
    for axis, n in enumerate(size, 2):
        if x.shape[axis] != n:
            x = _resample_axis(x.movedim(axis, -1), n).movedim(-1, axis)
    return x


def _resample_axis(x: Tensor, n: int) -> Tensor:
    """Along the last axis. The last mode of an even grid stands for both k = n/2 and −n/2: half of it for each."""
    old = x.shape[-1]
    with torch.autocast(x.device.type, enabled=False):
        modes = torch.fft.rfft(x if x.dtype == torch.float64 else x.float(), norm="forward")
        modes = modes[..., : n // 2 + 1]
        weight = modes.real.new_ones(modes.shape[-1])
        if n > old and old % 2 == 0:
            weight[old // 2] = 0.5
        if n < old and n % 2 == 0:
            weight[n // 2] = 2
        return torch.fft.irfft(modes * weight, n=n, norm="forward").to(x.dtype)
