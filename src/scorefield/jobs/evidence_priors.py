"""Priors under which log p(y) of one measurement is found again and again, and the difference between two of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scorefield.evidence import by_flow
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream, seed_of
from scorefield.guidance import NoisyField
from scorefield.inverse import InverseProblem
from scorefield.jobs.draws import Draws
from scorefield.jobs.restoration import WeighedDraws
from scorefield.run.runner import Piece
from scorefield.samplers import ProbabilityFlow

SURE = 2.0  # standard errors by which one prior has to be ahead of another; of few values more, by Student's t


@dataclass(frozen=True)
class Estimates:
    """log p(y) under one prior, in nats.

    Args:
        log_evidence: the mean of the values.
        standard_error: of the mean; None where it is not known.
        values: the estimates.
        solver: by how many nats the solver of the flow may err, whatever the values' spread.
        paired: whether the i-th value goes by the same draws under all priors: it has much of its error in common with theirs.
    """

    log_evidence: float
    standard_error: float | None
    values: Sequence[float]
    solver: float = 0.0
    paired: bool = False


def difference(first: Estimates, second: Estimates) -> dict[str, Any]:
    """By how much log p(y) is larger under the first of two priors, `nats`, and whether that is `decided`: beyond the `margin`.

    Of paired values the standard error is that of the mean of the differences, and the margin that of Student's t; of others the
    margin is two standard errors. Both are None where they are not known. What the solvers may err by is part of the margin.
    """
    nats, count = first.log_evidence - second.log_evidence, len(first.values)
    if first.paired and second.paired and count == len(second.values) > 1:
        from scipy.special import stdtrit  # a third of a second to load

        error = float(np.subtract(first.values, second.values).std(ddof=1)) / math.sqrt(count)
        margin = error * float(stdtrit(count - 1, (1 + math.erf(SURE / math.sqrt(2))) / 2))
    elif first.standard_error is None or second.standard_error is None:
        return {"nats": nats, "standard_error": None, "margin": None, "decided": False}
    else:
        error = math.hypot(first.standard_error, second.standard_error)
        margin = SURE * error
    margin += first.solver + second.solver
    return {"nats": nats, "standard_error": error, "margin": margin, "decided": abs(nats) > margin}


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

    def repeats(self, asked: int) -> int:
        """How many estimates differ, of so many that are asked for."""
        return asked

    @abstractmethod
    def estimate(self, repeat: int) -> Piece:
        """log p(y), `log_evidence`, and what it is worth or was the cost of."""

    @abstractmethod
    def summary(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Mean and standard error of the estimates, and what they are worth or were the cost of."""

    @abstractmethod
    def told(self, row: Mapping[str, Any]) -> str:
        """What a summary says of how it was found, for people."""

    @abstractmethod
    def estimates(self, row: Mapping[str, Any]) -> Estimates:
        """What a summary says of log p(y)."""

    def effective(self, piece: Piece) -> float:
        """How many particles counted for an estimate, without limit where it goes by none."""
        return math.inf


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

    def effective(self, piece: Piece) -> float:
        return float(piece["effective"])

    def summary(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        log, error = mean_of([float(piece["log_evidence"]) for piece in pieces])
        fewest = min(map(self.effective, pieces))
        return {"log_evidence": log, "standard_error": error, "by": "particles", "effective": fewest}

    def told(self, row: Mapping[str, Any]) -> str:
        return f"{row['effective']:.1f} effective"

    def estimates(self, row: Mapping[str, Any]) -> Estimates:
        return Estimates(row["log_evidence"], row["standard_error"], row["estimates"])


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

    def repeats(self, asked: int) -> int:
        return asked if self.flow.probes.drawn else 1

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
        error = error if self.flow.probes.drawn else 0.0
        evaluations = float(np.mean([float(piece["evaluations"]) for piece in pieces]))
        solver = self.flow.solver_error(self.draws.model.prior.sde.noise.dimension(self.draws.shape))
        found = {"log_evidence": float(values.mean()), "standard_error": error, "by": "flow"}
        return found | {"solver_error": solver, "evaluations": evaluations}

    def told(self, row: Mapping[str, Any]) -> str:
        return f"by the flow, {row['evaluations']:.0f} evaluations, its solver to {row['solver_error']:.2g} nats"

    def estimates(self, row: Mapping[str, Any]) -> Estimates:
        own = row["log_evidence"], row["standard_error"], row["estimates"], row["solver_error"]
        return Estimates(*own, paired=self.flow.probes.drawn)


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
