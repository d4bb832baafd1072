"""Evaluation: samples of several seeds against training and held-out data; every figure with what it was computed from.

fréchet            distance of Gaussians fitted to features (Heusel et al. 2017)
train, held_out    1-nearest-neighbour two-sample accuracy (Lopez-Paz and Oquab 2017): 0.5 cannot be told apart
memorisation       mean distance to the nearest training field, generated over held out: near 0 for copies
classes            classes that occur among the samples, by a classifier's word
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor
from tqdm import tqdm

from scorefield import sampling
from scorefield.config import Parser
from scorefield.data.fields import Fields
from scorefield.data.source import Source
from scorefield.errors import InputError
from scorefield.files import write_text
from scorefield.metrics.coverage import class_coverage
from scorefield.metrics.features import Classifier, Features, Projected, train_classifier
from scorefield.metrics.frechet import FrechetDistance, Moments, note_on
from scorefield.metrics.neighbours import memorisation_ratio, two_sample_accuracy
from scorefield.run import Opened, run_folder
from scorefield.train.loop import versions

BATCH = 256
BYTES = 2**30  # of training and of held-out fields kept for comparison, at most


@dataclass(frozen=True)
class Reference:
    """The data that samples are compared with, and the features in which.

    Attributes:
        train: training fields, (n, channels, *grid).
        valid: held-out fields.
        features: the features.
        moments: of the features of the training fields.
        classes: the number of labels; 0 without.
        classifier: tells the class of a sample, where there are labels.
        labels_hash: SHA-256 of the labels; none without.
    """

    train: Tensor
    valid: Tensor
    features: Features
    moments: Moments
    classes: int
    classifier: Classifier | None
    labels_hash: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "data_sha256": digest([self.train, self.valid]),
            "labels_sha256": self.labels_hash,
            "classes": self.classes,
            "n_train": len(self.train),
            "n_held_out": len(self.valid),
            "features": type(self.features).__name__,
            "dimensions": len(self.moments.mean),
            "features_sha256": self.features.hash,
            "moments_sha256": self.moments.hash,
        }
        return facts if self.classifier is None else facts | {"classifier_accuracy": self.classifier.accuracy}


def evaluate(opened: Opened, parser: Parser, settings: Namespace, notify: Callable[[str], None]) -> str:
    """Sample, compare, write `metrics.json`, and return a table."""
    if settings.number < 2 or settings.seeds < 1 or settings.reference < 2:
        raise InputError("evaluate needs at least --number 2, --seeds 1 and --reference 2.")
    folder = run_folder(opened.path)
    built = parser.instantiate(settings)
    source = built.data or opened.source(settings.trust)
    model = opened.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    sampling.check(model, settings.number, 0, settings.chunk, settings.label)
    sampler = sampling.chosen(parser, settings, model.sampler)
    provenance = opened.provenance | {"ema": settings.ema}
    reference = gather(source, folder / "evaluation", settings.reference, notify)
    told = [] if settings.label is None else [settings.label]
    key = json.dumps([provenance, repr(sampler), settings.number, settings.chunk, *told])
    if told:
        notify(f"samples of class {settings.label} are compared with the data of all classes")
    place = folder / "evaluation" / hashlib.sha256(key.encode()).hexdigest()[:8]

    rows = []
    with tqdm(total=settings.number * settings.seeds, unit="sample", desc="sample", mininterval=1) as bar:
        for seed in range(settings.seeds):
            samples = sampling.sample_to(
                place / f"seed-{seed}",
                model,
                settings.number,
                seed=seed,
                sampler=sampler,
                chunk=settings.chunk,
                provenance=provenance,
                label=settings.label,
                progress=bar.update,
            )
            bar.n = settings.number * (seed + 1)
            rows.append(compare(samples, reference))
    floor = compare(reference.valid, reference, generated=False)
    record = {
        "figures": {name: summary([row[name] for row in rows]) for name in rows[0]},
        "held_out_data": floor,
        "notes": {"samples": note(settings.number, reference), "held_out_data": note(len(reference.valid), reference)},
        "n": settings.number,
        "seeds": list(range(settings.seeds)),
        "label": settings.label,
        "sampler": repr(sampler),
        "evaluations_per_sample": sampling.count_evaluations(model, sampler),
        "model": provenance,
        "reference": reference.facts,
        "versions": versions(),
    }
    write_text(folder / "metrics.json", json.dumps(strict(record), indent=2, allow_nan=False) + "\n")
    return table(record)


def strict(value: Any) -> Any:
    """The same with null in place of numbers that JSON does not know, NaN and infinities."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(tensors: Sequence[Tensor]) -> str:
    """SHA-256 of some values."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()


def note(n: int, reference: Reference) -> str:
    """What limits the meaning of a Fréchet distance of n samples; empty if nothing does."""
    return note_on(min(n, reference.moments.n), len(reference.moments.mean))


def gather(source: Source, folder: Path, limit: int, notify: Callable[[str], None]) -> Reference:
    """Read the data, and make or find the features to compare them by."""
    train, valid = source.load("train"), source.load("valid")
    (x, labels), (held, held_labels) = some(train, limit), some(valid, limit)
    if len(x) < min(limit, len(train)):
        notify(f"the reference is {len(x)} of {len(train)} training fields, which take {BYTES / 2**30:g} GiB")
    classifier, labels_hash, count = None, None, len(train.classes)
    if labels is not None and held_labels is not None and count > 1 and x.ndim == 4:
        labels_hash = digest([labels, held_labels])
        classifier = find_classifier((x, labels), (held, held_labels), count, folder, notify)
    else:
        notify(
            "no labelled images to train a classifier on: the Fréchet distance is of a random projection of the values"
        )
    features = classifier if classifier is not None else Projected(x[0].numel())
    moments = Moments.of([features.over(x.split(BATCH))], features.hash)
    return Reference(x, held, features, moments, count, classifier, labels_hash)


def find_classifier(
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    classes: int,
    folder: Path,
    notify: Callable[[str], None],
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
            notify(f"{error} It is trained again.")
    notify("training a classifier for the features")
    train_classifier(train, held_out, classes=classes).save(path)
    return Classifier.load(path)


def some(fields: Fields, limit: int) -> tuple[Tensor, Tensor | None]:
    """At most so many fields, and bytes, with their labels, drawn in an order of their own and always the same."""
    if len(fields) < 2:
        raise InputError(f"A split of {len(fields)} field cannot be compared with: give the data more in each split.")
    limit = min(limit, max(2, BYTES // (4 * fields[0].x.numel())))
    generator = torch.Generator().manual_seed(0)
    indices = torch.randperm(len(fields), generator=generator)[:limit]
    batches = [fields.gather(part) for part in indices.split(BATCH)]
    labels = [batch.cond["label"] for batch in batches if "label" in batch.cond]
    return torch.cat([batch.x for batch in batches]), torch.cat(labels) if labels else None


def compare(x: Tensor, reference: Reference, *, generated: bool = True) -> dict[str, float]:
    """The figures of one set of samples; of held-out data as the floor that a perfect model would reach."""
    frechet = FrechetDistance(reference.moments)
    for part in x.split(BATCH):
        frechet.update(reference.features.over([part]))
    n = min(len(x), len(reference.train))
    row = {"fréchet": float(frechet.compute().distance)}
    row["train_accuracy"] = two_sample_accuracy(reference.train[:n], x[:n]).accuracy
    row["train_n"] = n
    if generated:
        m = min(len(x), len(reference.valid))
        row["held_out_accuracy"] = two_sample_accuracy(reference.valid[:m], x[:m]).accuracy
        row["held_out_n"] = m
        row["memorisation"] = memorisation_ratio(x, reference.valid, reference.train).mean
    if reference.classifier is not None:
        coverage = class_coverage(reference.classifier.predict(x), reference.classes)
        row["classes"] = reference.classes - len(coverage.missing)
        row["rarest_class"] = min(coverage.counts)
    return row


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, spread over seeds, and the values themselves."""
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else math.nan, "values": values}


def table(record: dict[str, Any]) -> str:
    """A few lines for people."""
    figures, floor, facts = record["figures"], record["held_out_data"], record["reference"]

    notes = record["notes"]

    def line(name: str, key: str, note: str) -> str:
        entry = figures[key]
        spread = "" if math.isnan(entry["std"]) else f" ± {entry['std']:.3f}"
        own = f"{floor[key]:10.3f}" if key in floor else " " * 10
        return f"  {name:34s}{entry['mean']:9.3f}{spread:10s}{own}   {note}"

    lines = [
        f"{record['n']} samples × {len(record['seeds'])} seeds, {record['evaluations_per_sample']} network evaluations each",
        f"  {'':34s}{'samples':>9s}{'':10s}{'held out':>10s}",
        line("Fréchet distance", "fréchet", f"{facts['dimensions']} {facts['features']} features, 0 is best"),
        *(
            f"    {who}: {notes[key]}"
            for who, key in (("samples", "samples"), ("held out", "held_out_data"))
            if notes[key]
        ),
        line("1-NN accuracy against training", "train_accuracy", f"n = {figures['train_n']['mean']:.0f}, 0.5 is best"),
        line(
            "1-NN accuracy against held out",
            "held_out_accuracy",
            f"n = {figures['held_out_n']['mean']:.0f}, 0.5 is best",
        ),
        line("memorisation ratio", "memorisation", "1 is best, 0 are copies"),
    ]
    if "classes" in figures:
        lines.append(
            line("classes that occur", "classes", f"classifier of accuracy {facts['classifier_accuracy']:.3f}")
        )
        lines.append(line("samples of the rarest class", "rarest_class", ""))
    return "\n".join(lines)
