"""Volumes by a denoiser of slices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.flow_map import refuse_jumps
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError


@dataclass(frozen=True)
class Slicewise:
    """x̂ of a volume (batch, channels, *grid) of three axes: the mean of x̂ of its slices across some of them.

    Across one axis it is the denoiser of volumes whose slices are independent draws, exactly. Across several it is not the
    denoiser of a law that is known: score and error of each direction are averaged, as neighbouring slices belong together in
    each (after Lee et al. 2023, ICCV, who take turns between two). The denoiser has to know slices of every direction.

    Args:
        denoiser: of slices.
        axes: across which the volume is cut: 0, 1, 2, or several of them.
        at_once: slices of one call of the denoiser.
    """

    denoiser: DenoiserProtocol
    axes: tuple[int, ...] = (0, 1, 2)
    at_once: int = 64

    def __post_init__(self) -> None:
        if not self.axes or not set(self.axes) <= {0, 1, 2} or len(set(self.axes)) < len(self.axes):
            raise InputError(f"A volume is cut across axes 0, 1 or 2, each once, not {list(self.axes)}.")

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        if x_t.ndim != 5:
            raise InputError(f"A volume is (batch, channels, 3 axes), not {tuple(x_t.shape)}.")
        refuse_jumps(cond)
        if cond:
            raise InputError("Slices of a volume are denoised without conditions.")
        return torch.stack([self._across(x_t, t, axis) for axis in self.axes]).mean(0)

    def _across(self, x_t: Tensor, t: Tensor, axis: int) -> Tensor:
        slices = x_t.movedim(2 + axis, 1)  # (batch, slices, channels, *grid)
        rows, levels = slices.flatten(0, 1), t.expand(len(x_t)).repeat_interleave(slices.shape[1])
        pairs = zip(rows.split(self.at_once), levels.split(self.at_once), strict=True)
        # A copy: a part of a tensor has another memory layout, and then sums in another order.
        found = torch.cat([self.denoiser(row.contiguous(), level) for row, level in pairs])
        return found.unflatten(0, slices.shape[:2]).movedim(1, 2 + axis)
