"""Dropout whose zeros are a function of each sample, so that it does not matter which others it shares a batch with.

Value e of sample i is dropped where a_i b_e mod 2³², the product of two random numbers of 32 bits, is among the p·2³² smallest:
multiplicative hashing (Dietzfelbinger et al. 1997, J. Algorithms 25). As a_i is odd, the zeros of a sample are as independent as
the b_e, which are one table for all layers and steps; a_i is another number for each layer, sample and epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorefield.foundation.random import Stream, odd_numbers, seed_of

TABLE = 201  # the seed of the b_e


@runtime_checkable
class Keyed(Protocol):
    """A layer whose zeros are a function of its samples' factors; one of a user's own, too.

    Attributes:
        probability: of a zero.
        factors: a_i as int32, (batch, 1, ...), see `keyed_dropout`; None where zeros are drawn in another way.
    """

    probability: float
    factors: Tensor | None


class Dropout(nn.Module):
    """Zeros with probability p in training, and the rest divided by 1 − p, so that the mean stays; the identity in evaluation.

    Args:
        probability: p, in [0, 1).

    It is `Keyed`; without factors it is torch's own dropout, from its global generator.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.factors: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return x
        if self.factors is None:
            return F.dropout(x, self.probability)
        threshold = round(self.probability * 2**32) - 2**31
        products = self.factors.view(-1, *(1,) * (x.ndim - 1)) * table(x.shape[1:], x.device)
        return torch.where(products >= threshold, x * (1 / (1 - self.probability)), 0)


def table(shape: torch.Size, device: torch.device) -> Tensor:
    """The b_e of the values of a sample, channels innermost in memory, as networks have them."""
    size = 1 << (shape.numel() - 1).bit_length()
    return numbers(size, device)[: shape.numel()].view(1, *shape[1:], shape[0]).movedim(-1, 1)


def numbers(size: int, device: torch.device) -> Tensor:
    """The beginning of the table."""
    # Apart from the cache, which a compiler looks through, so that it would not see that this is constant.
    return _numbers(size, device)


# What torch.compiler.assume_constant_result does, which loads the compiler at once: two seconds of every start.
numbers._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=32)
def _numbers(size: int, device: torch.device) -> Tensor:
    drawn = np.random.Generator(np.random.SFC64(TABLE)).integers(-(2**31), 2**31, size, dtype=np.int32)
    return torch.from_numpy(drawn).to(device)


def keyed_layers(net: nn.Module) -> list[Keyed]:
    """The layers of a network that drop anything, in the order of its modules."""
    return [layer for layer in net.modules() if isinstance(layer, Keyed) and layer.probability]


@contextmanager
def keyed_dropout(layers: Sequence[Keyed], seed: int, key: Tensor, device: torch.device) -> Iterator[None]:
    """Inside, also in the backward pass, the zeros of every layer are a function of its samples' keys.

    Args:
        layers: those of a network, from `keyed_layers`.
        seed: of all its draws.
        key: (batch, 2) int64, index and epoch of each sample.
        device: of the network.
    """
    if layers:
        factors = odd_numbers(seed_of(seed, Stream.DROPOUT), key, len(layers)).to(device, non_blocking=True)
        for layer, own in zip(layers, factors, strict=True):
            layer.factors = own
    try:
        yield
    finally:
        for layer in layers:
            layer.factors = None
