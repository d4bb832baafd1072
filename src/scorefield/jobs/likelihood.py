"""Likelihood as a job: log p of data in nats and in data units, with standard errors, written to one file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor
from tqdm import tqdm

from scorefield.data.arrays import BROKEN
from scorefield.data.augment import Dequantise
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing, write_text
from scorefield.foundation.random import Generators, Stream
from scorefield.jobs.sampling import device_argument
from scorefield.model import Model
from scorefield.run.configuration import Parser
from scorefield.samplers.likelihood import Likelihood, ProbabilityFlow, bits_per_dimension
from scorefield.samplers.probes import Probes, Rademacher
from scorefield.training.loop import versions


def add_arguments(parser: Parser) -> None:
    """Of which fields, and how."""
    parser.add_argument(
        "--data", type=Source | None, default=None, help="the data; by default what the run was trained on"
    )
    parser.add_argument("--split", type=Split, default="valid", help="train or valid")
    parser.add_argument("-n", "--number", type=int, default=1000, help="at most so many fields, drawn at random")
    parser.add_argument("--repeats", type=int, default=5, help="draws of probes and of dequantisation for each field")
    parser.add_argument("--probes", type=Probes, default=Rademacher(), help="Rademacher, Normal, Sphere or Exact")
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, help="of a step of the solver, in nats per dimension too"
    )
    parser.add_argument("--seed", type=int, default=0, help="the draws for field i depend on (seed, i, repeat) alone")
    parser.add_argument("--chunk", type=int, default=64, help="fields computed at once")
    parser.add_argument(
        "--device", type=device_argument, default="cpu", help="where to compute: cpu, cuda, cuda:1, mps"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")


def flow_of(built: Namespace) -> ProbabilityFlow:
    """The flow that the arguments describe."""
    return ProbabilityFlow(built.tolerance, built.probes)


def check_free(path: Path) -> None:
    """Refuse, before anything is computed, to write over a file."""
    if path.exists():
        raise InputError(f"{path} exists: give another --out.")


def measure(
    model: Model,
    fields: FieldDataset,
    n: int,
    *,
    repeats: int,
    flow: ProbabilityFlow,
    seed: int = 0,
    chunk: int = 64,
    bar: tqdm | None = None,
    facts: Mapping[str, Any] | None = None,
    unfinished: Path | None = None,
) -> dict[str, Any]:
    """log p of at most n fields, each with several draws of probes and, where data are quantised, of dequantisation.

    Args:
        model: the model.
        fields: the data.
        n: how many; they are drawn, always the same ones.
        repeats: draws per field.
        flow: how the density is computed.
        seed: of the draws for field i in repeat r: key (seed, i, r, ...).
        chunk: fields at once.
        bar: advanced by the number of densities computed.
        facts: what else decides the result, such as whose model it is; becomes part of the record.
        unfinished: a file for what is computed so far; one that holds a part of the same job is gone on with.
    """
    if n < 1 or repeats < 1 or chunk < 1:
        raise InputError(f"likelihood needs a number, repeats and chunk of at least 1, not {n}, {repeats} and {chunk}.")
    order = torch.randperm(len(fields), generator=torch.Generator().manual_seed(0))
    indices = order[:n].sort().values
    facts = {"seed": seed, "flow": repr(flow), "indices": indices.tolist(), "versions": versions()} | dict(facts or {})
    ledger = Ledger((repeats, len(indices)), facts | {"chunk": chunk}, unfinished)
    if bar is not None:
        bar.reset(repeats * len(indices))
    for repeat in range(repeats):
        for start, part in zip(range(0, len(indices), chunk), indices.split(chunk), strict=True):
            if not ledger.holds(repeat, start):
                ledger.enter(repeat, start, _one_draw(model, fields, part, repeat, flow, seed))
            if bar is not None:
                bar.update(len(part))
    return _record(ledger.nats, ledger.evaluations, fields) | facts | {"nats_per_field": ledger.nats.T.tolist()}


class Ledger:
    """The densities of a job so far, (repeats, fields), kept in a file so that an interrupted job loses one chunk at most.

    Args:
        shape: (repeats, fields).
        facts: what decides the densities.
        path: the file; None keeps them in memory alone.

    Raises:
        InputError: the file holds another job.
    """

    def __init__(self, shape: tuple[int, int], facts: Mapping[str, Any], path: Path | None) -> None:
        self.nats = torch.full(shape, math.nan, dtype=torch.float64)
        self.evaluations = torch.zeros(shape, dtype=torch.int64)
        self.facts, self.path = json.dumps(facts, sort_keys=True), path
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                facts, nats, evaluations = str(file["facts"]), file["nats"], file["evaluations"]
        except (*BROKEN, KeyError):
            return  # nothing in it can be used: it is written again
        if facts != self.facts or nats.shape != self.nats.shape:
            raise InputError(f"{path} holds a part of another job: delete it, or give another --out.")
        self.nats, self.evaluations = torch.from_numpy(nats), torch.from_numpy(evaluations)

    def holds(self, repeat: int, start: int) -> bool:
        """Whether the chunk that begins there is known."""
        return not bool(self.nats[repeat, start].isnan())

    def enter(self, repeat: int, start: int, found: Likelihood) -> None:
        """A chunk's densities, on disk when this returns."""
        rows = slice(start, start + len(found.nats))
        self.nats[repeat, rows] = found.nats.double().cpu()
        self.evaluations[repeat, rows] = found.evaluations.cpu()
        if self.path is not None:
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                np.savez(file, facts=self.facts, nats=self.nats.numpy(), evaluations=self.evaluations.numpy())


def _record(nats: Tensor, evaluations: Tensor, fields: FieldDataset) -> dict[str, Any]:
    """The figures of log p (repeats, fields)."""
    dimension, (repeats, n) = fields[0].x.numel(), nats.shape
    record: dict[str, Any] = {"n": n, "repeats": repeats, "dimension": dimension, "quantum": fields.quantum}
    record["nats"] = summary(nats)
    if fields.quantum > 0:
        record["bits_per_dimension"] = summary(bits_per_dimension(nats, fields.quantum, dimension))
    counts = {"mean": evaluations.double().mean().item(), "max": int(evaluations.max())}
    return record | {"evaluations": counts}


def _one_draw(
    model: Model, fields: FieldDataset, indices: Tensor, repeat: int, flow: ProbabilityFlow, seed: int
) -> Likelihood:
    """log p of some fields with the draws of one repeat."""
    batch = fields.gather(indices)
    if batch.mask is not None:
        raise InputError("Fields that are known in part have no density under this model: give fields without a mask.")
    batch = replace(batch, key=torch.stack((indices, torch.full_like(indices, repeat)), dim=1))
    if fields.quantum > 0:
        batch = Dequantise(fields.quantum)(batch, seed)
    generator = Generators((seed, index, repeat, Stream.PROBE) for index in indices.tolist())
    return model.log_prob(batch.x, generator=generator, flow=flow, cond=batch.cond)


def summary(values: Tensor) -> dict[str, float | None]:
    """Of values (repeats, fields): mean, its standard error over the data, and the spread of the mean over repeats."""
    repeats, fields = values.shape
    error = values.mean(0).std() / math.sqrt(fields) if fields > 1 else torch.tensor(math.nan)
    spread = values.mean(1).std() if repeats > 1 else torch.tensor(math.nan)
    found = {"mean": values.mean(), "standard_error": error, "spread_over_repeats": spread}
    return {name: None if value.isnan() else float(value) for name, value in found.items()}


def unfinished(path: Path) -> Path:
    """Where the densities of a job are kept until its result is written."""
    return path.with_name(f"{path.name}.unfinished.npz")


def write(path: Path, record: dict[str, Any]) -> None:
    """Write the record, whole or not at all, and drop what was kept for going on."""
    write_text(path, json.dumps(record, indent=1) + "\n")
    unfinished(path).unlink(missing_ok=True)


def table(record: dict[str, Any]) -> str:
    """A few lines for people."""
    lines = [f"{record['n']} fields × {record['repeats']} draws, {record['evaluations']['mean']:.0f} evaluations each"]
    for key, name in (("nats", "log p(x) in nats"), ("bits_per_dimension", "bits per dimension")):
        if key in record:
            found = record[key]
            error = "" if found["standard_error"] is None else f" ± {found['standard_error']:.4f}"
            lines.append(f"  {name:22s}{found['mean']:.4f}{error}")
    return "\n".join(lines)
