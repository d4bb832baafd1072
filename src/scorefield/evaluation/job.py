"""Evaluation of a run: samples of several seeds and checkpoints against its data, or against statistics of data.

fréchet            distance of Gaussians fitted to features (Heusel et al. 2017)
kernel             squared maximum mean discrepancy of features (Bińkowski et al. 2018)
precision, ...     whether features of samples lie where those of data do (Kynkäänniemi et al. 2019, Naeem et al. 2020)
inception_score    how sure and how diverse a classifier finds the samples (Salimans et al. 2016)
train, held_out    1-nearest-neighbour two-sample accuracy (Lopez-Paz and Oquab 2017): 0.5 cannot be told apart
memorisation       mean distance to the nearest training field, generated over held out: near 0 for copies
classes            classes that occur among the samples, by a classifier's word
w_total, spectrum  of fields as such, by `--comparison`; beside them what two halves of the held-out data score

Every evaluation is a line of `evaluation/results.jsonl`, and the best checkpoint by each figure is kept in `best/`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from torch import Tensor
from tqdm import tqdm

from scorefield import sampling, selection
from scorefield.config import Parser
from scorefield.data.source import Source
from scorefield.errors import InputError
from scorefield.evaluation.extract import Extractor, in_memory
from scorefield.evaluation.record import add_line, compare, notes, record_of, table
from scorefield.evaluation.reference import Reference, from_file, gather
from scorefield.files import write_json, write_text
from scorefield.loading import Opened, find_checkpoint, open_checkpoint, run_folder
from scorefield.metrics.comparison import Comparison, Phases, Spectra  # noqa: F401 - known to the parser by their names
from scorefield.metrics.comparison import floor as halves
from scorefield.metrics.features import Features
from scorefield.metrics.figures import curve
from scorefield.metrics.inception import TorchFidelity, TorchScript  # noqa: F401 - known to the parser by their names
from scorefield.model import Model
from scorefield.recipe import build
from scorefield.sample import Sampler
from scorefield.selection import keep_best
from scorefield.train import checkpoint as checkpoints


def add_arguments(parser: Parser) -> None:
    """How many samples of which checkpoints, compared with what, by what."""
    parser.add_argument("-n", "--number", type=int, default=1000, help="samples per seed")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, for the spread")
    parser.add_argument(
        "--checkpoints", type=str, nargs="+", default=[], help="steps of several checkpoints to evaluate, or all"
    )
    parser.add_argument("--curve", action="store_true", help="the Fréchet distance against n too")
    parser.add_argument("--reference", type=int, default=50_000, help="compare with at most so many training fields")
    parser.add_argument(
        "--data", type=Source | None, default=None, help="the data; by default what the run was trained on"
    )
    parser.add_argument(
        "--statistics", type=Path | None, default=None, help="compare with this file of make-reference, not with data"
    )
    parser.add_argument(
        "--comparison", type=Comparison | None, default=None, help="figures of fields as such: Phases, Spectra"
    )
    add_features(parser)


def add_features(parser: Parser) -> None:
    """By which features."""
    parser.add_argument(
        "--features",
        type=Features | None,
        default=None,
        help="TorchScript (Inception-v3 of StyleGAN and EDM), TorchFidelity, Pixels, or your own class",
    )
    parser.add_argument("--keep", type=int, default=10_000, help="features kept for all but the Fréchet distance")


def evaluate(parser: Parser, settings: Namespace, notify: Callable[[str], None]) -> str:
    """Sample and compare; write `metrics.json`, or of several checkpoints `metrics-by-step.csv`; return a table."""
    if settings.number < 2 or settings.seeds < 1 or settings.reference < 2 or settings.keep < 1:
        raise InputError("evaluate needs at least --number 2, --seeds 1, --reference 2 and --keep 1.")
    steps = chosen_steps(settings, notify)
    for step in steps:
        find_checkpoint(settings.run, step)  # rather refuse now than after the others
    opened = open_checkpoint(settings.run, steps[0])
    folder = run_folder(opened.path)
    model = opened.model(ema=settings.ema, trust=settings.trust)
    settings.label = settings.label if settings.label is not None or not model.labels else "each"
    sampling.check(model, settings.number, 0, settings.chunk, settings.label)
    reference = find_reference(opened, parser, settings, notify)
    if isinstance(settings.label, int):
        notify(f"samples of class {settings.label} are compared with the data of all classes")
    comparison = build(parser, settings).comparison
    floor = floor_of(folder / "evaluation", reference, comparison)
    settings.features = settings.data = None  # built above, not to be read again for each checkpoint
    records = []
    for step in steps:
        opened = opened if step == steps[0] else open_checkpoint(settings.run, step)
        records.append(measure(opened, parser, settings, reference, floor, comparison))
        add_line(folder / "evaluation" / "results.jsonl", records[-1])
    keep_best(folder, settings.ema)
    if not settings.checkpoints:
        write_json(folder / "metrics.json", records[0])
        return headline(records[0]) + "\n" + table(records[0])
    write_text(folder / "metrics-by-step.csv", by_step(records))
    return "\n".join(f"step {record['model']['step']}: {headline(record)}\n{table(record)}" for record in records)


def chosen_steps(settings: Namespace, notify: Callable[[str], None]) -> Sequence[int | None]:
    """The steps of the checkpoints to evaluate, rising; None is the last one."""
    if not settings.checkpoints:
        return [selection.chosen_step(settings.run, settings, notify)]
    for name in ("step", "best"):
        if getattr(settings, name) is not None:
            raise InputError(f"--{name} names one checkpoint and --checkpoints several: give one of the two.")
    if settings.checkpoints == ["all"]:
        return checkpoints.steps(settings.run / "checkpoints") or [None]
    if not all(word.isdecimal() for word in settings.checkpoints):
        raise InputError(f"--checkpoints {' '.join(settings.checkpoints)}: give steps, or the word all.")
    return sorted({int(word) for word in settings.checkpoints})


def find_reference(opened: Opened, parser: Parser, settings: Namespace, notify: Callable[[str], None]) -> Reference:
    """What to compare with, and by what."""
    built = build(parser, settings)
    keep = max(settings.keep, settings.number) if settings.curve else settings.keep
    if settings.statistics is not None:
        if built.data is not None:
            raise InputError("--statistics stands for the data: leave out one of --statistics and --data.")
        return from_file(settings.statistics, built.features, settings.device, keep, notify)
    source = built.data or opened.source(settings.trust)
    folder = run_folder(opened.path) / "evaluation"
    extract = None if built.features is None else Extractor(built.features, settings.device, keep)
    found = gather(source, folder, settings.reference, notify, extract)
    return replace(found, extractor=replace(found.extractor, keep=keep))


def floor_of(folder: Path, reference: Reference, comparison: Comparison | None) -> dict[str, float]:
    """The figures of the held-out data, which a perfect model would reach; nothing without data. Of a comparison, those of
    two halves of the held-out data.
    """
    if reference.data is None:
        return {}
    path = folder / f"held-out-{reference.extractor.features.hash[:16]}.safetensors" if reference.costly else None
    held_out = reference.data.valid
    found = compare(reference.extractor(in_memory(held_out), path), held_out, reference, generated=False)
    return found if comparison is None else found | dict(halves(comparison, held_out))


def measure(
    opened: Opened,
    parser: Parser,
    settings: Namespace,
    reference: Reference,
    floor: dict[str, float],
    comparison: Comparison | None = None,
) -> dict[str, Any]:
    """The record of one checkpoint."""
    if comparison is not None and reference.data is None:
        raise InputError("--comparison compares fields with the data themselves: leave out --statistics.")
    model = opened.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    sampler = sampling.chosen(parser, settings, model.sampler)
    provenance = opened.provenance | {"ema": settings.ema}
    told = [] if settings.label is None else [settings.label]
    key = json.dumps([provenance, repr(sampler), settings.number, settings.chunk, *told])
    place = run_folder(opened.path) / "evaluation" / hashlib.sha256(key.encode()).hexdigest()[:8]

    rows, states = [], []
    for seed, samples in enumerate(draw(place, model, settings, sampler, provenance)):
        path = place / f"features-{reference.extractor.features.hash[:16]}-seed-{seed}.safetensors"
        state = reference.extractor(in_memory(samples), path if reference.costly else None)
        rows.append(compare(state, samples, reference))
        if comparison is not None and reference.data is not None:
            rows[-1] |= comparison(samples, reference.data.valid)
        states.append(state)
    record = record_of(rows, settings.number, reference) | {
        "seeds": list(range(settings.seeds)),
        "label": settings.label,
        "sampler": repr(sampler),
        "evaluations_per_sample": sampling.count_evaluations(model, sampler),
        "model": provenance,
    }
    if settings.curve:
        record["curve"] = curve(states, reference.statistics.moments)
    if reference.data is not None:
        record["held_out_data"] = floor
        record["notes"]["held_out_data"] = notes(len(reference.data.valid), reference)
    write_json(place / "metrics.json", record)
    return record


def draw(
    place: Path, model: Model, settings: Namespace, sampler: Sampler, provenance: dict[str, Any]
) -> Iterator[Tensor]:
    """The samples of one seed after the other, which go on where they stopped."""
    with tqdm(total=settings.number * settings.seeds, unit="sample", desc="sample", mininterval=1) as bar:
        for seed in range(settings.seeds):
            yield sampling.sample_to(
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


def headline(record: dict[str, Any]) -> str:
    """How many samples, and at what cost."""
    cost = f"{record['evaluations_per_sample']} network evaluations each"
    return f"{record['n']} samples × {len(record['seeds'])} seeds, {cost}"


def by_step(records: list[dict[str, Any]]) -> str:
    """A table of comma-separated values with a row per checkpoint."""
    rows = []
    for record in records:
        row = {"step": record["model"]["step"], "n": record["n"], "seeds": len(record["seeds"])}
        row |= {"evaluations_per_sample": record["evaluations_per_sample"]}
        for name, entry in record["figures"].items():
            row |= {name: entry["mean"], f"{name}_spread": entry["std"]}
        rows.append(row | {"weights": record["model"]["weights"], "reference": record["reference"]["moments_sha256"]})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
