"""Per-channel statistics of known values, streamed in float64: one pass, any amount of data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError


@dataclass(frozen=True)
class Statistics:
    """What is known of each channel, as float64 tensors (channels).

    Args:
        samples: the number of fields.
        count: the number of known values.
        mean: their mean.
        squares: their sum of squared deviations from the mean.
        minimum: the smallest.
        maximum: the largest.
        bad: the number of known values that are NaN or infinite, which enter nothing else.
        first_bad: where the first of them is, in words; empty if there is none.
    """

    samples: int
    count: Tensor
    mean: Tensor
    squares: Tensor
    minimum: Tensor
    maximum: Tensor
    bad: int = 0
    first_bad: str = ""

    @property
    def std(self) -> Tensor:
        """Standard deviation over all known values of a channel, exactly 0 where they are all equal."""
        return torch.where(self.minimum < self.maximum, (self.squares / self.count).sqrt(), 0.0)

    def __add__(self, other: Statistics) -> Statistics:
        """Statistics of both, by the update of Chan et al. (1979), which does not subtract large numbers."""
        count = self.count + other.count
        share = torch.where(count > 0, other.count / count.clamp(min=1), 0.0)
        shift = other.mean - self.mean
        return Statistics(
            self.samples + other.samples,
            count,
            self.mean + shift * share,
            self.squares + other.squares + shift.square() * self.count * share,
            torch.minimum(self.minimum, other.minimum),
            torch.maximum(self.maximum, other.maximum),
            self.bad + other.bad,
            self.first_bad or other.first_bad,
        )

    def check(self) -> Statistics:
        """Itself, or InputError if known values are not finite or a channel has none."""
        if self.bad:
            raise InputError(
                f"{self.bad} known values are NaN or infinite, the first in {self.first_bad}: mask or replace them."
            )
        if (self.count == 0).any():
            raise InputError(
                f"Channel {int((self.count == 0).nonzero()[0])} has no known value: correct the data or mask."
            )
        return self


def measure(batches: Iterable[Batch]) -> Statistics:
    """Statistics of all fields of some batches."""
    total: Statistics | None = None
    for batch in batches:
        part = measure_batch(batch, 0 if total is None else total.samples)
        total = part if total is None else total + part
    if total is None:
        raise InputError("There are no data to measure: correct the source or its split.")
    return total


def measure_batch(batch: Batch, first: int) -> Statistics:
    """Statistics of one batch; `first` is the number of its first sample where it carries no keys."""
    x = batch.x
    finite = x.isfinite()
    if batch.mask is None and finite.all():
        rows = x.movedim(1, 0).flatten(1)
        count = torch.full((len(rows),), float(rows.shape[1]), dtype=torch.float64)
        variance, mean = torch.var_mean(rows.double(), dim=1, correction=0)
        low, high = rows.aminmax(dim=1)
        return Statistics(len(x), count, mean, variance * count, low.double(), high.double())
    known = torch.ones_like(finite) if batch.mask is None else batch.mask.bool().expand_as(x)
    good, rows = (tensor.movedim(1, 0).flatten(1) for tensor in (known & finite, x.double()))
    count = good.sum(1).double()
    mean = rows.where(good, 0.0).sum(1) / count.clamp(min=1)
    squares = (rows - mean[:, None]).where(good, 0.0).square().sum(1)
    low, high = rows.where(good, torch.inf).amin(1), rows.where(good, -torch.inf).amax(1)
    bad = (known & ~finite).nonzero()
    return Statistics(len(x), count, mean, squares, low, high, len(bad), locate(batch, bad, first))


def locate(batch: Batch, bad: Tensor, first: int) -> str:
    """Where the first of some values (sample, channel, *grid) is, in words."""
    if len(bad) == 0:
        return ""
    sample, channel, *point = bad[0].tolist()
    number = first + sample if batch.key is None else int(batch.key[sample, 0])
    return f"sample {number}, channel {channel}, at {tuple(point)}"
