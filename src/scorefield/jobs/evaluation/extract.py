"""Features of many fields: computed at once, or as the pieces of a job that goes on where it stopped and that processes share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.data.arrays import Arrays
from scorefield.data.batch import Batch
from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.data.functions import GivenFields
from scorefield.data.images import Images
from scorefield.data.source import say_notes
from scorefield.foundation.errors import InputError
from scorefield.jobs.outputs import Pixels
from scorefield.metrics.features import Features
from scorefield.metrics.inception import TorchFidelity, TorchScript  # noqa: F401 - known to the parser by their names
from scorefield.metrics.statistics import Statistics
from scorefield.run.checkpoint_choice import read_record
from scorefield.run.runner import JOB, RECORD, Job, Piece, Pieces, digest, parts_of, run_job
from scorefield.run.verb import Count, Verb

BATCH = 128


@dataclass(frozen=True, kw_only=True)
class ByFeatures(Verb):
    """What compares fields by features.

    Args:
        features: TorchScript (Inception-v3 of StyleGAN and EDM), TorchFidelity, Pixels, or your own class.
        keep: features kept for all but the Fréchet distance.
    """

    features: Features | None = None
    keep: Count = 10_000


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

    def __call__(self, fields: FieldDataset) -> Statistics:
        """The statistics of all fields, in data units."""
        found = FeatureSet(self, fields)
        return found.merge(map(found.compute, range(len(found.sizes))))

    def stored(self, fields: FieldDataset, folder: Path, name: str) -> Statistics:
        """The same, kept in a file in a folder whose name ends in a digest of the fields and what is computed of them."""
        found = FeatureSet(self, fields)
        return StatisticsFile(folder / f"{name}-{digest(found.identity)[:16]}.safetensors", found).read()

    @property
    def facts(self) -> dict[str, str]:
        """What computes the features."""
        features = self.features
        facts = {"features": type(features).__name__, "preprocessing": features.preprocessing}
        return (
            facts | {"features_sha256": features.hash} | ({"file_sha256": features.source} if features.source else {})
        )


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of fields, in pieces, and the statistics of all.

    Args:
        extract: what computes them.
        fields: in data units.
        about: what else the statistics say of the fields.
    """

    extract: Extractor
    fields: FieldDataset
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the statistics say of themselves."""
        facts = {"data_sha256": digest_of(self.fields, self.extract.batch), "shape": list(self.fields[0].x.shape)}
        return self.extract.facts | facts | dict(self.about)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the statistics."""
        return self.facts | {"n": len(self.fields), "keep": self.extract.keep, "batch": self.extract.batch}

    @property
    def sizes(self) -> list[int]:
        """The number of fields in each piece."""
        n, batch = len(self.fields), self.extract.batch
        return [min(batch, n - start) for start in range(0, n, batch)]

    @torch.no_grad()
    def compute(self, number: int) -> Piece:
        """The features of a batch, and the probabilities of classes where they are known."""
        start, network = number * self.extract.batch, self.extract.features.to(self.extract.device)
        x = self.fields.gather(torch.arange(start, start + self.sizes[number])).x.to(self.extract.device)
        with torch.backends.cudnn.flags(allow_tf32=False):  # 10 bits of mantissa would show in the figures
            found = network(x)
            probabilities = network.probabilities(x, found)
        if not bool(found.isfinite().all()):
            raise InputError("Some features are not finite: give other --features, or fields of smaller values.")
        classes = {} if probabilities is None else {"probabilities": probabilities.cpu().numpy()}
        return {"features": found.cpu().numpy()} | classes

    def merge(self, pieces: Iterable[Piece]) -> Statistics:
        """The statistics of all pieces, which come in order: the same whoever computed them."""
        state = Statistics(self.extract.features.hash, self.extract.keep, dict(self.facts))
        for piece in pieces:
            classes = torch.from_numpy(piece["probabilities"]) if "probabilities" in piece else None
            state.update(torch.from_numpy(piece["features"]), classes, state.n)
        return state


@dataclass(frozen=True, eq=False)
class StatisticsFile(Job):
    """Statistics of features as a .safetensors or .npz file."""

    out: Path
    found: FeatureSet

    @property
    def identity(self) -> dict[str, Any]:
        return self.found.identity

    @property
    def sizes(self) -> Sequence[int]:
        return self.found.sizes

    def compute(self, number: int) -> Piece:
        return self.found.compute(number)

    def assemble(self, pieces: Pieces, out: Path) -> None:
        state = self.found.merge(pieces)
        state.facts[JOB] = digest(self.identity)
        named = out.with_suffix(self.out.suffix)  # by which its kind is known
        state.save(named)
        named.replace(out)

    def made_by(self) -> str | None:
        try:
            return Statistics.load(self.out).facts.get(JOB)
        except InputError:
            return None

    def read(self) -> Statistics:
        """The statistics, computed as far as they are not there."""
        run_job(self, unit="field", title="features")
        return Statistics.load(self.out)


def digest_of(fields: FieldDataset, batch: int = BATCH) -> str:
    """SHA-256 of the values of all fields. InputError where some that are known are not finite."""
    found = hashlib.sha256()
    for indices in torch.arange(len(fields)).split(batch):
        part = fields.gather(indices)
        x, mask = part.x, part.mask
        if not bool((x.isfinite() if mask is None else x.isfinite() | ~mask.bool()).all()):
            raise InputError("Some fields hold values that are not finite: leave them out, or correct them.")
        found.update(x.contiguous().numpy().data)
    return found.hexdigest()


def in_memory(x: Tensor) -> FieldDataset:
    """Fields (n, channels, *grid) of a tensor, not known where it is NaN."""
    return GivenFields(ArrayFields(x.numpy(), "first", origin="the samples"), gaps=bool(x.isnan().any()))


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
    if not path.exists() and parts_of(path).is_dir():
        raise InputError(f"The samples in {path} are not complete: finish them by scorefield sample.")
    if path.is_dir() and (path / "samples.npy").is_file():
        return Arrays(path / "samples.npy", channel_axis="first", valid=0).load("train")
    record = record_of_samples(path)
    if record.get("png") and (path / "png").is_dir():
        pictures, n = Images(path / "png", valid=0).load("train"), record.get("n")
        if len(pictures) != n:
            raise InputError(f"{path} has {len(pictures)} of {n} samples: finish them by scorefield sample.")
        return Rescaled(pictures, Pixels(*record["png"]))
    if path.suffix in (".npy", ".npz"):
        return Arrays(path, valid=0).load("train")
    fields = Images(path, valid=0).load("train")
    say_notes(fields)
    return fields


def record_of_samples(path: Path) -> dict[str, Any]:
    """How samples were made: what lies beside them, in older folders as `sampling.json`; nothing where there is no record."""
    records = (read_record(path / name) for name in (RECORD, "sampling.json"))
    return next((record for record in records if isinstance(record, dict)), {})
