"""Evaluation without a run: statistics of data for later, and samples on disk against them or against other samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from scorefield.data.arrays import ArrayFile
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.source import Source, Split, say_notes
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.jobs.evaluation.extract import (
    ByFeatures,
    Extractor,
    FeatureSet,
    StatisticsFile,
    open_samples,
    record_of_samples,
)
from scorefield.jobs.evaluation.record import record_of, table
from scorefield.jobs.evaluation.reference import Reference, from_file
from scorefield.jobs.options import Device, own_device, size_of
from scorefield.metrics.features import Features, Projected
from scorefield.metrics.figures import curve, figures
from scorefield.metrics.statistics import Statistics
from scorefield.run.runner import JOB, Job, Piece, Pieces, check_out, digest, run_job
from scorefield.run.verb import log, positional

STATISTICS = (".npz", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class MakeReference(ByFeatures):
    """Write statistics of the features of data, to evaluate samples against without the data.

    Args:
        source: folder or zip of images, .npy, .npz, samples.
        data: instead: a source, such as Images.
        split: of that source: train, valid, or test where it has such a part; train by default.
        out: file to write: .safetensors or .npz.
        device: where to compute: cpu, cuda, cuda:1, mps.
    """

    source: Path | None = positional(default=None)
    data: Source | None = None
    split: Split | None = None
    out: Path
    device: Device = "cpu"

    def check(self) -> None:
        check_ending(self.out, STATISTICS)
        if (self.source is None) == (self.data is None):
            raise InputError("make-reference needs the path of the data, or --data and its arguments, and not both.")
        if self.data is None and self.split is not None:
            raise InputError("--split is of --data: leave it out, all fields of a path are taken.")

    def run(self) -> Statistics:
        split = self.split or "train"
        if self.data is not None:
            fields, name = self.data.load(split), f"{type(self.data).__name__}, {split}"
            say_notes(fields)
        else:
            assert self.source is not None
            fields, name = open_samples(self.source), self.source.name
        extract = extractor(self.features, fields, own_device(self.device), self.keep)
        about = {"source": name, "values": fields[0].x.numel()}  # where they lie on this machine is nobody's concern
        found = StatisticsFile(self.out, FeatureSet(extract, in_random_order(fields), about)).read()
        log.info("statistics of %d fields in %s", found.n, self.out)
        return found


@dataclass(frozen=True, kw_only=True)
class Compare(ByFeatures):
    """Compare samples on disk with statistics of data, with data or with other samples; writes a JSON file.

    Args:
        samples: folder of scorefield sample, folder or zip of images, .npy, .npz.
        reference: file of make-reference, or data or samples as above.
        out: JSON file to write.
        curve: the Fréchet distance against n too.
        device: where to compute: cpu, cuda, cuda:1, mps.
    """

    samples: Path = positional()
    reference: Path = positional()
    out: Path
    curve: bool = False
    device: Device = "cpu"

    def check(self) -> None:
        check_ending(self.out, (".json",))

    def run(self) -> dict[str, Any]:
        run_job(self._job(), unit="field", title="compare")
        return json.loads(self.out.read_text(encoding="utf-8"))

    def _job(self) -> Comparison:
        """What is to be compared, all that can be refused refused."""
        samples, path, device = open_samples(self.samples), self.reference, own_device(self.device)
        keep = max(self.keep, len(samples)) if self.curve else self.keep
        stored, data = None, None
        if path.is_file() and (path.suffix == ".safetensors" or holds_moments(path)):
            stored = from_file(path, self.features, device, keep)
            extract, shape = stored.extractor, stored.shape
        else:
            data = open_samples(path)
            extract, shape = extractor(self.features, data, device, keep), tuple(data[0].x.shape)
        if (own := tuple(samples[0].x.shape)) != (shape or own):
            sizes = f"{self.samples} has fields of {size_of(own)} and {path} those of {size_of(shape or own)}"
            raise InputError(f"{sizes}: give samples and reference of one size.")
        record = record_of_samples(self.samples)
        about = {"source": self.samples.name} | ({"sampling": record} if record else {})
        sets = [FeatureSet(extract, in_random_order(samples), about)]
        sets += [] if data is None else [FeatureSet(extract, in_random_order(data), {"source": path.name})]
        return Comparison(self.out, sets, stored, self.curve)

    def table(self, found: dict[str, Any]) -> str:
        return f"{found['n']} samples against {found['reference']['n'] or 'unknown many'}\n{table(found)}"


@dataclass(frozen=True, eq=False)
class Comparison(Job):
    """The figures of samples against data, or against statistics that are there, as one JSON file.

    Args:
        out: the file.
        sets: the samples, and the data they are compared with.
        stored: instead of data, statistics of them.
        curve: whether the Fréchet distance is computed against n too.
    """

    out: Path
    sets: Sequence[FeatureSet]
    stored: Reference | None
    curve: bool

    @cached_property
    def identity(self) -> dict[str, Any]:
        reference = self.sets[1].identity if self.stored is None else self.stored.facts
        return {"samples": self.sets[0].identity, "reference": reference, "curve": self.curve}

    @cached_property
    def _places(self) -> list[tuple[FeatureSet, int]]:
        return [(part, number) for part in self.sets for number in range(len(part.sizes))]

    @property
    def sizes(self) -> list[int]:
        return [part.sizes[number] for part, number in self._places]

    def compute(self, number: int) -> Piece:
        part, own = self._places[number]
        return part.compute(own)

    def assemble(self, pieces: Pieces, out: Path) -> None:
        every = iter(pieces)
        states = [part.merge(islice(every, len(part.sizes))) for part in self.sets]
        reference = self.stored or Reference(states[1], self.sets[1].extract)
        row = figures(states[0], reference.statistics, customary=reference.extractor.features.customary)
        record = record_of([row], states[0].n, reference)
        record |= {"samples": states[0].facts, JOB: digest(self.identity)}
        if self.curve:
            record["curve"] = curve(states[:1], reference.statistics.moments)
        write_json(out, record)


def holds_moments(path: Path) -> bool:
    """Whether an .npz has moments, not samples."""
    return path.suffix == ".npz" and {"mu", "sigma"} <= set(ArrayFile(path).names)


def in_random_order(fields: FieldDataset) -> FieldDataset:
    """Fields in a random order, always the same: the features of the first are kept, and files often lie by class."""
    return Subset(fields, torch.randperm(len(fields), generator=torch.Generator().manual_seed(0)))


def extractor(features: Features | None, fields: FieldDataset, device: str, keep: int) -> Extractor:
    """What computes the features that are chosen, or by default a projection of the values."""
    return Extractor(features or Projected(fields[0].x.numel()), device, keep)


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Refuse, before anything is computed, another kind of file."""
    if path.suffix not in endings:
        raise InputError(f"--out {path} is not a file of the kind {' or '.join(endings)}: give it this ending.")
    check_out(path)
