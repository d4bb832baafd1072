"""Statistics of data: of each channel, streamed in float64; the largest distance of two fields; an image's robust maximum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.foundation.errors import InputError

BLOCK = 2**26  # values of a block of fields, 256 MiB; a few blocks are held at once
BRIGHT = 0.1  # of the 99.9th percentile: what is brighter is foreground
QUANTILE = 99.0  # of the foreground, which becomes 1

Change = Callable[[Tensor], Tensor]


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
        """Standard deviation of all known values of each channel, (channels) in data units, 0 where they are all equal."""
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


def largest_distance(normaliser: Change, fields: FieldDataset, indices: Tensor, block: int = BLOCK) -> float:
    """max ‖x_i − x_j‖ over all pairs of normalised fields (Song and Ermon 2020, technique 1); what a mask hides is 0.

    Fields are read in blocks and compared block by block, those farthest from the middle first: with ‖x_i − c‖ = r_i, no two
    are farther apart than r_i + r_j, so that blocks that cannot hold a larger distance are left out. Data with a few outliers
    take one pass, those of equal radii n²D/2 multiplications. Distances are found by products, ‖a‖² + ‖b‖² − 2ab with a and b
    centred: to about 1e-6 of the largest; 0 where it is no more than rounding.

    Args:
        normaliser: from data units to the space of distances.
        fields: the data.
        indices: of which of them.
        block: values that are held at once, a few times.
    """
    if len(indices) < 2:
        return 0.0
    size = max(1, block // fields[int(indices[0])].x.numel())
    start = _rows(normaliser, fields, indices[:size])
    middle, rounding = start.mean(0), 10 * torch.finfo(start.dtype).eps * float(start.norm(dim=1).max())
    radii = torch.cat([(_rows(normaliser, fields, part) - middle).norm(dim=1) for part in indices.split(size)])
    order = radii.argsort(descending=True)
    parts, reach = indices[order].split(size), radii[order].split(size)
    best = 0.0
    for i, first in enumerate(parts):
        if 2 * float(reach[i][0]) <= best:
            break
        a = _rows(normaliser, fields, first) - middle
        for j in range(i, len(parts)):
            if float(reach[i][0] + reach[j][0]) <= best:
                break
            b = a if i == j else _rows(normaliser, fields, parts[j]) - middle
            square = torch.addmm(reach[i][:, None] ** 2 + reach[j] ** 2, a, b.T, alpha=-2)
            best = max(best, float(square.max().clamp(min=0).sqrt()))
    return best if best > rounding else 0.0


def _rows(normaliser: Change, fields: FieldDataset, indices: Tensor) -> Tensor:
    """Some normalised fields as rows."""
    batch = fields.gather(indices)
    x = normaliser(batch.x)
    return (x if batch.mask is None else x.where(batch.mask.bool(), 0.0)).flatten(1)


def foreground(image: np.ndarray) -> np.ndarray:
    """Where |image| is above a tenth of its 99.9th percentile, as booleans of its shape."""
    magnitude = np.abs(image)
    return magnitude > BRIGHT * np.percentile(magnitude, 99.9)


def robust_maximum(image: np.ndarray) -> float:
    """The 99th percentile of the magnitude of the foreground, in the units of the image; 1 for an image of zeros."""
    inside = np.abs(image)[foreground(image)]
    return float(np.percentile(inside, QUANTILE)) if inside.size else 1.0
