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

With `--loss` it is the loss that training minimises, of a split of the data, under noise that is the same for every checkpoint.

Every evaluation is a line of `evaluation/results.jsonl`, and the best checkpoint by each figure is kept in `best/`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split, say_notes
from scorefield.foundation.arithmetic import FULL, Choice, machine_of
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import strict, write_json, write_text
from scorefield.jobs import resolution
from scorefield.jobs.class_guidance import own_class
from scorefield.jobs.draws import Draws, count_evaluations, read_samples
from scorefield.jobs.evaluation import losses, paired
from scorefield.jobs.evaluation.extract import ByFeatures, Extractor, in_memory
from scorefield.jobs.evaluation.losses import Losses
from scorefield.jobs.evaluation.record import add_line, compare, notes, record_of, table
from scorefield.jobs.evaluation.reference import Reference, from_file, gather
from scorefield.jobs.options import Drawing, Label, OnRun, check_shape, own_device, size_of
from scorefield.jobs.vectors import Vector
from scorefield.metrics.comparison import Comparison, Phases, Spectra  # noqa: F401 - known to the parser by their names
from scorefield.metrics.comparison import floor as halves
from scorefield.metrics.figures import curve
from scorefield.run.checkpoint_choice import keep_best
from scorefield.run.loading import find_checkpoint, run_folder
from scorefield.run.runner import digest, run_job
from scorefield.run.verb import Between, Count, log, names_of, option
from scorefield.samplers import Finer
from scorefield.training import checkpoint as checkpoints

REFERENCE = 50_000  # training fields that samples are compared with, as is the custom
AtLeastTwo = Annotated[int, Between(2, 10**9)]
RANGE = re.compile(r"\d{1,12}|\d{0,12}:\d{0,12}")  # of steps, or one


@dataclass(frozen=True, kw_only=True)
class Evaluate(Drawing, ByFeatures):
    """Compare samples of a run with its data; writes metrics.json into the run folder, of several checkpoints
    metrics-by-step.csv. With --loss: measure the loss of training instead; writes loss-SPLIT.json, or loss-SPLIT-by-step.csv.

    Args:
        n: samples per seed; with --loss at most so many fields, evenly spread over the split.
        seeds: how many seeds, for the spread; with --loss how many draws of times and noise for each field.
        loss: the loss of this split (train, valid or test) instead of samples, with the noise that training validates with.
        checkpoints: steps of several checkpoints to evaluate, a range of them such as 1000:5000 (:5000, 1000:), or all.
        label: the class by its name or number, of a network with labels; each: all classes in turn, the default there.
        vector: the numbers to draw at, in the units of the data, of a network with vectors: 0.3,1.2; by default those of the
            held-out data, with their classes, each in turn.
        members: draw so many given what goes with each held-out field, and compare them with it; writes paired.json.
        against: other runs, drawn given the same, such as one of a Deterministic network; with --members.
        curve: the Fréchet distance against n too.
        reference: compare with at most so many training fields; 50000 by default.
        data: the data; by default what the run was trained on.
        statistics: compare with this file of make-reference, not with data.
        comparison: figures of fields as such: Phases, Spectra.
        resolution: points along the longest axis, or along each: the domain of training on another grid.
        beyond: on a finer grid, the modes that the training grid lacks: Continued (the default where the noise has
            modes and nothing is given: the spectrum of the training data by each field's own power), WienerBeyond (the spectrum
            alone), Extrapolate (what the network makes of them) or BandLimited (no noise in them).
    """

    n: AtLeastTwo = option("-n", "--number", default=1000)
    seeds: Count = 3
    loss: Split | None = None
    checkpoints: tuple[str, ...] = ()
    label: Label | None = None
    vector: Vector | None = None
    members: AtLeastTwo | None = None
    against: tuple[Path, ...] = ()
    curve: bool = False
    reference: AtLeastTwo | None = None
    data: Source | None = None
    statistics: Path | None = None
    comparison: Comparison | None = None
    resolution: tuple[Count, ...] = ()
    beyond: Finer | None = None

    def check(self) -> None:
        for name in ("step", "best"):
            if self.checkpoints and getattr(self, name) is not None:
                raise InputError(f"--{name} names one checkpoint and --checkpoints several: give one of the two.")
        if self.checkpoints != ("all",) and not all(map(RANGE.fullmatch, self.checkpoints)):
            raise InputError(
                f"--checkpoints {' '.join(self.checkpoints)[:60]}: give steps, a range such as 1000:5000, or the word all."
            )
        if self.statistics is not None and self.data is not None:
            raise InputError("--statistics stands for the data: leave out one of --statistics and --data.")
        if self.statistics is not None and self.reference is not None:
            raise InputError(
                "--reference counts fields of the data, for which --statistics stands: leave out one of them."
            )
        if self.beyond is not None and not self.resolution and self.members is None:
            raise InputError("--beyond is for a finer grid: add --resolution, or leave it out.")
        if self.statistics is not None and self.comparison is not None:
            raise InputError("--comparison compares fields with the data themselves: leave out --statistics.")
        if self.loss is not None:
            self._check_loss()
        if self.against and self.members is None:
            raise InputError("--against names runs to draw members of: add --members, or leave it out.")
        if self.members is not None:
            self._check_paired()

    def _check_loss(self) -> None:
        """Refuse arguments that are about samples."""
        of_loss = {*OnRun.__dataclass_fields__, "n", "seeds", "chunk", "loss", "checkpoints", "data"}
        for field in self.__dataclass_fields__.values():
            if field.init and field.name not in of_loss and getattr(self, field.name) != field.default:
                raise InputError(f"--loss draws no samples: leave {names_of(field)[-1]} out, or --loss.")

    def _check_paired(self) -> None:
        """Refuse arguments that are about the law of all samples, or about several checkpoints."""
        unpaired = (
            "checkpoints",
            "label",
            "vector",
            "curve",
            "reference",
            "statistics",
            "comparison",
            "resolution",
        )
        for name in unpaired:
            if getattr(self, name):
                raise InputError(
                    f"--members compares draws with the fields they belong to: leave out --{name}, or --members."
                )

    def run(self) -> dict[str, Any] | list[dict[str, Any]]:
        """The record of the checkpoint, or of each of several."""
        if self.loss is not None:
            return self._measure_loss(self.loss)
        if self.members is not None:
            return self._measure_pairs(self.members)
        each, records = self._each(), []
        (setting, reference), folder = each[0].prepared(), run_folder(each[0].checkpoint.path)
        while each:  # a model is in memory as long as its checkpoint is evaluated
            records.append(each.pop(0).measured(setting, reference))
            add_line(folder / "evaluation" / "results.jsonl", records[-1])
        keep_best(folder, self.ema, self.ema_width)
        if self.checkpoints:
            write_text(folder / "metrics-by-step.csv", by_step(records))
            return records
        write_json(folder / "metrics.json", records[0])
        return records[0]

    def _measure_pairs(self, members: int) -> dict[str, Any]:
        """The figures of draws beside the held-out fields they belong to."""
        fields, train = self._source.load("valid"), self._source.load("train")
        say_notes(fields)
        n, runs = min(self.n, len(fields)), {"draws": self} | {str(path): self._other(path) for path in self.against}
        grid = tuple(fields[0].x.shape[1:])
        cond = resolution.conditions(fields, torch.arange(n), grid)
        draws = {}
        for name, run in runs.items():
            given = run.model.taken(cond)
            check_shape(fields[0].x.shape, run.model)
            if not given.keys() & {"field", "label", "vector"}:
                raise InputError(
                    f"{run.folder}: its network is conditioned on nothing that the data have: leave --members out."
                )
            beyond = run.way_beyond(grid)
            job = replace(run, n=n * members).draws(Setting(grid, beyond, paired.repeated(given, members)))
            draws[name] = replace(job, out=self.place / digest(job.identity)[:8] / "paired")
        record = paired.Paired(draws, fields, train, n, members).record() | {"model": dict(draws["draws"].facts)}
        record["evaluations_per_sample"] = count_evaluations(
            self.model, draws["draws"].sampler, draws["draws"].condition
        )
        write_json(run_folder(self.checkpoint.path) / "paired.json", record)
        return strict(record)

    def way_beyond(self, grid: tuple[int, ...]) -> Finer | None:
        """What becomes of modes that the training grid lacks."""
        return resolution.fitted(
            self.beyond, self.model, lambda split: self.checkpoint.source(self.trust).load(split), grid
        )

    def _other(self, path: Path) -> Evaluate:
        """The last checkpoint of another run, drawn in the same way."""
        return replace(self, run=path, step=None, best=None, against=())

    def _measure_loss(self, split: Split) -> dict[str, Any] | list[dict[str, Any]]:
        """The record of the loss of the checkpoint, or of each of several."""
        each, records = self._each(), []
        folder, fields = run_folder(each[0].checkpoint.path), each[0]._source.load(split)
        say_notes(fields)
        while each:
            job = each.pop(0)._losses(split, fields)
            run_job(job, unit="field", title=f"loss at step {job.facts['step']}")
            records.append(json.loads(job.out.read_text(encoding="utf-8")))
            add_line(folder / "evaluation" / "results.jsonl", records[-1])
        if self.checkpoints:
            write_text(folder / f"loss-{split}-by-step.csv", losses.by_step(records))
            return records
        write_json(folder / f"loss-{split}.json", records[0])
        return records[0]

    def _losses(self, split: Split, fields: FieldDataset) -> Losses:
        """The loss of the checkpoint, all that can be refused refused."""
        plan, facts = self.checkpoint.plan(self.trust), self.checkpoint.provenance | self.averaging
        if plan.precision == "auto":
            chosen = Choice.read(self.checkpoint.checkpoint.facts.get("precision"))
            able = machine_of(self.model.device).bfloat16
            plan = replace(plan, precision=chosen.precision if chosen is not None and able else FULL)
        job = Losses(
            self.place,
            self.model,
            plan,
            fields,
            split,
            self.n,
            self.seeds,
            self.at_once(self.n, self.model.shape[1:]),
            facts,
        )
        job.check()
        return replace(job, out=self.place / digest(job.identity)[:8] / f"loss-{split}.json")

    def table(self, found: Any) -> str:
        if self.loss is not None:
            return losses.table(found if self.checkpoints else [found])
        if self.members is not None:
            return paired.table(found)
        if not self.checkpoints:
            return f"{headline(found)}\n{table(found)}"
        return "\n".join(f"step {row['model']['step']}: {headline(row)}\n{table(row)}" for row in found)

    def _each(self) -> list[Evaluate]:
        """The evaluation of each checkpoint, of rising steps. InputError where one is missing."""
        if not self.checkpoints:
            return [self]
        there = checkpoints.steps(self.folder / "checkpoints")
        steps: Sequence[int | None] = [*there] or [None]
        if self.checkpoints != ("all",):
            steps = sorted({step for word in self.checkpoints for step in steps_in(word, there)})
        for step in steps:
            find_checkpoint(self.folder, step)
        return [replace(self, step=step, checkpoints=()) for step in steps]

    # ------------------------------------------------------------------------------------- what checkpoints have in common
    def prepared(self) -> tuple[Setting, Reference]:
        """How samples are drawn and what they are compared with, all that can be refused refused before the first sample."""
        model = self.model
        grid = resolution.grid_of(model.shape[1:], self.resolution)
        beyond = self.way_beyond(grid)
        cond = None
        if model.generative.net.cond_channels or (model.vector and self.vector is None):
            cond = resolution.conditions(self._source.load("valid"), torch.arange(self.n), grid)
        setting = Setting(grid, beyond, cond)
        reference = self._reference(self.draws(setting).shape)
        resolution.warn_of_mesh(model, grid)
        if self.label not in (None, "each"):
            log.info("samples of class %s are compared with the data of all classes", self.label)
        if self.vector is not None:
            log.info("samples at %s are compared with the data of all vectors", ",".join(f"{v:g}" for v in self.vector))
        return setting, replace(reference, floor=self._floor(reference))

    @cached_property
    def _source(self) -> Source:
        return self.source(self.data)

    @property
    def place(self) -> Path:
        """The folder of what is kept."""
        return run_folder(self.checkpoint.path) / "evaluation"

    def _reference(self, shape: Sequence[int]) -> Reference:
        """What samples of a shape are compared with, and by what."""
        keep, device = max(self.keep, self.n) if self.curve else self.keep, own_device(self.device)
        if self.statistics is not None:
            found = from_file(self.statistics, self.features, device, keep)
            if found.shape not in (None, tuple(shape)):
                raise InputError(
                    f"Samples of {size_of(shape)} have no features in common with fields of {size_of(found.shape or ())}, of "
                    f"which {self.statistics} is: make a reference of fields of this size."
                )
            return found
        source = self._source
        data = tuple(source.load("valid")[0].x.shape)
        if data != tuple(shape) and (data[0] != shape[0] or self.comparison is None or self.curve):
            raise InputError(
                f"Samples of {size_of(shape)} have no features in common with data of {size_of(data)}: give --data of that "
                "grid, or --comparison Spectra or Phases without --curve."
            )
        extract = None if self.features is None else Extractor(self.features, device, keep)
        found = gather(source, self.place, self.reference or REFERENCE, extract)
        return replace(found, extractor=replace(found.extractor, keep=keep))

    def _floor(self, reference: Reference) -> dict[str, float]:
        """The figures of the held-out data, which a perfect model would reach; nothing without data. Of a comparison, those of
        two halves of the held-out data.
        """
        if reference.data is None:
            return {}
        held_out = reference.data.valid
        statistics = reference.statistics_of(in_memory(held_out), self.place, "held-out")
        found = compare(statistics, held_out, reference, generated=False)
        return found if self.comparison is None else found | dict(halves(self.comparison, held_out))

    # ------------------------------------------------------------------------------------------------- of each checkpoint
    def draws(self, setting: Setting) -> Draws:
        """The samples of the first seed."""
        model = self.model
        facts: dict[str, Any] = {} if setting.grid == tuple(model.shape[1:]) else {"resolution": list(setting.grid)}
        facts |= {} if setting.beyond is None else {"beyond": repr(setting.beyond)}
        facts |= {} if setting.cond is None else {"given": "valid"}
        alike = model.vector and "label" in (setting.cond or {})  # classes and vectors of the same fields
        each = self.label is None and model.labels and not alike and self.members is None
        return Draws(
            out=self.place,
            model=model,
            sampler=self.sampler_from(model.sampler),
            n=self.n,
            chunk=self.at_once(self.n, setting.grid or model.shape[1:]),
            label="each" if each else own_class(self.label, model),
            denoiser=resolution.beyond_grid(setting.beyond, model, None),
            grid=setting.grid,
            cond=setting.cond,
            vector=self.vector,
            facts=self.provenance | facts,
        )

    def measured(self, setting: Setting, reference: Reference) -> dict[str, Any]:
        """The record of the checkpoint."""
        first = self.draws(setting)
        place = self.place / digest(first.identity)[:8]
        rows, states = [], []
        for seed in range(self.seeds):
            job = replace(first, seed=seed, out=place / f"seed-{seed}")
            run_job(job, unit="sample", title=f"samples of seed {seed}")
            samples, row = read_samples(job.out), {}
            if reference.shape in (None, job.shape):
                states.append(reference.statistics_of(in_memory(samples), place, f"features-seed-{seed}"))
                row |= compare(states[-1], samples, reference)
            if self.comparison is not None and reference.data is not None:
                row |= self.comparison(samples, reference.data.valid)
            rows.append(row)
        record = record_of(rows, self.n, reference) | {
            "seeds": list(range(self.seeds)),
            "label": first.label,
            **({} if first.vector is None else {"vector": list(first.vector)}),
            "sampler": repr(first.sampler),
            "evaluations_per_sample": count_evaluations(first.model, first.sampler, first.condition),
            "model": dict(first.facts),
        }
        if (trained_on := self.checkpoint.manifest) is not None:
            record["trained_on"] = trained_on.digest
        if self.curve:
            record["curve"] = curve(states, reference.statistics.moments)
        if reference.data is not None:
            record["held_out_data"] = dict(reference.floor)
            record["notes"]["held_out_data"] = notes(len(reference.data.valid), reference)
        write_json(place / "metrics.json", record)
        return strict(record)


@dataclass(frozen=True)
class Setting:
    """How the samples of every checkpoint are drawn.

    Attributes:
        grid: of the samples.
        beyond: what becomes of modes that the training grid lacks.
        cond: what samples are conditioned on.
    """

    grid: tuple[int, ...]
    beyond: Finer | None
    cond: Mapping[str, Tensor] | None


def steps_in(word: str, there: Sequence[int]) -> list[int]:
    """The step that a word names, or those of a range, both ends included. InputError where a range holds no checkpoint."""
    first, colon, last = word.partition(":")
    if not colon:
        return [int(first)]
    found = [step for step in there if int(first or 0) <= step <= int(last or there[-1])]
    if not found:
        raise InputError(
            f"No checkpoint is of --checkpoints {word}: there are {brief(', '.join(map(str, there)) or 'none')}."
        )
    return found


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
