"""Features of many fields, streamed: what is interrupted goes on, and several processes share it.

Every minute the state is written. Going on, the fields that it holds are read again and must have the digest that they had, so
that a state of other samples is never taken for these.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.data.arrays import Arrays
from scorefield.data.batch import Batch
from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.data.images import Images
from scorefield.foundation.errors import InputError
from scorefield.jobs.outputs import Pixels
from scorefield.metrics.features import Features
from scorefield.metrics.statistics import Statistics
from scorefield.run.checkpoint_choice import read_record

SECONDS = 60  # between two states on the disk
BATCH = 128


@dataclass(frozen=True)
class Extractor:
    """Computes the statistics of fields.

    Args:
        features: the features.
        device: where to compute them.
        keep: how many features to keep, for what needs more than moments.
        batch: fields at once.
    """

    features: Features
    device: str = "cpu"
    keep: int = 10_000
    batch: int = BATCH

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise InputError(f"--keep is {self.keep}: keep 1 feature or more.")

    def __call__(
        self, fields: FieldDataset, path: Path | None = None, progress: Callable[[int], object] = lambda _: None
    ) -> Statistics:
        """The statistics of all fields.

        Where torch.distributed is initialised, each process takes its share of the fields, and all return the same.

        Args:
            fields: the fields, in data units.
            path: the state's file, to go on from; the processes must see the same folder. None keeps nothing.
            progress: called with the number of new fields.
        """
        rank, world = share()
        if world == 1:
            return self._part(fields, range(len(fields)), path, progress)
        if path is None:
            raise InputError("Several processes share features through files: give a path.")
        batches = -(-len(fields) // self.batch)
        ends = [min(len(fields), self.batch * (batches * i // world)) for i in range(world + 1)]  # whole batches
        paths = [path.with_name(f"{path.stem}.{i}-of-{world}.safetensors") for i in range(world)]
        self._part(fields, range(ends[rank], ends[rank + 1]), paths[rank], progress)
        torch.distributed.barrier()
        whole = Statistics(self.features.hash, self.keep)
        for each in paths:
            whole.merge(Statistics.load(each))
        whole.facts = self.facts | {"data_sha256": digest_of(fields, self.batch)}
        torch.distributed.barrier()
        paths[rank].unlink()
        return whole

    @property
    def facts(self) -> dict[str, str]:
        """What computes the features."""
        features = self.features
        facts = {"features": type(features).__name__, "preprocessing": features.preprocessing}
        return (
            facts | {"features_sha256": features.hash} | ({"file_sha256": features.source} if features.source else {})
        )

    @torch.no_grad()
    def _part(
        self, fields: FieldDataset, rows: range, path: Path | None, progress: Callable[[int], object]
    ) -> Statistics:
        """The statistics of some of the fields."""
        network = self.features.to(self.device)
        state, before, digest, saved = self._begun(path, len(rows)), 0, hashlib.sha256(), time.monotonic()
        for start in range(rows.start, rows.stop, self.batch):
            x = fields.gather(torch.arange(start, min(start + self.batch, rows.stop))).x
            digest.update(x.contiguous().numpy().data)
            before += len(x)
            progress(len(x))
            if before < state.n:
                continue
            if before > state.n:
                with torch.backends.cudnn.flags(allow_tf32=False):  # 10 bits of mantissa would show in the figures
                    values = x.to(self.device)
                    found = network(values)
                    if not bool(found.isfinite().all()):
                        raise InputError(
                            "Some features are not finite: leave out the fields that hold NaN, or mend them."
                        )
                    state.update(found, network.probabilities(values, found), start)
            elif state.facts["data_sha256"] == digest.hexdigest():
                continue
            elif path is not None:
                path.unlink()  # of other fields
                progress(-before)
                return self._part(fields, rows, path, progress)
            state.facts = self.facts | {"data_sha256": digest.hexdigest()}
            if path is not None and (before == len(rows) or time.monotonic() - saved > SECONDS):
                state.save(path)
                saved = time.monotonic()
        if path is not None and not rows:
            state.save(path)  # nothing is left for this process
        return state

    def _begun(self, path: Path | None, n: int) -> Statistics:
        """The state to go on from, or a new one."""
        new = Statistics(self.features.hash, self.keep)
        if path is None or not path.is_file():
            return new
        try:
            state = Statistics.load(path)
        except InputError:
            return new  # damaged
        fits = (state.features, state.keep) == (new.features, new.keep) and state.n <= n
        return state if fits and (state.n == n or state.n % self.batch == 0) else new


def share() -> tuple[int, int]:
    """Which process this is, of how many."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def join() -> None:
    """Join the processes that torchrun started, if it did; `cuda` is then another GPU for each."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def digest_of(fields: FieldDataset, batch: int = BATCH) -> str:
    """SHA-256 of the values of all fields."""
    found = hashlib.sha256()
    for indices in torch.arange(len(fields)).split(batch):
        found.update(fields.gather(indices).x.contiguous().numpy().data)
    return found.hexdigest()


def in_memory(x: Tensor) -> FieldDataset:
    """Fields (n, channels, *grid) of a tensor."""
    return ArrayFields(x.numpy(), "first", origin="the samples")


@dataclass(frozen=True)
class Rescaled(FieldDataset):
    """Samples in data units, of which there are pictures.

    Args:
        pictures: the pictures.
        pixels: what black and white are.
    """

    pictures: FieldDataset
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.pictures)

    def gather(self, indices: Tensor) -> Batch:
        batch = self.pictures.gather(indices)
        return replace(batch, x=self.pixels.inverse(batch.x))


def open_samples(path: Path) -> FieldDataset:
    """All fields on disk: a folder that `scorefield sample` wrote, a folder or zip of images, a .npy or .npz."""
    if path.is_dir() and (path / "samples.npy").is_file():
        return Arrays(path / "samples.npy", channel_axis="first", valid=0).load("train")
    if path.is_dir() and any(path.glob("part-*.npy")):
        raise InputError(f"The samples in {path} are not complete: finish them by scorefield sample.")
    if "png" in (record := record_of_samples(path)) and (path / "png").is_dir():
        pictures, n = Images(path / "png", valid=0).load("train"), record.get("n")
        if len(pictures) != n:
            raise InputError(f"{path} has {len(pictures)} of {n} samples: finish them by scorefield sample.")
        return Rescaled(pictures, Pixels(*record["png"]))
    if path.suffix in (".npy", ".npz"):
        return Arrays(path, valid=0).load("train")
    return Images(path, valid=0).load("train")


def record_of_samples(path: Path) -> dict[str, Any]:
    """How samples were made: what `scorefield sample` wrote beside them; nothing where there is no such record."""
    record = read_record(path / "sampling.json")
    return record if isinstance(record, dict) else {}
