"""Evidence as a job: log p(y) of one measurement under several priors, by weighted particles, with its spread."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.foundation.random import Stream, seed_of
from scorefield.guidance import Method, PiGDM
from scorefield.inverse import particle_sampler, warn_of_few
from scorefield.jobs.options import Label
from scorefield.jobs.restoration import WeighedDraws, read_case, weighed_draws
from scorefield.jobs.restore import Restore
from scorefield.operators import Operator
from scorefield.run.runner import JOB, Job, Piece, Pieces, check_out, digest, run_job
from scorefield.run.verb import Count, Positive, Seed, Verb, option, positional
from scorefield.samplers import Step

SURE = 2.0  # standard errors by which one prior has to be ahead of another


@dataclass(frozen=True, kw_only=True)
class Evidence(Verb):
    """Compare priors by one measurement: log p(y) under each, in nats, with its spread. The larger one explains it better.

    Args:
        runs: run folders, checkpoint files or names of shipped models, of fields of one shape.
        measurement: what was measured: image or .npy, in data units; NaN where it is hidden.
        task: how: inpaint, colourise, superres, deblur, or any Operator: a LinearOperator, Saturated,
            FourierMagnitude, one of your own.
        noise: standard deviation of its noise, in data units.
        degrade: the image is a whole field: measure it first, by the task and with the noise.
        method: MomentMatching, PiGDM or DPS, of the proposals.
        particles: how many, each time.
        repeats: how often, with other draws: their spread is that of log p(y).
        seed: of all draws, and of the noise with --degrade.
        label: the class by its name or number, of networks with labels.
        steps: steps from noise to data; 18 by default, or as many as the run's own sampler has.
        sampler: a stochastic step of one evaluation; by default DPM++ 2M SDE.
        chunk: particles evaluated at once.
        ema: use the averaged weights.
        trust: your own packages that the runs' configurations may name.
        device: where to compute: cpu, cuda, cuda:1, mps.
        out: JSON file to write.
    """

    runs: tuple[Path, ...] = positional()
    measurement: Path = positional()
    task: Operator
    noise: Positive
    degrade: bool = False
    method: Method = PiGDM()
    particles: Count = 500
    repeats: Count = 4
    seed: Seed = 0
    label: Label | None = None
    steps: Count | None = None
    sampler: Step | None = None
    chunk: Count | None = None
    ema: bool = True
    trust: tuple[str, ...] = option(repeat=True, default=())
    device: str = "cpu"
    out: Path

    def check(self) -> None:
        check_out(self.out)
        if not self.runs:
            raise InputError("The runs are missing: scorefield evidence RUN_A RUN_B MEASUREMENT.")

    @classmethod
    def spelled_out(cls, arguments: Sequence[str]) -> list[str]:
        """With the plain name of a task replaced by its import path."""
        return Restore.spelled_out(arguments)

    def run(self) -> dict[str, Any]:
        draws = [self._draws(run) for run in self.runs]
        shapes = {draw.shape for draw in draws}
        if len(shapes) > 1:
            raise InputError(f"The runs draw fields of several shapes, {shapes}: compare priors of the same fields.")
        run_job(EvidenceFile(self.out, self.runs, draws, self.repeats), unit="estimate", title="evidence")
        return json.loads(self.out.read_text(encoding="utf-8"))

    def _draws(self, run: Path) -> WeighedDraws:
        """Particles under one prior."""
        one = Restore(
            run=run,
            image=self.measurement,
            task=self.task,
            noise=self.noise,
            degrade=self.degrade,
            method=self.method,
            particles=self.particles,
            n=1,
            seed=self.seed,
            label=self.label,
            steps=self.steps,
            sampler=self.sampler,
            chunk=self.chunk,
            ema=self.ema,
            trust=self.trust,
            device=self.device,
            out=self.out.with_suffix(".draws"),
        )
        model = one.model
        case = read_case(
            self.task, self.measurement, model.shape, noise=self.noise, degrade=self.degrade, seed=self.seed
        )
        prior = one.prior_draws(own=particle_sampler(model))
        return weighed_draws(prior, case, self.method, self.particles, one.at_once(self.particles, model.shape[1:]))

    def table(self, found: dict[str, Any]) -> str:
        return table(found)


@dataclass(frozen=True, eq=False)
class EvidenceFile(Job):
    """log p(y) under each prior as one JSON file.

    Args:
        out: the file.
        runs: names of the priors.
        draws: particles under each.
        repeats: how often.
    """

    out: Path
    runs: Sequence[Path]
    draws: Sequence[WeighedDraws]
    repeats: int

    @cached_property
    def identity(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        each = [{**draw.identity, **draw.case.facts, "method": repr(draw.method)} for draw in self.draws]
        return {"priors": each, "repeats": self.repeats}

    @property
    def sizes(self) -> list[int]:
        return [1] * (len(self.draws) * self.repeats)

    def compute(self, number: int) -> Piece:
        prior, repeat = divmod(number, self.repeats)
        draw = self.draws[prior]
        found = replace(draw, seed=seed_of(draw.seed, repeat, Stream.PARTICLE)).compute(0)
        return {name: found[name] for name in ("log_evidence", "effective")}

    def assemble(self, pieces: Pieces, out: Path) -> None:
        found = [(float(piece["log_evidence"]), float(piece["effective"])) for piece in pieces]
        rows = []
        names = [f"estimate {repeat + 1} of {run}" for run in self.runs for repeat in range(self.repeats)]
        warn_of_few({name: effective for name, (_, effective) in zip(names, found, strict=True)})
        for number, run in enumerate(self.runs):
            part = found[number * self.repeats : (number + 1) * self.repeats]
            log, error = mean_of([value for value, _ in part])
            rows.append(
                {"run": str(run), "log_evidence": log, "standard_error": error, "effective": min(e for _, e in part)}
                | {"estimates": [value for value, _ in part]}
            )
        write_json(out, {"priors": rows, JOB: digest(self.identity)})


def mean_of(logs: Sequence[float]) -> tuple[float, float | None]:
    """The log of the mean of estimates that are given by their logs, which has no bias itself, and its standard error.

    That of the mean is at most 1 of it, whatever the estimates are, where one is far above the others: estimates that differ by
    more than a nat are uncertain by as much as they differ.
    """
    values = np.asarray(logs, np.float64)
    top = values.max()
    ratios = np.exp(values - top)
    log = float(top + math.log(ratios.mean()))
    if len(values) < 2:
        return log, None
    apart = float(values.std(ddof=1))
    return log, apart if apart > 1 else float(ratios.std(ddof=1) / ratios.mean() / math.sqrt(len(values)))


def table(found: Mapping[str, Any]) -> str:
    """A few lines for people."""
    rows = found["priors"]
    width = max(len(row["run"]) for row in rows) + 2
    lines = ["log p(y) in nats"]
    for row in rows:
        error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.2f}"
        lines.append(f"  {row['run']:{width}s}{row['log_evidence']:.2f}{error}   ({row['effective']:.1f} effective)")
    if len(rows) > 1:
        first, second = sorted(rows, key=lambda row: -row["log_evidence"])[:2]
        ahead = first["log_evidence"] - second["log_evidence"]
        error = math.hypot(first["standard_error"] or math.inf, second["standard_error"] or math.inf)
        sure = ahead > SURE * error
        verdict = f"{first['run']} explains it better" if sure else "which one explains it better is not decided"
        told = f" ± {error:.2f}" if math.isfinite(error) else "; --repeats 2 or more tell how certain that is"
        lines.append(f"  {verdict}: by {ahead:.2f}{told} nats")
    return "\n".join(lines)
