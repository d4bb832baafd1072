"""What samples are compared with: the data themselves, or statistics of the features of data in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.source import Source, say_notes
from scorefield.foundation.errors import InputError
from scorefield.jobs.evaluation.extract import BATCH, Extractor
from scorefield.metrics.features import Classifier, Features, Projected, train_classifier
from scorefield.metrics.statistics import Statistics
from scorefield.run.verb import log

BYTES = 2**30  # of training and of held-out fields kept for comparison, at most


@dataclass(frozen=True)
class Data:
    """The data themselves.

    Attributes:
        train: training fields, (n, channels, *grid).
        valid: held-out fields.
        classes: the number of labels; 0 without.
        classifier: tells the class of a sample, where there are labels.
        labels_hash: SHA-256 of the labels; none without.
        manifest: the digest of the manifest of all that they were read from.
    """

    train: Tensor
    valid: Tensor
    classes: int
    classifier: Classifier | None
    labels_hash: str | None = None
    manifest: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "data_sha256": digest([self.train, self.valid]),
            "labels_sha256": self.labels_hash,
            "manifest": self.manifest,
            "classes": self.classes,
            "n_train": len(self.train),
            "n_held_out": len(self.valid),
        }
        return facts if self.classifier is None else facts | {"classifier_accuracy": self.classifier.accuracy}


@dataclass(frozen=True)
class Reference:
    """What samples are compared with.

    Attributes:
        statistics: of the features of the data.
        extractor: computes those features.
        data: the data, where they were read.
        costly: the features were chosen, and may be costly: they are computed as a job, and its results kept.
        floor: the figures of the held-out data, which a perfect model would reach.
    """

    statistics: Statistics
    extractor: Extractor
    data: Data | None = None
    costly: bool = False
    floor: Mapping[str, float] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(channels, *grid) of the data; None where the statistics do not say it."""
        found = self.statistics.facts.get("shape")
        return None if found is None else tuple(found)

    def statistics_of(self, fields: FieldDataset, folder: Path, name: str) -> Statistics:
        """The statistics of other fields by the same features; where these are costly, kept in a folder."""
        return self.extractor.stored(fields, folder, name) if self.costly else self.extractor(fields)

    @property
    def facts(self) -> dict[str, Any]:
        found, moments = self.statistics, self.statistics.moments
        facts = (
            found.facts | self.extractor.facts | {"n": found.n if found.counted else None, "kept": len(found.vectors)}
        )
        facts |= {"dimensions": len(moments.mean), "moments_sha256": moments.hash}
        return facts | (self.data.facts if self.data is not None else {})


def from_file(path: Path, features: Features | None, device: str, keep: int) -> Reference:
    """The statistics that `make-reference` wrote, or that another program did.

    Args:
        path: the file.
        features: what the figures are computed by; by default a projection, if the file is of one.
        device: where to compute them.
        keep: how many features of samples to keep.

    Raises:
        InputError: the file is of other features or of another preprocessing than those given.
    """
    statistics, costly = Statistics.load(path), features is not None
    if features is None:
        made = statistics.facts.get("features", "features that it does not name")
        if made != Projected.__name__:
            raise InputError(f"{path} was made with {made}: give the same by --features.")
        features = Projected(int(statistics.facts["values"]))
    reference = Reference(statistics, Extractor(features, device, keep), costly=costly)
    if not statistics.counted:
        log.info("%s does not say of which data, how many, and by which features: it is taken as it is", path)
        statistics.features = features.hash
    elif statistics.features != features.hash:
        made, given = statistics.facts, reference.extractor.facts
        names = ("features", "preprocessing", "file_sha256", "features_sha256")
        name = next(name for name in names if made.get(name) != given.get(name))
        raise InputError(
            f"{path} was made with {name.replace('_', ' ')} {made.get(name)!r}, not {given.get(name)!r}: "
            "give --features that it was made with, or make another by scorefield make-reference."
        )
    return reference


def gather(source: Source, folder: Path, limit: int, extract: Extractor | None = None) -> Reference:
    """Read the data, and make or find the features to compare them by.

    Args:
        source: the data.
        folder: for what is made once: a classifier, the features of the data.
        limit: so many training and held-out fields, at most.
        extract: the features to compare by; by default a classifier's where there are labelled images, or a projection.
    """
    train, valid = source.load("train"), source.load("valid")
    say_notes(train, valid)
    shapes = [tuple(fields[0].x.shape) for fields in (train, valid)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"The training fields are {shapes[0]} and the held-out ones {shapes[1]}: give --data of one grid, such as the "
            "held-out ones alone, or compare draws with the fields they belong to, by --members."
        )
    (x, labels), (held, held_labels) = read_at_most(train, limit), read_at_most(valid, limit)
    if len(x) < min(limit, len(train)):
        counts = (len(x), len(train), BYTES / 2**30)
        log.info("nearest neighbours are sought among %d of %d training fields, %g GiB of them", *counts)
    classifier, labels_hash, count = None, None, len(train.classes)
    if labels is not None and held_labels is not None and count > 1 and x.ndim == 4:
        labels_hash = digest([labels, held_labels])
        classifier = find_classifier((x, labels), (held, held_labels), count, folder)
    elif extract is None:
        log.info(
            "no labelled images to train a classifier on: the Fréchet distance is of a random projection of the values"
        )
    manifest = source.manifest(train, valid).digest
    data, fields = Data(x, held, count, classifier, labels_hash, manifest), Subset(train, order(train, limit))
    if extract is not None:
        return Reference(extract.stored(fields, folder, "reference"), extract, data, costly=True)
    extract = Extractor(classifier if classifier is not None else Projected(x[0].numel()))
    return Reference(extract(fields), extract, data)


def find_classifier(
    train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], classes: int, folder: Path
) -> Classifier:
    """The classifier of these data and labels, whose hash is in its name; trained where there is none, or a broken one."""
    low, high = (int(bound) for bound in torch.cat((train[1], held_out[1])).aminmax())
    if low < 0 or high >= classes:
        raise InputError(f"The labels go from {low} to {high}, but there are {classes} classes: number them from 0.")
    path = folder / f"classifier-{digest([*train, *held_out, torch.tensor(classes)])[:16]}.safetensors"
    if path.exists():
        try:
            return Classifier.load(path)
        except InputError as error:
            log.info("%s It is trained again.", error)
    log.info("training a classifier for the features")
    train_classifier(train, held_out, classes=classes).save(path)
    return Classifier.load(path)


def read_at_most(fields: FieldDataset, limit: int) -> tuple[Tensor, Tensor | None]:
    """At most so many fields, and bytes, with their labels, drawn in an order of their own and always the same."""
    if len(fields) < 2:
        raise InputError(f"A split of {len(fields)} field cannot be compared with: give the data more in each split.")
    indices = order(fields, min(limit, max(2, BYTES // fields[0].x.nbytes)))
    batches = [fields.gather(part) for part in indices.split(BATCH)]
    labels = [batch.cond["label"] for batch in batches if "label" in batch.cond]
    return torch.cat([batch.x for batch in batches]), torch.cat(labels) if labels else None


def order(fields: FieldDataset, limit: int) -> Tensor:
    """So many indices of fields, at most, in a random order that is always the same."""
    return torch.randperm(len(fields), generator=torch.Generator().manual_seed(0))[:limit]


def digest(tensors: Sequence[Tensor]) -> str:
    """SHA-256 of some values."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()
