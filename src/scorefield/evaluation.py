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
from collections.abc import Callable
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
from scorefield.files import write_text
from scorefield.metrics.coverage import class_coverage
from scorefield.metrics.features import Classifier, Features, Pixels, train_classifier
from scorefield.metrics.frechet import FrechetDistance, Moments
from scorefield.metrics.neighbours import memorisation_ratio, two_sample_accuracy
from scorefield.run import Opened
from scorefield.train.loop import versions

BATCH = 256


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
    """

    train: Tensor
    valid: Tensor
    features: Features
    moments: Moments
    classes: int
    classifier: Classifier | None

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "data_sha256": hashlib.sha256(self.train.numpy().tobytes() + self.valid.numpy().tobytes()).hexdigest(),
            "n_train": len(self.train),
            "n_held_out": len(self.valid),
            "features": type(self.features).__name__,
            "features_sha256": self.features.hash,
            "moments_sha256": self.moments.hash,
        }
        return facts if self.classifier is None else facts | {"classifier_accuracy": self.classifier.accuracy}


def evaluate(opened: Opened, parser: Parser, settings: Namespace, notify: Callable[[str], None]) -> str:
    """Sample, compare, write `metrics.json`, and return a table."""
    folder = settings.run if settings.run.is_dir() else settings.run.parent
    built = parser.instantiate(settings)
    source = built.data or opened.source(settings.trust)
    model = opened.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    sampler = sampling.chosen(parser, settings, model.sampler)
    provenance = opened.provenance | {"ema": settings.ema}
    reference = gather(source, folder / "evaluation", settings.reference, notify)
    key = json.dumps([provenance, repr(sampler), settings.number, settings.chunk])
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
                progress=bar.update,
            )
            bar.n = settings.number * (seed + 1)
            rows.append(compare(samples, reference))
    floor = compare(reference.valid, reference, generated=False)
    record = {
        "figures": {name: summary([row[name] for row in rows]) for name in rows[0]},
        "held_out_data": floor,
        "n": settings.number,
        "seeds": list(range(settings.seeds)),
        "sampler": repr(sampler),
        "evaluations_per_sample": sampling.count_evaluations(model, sampler),
        "model": provenance,
        "reference": reference.facts,
        "versions": versions(),
    }
    write_text(folder / "metrics.json", json.dumps(record, indent=2) + "\n")
    return table(record)


def gather(source: Source, folder: Path, limit: int, notify: Callable[[str], None]) -> Reference:
    """Read the data, and make or find the features to compare them by."""
    train, valid = source.load("train"), source.load("valid")
    (x, labels), (held, held_labels) = some(train, limit), some(valid, limit)
    classifier = None
    if labels is not None and held_labels is not None and len(train.classes) > 1 and x.ndim == 4:
        path = folder / "classifier.safetensors"
        if not path.exists():
            notify("training a classifier for the features")
            train_classifier((x, labels), (held, held_labels), classes=len(train.classes)).save(path)
        classifier = Classifier.load(path)
    else:
        notify("the data have no labels to train a classifier on: the Fréchet distance is of the values themselves")
    features = classifier if classifier is not None else Pixels()
    moments = Moments.of([features.over(x.split(BATCH))], features.hash)
    return Reference(x, held, features, moments, len(train.classes), classifier)


def some(fields: Fields, limit: int) -> tuple[Tensor, Tensor | None]:
    """At most so many fields with their labels, drawn in an order of their own and always the same."""
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

    def line(name: str, key: str, note: str) -> str:
        entry = figures[key]
        spread = "" if math.isnan(entry["std"]) else f" ± {entry['std']:.3f}"
        own = f"{floor[key]:10.3f}" if key in floor else " " * 10
        return f"  {name:34s}{entry['mean']:9.3f}{spread:10s}{own}   {note}"

    lines = [
        f"{record['n']} samples × {len(record['seeds'])} seeds, {record['evaluations_per_sample']} network evaluations each",
        f"  {'':34s}{'samples':>9s}{'':10s}{'held out':>10s}",
        line("Fréchet distance", "fréchet", f"{facts['features']} features, 0 is best"),
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
