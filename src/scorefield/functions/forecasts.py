"""Sequences as forecasts: a field given those before it, p(u_t | u_{t−k}, ..., u_{t−1}), to be drawn one after another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split
from scorefield.foundation.errors import InputError
from scorefield.functions.windows import stretches


@dataclass(frozen=True)
class Forecasts(Source):
    """Every field u_t of some sequences that has k before it, given these as `cond["field"]`, (k, *grid), the latest last.

    A run on them goes on from a field or several: `sample RUN --given valid --rollout 20`.

    Args:
        sequences: a source whose channels are the times of a sequence.
        past: k.
    """

    sequences: Source
    past: int = 1  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self) -> None:
        if self.past < 1:
            raise InputError(f"Forecasts need past >= 1, not {self.past}.")

    def files_read(self) -> list[Path]:
        return self.sequences.files_read()

    def axes(self) -> dict[str, np.ndarray]:
        return self.sequences.axes()

    def load(self, split: Split) -> FieldDataset:
        return ForecastFields(self.sequences.load(split), self.past)


class ForecastFields(FieldDataset):
    """One field (1, *grid) of a sequence with those before it."""

    def __init__(self, sequences: FieldDataset, past: int) -> None:
        frames = len(sequences[0].x)
        if frames <= past:
            raise InputError(f"The sequences have {frames} times, too few for one after {past} others.")
        self.sequences, self.past, self.places = sequences, past, frames - past
        self.quantum, self.dtype, self.periodic = sequences.quantum, sequences.dtype, sequences.periodic

    def __len__(self) -> int:
        return len(self.sequences) * self.places

    def gather(self, indices: Tensor) -> Batch:
        frames, known = stretches(self.sequences, indices, self.places, self.past + 1)
        mask = None if known is None else known[:, -1:].contiguous()
        return Batch(frames[:, -1:].contiguous(), {"field": frames[:, :-1].contiguous()}, mask=mask)

    def forecasts(self, indices: Tensor) -> dict[str, Tensor]:
        """The field before."""
        return {"persistence": self.gather(indices).cond["field"][:, -1:]}
