"""Randomness by name: the draws of sample i depend on its own key alone, never on its batch, rank or worker.

A key is a tuple of integers such as (seed, index, epoch). It is hashed to the seed of one generator per sample, so that
a batch is a *stack* of independent streams: computing samples one at a time, in another order, on more processes, or after
an interruption gives the same draws, bitwise. Draws are made on the CPU and then moved: any device sees the same noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Generator, Size, Tensor


def stream(*key: int) -> int:
    """Hash a key of non-negative integers to a seed (O'Neill's seed sequence: near keys give unrelated streams)."""
    entropy = (len(key), *key)  # without its length, (1,) and (1, 0) would be one key
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


class Generators:
    """A stack of generators, one per sample of a batch.

    Args:
        keys: one key of non-negative integers per sample.
    """

    def __init__(self, keys: Iterable[Sequence[int]]) -> None:
        self._generators = [Generator().manual_seed(stream(*key)) for key in keys]

    def __len__(self) -> int:
        return len(self._generators)

    def randn(self, shape: Sequence[int] | Size, *, like: Tensor) -> Tensor:
        """Standard normal draws of the full shape (batch, ...), in the dtype and on the device of `like`."""
        return self._stack(torch.randn, shape, like)

    def rand(self, shape: Sequence[int] | Size, *, like: Tensor) -> Tensor:
        """Uniform draws in [0, 1) of the full shape (batch, ...), in the dtype and on the device of `like`."""
        return self._stack(torch.rand, shape, like)

    def _stack(self, draw, shape: Sequence[int] | Size, like: Tensor) -> Tensor:  # noqa: ANN001 - torch.rand or torch.randn
        if shape[0] != len(self):
            raise ValueError(f"{len(self)} generators cannot draw a batch of {shape[0]}: give one key per sample.")
        rows = [draw(tuple(shape[1:]), generator=generator, dtype=like.dtype) for generator in self._generators]
        return torch.stack(rows).to(like.device)
