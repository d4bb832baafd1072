"""Fitting a head to a run, for likelihoods in few evaluations."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from scorefield.data.source import Source, say_notes
from scorefield.foundation.arithmetic import at_once
from scorefield.foundation.errors import InputError
from scorefield.foundation.limits import check_memory
from scorefield.foundation.progress import progress
from scorefield.foundation.random import Generators, Stream, seed_of
from scorefield.jobs import likelihood_heads
from scorefield.jobs.dequantised import begin, dequantised
from scorefield.jobs.options import OnRun
from scorefield.jobs.tuned_samplers import check_place
from scorefield.run.verb import Count, Positive, Seed, log
from scorefield.samplers import learned_likelihood as learned
from scorefield.samplers.dequantise import Dequantisation, Uniform
from scorefield.samplers.likelihood import ProbabilityFlow
from scorefield.samplers.probes import Rademacher

FEWEST = 20  # fields that a head is fitted to, and checked by


@dataclass(frozen=True, kw_only=True)
class TuneLikelihood(OnRun):
    """Fit a small network to what the adaptive solver finds along the flow of a run, and keep it with the run: for
    `likelihood --evaluations N`.

    Args:
        steps: evaluations of a likelihood.
        data: the fields; by default those that the run was trained on.
        n: training fields that are solved; a tenth of them is held out.
        dequantisation: of quantised data, as `likelihood` is to have it.
        tolerance: of a step of the solver.
        epochs: through all of them and all intervals.
        seed: of the choice of fields, of probes and of dequantisation.
        chunk: fields solved at once.
    """

    steps: Count = 8
    data: Source | None = None
    n: Count = 2000
    dequantisation: Dequantisation = field(default_factory=Uniform)
    tolerance: Positive = 1e-3
    epochs: Count = 8
    seed: Seed = 0
    chunk: Count | None = None

    def check(self) -> None:
        if self.steps < 2:
            raise InputError("--steps is 1: a path from data to noise takes 2 steps or more.")
        if self.n < FEWEST:
            raise InputError(f"--n {self.n} is too few to fit to and to check: give {FEWEST} or more.")

    def run(self) -> dict[str, Any]:
        model, started = self.model, time.process_time()
        net = model.prior.net
        if net.labels or net.vector or net.cond_channels or model.mean is not None:
            raise InputError(
                "A head is for networks that are given nothing but the noise level: this run's likelihoods take the solver, "
                "likelihood without --evaluations."
            )
        if not model.sde.noise.white:
            raise InputError(
                "The model's noise is a field, whose densities are compared on several grids: a head is for one."
            )
        check_place(likelihood_heads.path_of(self.checkpoint.path, self.steps))
        fields = self.source(self.data).load("train")
        say_notes(fields)
        likelihood_heads.check_shape(fields[0].x.shape, model.shape)
        if len(fields) < FEWEST:
            raise InputError(
                f"There are {len(fields)} fields to fit to and to check: give --data with {FEWEST} or more."
            )
        schedule, solver = model.sde.schedule, ProbabilityFlow(self.tolerance, Rademacher())
        flow = begin(self.dequantisation, solver, model, fields)
        order = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(fields), generator=order)[: self.n]
        count = len(chosen)
        held = 8 * count * self.steps * math.prod(model.shape)  # float32, once in parts and once as a whole
        check_memory(held, f"What {count} fields are on their way to noise, --n {count} with --steps {self.steps},")
        path = learned.first_path(schedule, flow, self.steps)

        def prepared(indices: Tensor) -> Tensor:
            batch = replace(fields.gather(indices), key=torch.stack((indices, torch.zeros_like(indices)), dim=1))
            if batch.mask is not None and not bool(batch.mask.all()):
                raise InputError("Fields that are known in part have no density: give fields without a mask.")
            noisy, _ = dequantised(self.dequantisation, model, batch, fields.quantum, flow, self.seed)
            return model.prepare(noisy).x

        def streams(indices: Tensor) -> Generators:
            return Generators((self.seed, index, Stream.PROBE) for index in indices.tolist())

        few = chosen[:32]
        ends = learned.solved(model.prior, prepared(few), path.times, flow, generator=streams(few)).end
        path = learned.fit_path(model.prior, prepared(few), ends, path, rounds=6)
        states, wanted = [], []
        with progress(total=count, unit="field", title="solve") as bar:
            for indices in chosen.split(self.chunk or at_once(count, model.shape[1:], model.device)):
                x = prepared(indices)
                on = path.states(model.prior, x)
                truth = learned.solved(model.prior, x, path.times, flow, generator=streams(indices))
                states.append(torch.stack(on[:-1]))
                wanted.append(learned.goals(model.prior, x, on, path, truth))
                bar.update(len(indices))
        torch.manual_seed(seed_of(self.seed, Stream.WEIGHTS))
        head = likelihood_heads.new(model.shape, self.steps).to(model.device)
        dimension = model.sde.noise.dimension(model.shape)
        with progress(total=self.epochs, unit="epoch", title="learn") as bar:

            def say(_: int, loss: float) -> None:
                bar.update()
                bar.set_postfix(loss=f"{loss:.4g}", refresh=False)

            found = learned.learn(
                head,
                schedule,
                path,
                torch.cat(states, dim=1),
                torch.cat(wanted),
                dimension=dimension,
                epochs=self.epochs,
                seed=self.seed,
                progress=say,
            )
        seconds = round(time.process_time() - started, 1)
        facts = {
            "dequantisation": repr(self.dequantisation),
            "fields": count,
            "cpu_seconds": seconds,
            "operations": likelihood_heads.count(head, model.shape),
        }
        place = likelihood_heads.keep(self.checkpoint.path, self.provenance, head, path, found, **facts)
        log.info("kept in %s, for likelihood --evaluations %d", place, self.steps)
        return {"steps": self.steps, "bias": found.bias, "spread": found.spread, "dimension": dimension, **facts}

    def table(self, found: dict[str, Any]) -> str:
        bits = 1 / (found["dimension"] * 0.6931471805599453)
        error = found["spread"] / max(found["fields"] // 10, 1) ** 0.5  # of the mean over those held out
        return (
            f"{found['steps']} evaluations, and as many of a head of {found['operations'] / 1e6:.1f} MFLOP, fitted in "
            f"{found['cpu_seconds']:.0f} CPU s; on fields held out {found['bias']:+.2f} ± {error:.2f} nats from the solver "
            f"({abs(found['bias']) * bits:.4f} bits per dimension), {found['spread']:.1f} for each with its probes"
        )
