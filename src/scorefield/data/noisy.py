"""Fields that are only known with noise: y = x + σ n, n ~ N(0, 1) white. An example has the same n in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.data.arrays import ArrayFile
from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split
from scorefield.foundation.errors import InputError, NothingHeldOutError
from scorefield.foundation.random import Generators, Stream

MEDIAN = 0.67449  # of |n|, n ~ N(0, 1)
SPLITS: tuple[Split, ...] = ("train", "valid")


@dataclass(frozen=True)
class Noisy(Source):
    """Fields of another source with white noise added, the same for an example in every epoch.

    Args:
        source: the clean fields.
        noise: standard deviation σ in data units, per real component; or two, between which σ of each example is uniform.
        seed: draws the noise.
    """

    source: Source
    noise: float | list[float]
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self._range
        if not 0 < low <= high:
            raise InputError(f"The noise of Noisy is one number > 0 or two in rising order, not {self.noise}.")

    @property
    def _range(self) -> tuple[float, float]:
        levels: Sequence[float] = self.noise if isinstance(self.noise, list) else (self.noise,)
        return (levels[0], levels[-1]) if 1 <= len(levels) <= 2 else (0.0, 0.0)

    def files_read(self) -> list[Path]:
        return self.source.files_read()

    def load(self, split: Split) -> FieldDataset:
        return NoisyFields(self.source.load(split), *self._range, (self.seed, SPLITS.index(split)))


class NoisyFields(FieldDataset):
    """Some fields with white noise of a standard deviation between two bounds; the draws of field i are those of (*key, i).

    Args:
        fields: the clean ones, which no batch holds.
        low: the least standard deviation.
        high: the largest.
        key: of all draws.
    """

    def __init__(self, fields: FieldDataset, low: float, high: float, key: tuple[int, ...]) -> None:
        self.fields, self.low, self.high, self.key = fields, low, high, key
        self.dtype, self.classes = fields.dtype, fields.classes
        self.notes, self.left_out = fields.notes, fields.left_out

    def __len__(self) -> int:
        return len(self.fields)

    def gather(self, indices: Tensor) -> Batch:
        batch = self.fields.gather(indices)
        if batch.noise is not None:
            raise InputError("The fields are noisy already: add noise once.")
        x, like = batch.x, torch.empty(0, dtype=torch.float32)  # whatever the type of x: the same noise
        share = self._draws(indices, Stream.NOISE_LEVEL).rand((len(x),), like=like)
        noise = self.low + (self.high - self.low) * share
        white = self._draws(indices, Stream.NOISE).randn(x.shape, like=like)
        return replace(batch, x=x + noise.reshape(-1, *(1,) * (x.ndim - 1)) * white, noise=noise)

    def _draws(self, indices: Tensor, stream: Stream) -> Generators:
        return Generators((*self.key, index, stream) for index in indices.tolist())


@dataclass(frozen=True)
class Measured(Source):
    """Fields of another source that were measured with white noise of a known standard deviation; nothing is added.

    Args:
        source: the noisy fields.
        noise: σ in data units, per real component: one number, or a .npy file with one for each field of the source, in the
            order of the training fields and then of the held-out ones.
    """

    source: Source
    noise: float | Path

    def files_read(self) -> list[Path]:
        return [*self.source.files_read(), *super().files_read()]

    def load(self, split: Split) -> FieldDataset:
        fields = self.source.load(split)
        if isinstance(self.noise, float | int):
            levels = np.full(len(fields), float(self.noise))
        else:
            levels = self._of_file(self.noise, split, len(fields))
        if not (np.isfinite(levels).all() and (levels > 0).all()):
            raise InputError(
                f"The noise of Measured is a standard deviation > 0, which {self.noise} is not for every field: correct it."
            )
        return MeasuredFields(fields, torch.from_numpy(levels).float())

    def _of_file(self, path: Path, split: Split, n: int) -> np.ndarray:
        levels = ArrayFile(path).read("", "noise")
        try:
            other = len(self.source.load("valid" if split == "train" else "train"))
        except NothingHeldOutError:
            other = 0
        if levels.shape != (n + other,) or levels.dtype.kind not in "iuf":
            raise InputError(
                f"{path} holds {levels.dtype} {levels.shape}: give a standard deviation for each of {n + other} fields."
            )
        return np.array(levels[:n] if split == "train" else levels[other:], dtype=np.float64)


class MeasuredFields(FieldDataset):
    """Some fields with what their noise is."""

    def __init__(self, fields: FieldDataset, noise: Tensor) -> None:
        self.fields, self.noise = fields, noise
        self.quantum, self.dtype, self.classes = fields.quantum, fields.dtype, fields.classes
        self.notes, self.left_out = fields.notes, fields.left_out

    def __len__(self) -> int:
        return len(self.fields)

    def gather(self, indices: Tensor) -> Batch:
        return replace(self.fields.gather(indices), noise=self.noise[indices])


def estimate_noise(x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, " batch"]:
    """The standard deviation of white noise in fields that are smooth but for edges.

    The median of the finest wavelet coefficients, differences of neighbours along all axes, is 0.6745 σ (Donoho and Johnstone
    1994). Those of exactly 0 do not count, so that margins that were filled up have no part; 0 where there are no others.
    """
    found = x
    for axis in range(2, x.ndim):
        pairs = found.shape[axis] // 2
        even, odd = (found.narrow(axis, 0, 2 * pairs).unflatten(axis, (pairs, 2)).select(axis + 1, i) for i in (0, 1))
        found = (even - odd) / 2**0.5
    rows = found.abs().flatten(1)
    return torch.stack([row[row > 0].median() / MEDIAN if bool((row > 0).any()) else row.new_zeros(()) for row in rows])
