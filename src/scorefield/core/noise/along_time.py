"""Noise that is correlated along time: fields in space, mixed from one time to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Size, Tensor

from scorefield.core.noise.density import Exponential, SpectralDensity
from scorefield.core.noise.noise import Noise
from scorefield.foundation.errors import InputError
from scorefield.foundation.precision import product
from scorefield.foundation.random import Generators


def autoregressive(correlation: float) -> Exponential:
    """K(k) = φ^|k|: an AR(1) process of unit variance in steps of time, as an `Exponential` of the length −1/log φ.

    Args:
        correlation: φ, from one time to the next, above 0 and below 1.
    """
    if not 0 < correlation < 1:
        raise InputError(f"autoregressive needs a correlation above 0 and below 1, not {correlation}.")
    return Exponential(-1 / math.log(correlation))


@dataclass(frozen=True)
class AlongTime(Noise):
    """C = R ⊗ S: n fields of a noise in space, of covariance S, with the correlation R_ij = K(|i − j|) of times i and j.

    Time is the first axis of the grid, (batch, channels, n, *space), or, where `times` is given, the channels are n times of all
    variables, one time after the other: (batch, n · variables, *space). O(n²) beside what the noise in space takes.

    Args:
        space: the noise of each time.
        time: whose kernel K is, its lengths in steps of time: an AR(1) process by `autoregressive`, or a `Matern`.
        times: n where the channels are times; 0 where time is an axis of the grid.
    """

    space: Noise
    time: SpectralDensity
    times: int = 0

    def __post_init__(self) -> None:
        if self.times < 0:
            raise InputError(f"AlongTime needs times >= 0, not {self.times}.")

    def _apart(self, shape: Sequence[int] | Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(batch, outer, n, inner), time being n, and (batch, all of these as channels, *space)."""
        batch, channels, *grid = shape
        if self.times:
            if channels % self.times:
                raise InputError(
                    f"The noise has {self.times} times as channels, and the fields have {channels} channels."
                )
            apart = (batch, 1, self.times, channels // self.times)
        elif len(grid) < 2:
            raise InputError(
                "The noise has time as the first axis of the grid and needs others: give times for channels."
            )
        else:
            apart, grid = (batch, channels, grid[0], 1), grid[1:]
        return apart, (batch, math.prod(apart[1:]), *grid)

    def _mixed(self, x: Tensor, matrix: Tensor) -> Tensor:
        """A matrix along time."""
        rows = x.reshape(*self._apart(x.shape)[0][:3], -1)
        return product(matrix.to(x), rows).reshape(x.shape)

    def sample(self, shape: Sequence[int] | Size, *, generator: Generators, like: Tensor) -> Tensor:
        (_, _, n, _), merged = self._apart(shape)
        drawn = self.space.sample(merged, generator=generator, like=like).reshape(tuple(shape))
        return self._mixed(drawn, _factor(self.time, n))

    def covariance(self, x: Tensor) -> Tensor:
        (_, _, n, _), merged = self._apart(x.shape)
        factor = _factor(self.time, n)
        return self._mixed(self.space.covariance(x.reshape(merged)).reshape(x.shape), factor @ factor.T)

    def precision(self, x: Tensor) -> Tensor:
        (_, _, n, _), merged = self._apart(x.shape)
        inverse = torch.cholesky_inverse(_factor(self.time, n))
        return self._mixed(self.space.precision(x.reshape(merged)).reshape(x.shape), inverse)

    def log_det(self, x: Tensor) -> Tensor:
        (_, _, n, _), merged = self._apart(x.shape)
        along = 2 * float(_factor(self.time, n).diagonal().log().sum()) * self.dimension(x.shape[1:]) / n
        return self.space.log_det(x.reshape(merged)) + along

    def support(self, grid: Sequence[int] | Size) -> Tensor | None:
        inside = self.space.support(grid if self.times else grid[1:])
        return inside if inside is None or self.times else inside.expand(*grid)

    def limited(self, grid: Sequence[int] | Size) -> Noise:
        return AlongTime(self.space.limited(grid if self.times else grid[1:]), self.time, self.times)


@lru_cache(maxsize=16)
def _factor(time: SpectralDensity, n: int) -> Tensor:
    """The lower triangular factor of R, in float64."""
    steps = torch.arange(n, dtype=torch.float64)
    kernel = time.kernel((steps[:, None] - steps).abs(), 1) + time.nugget * torch.eye(n, dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(kernel)
    if int(failed):
        raise InputError(
            f"The correlation of {n} times is singular to rounding: they lie too near for so smooth a kernel; give its density "
            "a nugget, such as 1e-6."
        )
    return factor
