"""Calibration as a job: fields that are known are measured and restored, and held against their own draws."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split, say_notes
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.foundation.random import Generators, Stream, seed_of
from scorefield.guidance import Method, MomentMatching
from scorefield.inverse import InverseProblem, particle_sampler, warn_of_few
from scorefield.jobs.calibrations import keep, posterior_facts
from scorefield.jobs.draws import Draws
from scorefield.jobs.options import Drawing, check_shape
from scorefield.jobs.restoration import LEVEL, guided_draws, weighed_draws
from scorefield.jobs.restore import Restore
from scorefield.metrics.calibration import Verdict, Within, by_chance, conformal_factor, rank_distance, verdict
from scorefield.operators import Operator
from scorefield.run.runner import JOB, Job, Piece, Pieces, check_out, digest, run_job
from scorefield.run.verb import Count, CountOrZero, NonNegative, Seed, log, option

PARTS = Verdict.__dataclass_fields__
MOST = 100.0  # a factor that says that the draws are good for nothing


@dataclass(frozen=True, kw_only=True)
class Calibrate(Drawing):
    """Check posteriors on fields that are known: ranks of the truth, coverage, reliability, each with the band that chance
    leaves. The factor by which 90 % intervals hold 90 % of fields such as these is kept with the run, for restore --calibrated.

    Args:
        task: how fields are measured: inpaint, colourise, superres, deblur, denoise, or any Operator: a LinearOperator,
            Saturated, FourierMagnitude, one of your own.
        noise: standard deviation of the noise, in data units.
        data: the fields; by default those that the run was trained on.
        split: train, valid, or test where the source has such a part.
        fields: how many; 9 or more for a factor.
        n: draws of each; restore --calibrated takes as many.
        method: MomentMatching, PiGDM, DPS, Proximal or Replacement (for a noise of 0).
        particles: correct the method by so many weighted particles; 0 takes it as it is.
        seed: of noise and draws.
        out: JSON file to write.
    """

    task: Operator
    noise: NonNegative = 0.0
    data: Source | None = None
    split: Split = "valid"
    fields: Count = 40
    n: Count = option("-n", "--samples", default=8)
    method: Method = MomentMatching()
    particles: CountOrZero = 0
    seed: Seed = 0
    out: Path

    def check(self) -> None:
        check_out(self.out)
        if self.n < 3:
            raise InputError("--samples is below 3: ranks and intervals need more draws of each field.")
        if self.particles and not self.noise > 0:
            raise InputError("--particles are weighed by the noise of the measurement: give --noise above 0.")

    @classmethod
    def spelled_out(cls, arguments: Sequence[str]) -> list[str]:
        """With the plain name of a task replaced by its import path."""
        return Restore.spelled_out(arguments)

    def run(self) -> dict[str, Any]:
        model, fields = self.model, self.source(self.data).load(self.split)
        say_notes(fields)
        self.check_depth("The data", fields.dtype, "give --data.depth {bits}")
        check_shape(fields[0].x.shape, model)
        model.check_cond(model.taken(fields.gather(torch.arange(1)).cond))
        if len(fields) < self.fields:
            raise InputError(
                f"The data have {len(fields)} fields: give --fields {len(fields)} or fewer, or another --split."
            )
        own = particle_sampler(model) if self.particles else model.stepwise
        draws = Draws(
            out=self.out,
            model=model,
            sampler=self.sampler_from(own),
            n=self.n,
            chunk=min(self.at_once(self.n, model.shape[1:]), self.n),
            facts=self.provenance,
        )
        facts = {"split": self.split} | ({} if self.data is None else {"data": repr(self.data)})
        count = self.at_once(max(self.particles, 1), model.shape[1:])
        job = CalibrationFile(self.out, draws, fields, self, count, facts)
        run_job(job, unit="field", title="calibrate")
        found = json.loads(self.out.read_text(encoding="utf-8"))
        if found["factor"] is not None:
            kept = {name: found[name] for name in ("factor", "coverage", "fields")}
            place = keep(self.checkpoint.path, job.how, kept)
            log.info("the factor is kept in %s, for restore --calibrated", place)
        return found

    def table(self, found: dict[str, Any]) -> str:
        return table(found)


@dataclass(frozen=True, eq=False)
class CalibrationFile(Job):
    """A verdict on each field as a piece; what they say together as one JSON file.

    Args:
        out: the file.
        draws: of the prior.
        fields: the data.
        verb: what is asked for.
        at_once: particles evaluated at once.
        facts: what else decides the result.
    """

    out: Path
    draws: Draws
    fields: FieldDataset
    verb: Calibrate
    at_once: int
    facts: Mapping[str, Any]

    @cached_property
    def how(self) -> dict[str, Any]:
        """What a factor holds for."""
        y, shape = self.verb.task(torch.zeros(1, *self.draws.shape)), self.draws.shape
        problem = InverseProblem(self.verb.task, y, self.verb.noise, shape=shape)
        return posterior_facts(self.draws, problem, self.verb.method, self.verb.particles)

    @cached_property
    def indices(self) -> Tensor:
        """The fields that are drawn."""
        order = torch.randperm(len(self.fields), generator=torch.Generator().manual_seed(0))
        return order[: self.verb.fields].sort().values

    @cached_property
    def identity(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        content = {"indices": self.indices.tolist(), "data_sha256": self.fields.content(self.indices)}
        return {**self.how, **self.facts, "seed": self.verb.seed, **content}

    @property
    def sizes(self) -> list[int]:
        return [1] * len(self.indices)

    def compute(self, number: int) -> Piece:
        index = int(self.indices[number])
        batch, verb = self.fields.gather(self.indices[number : number + 1]), self.verb
        known = _whole(batch)
        y = verb.task(known)
        y = y + verb.noise * Generators([(verb.seed, index, Stream.CALIBRATED)]).randn(y.shape, like=y)
        case = InverseProblem(verb.task, y, verb.noise, shape=self.draws.shape)
        cond = {
            name: value.expand(verb.n, *value.shape[1:]) for name, value in self.draws.model.taken(batch.cond).items()
        }
        draws = replace(self.draws, seed=seed_of(verb.seed, index, Stream.CALIBRATED), cond=cond or None)
        if verb.particles:
            posed: Draws = weighed_draws(draws, case, verb.method, verb.particles, self.at_once)
        else:
            posed = guided_draws(draws, case, verb.method)
        drawn = [posed.compute(part) for part in range(len(posed.sizes))]
        members = torch.cat([torch.from_numpy(part["x"]) for part in drawn])
        generator = torch.Generator().manual_seed(seed_of(verb.seed, index, Stream.CALIBRATED))
        found = verdict(known[0], members, level=LEVEL, generator=generator)
        counted = {"effective": drawn[0]["effective"]} if verb.particles else {}
        return {name: getattr(found, name).numpy() for name in PARTS} | counted

    def assemble(self, pieces: Pieces, out: Path) -> None:
        found = list(pieces)
        every = [Verdict(**{name: torch.from_numpy(piece[name]) for name in PARTS}) for piece in found]
        each = zip(self.indices.tolist(), found, strict=True)
        warn_of_few({f"field {index}": float(piece["effective"]) for index, piece in each if "effective" in piece})
        write_json(out, summary(every, self.verb.n) | self.how | dict(self.facts) | {JOB: digest(self.identity)})


def _whole(batch: Batch) -> Tensor:
    if (batch.mask is not None and not bool(batch.mask.all())) or not bool(batch.x.isfinite().all()):
        raise InputError("A field is known in part: calibrate on fields that are known everywhere.")
    return batch.x


def summary(every: Sequence[Verdict], n: int) -> dict[str, Any]:
    """What the verdicts say together, as JSON has it."""

    def told(found: Within) -> dict[str, float]:
        return {"value": found.value, "low": found.low, "high": found.high}

    reliability = torch.stack([torch.stack((one.error, one.spread), -1) for one in every])
    whole = torch.stack([one.whole for one in every])
    single = torch.nn.functional.one_hot(whole, n + 1)
    fields = len(every)
    inside = torch.stack([one.inside for one in every])
    try:
        factor: float | None = conformal_factor([one.score for one in every], LEVEL)
    except InputError as error:
        log.warning("no factor: %s", error)
        factor = None
    if factor is not None and factor > MOST:
        log.warning(
            f"no factor: intervals would have to be {factor:.3g} times as wide, as draws agree where the truth is another. Take "
            "more particles, more steps, or another method."
        )
        factor = None
    ranks = torch.stack([one.ranks[0] for one in every]).sum(0)
    return {
        "fields": fields,
        "interval": LEVEL,
        "coverage": told(by_chance(torch.stack([one.covered for one in every]))),
        "factor": factor,
        "ranks": {"counts": ranks.tolist(), "distance": told(rank_distance(torch.stack([one.ranks for one in every])))},
        "rank_of_the_mean": told(rank_distance(single[:, :, 0])),
        "rank_of_power": [told(rank_distance(single[:, :, 1 + band])) for band in range(whole.shape[-1] - 1)],
        "error_by_spread": [told(by_chance(reliability[:, :, band], "ratio")) for band in range(reliability.shape[2])],
        "coverage_in_space": inside.nanmean(0).nan_to_num(-1).tolist(),
    }


def table(found: Mapping[str, Any]) -> str:
    """A few lines for people."""

    def row(name: str, part: Mapping[str, float | None], scale: float = 1.0, unit: str = "") -> str:
        if part["value"] is None:
            return f"  {name:38s}nothing is uncertain"
        value, low, high = (scale * (part[key] or 0.0) for key in ("value", "low", "high"))
        mark = "" if low <= value <= high else "   beyond chance"
        return f"  {name:38s}{value:.3g}{unit}   by chance {low:.3g} to {high:.3g}{mark}"

    lines = [f"{found['fields']} fields, {found['n']} draws of each"]
    lines.append(row(f"{found['interval']:.0%} interval covers", found["coverage"], 100, " %"))
    lines.append(row("ranks of the truth, distance", found["ranks"]["distance"]))
    lines.append(row("ranks of the mean over the field", found["rank_of_the_mean"]))
    parts = len(found["error_by_spread"])
    for band, part in enumerate(found["error_by_spread"]):
        lines.append(row(f"square error by spread, band {band + 1} of {parts}", part))
    if found["factor"] is not None:
        count, level = found["fields"], found["interval"]
        lines.append(
            f"  intervals times {found['factor']:.3f} hold {level:.0%} of fields such as these"
            f", and {level * (count + 1) / count:.1%} of these {count}"
        )
    return "\n".join(lines)
