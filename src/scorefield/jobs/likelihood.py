"""Likelihood as a job: log p of data in nats and in data units, with standard errors, written to one file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.loader import Sequential
from scorefield.data.source import Source, Split, say_notes
from scorefield.foundation.arithmetic import at_once
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.foundation.random import Generators, Stream
from scorefield.jobs import densities, likelihood_heads
from scorefield.jobs.class_guidance import class_facts, class_number
from scorefield.jobs.dequantised import begin, dequantised
from scorefield.jobs.options import Label, OnRun, check_shape
from scorefield.model import Model
from scorefield.run.runner import JOB, Job, Piece, Pieces, check_out, digest, run_job
from scorefield.run.verb import Count, Positive, Seed, log, option
from scorefield.samplers.dequantise import Dequantisation, Uniform
from scorefield.samplers.learned_likelihood import LearnedLikelihood
from scorefield.samplers.likelihood import ProbabilityFlow, bits_per_dimension
from scorefield.samplers.probes import Probes, Rademacher
from scorefield.training.loop import versions


@dataclass(frozen=True, kw_only=True)
class Likelihood(OnRun):
    """Measure log p of fields by the probability flow: nats for each, their mean, bits per dimension of quantised data.

    Args:
        data: the data; by default what the run was trained on.
        split: train, valid, or test where the source has such a part.
        label: the fields of this class alone, by its name or number; fields without a class are taken for it.
        n: at most so many fields, drawn at random.
        repeats: draws of probes and of dequantisation for each field.
        probes: Rademacher, Normal, Sphere or Exact.
        dequantisation: Uniform in [0, 1), as most published figures have it, or TruncatedNormal about the value, which is
            tighter for models that were trained on quantised data as they are.
        tolerance: of a step of the solver, in nats per dimension too.
        evaluations: by the path and the head that scorefield tune-likelihood fitted to the run for as many; nothing is
            drawn then but the dequantisation.
        seed: the draws for field i depend on (seed, i, repeat) alone.
        chunk: fields computed at once; by default up to 256, of 65,536 points together, and of 1,048,576 on GPUs.
        resolutions: of functions, under field noise: the densities on these grids, points along the longest axis.
        out: JSON file to write.
    """

    data: Source | None = None
    split: Split = "valid"
    label: Label | None = None
    n: Count = option("-n", "--number", default=1000)
    repeats: Count = 5
    probes: Probes = field(default_factory=Rademacher)
    dequantisation: Dequantisation = field(default_factory=Uniform)
    tolerance: Positive = 1e-5
    evaluations: Count | None = None
    seed: Seed = 0
    chunk: Count | None = None
    resolutions: tuple[Count, ...] = ()
    out: Path

    def check(self) -> None:
        check_out(self.out)
        if self.evaluations is not None and self.resolutions:
            raise InputError("--evaluations is for the grid of training: leave out --resolutions.")

    def run(self) -> dict[str, Any]:
        run_job(self._job(), unit="field", title="likelihood")
        return json.loads(self.out.read_text(encoding="utf-8"))

    def _job(self) -> DensityFile:
        """What is to be measured, all that can be refused refused."""
        densities.check(self.model.prior.sde.noise, self.resolutions)
        fields, named = self.source(self.data).load(self.split), dict[str, Any]()
        say_notes(fields)
        self.check_depth("The data", fields.dtype, "give --data.depth {bits}")
        if self.label is not None:
            number = class_number(self.model, self.label)
            fields, named = of_class(fields, number), {"label": number} | class_facts(number, self.model.class_names)
        grids = densities.grids_of(self.model.sde.noise, fields, self.resolutions) if self.resolutions else [fields]
        solver = ProbabilityFlow(self.tolerance, self.probes)
        count = self.chunk or at_once(self.n, self.model.shape[1:], self.model.device)
        facts_of = self.n, self.repeats, solver, self.seed, count, self.dequantisation
        measured = [Densities(self.model, on, *facts_of) for on in grids]
        measured[0].check()
        flow: ProbabilityFlow | LearnedLikelihood = begin(self.dequantisation, solver, self.model, fields)
        if fields.quantum > 0 and flow == solver and self.model.sde.noise.white:
            log.info(
                "where training had quantised data as they are, --dequantisation TruncatedNormal may bound log P more tightly"
            )
        if self.evaluations is not None:
            asked = self.evaluations, self.dequantisation
            flow = likelihood_heads.read(self.checkpoint.path, self.provenance, self.model.shape, *asked)
            flow.head.to(self.model.device)
            likelihood_heads.check_shape(fields[0].x.shape, self.model.shape)
        facts = {"split": self.split, "model": self.provenance} | named
        facts |= {} if self.data is None else {"data": repr(self.data)}
        measured = [replace(part, flow=flow) for part in measured]
        return DensityFile(self.out, tuple(measured), sorted({*self.resolutions}), facts)

    def table(self, found: dict[str, Any]) -> str:
        return densities.table(found) if "resolutions" in found else table(found)


class Labelled(FieldDataset):
    """Fields without a class, taken for one."""

    def __init__(self, fields: FieldDataset, number: int) -> None:
        self.fields, self.number, self.quantum = fields, number, fields.quantum

    def __len__(self) -> int:
        return len(self.fields)

    def gather(self, indices: Tensor) -> Batch:
        batch = self.fields.gather(indices)
        return replace(batch, cond=dict(batch.cond) | {"label": torch.full_like(indices, self.number)})


def of_class(fields: FieldDataset, number: int) -> FieldDataset:
    """The fields of a class; those without any are taken for it. InputError where none is left."""
    if "label" not in fields[0].cond:
        return Labelled(fields, number)
    labels = fields.labels
    if labels is None:
        labels = torch.cat([batch.cond["label"] for batch in Sequential(fields)])
    places = (labels == number).nonzero().flatten()
    if not len(places):
        raise InputError(f"The data have no field of class {number}: give another --label or --split.")
    return Subset(fields, places)


@dataclass(frozen=True, eq=False)
class Densities:
    """log p of at most n fields, each with several draws of probes and, where data are quantised, of dequantisation.

    Args:
        model: the model.
        fields: the data.
        n: how many; they are drawn, always the same ones.
        repeats: draws per field.
        flow: how the density is computed.
        seed: of the draws for field i in repeat r: key (seed, i, r, ...).
        chunk: fields at once.
        dequantisation: of data that are quantised.
    """

    model: Model
    fields: FieldDataset
    n: int
    repeats: int
    flow: ProbabilityFlow | LearnedLikelihood
    seed: int = 0
    chunk: int = 64
    dequantisation: Dequantisation = field(default_factory=Uniform)

    @cached_property
    def indices(self) -> Tensor:
        """The fields that are drawn, (n)."""
        return torch.randperm(len(self.fields), generator=torch.Generator().manual_seed(0))[: self.n].sort().values

    @cached_property
    def draws(self) -> list[tuple[int, Tensor]]:
        """The repeat and the fields of each piece."""
        return [(repeat, part) for repeat in range(self.repeats) for part in self.indices.split(self.chunk)]

    def check(self) -> None:
        """Refuse fields that the model has no density of."""
        first = self._gather(self.indices[:1])
        check_shape(first.x.shape[1:], self.model)
        self.model.check_cond(first.cond)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides them beside the model."""
        found = sha256()
        for part in self.indices.split(self.chunk):
            batch = self._gather(part)
            for tensor in (batch.x, *(batch.cond[name] for name in sorted(batch.cond))):
                found.update(tensor.contiguous().numpy().data)
        return (
            {"indices": self.indices.tolist(), "data_sha256": found.hexdigest(), "flow": repr(self.flow)}
            | {name: getattr(self, name) for name in ("repeats", "seed", "chunk")}
            | self._noise
        )

    @property
    def _noise(self) -> dict[str, str]:
        """How the data were dequantised; nothing of continuous ones."""
        return {"dequantisation": repr(self.dequantisation)} if self.fields.quantum > 0 else {}

    def _gather(self, indices: Tensor) -> Batch:
        batch = self.fields.gather(indices)
        if batch.mask is not None and not bool(batch.mask.all()):
            raise InputError(
                "Fields that are known in part have no density under this model: give fields without a mask."
            )
        return batch

    def compute(self, number: int) -> Piece:
        """log p of the fields of a piece with its draws."""
        repeat, indices = self.draws[number]
        batch = replace(self._gather(indices), key=torch.stack((indices, torch.full_like(indices, repeat)), dim=1))
        law, quantum = self.dequantisation, self.fields.quantum
        batch, log_noise = dequantised(law, self.model, batch, quantum, self.flow, self.seed)
        generator = Generators((self.seed, index, repeat, Stream.PROBE) for index in indices.tolist())
        found = self.model.log_prob(batch.x, generator=generator, flow=self.flow, cond=self.model.taken(batch.cond))
        nats, evaluations = found.nats.double().cpu(), found.evaluations.cpu()
        return {"nats": nats.numpy(), "evaluations": evaluations.numpy(), "noise": log_noise.numpy()}

    def record(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """What came out, and of what."""
        found = [(piece["nats"], piece["evaluations"], piece.get("noise", 0 * piece["nats"])) for piece in pieces]
        nats, evaluations, noise = (
            torch.from_numpy(np.concatenate(parts)).view(self.repeats, -1) for parts in zip(*found, strict=True)
        )
        dimension, quantum = self.fields[0].x.numel(), self.fields.quantum
        record: dict[str, Any] = {"n": nats.shape[1], "repeats": self.repeats, "dimension": dimension}
        record |= {"quantum": quantum, **self._noise, "nats": summary(nats)}
        if quantum > 0:
            bits = bits_per_dimension(nats - noise, quantum, dimension)
            record |= {"bits_per_dimension": summary(bits), "bits_per_dimension_per_field": bits.T.tolist()}
        counts = {"mean": evaluations.double().mean().item(), "max": int(evaluations.max())}
        record |= {"evaluations": counts, "seed": self.seed, "flow": repr(self.flow)}
        return record | {"indices": self.indices.tolist(), "versions": versions(), "nats_per_field": nats.T.tolist()}


def measure(
    model: Model,
    fields: FieldDataset,
    n: int,
    *,
    repeats: int,
    flow: ProbabilityFlow,
    seed: int = 0,
    chunk: int = 64,
    dequantisation: Dequantisation = Uniform(),  # noqa: B008 - immutable
) -> dict[str, Any]:
    """The record of log p of at most n fields, here and now; arguments as of `Densities`."""
    found = Densities(model, fields, n, repeats, flow, seed, chunk, dequantisation)
    found.check()
    found = replace(found, flow=begin(dequantisation, flow, model, fields))
    return found.record(map(found.compute, range(len(found.draws))))


@dataclass(frozen=True, eq=False)
class DensityFile(Job):
    """Densities as one JSON file; on several grids, with those relative to the noise measure.

    Args:
        out: the file.
        densities: of the fields as they are, or on each grid.
        resolutions: of these grids.
        facts: what else decides the result, such as whose model it is; becomes part of the record.
    """

    out: Path
    densities: Sequence[Densities]
    resolutions: Sequence[int]
    facts: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        return dict(self.facts) | {"densities": [part.identity for part in self.densities]}

    @cached_property
    def _places(self) -> list[tuple[Densities, int]]:
        return [(part, number) for part in self.densities for number in range(len(part.draws))]

    @property
    def sizes(self) -> list[int]:
        return [len(part.draws[number][1]) for part, number in self._places]

    def compute(self, number: int) -> Piece:
        part, own = self._places[number]
        return part.compute(own)

    def assemble(self, pieces: Pieces, out: Path) -> None:
        every = iter(pieces)
        records = [part.record(islice(every, len(part.draws))) for part in self.densities]
        record = records[0]
        if self.resolutions:
            rows = [row | facts for row, facts in zip(records, self._relative(records), strict=True)]
            sigma = densities.level(self.densities[0].model, self.densities[0].flow)
            record = {"note": densities.NOTE, "sigma": sigma, "resolutions": rows}
        write_json(out, record | dict(self.facts) | {JOB: digest(self.identity)})

    def _relative(self, records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """For each grid, the density relative to the noise measure."""
        for resolution, part, record in zip(self.resolutions, self.densities, records, strict=True):
            x = part.fields.gather(part.indices).x
            nats = torch.tensor(record["nats_per_field"], dtype=torch.float64).T
            relative = nats - densities.log_reference(part.model, part.flow, x)
            yield {"resolution": resolution, "grid": list(x.shape[2:]), "relative": summary(relative)}


def summary(values: Tensor) -> dict[str, float | None]:
    """Of values (repeats, fields): mean, its standard error over the data, and the spread of the mean over repeats."""
    repeats, fields = values.shape
    error = values.mean(0).std() / math.sqrt(fields) if fields > 1 else torch.tensor(math.nan)
    spread = values.mean(1).std() if repeats > 1 else torch.tensor(math.nan)
    found = {"mean": values.mean(), "standard_error": error, "spread_over_repeats": spread}
    return {name: None if value.isnan() else float(value) for name, value in found.items()}


def table(record: dict[str, Any]) -> str:
    """A few lines for people."""
    lines = [f"{record['n']} fields × {record['repeats']} draws, {record['evaluations']['mean']:.0f} evaluations each"]
    for key, name in (("nats", "log p(x) in nats"), ("bits_per_dimension", "bits per dimension")):
        if key in record:
            found = record[key]
            error = "" if found["standard_error"] is None else f" ± {found['standard_error']:.4f}"
            lines.append(f"  {name:22s}{found['mean']:.4f}{error}")
    if "dequantisation" in record:
        lines[-1] += f"  dequantised by {record['dequantisation']}"
    return "\n".join(lines)
