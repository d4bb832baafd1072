"""Evaluation of a run: samples of several seeds and checkpoints against its data, or against statistics of data.

fréchet            distance of Gaussians fitted to features (Heusel et al. 2017)
kernel             squared maximum mean discrepancy of features (Bińkowski et al. 2018)
precision, ...     whether features of samples lie where those of data do (Kynkäänniemi et al. 2019, Naeem et al. 2020)
inception_score    how sure and how diverse a classifier finds the samples (Salimans et al. 2016)
train, held_out    1-nearest-neighbour two-sample accuracy (Lopez-Paz and Oquab 2017): 0.5 cannot be told apart
memorisation       mean distance to the nearest training field, generated over held out: near 0 for copies
classes            classes that occur among the samples, by a classifier's word
w_total, spectrum  of fields as such, by `--comparison`; beside them what two halves of the held-out data score

Samples on another grid than the data's have the figures of a comparison alone. A network that is conditioned on fields is given
what goes with the held-out data.

Every evaluation is a line of `evaluation/results.jsonl`, and the best checkpoint by each figure is kept in `best/`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from torch import Tensor
from tqdm import tqdm

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.source import Source
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json, write_text
from scorefield.jobs import resolution, sampling
from scorefield.jobs.evaluation.extract import Extractor, in_memory
from scorefield.jobs.evaluation.record import add_line, compare, notes, record_of, table
from scorefield.jobs.evaluation.reference import Reference, from_file, gather
from scorefield.metrics.comparison import Comparison, Phases, Spectra  # noqa: F401 - known to the parser by their names
from scorefield.metrics.comparison import floor as halves
from scorefield.metrics.features import Features
from scorefield.metrics.figures import curve
from scorefield.metrics.inception import TorchFidelity, TorchScript  # noqa: F401 - known to the parser by their names
from scorefield.model import Model
from scorefield.run import checkpoint_choice as selection
from scorefield.run.checkpoint_choice import keep_best
from scorefield.run.configuration import Parser
from scorefield.run.loading import LoadedCheckpoint, find_checkpoint, open_checkpoint, run_folder
from scorefield.run.recipe import build
from scorefield.samplers import Finer, Sampler
from scorefield.training import checkpoint as checkpoints


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
    resolution.add_arguments(parser)
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


@dataclass(frozen=True)
class Drawing:
    """How the samples of each checkpoint and seed are drawn.

    Attributes:
        grid: of the samples.
        beyond: what becomes of modes that the training grid lacks.
        cond: what samples are conditioned on.
    """

    grid: tuple[int, ...] = ()
    beyond: Finer | None = None
    cond: Mapping[str, Tensor] | None = None

    @classmethod
    def asked(cls, model: Model, settings: Namespace, beyond: Finer | None, source: Callable[[], Source]) -> Drawing:
        """What the arguments ask for; `source` gives the data that a conditioned network needs."""
        grid = resolution.grid_of(model.shape[1:], settings.resolution)
        if not model.generative.net.cond_channels:
            return cls(grid, beyond)
        return cls(grid, beyond, resolution.conditions(source().load("valid"), settings.number, grid))

    def denoiser(self, model: Model) -> DenoiserProtocol | None:
        """The model's, or one that changes it; None for the model's own."""
        return None if self.beyond is None else self.beyond(model.generative, model.shape[1:])

    def facts(self, model: Model) -> dict[str, Any]:
        """What tells these samples from the model's own."""
        found: dict[str, Any] = {} if self.grid == tuple(model.shape[1:]) else {"resolution": list(self.grid)}
        found |= {} if self.beyond is None else {"beyond": repr(self.beyond)}
        return found if self.cond is None else found | {"given": "valid"}


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
    built = build(parser, settings)
    beyond = resolution.fitted(built.beyond, model, lambda: opened.source(settings.trust).load("train"))
    drawing = Drawing.asked(model, settings, beyond, lambda: built.data or opened.source(settings.trust))
    sampling.check(model, settings.number, 0, settings.chunk, settings.label, cond=drawing.cond)
    reference = find_reference(opened, parser, settings, notify)
    check_comparable(drawing, reference, built.comparison, settings)
    resolution.warn_of_mesh(model, drawing.grid, notify)
    if isinstance(settings.label, int):
        notify(f"samples of class {settings.label} are compared with the data of all classes")
    floor = floor_of(folder / "evaluation", reference, built.comparison)
    settings.features = settings.data = settings.beyond = None  # built above, not to be read again for each checkpoint
    records = []
    for step in steps:
        opened = opened if step == steps[0] else open_checkpoint(settings.run, step)
        records.append(measure(opened, parser, settings, reference, floor, built.comparison, drawing))
        add_line(folder / "evaluation" / "results.jsonl", records[-1])
    keep_best(folder, settings.ema)
    if not settings.checkpoints:
        write_json(folder / "metrics.json", records[0])
        return headline(records[0]) + "\n" + table(records[0])
    write_text(folder / "metrics-by-step.csv", by_step(records))
    return "\n".join(f"step {record['model']['step']}: {headline(record)}\n{table(record)}" for record in records)


def on_one_grid(drawing: Drawing, reference: Reference) -> bool:
    """Whether samples and data have values at the same points; where only statistics are at hand, the features decide."""
    return reference.data is None or not drawing.grid or tuple(reference.data.valid.shape[2:]) == drawing.grid


def check_comparable(
    drawing: Drawing, reference: Reference, comparison: Comparison | None, settings: Namespace
) -> None:
    """Refuse what cannot be compared, before anything is drawn."""
    if comparison is not None and reference.data is None:
        raise InputError("--comparison compares fields with the data themselves: leave out --statistics.")
    if reference.data is None or on_one_grid(drawing, reference):
        return
    if comparison is None or settings.curve:
        raise InputError(
            f"Samples of {_size(drawing.grid)} have no features in common with data of {_size(reference.data.valid.shape[2:])}: "
            "give --data of that grid, or --comparison Spectra or Phases without --curve."
        )


def _size(grid: Sequence[int]) -> str:
    return "×".join(map(str, grid))


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


def find_reference(
    opened: LoadedCheckpoint, parser: Parser, settings: Namespace, notify: Callable[[str], None]
) -> Reference:
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
    opened: LoadedCheckpoint,
    parser: Parser,
    settings: Namespace,
    reference: Reference,
    floor: dict[str, float],
    comparison: Comparison | None,
    drawing: Drawing,
) -> dict[str, Any]:
    """The record of one checkpoint."""
    model = opened.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    sampler = sampling.chosen(parser, settings, model.sampler)
    provenance = opened.provenance | {"ema": settings.ema} | drawing.facts(model)
    told = [] if settings.label is None else [settings.label]
    key = json.dumps([provenance, repr(sampler), settings.number, settings.chunk, *told])
    place = run_folder(opened.path) / "evaluation" / hashlib.sha256(key.encode()).hexdigest()[:8]

    rows, states = [], []
    for seed, samples in enumerate(draw(place, model, settings, sampler, provenance, drawing)):
        row: dict[str, float] = {}
        if on_one_grid(drawing, reference):
            path = place / f"features-{reference.extractor.features.hash[:16]}-seed-{seed}.safetensors"
            states.append(reference.extractor(in_memory(samples), path if reference.costly else None))
            row |= compare(states[-1], samples, reference)
        if comparison is not None and reference.data is not None:
            row |= comparison(samples, reference.data.valid)
        rows.append(row)
    record = record_of(rows, settings.number, reference) | {
        "seeds": list(range(settings.seeds)),
        "label": settings.label,
        "sampler": repr(sampler),
        "evaluations_per_sample": sampling.count_evaluations(model, sampler, drawing.cond),
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
    place: Path, model: Model, settings: Namespace, sampler: Sampler, provenance: dict[str, Any], drawing: Drawing
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
                denoiser=drawing.denoiser(model),
                grid=drawing.grid,
                cond=drawing.cond,
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
