"""Evidence as a job: log p(y) of one measurement under several priors, with its spread: by the probability flow where y is a
whole field with the noise of the process, and by weighted particles of any other.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.guidance import Measurement, Method, PiGDM
from scorefield.inverse import InverseProblem, in_model_space, particle_sampler, units_of, warn_of_few
from scorefield.jobs.evidence_priors import Flowing, Prior, Weighing, difference
from scorefield.jobs.options import Label
from scorefield.jobs.restoration import read_case, weighed_draws
from scorefield.jobs.restore import Restore
from scorefield.model import Model
from scorefield.operators import Operator
from scorefield.run.runner import JOB, Job, Piece, Pieces, check_out, digest, run_job
from scorefield.run.verb import Count, Positive, Seed, Verb, option, positional
from scorefield.samplers import ProbabilityFlow, Step
from scorefield.samplers.probes import Probes, Rademacher

log = logging.getLogger("scorefield")

PARTICLES = 500
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Evidence(Verb):
    """Compare priors by one measurement: log p(y) under each, in nats, with its spread. The larger one explains it better.

    Of a whole field with white noise (--task denoise, or a unitary map) it is the density of the process at the level of the
    noise, by the probability flow: exact but for --tolerance and the spread of the probes. Of anything else it is estimated by
    weighted particles, many of them where the measurement says much.

    Args:
        runs: run folders, checkpoint files or names of shipped models, of fields of one shape.
        measurement: what was measured: image or .npy, in data units; NaN where it is hidden.
        task: how: denoise, inpaint, colourise, superres, deblur, or any Operator: a LinearOperator, Saturated,
            FourierMagnitude, one of your own.
        noise: standard deviation of its noise, in data units.
        degrade: the image is a whole field: measure it first, by the task and with the noise.
        method: MomentMatching, PiGDM or DPS, of the proposals of particles; PiGDM by default.
        particles: how many, each time; by default none where the flow knows log p(y), and else 500.
        repeats: how often, with other draws: their spread is that of log p(y). Once where nothing is drawn, with --probes Exact.
        seed: of all draws, and of the noise with --degrade.
        label: the class by its name or number, of networks with labels.
        steps: of particles, from noise to data; 18 by default, or as many as the run's own sampler has.
        sampler: of particles, a stochastic step of one evaluation; by default DPM++ 2M SDE.
        tolerance: of a step along the flow, in nats per dimension too; 1e-5 by default.
        probes: Rademacher, Normal, Sphere or Exact, along the flow; Rademacher by default.
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
    method: Method | None = None
    particles: Count | None = None
    repeats: Count = 4
    seed: Seed = 0
    label: Label | None = None
    steps: Count | None = None
    sampler: Step | None = None
    tolerance: Positive | None = None
    probes: Probes | None = None
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
        priors = self.priors
        shapes = {prior.draws.shape for prior in priors}
        if len(shapes) > 1:
            raise InputError(f"The runs draw fields of several shapes, {shapes}: compare priors of the same fields.")
        self._check_used()
        run_job(EvidenceFile(self.out, self.runs, priors, self.repeats), unit="estimate", title="evidence")
        return json.loads(self.out.read_text(encoding="utf-8"))

    def _check_used(self) -> None:
        """Refuse options of the one way to log p(y) where it is found by the other alone."""
        weighing = [prior.weighs for prior in self.priors]
        if not any(weighing):
            why = f"of particles, and log p(y) is known by the flow here: leave it out, or add --particles {PARTICLES}"
            self._refuse(("method", "steps", "sampler", "chunk"), why)
        if all(weighing):
            self._refuse(
                ("tolerance", "probes"), "of the flow, and log p(y) is estimated by particles here: leave it out"
            )

    def _refuse(self, names: Sequence[str], why: str) -> None:
        """Refuse the first of these options that was given."""
        for name in names:
            if getattr(self, name) is not None:
                raise InputError(f"--{name} is {why}.")

    @cached_property
    def priors(self) -> list[Prior]:
        """How log p(y) is found under each."""
        return [self._prior(run) for run in self.runs]

    def _prior(self, run: Path) -> Prior:
        """How log p(y) is found under one prior."""
        method = PiGDM() if self.method is None else self.method
        one = Restore(
            run=run,
            image=self.measurement,
            task=self.task,
            noise=self.noise,
            degrade=self.degrade,
            method=method,
            particles=self.particles or PARTICLES,
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
        self._check_finite(case, model)
        draws = one.prior_draws(own=particle_sampler(model))
        count = self.particles or PARTICLES
        weighed = weighed_draws(draws, case, method, count, one.at_once(count, model.shape[1:]))
        if self.particles is None:
            measurement = in_model_space(model, case, draws.shape)
            if (noisy := measurement.as_noisy_field(model.prior.sde.noise, draws.shape)) is not None:
                flow = ProbabilityFlow(self.tolerance or TOLERANCE, self.probes or Rademacher())
                return Flowing(draws, case, noisy, flow.from_level(model.sde.schedule, noisy.level))
            plain = Measurement(case.operator, torch.zeros_like(case.y), case.noise)  # in data units
            if plain.as_noisy_field(model.prior.sde.noise, draws.shape) is not None:
                log.warning(
                    f"{run} has channels of unequal scale, so white noise of one strength is no level of the process: log p(y) "
                    f"is estimated by {count} particles. In Python, log_evidence takes a noise for each channel."
                )
        return Weighing(weighed)

    def _check_finite(self, case: InverseProblem, model: Model) -> None:
        """Refuse NaN where something was measured."""
        bad = ~case.y.isfinite().cpu()
        if case.operator.linear:
            scale, _ = units_of(model)
            bad &= case.measures(scale).cpu()
        if bool(bad.any()):
            count = f"{int(bad.sum())} of {bad.numel()} measured values"
            raise InputError(
                f"{self.measurement} is NaN or infinite at {count}: hide them by --task inpaint --task.known MASK, or take a run "
                "whose noise is that of the region (scorefield suggest --region)."
            )

    def table(self, found: dict[str, Any]) -> str:
        return table(found, [prior.told(row) for prior, row in zip(self.priors, found["priors"], strict=True)])


@dataclass(frozen=True, eq=False)
class EvidenceFile(Job):
    """log p(y) under each prior as one JSON file.

    Args:
        out: the file.
        runs: names of the priors.
        priors: how it is found under each.
        repeats: how often.
    """

    out: Path
    runs: Sequence[Path]
    priors: Sequence[Prior]
    repeats: int

    @cached_property
    def identity(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {"priors": [prior.identity for prior in self.priors], "repeats": self.counts}

    @property
    def counts(self) -> list[int]:
        """How many estimates under each prior."""
        return [prior.repeats(self.repeats) for prior in self.priors]

    @property
    def sizes(self) -> list[int]:
        return [1] * sum(self.counts)

    def compute(self, number: int) -> Piece:
        each = [
            (prior, repeat) for prior, count in zip(self.priors, self.counts, strict=True) for repeat in range(count)
        ]
        prior, repeat = each[number]
        return prior.estimate(repeat)

    def assemble(self, pieces: Pieces, out: Path) -> None:
        found, rows, counted = iter(pieces), [], {}
        for run, prior, count in zip(self.runs, self.priors, self.counts, strict=True):
            part = list(islice(found, count))
            counted |= {f"estimate {repeat} of {run}": prior.effective(piece) for repeat, piece in enumerate(part, 1)}
            estimates = {"estimates": [float(piece["log_evidence"]) for piece in part]}
            rows.append({"run": str(run)} | prior.summary(part) | estimates)
        warn_of_few({name: count for name, count in counted.items() if count < math.inf})
        write_json(out, {"priors": rows, "differences": self._differences(rows), JOB: digest(self.identity)})

    def _differences(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """By how much the best prior is ahead of each other one, the next best first."""
        estimates = [prior.estimates(row) for prior, row in zip(self.priors, rows, strict=True)]
        best, *others = sorted(range(len(rows)), key=lambda number: -estimates[number].log_evidence)
        return [
            {"first": rows[best]["run"], "second": rows[other]["run"]} | difference(estimates[best], estimates[other])
            for other in others
        ]


def table(found: Mapping[str, Any], ways: Sequence[str]) -> str:
    """A few lines for people.

    Args:
        found: the file.
        ways: how log p(y) was found under each prior.
    """
    rows = found["priors"]
    width = max(len(row["run"]) for row in rows) + 2
    lines = ["log p(y) in nats"]
    for row, way in zip(rows, ways, strict=True):
        error = f" ± {row['standard_error']:.2f}" if row["standard_error"] else ""
        lines.append(f"  {row['run']:{width}s}{row['log_evidence']:.2f}{error}   ({way})")
    for one in found["differences"]:
        than = f" than {one['second']}" if len(rows) > 2 else ""
        better = f"{one['first']} explains it better{than}"
        verdict = better if one["decided"] else f"whether {better} is not decided"
        known = one["standard_error"] is not None
        told = f" ± {one['standard_error']:.2f} nats (margin {one['margin']:.2f})" if known else " nats"
        more = "" if known else "; --repeats 2 or more tell how certain that is"
        lines.append(f"  {verdict}: by {one['nats']:.2f}{told}{more}")
    return "\n".join(lines)
