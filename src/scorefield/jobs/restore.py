"""Restoring a measured image, or a function on a coarse grid."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scorefield.data.single import stored_as
from scorefield.foundation.errors import InputError
from scorefield.guidance import Method, MomentMatching
from scorefield.inverse import particle_sampler
from scorefield.jobs.calibrations import factor_for, posterior_facts
from scorefield.jobs.class_guidance import class_facts, class_of
from scorefield.jobs.draws import Draws
from scorefield.jobs.options import Drawing, Label
from scorefield.jobs.restoration import Restoration, guided_draws, read_case, table, weighed_draws
from scorefield.jobs.tasks import TASKS
from scorefield.jobs.vectors import Vector, vector_of
from scorefield.operators import Operator
from scorefield.run.messages import known_classes
from scorefield.run.runner import check_out, run_job
from scorefield.run.verb import Count, NonNegative, Positive, Seed, option, positional
from scorefield.samplers import Sampler


@dataclass(frozen=True, kw_only=True)
class Restoring(Drawing):
    """Draws of p(x | y).

    Args:
        n: how many draws.
        seed: draw i depends on (seed, i) alone.
        label: the class by its name or number, of a network with labels.
        vector: the numbers to draw at, in the units of the data, of a network with vectors: 0.3,1.2.
        noise: standard deviation of the noise of what was measured, in data units.
        truth: image or .npy to compare the result with.
        out: folder to write.
    """

    n: Count = option("-n", "--samples", default=8)
    seed: Seed = 0
    label: Label | None = None
    vector: Vector | None = None
    noise: NonNegative = 0.0
    truth: Path | None = None
    out: Path

    def check(self) -> None:
        check_out(self.out, folder=True)

    def prior_draws(
        self, grid: tuple[int, ...] = (), facts: dict[str, Any] | None = None, own: Sampler | None = None
    ) -> Draws:
        """The draws of p(x) that are to be guided, by the sampler `own` where nothing else is asked for."""
        label = class_of(self.model, self.label)
        return Draws(
            out=self.out,
            model=self.model,
            sampler=self.sampler_from(own or self.model.stepwise),
            n=self.n,
            seed=self.seed,
            chunk=min(self.at_once(self.n, grid or self.model.shape[1:]), self.n),
            label=label,
            grid=grid,
            vector=vector_of(self.model, self.vector),
            facts=self.provenance | class_facts(label, self.model.class_names) | (facts or {}),
        )

    def finish(self, job: Restoration, title: str) -> dict[str, Any]:
        """Draw, and return the figures."""
        run_job(job, unit="sample", title=title)
        return job.figures()

    def table(self, found: Any) -> str:
        return table(found, self.out)


@dataclass(frozen=True, kw_only=True)
class Restore(Restoring):
    """Restore a measured image: draws from all that it may have been, by --task inpaint, colourise, superres, deblur or denoise.

    Args:
        image: the measured image, or .npy, in data units; NaN where it is hidden.
        task: how it was measured: inpaint, colourise, superres, deblur, denoise, or any Operator: a LinearOperator,
            Saturated, FourierMagnitude, one of your own.
        degrade: the image is the truth: measure it first, by the task and with the noise.
        method: MomentMatching, PiGDM, DPS or Replacement (for a noise of 0).
        particles: correct the method by so many weighted particles, of which -n are drawn, with an estimate of log p(y); it takes
            a noise and a step that is stochastic and evaluates once, by default DPM++ 2M SDE. 0 takes the method as it is.
        calibrated: widen standard deviation and interval by the factor that scorefield calibrate found for this posterior.
        peak: what PSNR is relative to, in data units; 255 for 8-bit images, for any others the range of the truth.
    """

    image: Path = positional()
    task: Operator
    degrade: bool = False
    method: Method = MomentMatching()
    particles: int = 0
    calibrated: bool = False
    peak: Positive | None = None

    def check(self) -> None:
        super().check()
        if self.peak is not None and not self.degrade and self.truth is None:
            raise InputError("--peak is for PSNR, which needs a truth: add --truth or --degrade, or leave it out.")
        if self.degrade and self.truth is not None:
            raise InputError("With --degrade the image itself is the truth: leave out --truth, or --degrade.")
        if self.particles < 0 or (self.particles and not self.noise > 0):
            raise InputError(
                "--particles are weighed by the noise of the measurement: give at least 1, and --noise above 0."
            )

    @classmethod
    def spelled_out(cls, arguments: Sequence[str]) -> list[str]:
        """With the plain name of a task replaced by its import path."""
        words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--task=") else (word,))]
        names = {task.__name__: f"{task.__module__}.{task.__name__}" for task in TASKS}
        for i, word in enumerate(words[1:], start=1):
            if words[i - 1] == "--task":
                if word not in names and "." not in word and word not in known_classes():
                    close = difflib.get_close_matches(word, names, n=1)
                    raise InputError(
                        f"There is no task {word}: {f'did you mean {close[0]}?' if close else ', '.join(names)}"
                    )
                words[i] = names.get(word, word)
        return words

    def run(self) -> dict[str, Any]:
        model = self.model
        for path in (self.image, *([] if self.truth is None else [self.truth])):
            self.check_depth(path, stored_as(path))
        case = read_case(
            self.task, self.image, model.shape, noise=self.noise, degrade=self.degrade, truth=self.truth, seed=self.seed
        )
        case = case if self.peak is None else replace(case, peak=self.peak)
        prior = self.prior_draws(own=particle_sampler(model) if self.particles else None)
        draws = (
            weighed_draws(prior, case, self.method, self.particles, self.at_once(self.particles, model.shape[1:]))
            if self.particles
            else guided_draws(prior, case, self.method)
        )
        factor = 1.0
        if self.calibrated:
            factor = factor_for(self.checkpoint.path, posterior_facts(prior, case, self.method, self.particles))
        return self.finish(Restoration(draws, case, self.method, factor=factor), "restore")
