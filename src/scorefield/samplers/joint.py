"""Series longer than what a denoiser of windows knows: one denoiser of the whole series for the sampler.

The x̂ of a time is that of the window in whose middle it lies, given all noisy times of that window (Rozet and Louppe 2023, scores
of Markov blankets); the first and the last times are those of the first and the last window. For an AR(1) process this is exact
where the noise along time is as correlated as the process (`AlongTime`), and near where it is about so: with windows of 3 and a
noise of 0.7, a process of 0.8 has a lag-1 correlation of 0.79. White noise needs windows as long as the process remembers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.flow_map import refuse_jumps
from scorefield.core.noise import AlongTime
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError


@dataclass(frozen=True)
class JointTimes:
    """x̂ of series (batch, n · variables, *grid), one time after the other, by a denoiser of `window` times.

    Args:
        denoiser: of (windows, window · variables, *grid).
        window: times in one.
        times: n, at least `window`.
        chunk: windows that are evaluated at once.

    The condition has a row for each of the n − window + 1 windows of a series, series by series.
    """

    denoiser: DenoiserProtocol
    window: int
    times: int
    chunk: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.window <= self.times or self.chunk < 1:
            raise InputError(
                f"Series of {self.times} times have no window of {self.window}: give longer ones, and chunk >= 1."
            )

    @property
    def sde(self) -> SDE:
        """Of the whole series: where the noise goes along the times of a window, it goes along all of them."""
        sde = self.denoiser.sde
        return replace(sde, noise=replace(sde.noise, times=self.times)) if isinstance(sde.noise, AlongTime) else sde

    def windows(self, x: Tensor) -> Tensor:
        """All windows of series, (batch · windows, window · variables, *grid)."""
        apart = x.unflatten(1, (self.times, -1)).unfold(1, self.window, 1).movedim(-1, 2)
        return apart.flatten(0, 1).flatten(1, 2)

    def series(self, x: Tensor) -> Tensor:
        """What the windows say of the times in their middle, as series again."""
        apart = x.unflatten(1, (self.window, -1)).unflatten(0, (-1, self.times - self.window + 1))
        middle = self.window // 2
        parts = (apart[:, 0, :middle], apart[:, :, middle], apart[:, -1, middle + 1 :])
        return torch.cat(parts, 1).flatten(1, 2)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        refuse_jumps(cond)
        rows, given = self.windows(x_t), cond or {}
        t = t if t.ndim == 0 else t.repeat_interleave(len(rows) // len(x_t))
        found = []
        for start in range(0, len(rows), self.chunk):
            part = slice(start, start + self.chunk)
            own = {name: value[part] for name, value in given.items()}
            found.append(self.denoiser(rows[part], t if t.ndim == 0 else t[part], own or None))
        return self.series(torch.cat(found))
