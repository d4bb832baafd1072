"""Evidence as a job: log p(y) of one measurement under several priors, with its spread: by the probability flow where y is a
whole field with the noise of the process, and by weighted particles of any other.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.evidence import by_flow
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.foundation.random import Generators, Stream, seed_of
from scorefield.guidance import Method, NoisyField, PiGDM
from scorefield.inverse import InverseProblem, in_model_space, particle_sampler, warn_of_few
from scorefield.jobs.draws import Draws
from scorefield.jobs.options import Label
from scorefield.jobs.restoration import WeighedDraws, read_case, weighed_draws
from scorefield.jobs.restore import Restore
from scorefield.operators import Operator
from scorefield.run.runner import JOB, Job, Piece, Pieces, check_out, digest, run_job
from scorefield.run.verb import Count, Positive, Seed, Verb, option, positional
from scorefield.samplers import ProbabilityFlow, Step
from scorefield.samplers.probes import Probes, Rademacher

SURE = 2.0  # standard errors by which one prior has to be ahead of another; of few values more, by Student's t
PARTICLES = 500


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
        method: MomentMatching, PiGDM or DPS, of the proposals of particles.
        particles: how many, each time; by default none where the flow knows log p(y), and else 500.
        repeats: how often, with other draws: their spread is that of log p(y).
        seed: of all draws, and of the noise with --degrade.
        label: the class by its name or number, of networks with labels.
        steps: of particles, from noise to data; 18 by default, or as many as the run's own sampler has.
        sampler: of particles, a stochastic step of one evaluation; by default DPM++ 2M SDE.
        tolerance: of a step along the flow, in nats per dimension too.
        probes: Rademacher, Normal, Sphere or Exact, along the flow.
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
    particles: Count | None = None
    repeats: Count = 4
    seed: Seed = 0
    label: Label | None = None
    steps: Count | None = None
    sampler: Step | None = None
    tolerance: Positive = 1e-5
    probes: Probes = field(default_factory=Rademacher)
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
        priors = [self._prior(run) for run in self.runs]
        shapes = {prior.draws.shape for prior in priors}
        if len(shapes) > 1:
            raise InputError(f"The runs draw fields of several shapes, {shapes}: compare priors of the same fields.")
        if not any(prior.weighs for prior in priors) and (self.steps or self.sampler):
            raise InputError(
                "--steps and --sampler are of particles, and log p(y) is known by the flow here: leave them out, or add "
                f"--particles {PARTICLES}."
            )
        run_job(EvidenceFile(self.out, self.runs, priors, self.repeats), unit="estimate", title="evidence")
        return json.loads(self.out.read_text(encoding="utf-8"))

    def _prior(self, run: Path) -> Prior:
        """How log p(y) is found under one prior."""
        one = Restore(
            run=run,
            image=self.measurement,
            task=self.task,
            noise=self.noise,
            degrade=self.degrade,
            method=self.method,
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
        draws = one.prior_draws(own=particle_sampler(model))
        count = self.particles or PARTICLES
        weighed = weighed_draws(draws, case, self.method, count, one.at_once(count, model.shape[1:]))
        if self.particles is None:
            measurement = in_model_space(model, case, draws.shape)
            if (noisy := measurement.as_noisy_field(model.prior.sde.noise, draws.shape)) is not None:
                flow = ProbabilityFlow(self.tolerance, self.probes).from_level(model.sde.schedule, noisy.level)
                return Flowing(draws, case, noisy, flow)
        return Weighing(weighed)

    def table(self, found: dict[str, Any]) -> str:
        return table(found)


class Prior(ABC):
    """A prior under which log p(y) is found again and again.

    Attributes:
        draws: those of p(x), with model, condition and seed.
        weighs: whether by weighted particles.
    """

    draws: Draws
    weighs: bool

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the estimates."""

    @abstractmethod
    def estimate(self, repeat: int) -> Piece:
        """log p(y), `log_evidence`, and what it is worth or was the cost of."""

    @abstractmethod
    def summary(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Mean and standard error of the estimates."""


@dataclass(frozen=True, eq=False)
class Weighing(Prior):
    """log p(y) by weighted particles, whose exponential has no bias.

    Args:
        draws: the particles.
    """

    draws: WeighedDraws  # pyright: ignore[reportIncompatibleVariableOverride]
    weighs = True

    @property
    def identity(self) -> dict[str, Any]:
        return {**self.draws.identity, **self.draws.case.facts, "method": repr(self.draws.method)}

    def estimate(self, repeat: int) -> Piece:
        found = replace(self.draws, seed=seed_of(self.draws.seed, repeat, Stream.PARTICLE)).compute(0)
        return {name: found[name] for name in ("log_evidence", "effective")}

    def summary(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        log, error = mean_of([float(piece["log_evidence"]) for piece in pieces])
        fewest = min(float(piece["effective"]) for piece in pieces)
        return {"log_evidence": log, "standard_error": error, "by": "particles", "effective": fewest}


@dataclass(frozen=True, eq=False)
class Flowing(Prior):
    """log p(y) by the probability flow, which has no bias itself.

    Args:
        draws: those of p(x).
        case: y.
        noisy: y as a field with the noise of the process.
        flow: from that noise on.
    """

    draws: Draws
    case: InverseProblem
    noisy: NoisyField
    flow: ProbabilityFlow
    weighs = False

    @property
    def identity(self) -> dict[str, Any]:
        draws = self.draws
        own = {"seed": draws.seed, "label": draws.label, "flow": repr(self.flow)}
        return {**own, **draws.facts, **self.case.facts}

    def estimate(self, repeat: int) -> Piece:
        draws = self.draws
        cond = draws.model.asked(draws.condition, 1, draws.shape[1:])
        generator = Generators([(draws.seed, 0, repeat, Stream.PROBE)])
        found = by_flow(draws.model, self.noisy, self.flow, generator=generator, cond=cond)
        if not bool(found.nats.isfinite().all()):
            raise InputError(
                "log p(y) by the flow is not finite: the run's network does not denoise what was measured."
            )
        return {"log_evidence": found.nats[0].double().cpu().numpy(), "evaluations": found.evaluations[0].cpu().numpy()}

    def summary(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        values = np.array([float(piece["log_evidence"]) for piece in pieces])
        error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
        evaluations = float(np.mean([float(piece["evaluations"]) for piece in pieces]))
        return {"log_evidence": float(values.mean()), "standard_error": error, "by": "flow", "evaluations": evaluations}


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
        return {"priors": [prior.identity for prior in self.priors], "repeats": self.repeats}

    @property
    def sizes(self) -> list[int]:
        return [1] * (len(self.priors) * self.repeats)

    def compute(self, number: int) -> Piece:
        prior, repeat = divmod(number, self.repeats)
        return self.priors[prior].estimate(repeat)

    def assemble(self, pieces: Pieces, out: Path) -> None:
        found, rows = list(pieces), []
        names = [f"estimate {repeat + 1} of {run}" for run in self.runs for repeat in range(self.repeats)]
        warn_of_few({name: float(p["effective"]) for name, p in zip(names, found, strict=True) if "effective" in p})
        for number, (run, prior) in enumerate(zip(self.runs, self.priors, strict=True)):
            part = found[number * self.repeats : (number + 1) * self.repeats]
            estimates = {"estimates": [float(piece["log_evidence"]) for piece in part]}
            rows.append({"run": str(run)} | prior.summary(part) | estimates)
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


def errors_of(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[float, float]:
    """The standard error of the difference of two log p(y), infinite where it is not known, and by what one has to be ahead.

    By the flow the same probes are drawn under both priors, and what they err by is much the same: the error is that of the mean
    of the differences, and the margin that of Student's t. Particles of two priors have nothing in common.
    """
    apart = np.subtract(first["estimates"], second["estimates"])
    if first.get("by") == second.get("by") == "flow" and len(apart) > 1:
        from scipy.special import stdtrit  # a third of a second to load

        error = float(apart.std(ddof=1)) / math.sqrt(len(apart))
        return error, error * float(stdtrit(len(apart) - 1, (1 + math.erf(SURE / math.sqrt(2))) / 2))
    own = [math.inf if row["standard_error"] is None else row["standard_error"] for row in (first, second)]
    return math.hypot(*own), SURE * math.hypot(*own)


def table(found: Mapping[str, Any]) -> str:
    """A few lines for people."""
    rows = found["priors"]
    width = max(len(row["run"]) for row in rows) + 2
    lines = ["log p(y) in nats"]
    for row in rows:
        error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.2f}"
        way = (
            f"{row['effective']:.1f} effective"
            if "effective" in row
            else f"by the flow, {row['evaluations']:.0f} evaluations"
        )
        lines.append(f"  {row['run']:{width}s}{row['log_evidence']:.2f}{error}   ({way})")
    if len(rows) > 1:
        first, second = sorted(rows, key=lambda row: -row["log_evidence"])[:2]
        ahead = first["log_evidence"] - second["log_evidence"]
        error, margin = errors_of(first, second)
        better = f"{first['run']} explains it better"
        verdict = better if ahead > margin else "which one explains it better is not decided"
        told = f" ± {error:.2f}" if math.isfinite(error) else "; --repeats 2 or more tell how certain that is"
        lines.append(f"  {verdict}: by {ahead:.2f}{told} nats")
    return "\n".join(lines)
