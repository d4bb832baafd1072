"""The order in which a run sees its data: position p is entry p mod n of the permutation drawn for epoch p div n.

Optimiser step k sees positions kB to (k+1)B - 1 for any number of ranks, workers or restarts; a rank takes a
contiguous share of them, in equal micro-batches. A step is found by arithmetic, hence to resume costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from scorefield.data.augment import Augment
from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Stream, seed_of


class Loader:
    """Training batches without end, each sample with its `key` = (index, epoch).

    Iterating yields micro-batches: `accumulate` of them are one optimiser step. The iteration begins at step `start`.

    Args:
        fields: the data.
        batch_size: B, the number of samples that an optimiser step sees on all ranks together.
        seed: draws the permutations and the augmentation.
        augment: changes of each sample, in order.
        start: the first optimiser step.
        rank: this process.
        ranks: how many processes share each step.
        accumulate: how many micro-batches a step is divided into on each rank.
        workers: how many processes read ahead; 0 reads in this one.

    Raises:
        InputError: there are no data, or B is not divisible by ranks × accumulate.
    """

    def __init__(
        self,
        fields: FieldDataset,
        batch_size: int,
        *,
        seed: int = 0,
        augment: Sequence[Augment] = (),
        start: int = 0,
        rank: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
        workers: int = 0,
    ) -> None:
        if batch_size < 1 or batch_size % (ranks * accumulate):
            parts = f"{ranks} ranks × {accumulate} micro-batches"
            raise InputError(f"batch_size={batch_size} cannot be shared by {parts}: give a multiple of them.")
        if len(fields) == 0:
            raise InputError("There are no data to train on: correct the source or its split.")
        self.fields, self.batch_size, self.seed, self.augment = fields, batch_size, seed, tuple(augment)
        self.start, self.rank, self.ranks, self.accumulate, self.workers = start, rank, ranks, accumulate, workers

    def positions(self, micro_step: int) -> range:
        """The positions that this rank sees at a micro-step; optimiser step k is micro-steps k·accumulate and on."""
        step, part = divmod(micro_step, self.accumulate)
        size = self.batch_size // (self.ranks * self.accumulate)
        first = step * self.batch_size + (self.rank * self.accumulate + part) * size
        return range(first, first + size)

    def batch(self, micro_step: int) -> Batch:
        """The micro-batch at a micro-step."""
        positions = self.positions(micro_step)
        n = len(self.fields)
        pieces = []
        for epoch in range(positions[0] // n, positions[-1] // n + 1):
            first, end = max(positions.start - epoch * n, 0), min(positions.stop - epoch * n, n)
            indices = permutation(n, self.seed, epoch)[first:end]
            pieces.append(torch.stack((indices, torch.full_like(indices, epoch)), dim=1))
        return fetch(self.fields, torch.cat(pieces), self.augment, self.seed)

    def __iter__(self) -> Iterator[Batch]:
        return read_ahead(self, count(self.start * self.accumulate), self.workers)

    def on(self, device: torch.device) -> Iterator[Batch]:
        """The same, on a device; for a GPU each batch is copied while the one before it is computed with."""
        if device.type != "cuda":
            return (batch.to(device) for batch in self)
        return copied_ahead(read_ahead(self, count(self.start * self.accumulate), self.workers, pin=True), device)


class Sequential:
    """All data once, in order, with a fixed epoch in their keys: for validation and fitting.

    Args:
        fields: the data.
        batch_size: the number of samples in a batch on each rank; the last batch may be smaller.
        seed: draws the augmentation.
        augment: changes of each sample, in order; the same in each pass.
        epoch: the epoch in the keys.
        rank: this process, which takes a contiguous share of the data.
        ranks: how many processes share the data.
        workers: how many processes read ahead; 0 reads in this one.
    """

    def __init__(
        self,
        fields: FieldDataset,
        batch_size: int = 256,
        *,
        seed: int = 0,
        augment: Sequence[Augment] = (),
        epoch: int = 0,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
    ) -> None:
        self.fields, self.batch_size, self.seed, self.augment = fields, batch_size, seed, tuple(augment)
        self.epoch, self.workers = epoch, workers
        self.share = range(len(fields) * rank // ranks, len(fields) * (rank + 1) // ranks)

    def batch(self, number: int) -> Batch:
        """The batch of a number."""
        share = self.share[number * self.batch_size : (number + 1) * self.batch_size]
        indices = torch.arange(share.start, share.stop)
        return fetch(
            self.fields, torch.stack((indices, torch.full_like(indices, self.epoch)), dim=1), self.augment, self.seed
        )

    def __len__(self) -> int:
        return math.ceil(len(self.share) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return read_ahead(self, range(len(self)), self.workers)


class Numbered(Dataset[tuple[Batch | None, str]]):
    """The batches of a loader by number. An InputError travels as its message: a worker would bury it."""

    def __init__(self, loader: Loader | Sequential) -> None:
        self.loader = loader

    def __getitem__(self, number: int) -> tuple[Batch | None, str]:
        try:
            return self.loader.batch(number), ""
        except InputError as error:
            return None, str(error)


def read_ahead(
    loader: Loader | Sequential, numbers: Iterable[int], workers: int, *, pin: bool = False
) -> Iterator[Batch]:
    """The batches of some numbers, in order, from workers or this process; in pinned memory where they are for a GPU."""
    options: dict[str, Any] = {"batch_size": None, "num_workers": workers, "pin_memory": pin}
    options["generator"] = Generator()  # else torch draws a seed from the global generator, which is not ours to move
    for batch, problem in DataLoader(Numbered(loader), sampler=numbers, **options):
        if batch is None:
            raise InputError(problem)
        yield batch


def copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on a GPU, copied one ahead in a stream of its own; neither the host nor the computation waits for the next copy."""
    stream = torch.cuda.Stream(device)

    def copied(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        done = torch.cuda.Event()
        with torch.cuda.stream(stream):
            moved = batch.to(device)
            done.record(stream)
        return moved, done

    upcoming = copied(next(batches))
    while True:
        batch, done = upcoming
        upcoming = copied(next(batches))
        current = torch.cuda.current_stream(device)
        current.wait_event(done)
        for tensor in batch.tensors():
            if tensor.is_cuda:
                tensor.record_stream(current)  # else its memory could be given away while it is computed with
        yield batch


def fetch(fields: FieldDataset, key: Tensor, augment: Sequence[Augment], seed: int) -> Batch:
    """Gather samples by key (index, epoch) and augment them."""
    batch = replace(fields.gather(key[:, 0]), key=key)
    for change in augment:
        batch = change(batch, seed)
    return batch


@lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of the data in one epoch, (n) int64."""
    return torch.randperm(n, generator=Generator().manual_seed(seed_of(seed, epoch, Stream.SHUFFLE)))
