"""Augmentation: random changes of a training batch.

They are drawn per sample from (seed, index, epoch) and a stream of the change itself. Hence a sample is changed in the
same way on any rank, by any worker and after a restart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream


class Augment(ABC):
    """A random change of every sample of a batch, which must carry its keys.

    Attributes:
        entries: how many numbers of `cond["augment"]` say what was done, for the network; 0 where nothing says so.
    """

    entries: int = 0

    @abstractmethod
    def __call__(self, batch: Batch, seed: int) -> Batch: ...


@dataclass(frozen=True)
class Flip(Augment):
    """Mirror each field with probability 1/2 along each of some axes, and with it its mask and conditioning field.

    Args:
        axes: axes counted from the end of the field: -1 is the last (left-right), -2 the one before (up-down).
    """

    axes: tuple[int, ...] = (-1,)

    def __call__(self, batch: Batch, seed: int) -> Batch:
        if batch.y is not None:
            raise InputError("Fields with a measurement y cannot be flipped, as y would not be: remove Flip.")
        grid = batch.x.ndim - 2
        if not all(-grid <= axis <= -1 for axis in self.axes):
            raise InputError(f"Flip axes {self.axes} do not fit a grid of rank {grid}: give axes from -1 to -{grid}.")
        flips = draw(batch, seed, Stream.FLIP, (len(self.axes),)) < 0.5
        chosen = dict(zip(self.axes, flips.unbind(1), strict=True))
        cond = {name: flip(value, chosen) if name == "field" else value for name, value in batch.cond.items()}
        mask = None if batch.mask is None else flip(batch.mask, chosen)
        return replace(batch, x=flip(batch.x, chosen), cond=cond, mask=mask)


@dataclass(frozen=True)
class Dequantise(Augment):
    """Make quantised data continuous, x + q u with u ~ U[0, 1) per element (Uria et al. 2013).

    A density p of the result bounds the probability P of the data: log P(x) ≥ E log p(x + q u) + D log q, D elements.

    Args:
        quantum: q, the step between neighbouring values in data units.
    """

    quantum: float = 1.0

    def __call__(self, batch: Batch, seed: int) -> Batch:
        if batch.y is not None:
            raise InputError("Fields with a measurement y cannot be dequantised, as y would not be: remove Dequantise.")
        return replace(batch, x=batch.x + self.quantum * draw(batch, seed, Stream.DEQUANTISE, batch.x.shape[1:]))


@dataclass(frozen=True)
class DropLabel(Augment):
    """Replace the class label by -1, the null class, and the vector by NaN, the null vector, with some probability: one network
    learns both of the scores that classifier-free guidance needs, with and without them (Ho & Salimans 2022, algorithm 1).

    Args:
        probability: of the null class or vector; where data have both they are dropped together.
    """

    probability: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InputError(f"DropLabel needs a probability in [0, 1], not {self.probability}.")

    def __call__(self, batch: Batch, seed: int) -> Batch:
        if not {"label", "vector"} & set(batch.cond):
            raise InputError("The data have no class labels or vectors that could be dropped: remove DropLabel.")
        dropped, cond = draw(batch, seed, Stream.DROP_LABEL, ()) < self.probability, dict(batch.cond)
        if "label" in cond:
            cond["label"] = torch.where(dropped, -1, cond["label"])
        if "vector" in cond:
            cond["vector"] = torch.where(dropped[:, None], torch.nan, cond["vector"])
        return replace(batch, cond=cond)


def draw(batch: Batch, seed: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
    """Uniform draws (batch, *shape), each sample's from its own key; in float32, so that they do not depend on the type of x."""
    if batch.key is None:
        raise InputError("Augmentation needs the key (index, epoch) of each sample: take the batch from a Loader.")
    keys = ((seed, *key, stream) for key in batch.key.tolist())
    return Generators(keys).rand((len(batch), *shape), like=batch.x.new_empty(0, dtype=torch.float32))


def flip(x: Tensor, chosen: dict[int, Tensor]) -> Tensor:
    """Fields (batch, channels, *grid), those that are chosen flipped: (batch) bool for each axis of x."""
    for axis, coin in chosen.items():
        x = torch.where(coin.reshape(-1, *(1,) * (x.ndim - 1)), x.flip(axis), x)
    return x
