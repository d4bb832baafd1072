"""Large domains: a denoiser that looks at one tile after the other, and is one denoiser of the whole for the sampler.

The noise is of the whole domain, and at every level the tiles' x̂ are blended with weights that add up to 1, so that there are no
seams (Bar-Tal et al. 2023, MultiDiffusion). Within `margin` of an inner edge of a tile its weight is 0: for a denoiser that looks
no further than that, the result is exactly that of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError


@dataclass(frozen=True)
class Tiled:
    """x̂ of a large domain from x̂ of tiles.

    Args:
        denoiser: of fields of the size of a tile.
        size: of a tile along each axis; where the domain is smaller, the tile is, too.
        margin: points at inner edges of a tile that are not used.
    """

    denoiser: DenoiserProtocol
    size: tuple[int, ...]
    margin: int

    def __post_init__(self) -> None:
        if self.margin < 0 or any(2 * self.margin >= size for size in self.size):
            raise InputError(
                f"Tiles of {self.size} with a margin of {self.margin} leave nothing: give a smaller margin."
            )

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        if len(self.size) != x_t.ndim - 2:
            raise InputError(f"Tiles of {len(self.size)} axes do not fit fields of {x_t.ndim - 2}.")
        total, weights = torch.zeros_like(x_t), torch.zeros_like(x_t[:1, :1])
        for part in self.parts(x_t.shape[2:]):
            where = (..., *part)
            given = {k: v[where] if k == "field" else v for k, v in (cond or {}).items()}
            # A copy: a part of a tensor has another memory layout, and then sums in another order.
            denoised = self.denoiser(x_t[where].contiguous(), t, given or None)
            weight = self._weight(part, x_t.shape[2:]).to(x_t)
            total[where] += weight * denoised
            weights[where] += weight
        return total / weights

    def parts(self, shape: torch.Size | tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
        """The tiles of a domain, which overlap so that every point is inside the margin of at least one."""
        axes = []
        for n, largest in zip(shape, self.size, strict=True):
            size = min(largest, n)
            step = max(1, size - 2 * self.margin)
            starts = sorted({min(start, n - size) for start in range(0, max(n - size, 0) + step, step)})
            axes.append([slice(start, start + size) for start in starts])
        return product(*axes)

    def _weight(self, part: tuple[slice, ...], shape: torch.Size | tuple[int, ...]) -> Tensor:
        """0 on the margin at inner edges, then rising linearly to its largest in the middle."""
        weight = torch.ones((1,) * len(part), dtype=torch.float64)
        for axis, (place, n) in enumerate(zip(part, shape, strict=True)):
            points = torch.arange(place.stop - place.start, dtype=torch.float64)
            ramp = torch.full_like(points, float(len(points)))
            if place.start > 0:
                ramp = torch.minimum(ramp, (points - self.margin + 0.5).clamp(min=0))
            if place.stop < n:
                ramp = torch.minimum(ramp, (points.flip(0) - self.margin + 0.5).clamp(min=0))
            view = [1] * len(part)
            view[axis] = -1
            weight = weight * ramp.reshape(view)
        return weight
