"""Sequences as windows: fields given coarse fields of the times around them, p(u_t | y_{t−k}, ..., y_{t+k}), or jointly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split
from scorefield.foundation import cosine, fourier
from scorefield.foundation.errors import InputError


@dataclass(frozen=True)
class Windows(Source):
    """Every field u_t of some sequences that has k before and after it, given the 2k + 1 fields around it with few modes left.

    The coarse fields are `cond["field"]`, (2k + 1, *grid): the same functions on the grid of u_t, hence on any other grid too
    (by `scorefield.foundation.cosine`, on a torus by `scorefield.foundation.fourier`).

    Args:
        sequences: a source whose channels are the times of a sequence.
        radius: k.
        factor: by which the coarse grid has fewer points along each axis; null for fields that are given nothing.
        periodic: the fields are functions on a torus: coarse ones have Fourier modes instead of cosines.
        together: all 2k + 1 fields of the window jointly, as channels, p(u_{t−k}, ..., u_{t+k} | y_{t−k}, ..., y_{t+k}); a noise
            for them is `scorefield.AlongTime`. A run on them draws longer sequences: `sample RUN --joint 40`. With `factor: null`
            it learns p(u_{t−k}, ..., u_{t+k}).
    """

    sequences: Source
    radius: int = 1
    factor: int | None = 4
    periodic: bool = False
    together: bool = False

    def __post_init__(self) -> None:
        if self.radius < 0 or (self.factor is not None and self.factor < 1):
            raise InputError(f"Windows needs radius >= 0 and factor >= 1 or null, not {self.radius} and {self.factor}.")

    @property
    def window(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 2 * self.radius + 1 if self.together else 0

    def files_read(self) -> list[Path]:
        return self.sequences.files_read()

    def axes(self) -> dict[str, np.ndarray]:
        return self.sequences.axes()

    def load(self, split: Split) -> FieldDataset:
        return WindowFields(self.sequences.load(split), self.radius, self.factor, self.periodic, self.together)


class WindowFields(FieldDataset):
    """One field (1, *grid) of a sequence, or all of a window, with its coarse window where there is a factor."""

    def __init__(
        self,
        sequences: FieldDataset,
        radius: int,
        factor: int | None,
        periodic: bool = False,
        together: bool = False,
    ) -> None:
        frames, *grid = sequences[0].x.shape
        self.width = 2 * radius + 1
        if frames < self.width:
            raise InputError(f"Sequences of {frames} fields hold no window of {self.width}: give a smaller radius.")
        if factor is not None and min(grid) < factor:
            raise InputError(f"The grid {tuple(grid)} cannot be coarsened by {factor}: give a smaller factor.")
        self.sequences, self.radius, self.windows_each = sequences, radius, frames - self.width + 1
        self.coarse = None if factor is None else tuple(max(1, points // factor) for points in grid)
        self.periodic, self.together = periodic, together
        self.quantum, self.dtype = sequences.quantum, sequences.dtype

    def __len__(self) -> int:
        return len(self.sequences) * self.windows_each

    def gather(self, indices: Tensor) -> Batch:
        window, known = self._windows(indices)
        given = {} if self.coarse is None else {"field": self._smoothed(window, self.coarse)}
        mask = None if known is None else self._drawn(known).contiguous()
        return Batch(self._drawn(window).contiguous(), given, mask=mask)

    def forecasts(self, indices: Tensor) -> dict[str, Tensor]:
        """The coarse fields of the times themselves, interpolated, and the one before them."""
        if self.coarse is None:
            return {}
        smooth = self._smoothed(self._windows(indices)[0], self.coarse)
        found = {"interpolation": self._drawn(smooth)}
        return found if self.together or not self.radius else found | {"persistence": smooth[:, [self.radius - 1]]}

    def _drawn(self, window: Tensor) -> Tensor:
        return window if self.together else window[:, self.radius : self.radius + 1]

    def _windows(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        return stretches(self.sequences, indices, self.windows_each, self.width)

    def _smoothed(self, window: Tensor, coarse: Sequence[int]) -> Tensor:
        """The functions of a coarse grid that windows leave there, on their own grid."""
        if bool(window.isnan().any()):
            raise InputError(
                "Windows with points that are not known (NaN) have no coarse fields: fill them, or give factor: null."
            )
        resample = fourier.resample if self.periodic else cosine.resample
        return resample(resample(window, coarse), window.shape[2:])


def stretches(sequences: FieldDataset, indices: Tensor, each: int, width: int) -> tuple[Tensor, Tensor | None]:
    """Times in a row of sequences, (batch, width, *grid), and where they are known, if not everywhere.

    Args:
        sequences: whose channels are times.
        indices: stretch i begins at the time i mod `each` of the sequence i // `each`.
        each: stretches of a sequence.
        width: their times.
    """
    whole, rows = sequences.gather(indices // each), torch.arange(len(indices))[:, None]
    at = (indices % each)[:, None] + torch.arange(width)
    mask = None if whole.mask is None else whole.mask.expand_as(whole.x)[rows, at]
    return whole.x[rows, at], mask
