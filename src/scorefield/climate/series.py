"""Ensembles of series: members whose times are drawn jointly, by a model of windows of several times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from scorefield.climate.ensembles import Ensemble, FieldChunks
from scorefield.climate.predictors import Driving, EnsembleInput
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.jobs.trajectories import draw_together
from scorefield.samplers.joint import JointTimes


def all_times(windows: Driving, window: int) -> Driving:
    """The times of some windows, by those that they begin with."""
    numbers = np.unique(windows.numbers[:, None] + np.arange(window))
    each = len(windows.predictors.cube.times)
    return replace(windows, numbers=numbers, left_out=each - len(numbers) // windows.drivers)


@dataclass(frozen=True, eq=False)
class Series(FieldChunks):
    """Members of whole series: a chunk is one member from one hole in the times to the next.

    Args:
        each: how fields of single times are drawn, of all times of the windows.
        windows: what windows are drawn from, by the times that they begin with.
        window: times in one.
    """

    each: Ensemble
    windows: Driving
    window: int

    @property
    def given(self) -> EnsembleInput:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.each.given

    @property
    def members(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.each.members

    @property
    def raw(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.each.raw

    @property
    def record(self) -> dict[str, Any]:
        return self.each.facts | {"window": self.window, "predictors": self.windows.digest()}

    @cached_property
    def _runs(self) -> list[tuple[range, range]]:
        """Positions of the windows, and of the times, of each stretch without a hole."""
        ends = np.flatnonzero(np.diff(self.windows.numbers) != 1) + 1
        found, first = [], 0
        for part in np.split(np.arange(len(self.windows.numbers)), ends):
            times = len(part) + self.window - 1
            found.append((range(int(part[0]), int(part[-1]) + 1), range(first, first + times)))
            first += times
        return found

    @property
    def starts(self) -> range:
        return range(max(self.members, 1) * len(self._runs))

    def fields(self, start: int) -> list[tuple[int, int]]:
        member, run = divmod(start, len(self._runs))
        return [(member, position) for position in self._runs[run][1]]

    def check(self) -> None:
        """Refuse predictors of any window that cannot be used."""
        for position in range(len(self.windows)):
            self.windows.field(position)

    @torch.no_grad()
    def draw(self, start: int) -> np.ndarray:
        each, model = self.each, self.each.model
        member, number = divmod(start, len(self._runs))
        windows, times = self._runs[number]
        fields = torch.stack([each.corrected(self.windows.field(position)) for position in windows])
        joint = JointTimes(model.generative, self.window, len(times), each.chunk)
        generator = Generators([(each.seed, member, *self.given.key(times[0]), Stream.SAMPLE)])
        x = draw_together(model, joint, generator, self.given.shape, each.sampler, {"field": fields})[0]
        found = x.to(torch.float64 if model.normaliser.precision == torch.float64 else torch.float32).numpy()
        if np.isnan(found[..., each.known]).any():
            raise InputError(
                f"Fields from {self.given.name(times[0])} on are no numbers: take another --sampler or --grid."
            )
        return np.where(each.known, found, np.nan).astype(found.dtype)
