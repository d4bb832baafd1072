"""Fitting the levels of a few steps to a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.foundation.arithmetic import at_once
from scorefield.foundation.errors import InputError
from scorefield.foundation.progress import progress
from scorefield.foundation.random import Generators, Stream
from scorefield.jobs import tuned_samplers
from scorefield.jobs.options import OnRun
from scorefield.run.verb import Count, Seed, log
from scorefield.samplers import EDMGrid, Sampler
from scorefield.samplers.tuned import tune


@dataclass(frozen=True, kw_only=True)
class TuneSampler(OnRun):
    """Fit the levels and corrections of a few steps to a fine solution of a run's own flow, and keep them with the run: for
    `--steps N --tuned` where it is drawn from.

    Args:
        steps: evaluations of a draw.
        n: fields that are fitted; as many others say whether it helps.
        fine: steps of the fine solution.
        rounds: of fitting, at most.
        seed: of the noise.
        chunk: fields drawn at once; by default up to 256, of 65,536 points together, and of 1,048,576 on GPUs.
    """

    steps: Count
    n: Count = 48
    fine: Count = 48
    rounds: Count = 8
    seed: Seed = 0
    chunk: Count | None = None

    def check(self) -> None:
        if self.steps < 2:
            raise InputError("--steps is 1: of one step there is nothing to tune, give 2 or more.")
        if self.fine <= 2 * self.steps:
            raise InputError(
                f"--fine {self.fine} is not finer than --steps {self.steps}: give more than twice as many."
            )

    def run(self) -> dict[str, Any]:
        model, started = self.model, time.perf_counter()
        model.prior  # noqa: B018 - refuses a network that draws in one step
        if not model.shape:
            raise InputError("The model does not know the shape of its fields, so it cannot be tuned.")
        path, cond = tuned_samplers.path_of(self.checkpoint.path, self.steps), self._conditions()
        tuned_samplers.check_place(path)
        chunks = torch.arange(self.n).split(self.chunk or at_once(self.n, model.shape[1:], model.device))

        def solve(sampler: Sampler, part: int) -> Tensor:
            found = []
            for rows in chunks:
                noise = Generators((self.seed, part, number, Stream.SAMPLE) for number in rows.tolist())
                given = {name: value[rows] for name, value in cond.items()}
                found.append(model.draw(noise, model.shape, sampler=sampler, cond=given).z)
            return torch.cat(found)

        own = model.stepwise.grid
        grids = (EDMGrid(),) if own == EDMGrid() else (EDMGrid(), own)
        with progress(total=self.rounds, unit="round", title="tune-sampler") as bar:

            def say(_: int, error: float) -> None:
                bar.update()
                bar.set_postfix(error=f"{error:.4g}", refresh=False)

            found = tune(
                solve, model.sde.schedule, self.steps, fine=self.fine, rounds=self.rounds, grids=grids, progress=say
            )
        record = tuned_samplers.keep(self.checkpoint.path, self.provenance, found, time.perf_counter() - started)
        log.info("kept in %s, for --steps %d --tuned", path, self.steps)
        return record

    def _conditions(self) -> dict[str, Tensor]:
        """What fields are conditioned on: classes in turn, fields and vectors of the training data."""
        model = self.model
        if model.generative.net.cond_channels or model.vector:
            fields = self.source(None).load("train")
            return dict(model.taken(fields.gather(torch.arange(self.n) % len(fields)).cond))
        return {"label": torch.arange(self.n) % model.labels} if model.labels else {}

    def table(self, found: dict[str, Any]) -> str:
        if not found["numbers"]:
            return f"{found['steps']} steps: nothing was better than DPM++ 2M, which misses the flow by {found['untuned']:.4g}"
        first = f"{found['steps']} steps, {found['numbers']} numbers in {found['seconds']:.0f} s"
        return f"{first}: misses the flow by {found['error']:.4g} on fresh noise, DPM++ 2M by {found['untuned']:.4g}"
