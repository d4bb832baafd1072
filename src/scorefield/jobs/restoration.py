"""Restoring as a job: draws from p(x | y) for one measured image, their mean and spread, and what they are worth.

How a measurement in data units becomes one of a model's own fields is in `scorefield.inverse`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.picture import save_grid, save_panels
from scorefield.data.single import peak_of, read_array, read_field
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing, write_json
from scorefield.foundation.random import Generators, Stream
from scorefield.guidance import Guided, Method
from scorefield.inverse import InverseProblem, in_model_space, population, warn_of_few
from scorefield.jobs.draws import Draws, read_samples
from scorefield.jobs.outputs import write_array
from scorefield.metrics.image import interval_coverage, psnr, spread_of
from scorefield.operators import Operator
from scorefield.particles import Particles
from scorefield.run.runner import Job, Piece, Pieces, record_in

LEVEL = 0.9


def read_case(
    operator: Operator,
    image: Path,
    shape: Sequence[int],
    *,
    noise: float = 0.0,
    degrade: bool = False,
    truth: Path | None = None,
    seed: int = 0,
) -> InverseProblem:
    """The case that files describe.

    Args:
        operator: A, in data units.
        image: y; with `degrade` the truth, of which y = A x + noise ξ is made.
        shape: (channels, *grid) of the fields.
        noise: standard deviation in data units.
        degrade: whether to measure the image first.
        truth: a file with the truth, where the image is y.
        seed: of ξ.
    """
    if degrade and truth is not None:
        raise InputError("With --degrade the image itself is the truth: leave out --truth, or --degrade.")
    if not noise >= 0:
        raise InputError(f"The noise is a standard deviation >= 0 in data units, not {noise}.")
    source = image if degrade else truth
    known = None if source is None else read_field(source, shape)
    if degrade and known is not None:
        y = operator(known)
        y = y + noise * Generators([(seed, 0, Stream.DEGRADE)]).randn(y.shape, like=y)
    else:
        y = read_field(image, operator(torch.zeros(1, *shape)).shape[1:])
    stored = read_array(source or image)
    return InverseProblem(
        operator, y, noise, known, peak_of(stored), stored.dtype == np.uint8 and len(shape) == 3, tuple(shape)
    )


@dataclass(frozen=True, eq=False)
class Restoration(Job):
    """Draws of p(x | y) with their mean and standard deviation, pictures, and figures in `restoring.json`.

    Args:
        draws: the draws, by a denoiser that is guided by the measurement.
        case: what was measured.
        method: how p(y | x_t) is approximated.
        smooth: what is known without a model, where that is a field.
        factor: by which standard deviation and interval are widened; the draws stay as they are.
    """

    draws: Draws
    case: InverseProblem
    method: Method
    smooth: Tensor | None = None
    factor: float = 1.0

    @property
    def out(self) -> Path:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.draws.out

    @property
    def identity(self) -> dict[str, Any]:
        wider = {} if self.factor == 1 else {"factor": self.factor}
        return {**self.draws.identity, **self.case.facts, "method": repr(self.method), **wider}

    @property
    def sizes(self) -> Sequence[int]:
        return self.draws.sizes

    def compute(self, number: int) -> Piece:
        return self.draws.compute(number)

    def made_by(self) -> str | None:
        return self.draws.made_by()

    def assemble(self, pieces: Pieces, out: Path) -> None:
        self.draws.assemble(pieces, out)
        members = read_samples(out)
        mean, spread = members.mean(0, keepdim=True), self.factor * spread_of(members)
        figures = {"samples": len(members), "noise": self.case.noise, "method": repr(self.method)}
        figures |= {} if self.factor == 1 else {"factor": self.factor}
        figures |= _figures(members, self.case, self.factor) | self._without_model() | _weights(pieces[0])
        known = [] if self.smooth is None else [("interpolation", self.smooth)]
        for name, value in (("observation", self.case.y), ("mean", mean), ("std", spread), *known):
            write_array(out / f"{name}.npy", value[0].shape, [value[0].numpy()])
        _pictures(out, members, mean, self.case)
        _overview(out / "picture.png", members, mean, spread, self.case, figures)
        write_json(out / "restoring.json", figures)
        if "effective" in figures:
            warn_of_few({"": figures["effective"]})
        record_in(out, self.identity)

    def figures(self) -> dict[str, Any]:
        """Those of a complete result."""
        return json.loads((self.out / "restoring.json").read_text(encoding="utf-8"))

    def _without_model(self) -> dict[str, float]:
        truth = self.case.truth
        if self.smooth is None or truth is None or not bool(truth.isfinite().all()):
            return {}
        return {"psnr_of_interpolation": float(psnr(self.smooth, truth, self.case.peak))}


def guided_draws(job: Draws, case: InverseProblem, method: Method, prior: DenoiserProtocol | None = None) -> Draws:
    """The draws of p(x) as draws of p(x | y).

    Args:
        job: the draws of p(x).
        case: y.
        method: how p(y | x_t) is approximated.
        prior: the denoiser of p(x), where it is not simply the model's own.
    """
    model = job.model
    measurement = in_model_space(model, case, job.shape)
    return replace(job, denoiser=Guided(prior or model.prior, measurement, method))


@dataclass(frozen=True, eq=False, kw_only=True)
class WeighedDraws(Draws):
    """Draws of p(x | y) from weighted particles, all in one piece.

    Args:
        case: y.
        method: what proposes.
        particles: how many.
        at_once: how many of them are evaluated at once.
    """

    case: InverseProblem
    method: Method
    particles: int
    at_once: int

    @property
    def identity(self) -> dict[str, Any]:
        return {
            **super().identity,
            "particles": self.particles,
            "at_once": self.at_once,
            "kernel": "narrow, 0.03 by the prior",
        }

    @property
    def sizes(self) -> list[int]:
        return [self.n]

    def compute(self, number: int) -> Piece:
        run = Particles(self.method, self.particles, self.sampler, chunk=self.at_once)
        measurement = in_model_space(self.model, self.case, self.shape)
        cond = {name: value[:1] for name, value in self.condition.items()}
        own = self.model.asked(cond, 1, self.shape[1:], self.denoiser)
        found = population(
            self.model, run, measurement, seed=self.seed, shape=self.shape, cond=own, prior=self.denoiser
        )
        drawn = found.drawn(self.n, generator=Generators([(self.seed, 1, Stream.RESAMPLED)]))
        told = {"log_evidence": np.array(found.log_evidence), "effective": np.array(min(found.effective))}
        return {"x": drawn.numpy(), **told}


def weighed_draws(
    job: Draws,
    case: InverseProblem,
    method: Method,
    particles: int,
    at_once: int,
    prior: DenoiserProtocol | None = None,
) -> WeighedDraws:
    """The draws of p(x) as draws of p(x | y) by weighted particles, of which so many are evaluated at once; `prior` is the
    denoiser of p(x), where it is not simply the model's own.
    """
    if job.label == "each":
        raise InputError("Particles are those of one class: give a --label by its name or number, and not each.")
    own: dict[str, Any] = {part.name: getattr(job, part.name) for part in fields(job)}
    own["chunk"] = job.n
    own["denoiser"] = prior or job.denoiser
    return WeighedDraws(**own, case=case, method=method, particles=particles, at_once=at_once)


def _figures(members: Tensor, case: InverseProblem, factor: float = 1.0) -> dict[str, Any]:
    """What the draws are worth, where the truth is known; without PSNR where it is constant."""
    if case.truth is None:
        return {}
    known = case.truth[0].isfinite()
    truth, drawn = case.truth[:, known], members[:, known]
    found: dict[str, Any] = {}
    if case.peak > 0 and bool(known.any()):
        found["peak"] = case.peak
        found["psnr_of_mean"] = float(psnr(drawn.mean(0, keepdim=True), truth, case.peak))
        found["psnr_of_samples"] = psnr(drawn, truth, case.peak).tolist()
    wider = drawn.mean(0) + factor * (drawn - drawn.mean(0))
    coverage = interval_coverage(wider, truth, LEVEL) if len(members) > 1 and bool(known.any()) else math.nan
    return found | {"interval": LEVEL, "coverage": None if math.isnan(coverage) else coverage}


def _weights(piece: Piece) -> dict[str, float]:
    """Of draws from particles: log p(y) in nats, and how few counted at the worst level."""
    return {name: float(piece[name]) for name in ("log_evidence", "effective") if name in piece}


def _pictures(folder: Path, members: Tensor, mean: Tensor, case: InverseProblem) -> None:
    """A picture of the mean and one of each draw: 8-bit colours as they are, anything else from black to white."""
    low, high = _range(members, case)
    for name, x in [("mean", mean), *((f"sample-{i:03d}", x[None]) for i, x in enumerate(members))]:
        path = folder / f"{name}.png"
        if not (case.whole and x.shape[1] in (1, 3)):
            save_grid(path, x, low=low, high=high)
            continue
        pixels = x[0].round().clamp(0, 255).to(torch.uint8).movedim(0, -1).squeeze(-1)
        with replacing(path) as temporary:
            Image.fromarray(pixels.numpy()).save(temporary, format="PNG")


def _overview(
    path: Path, members: Tensor, mean: Tensor, spread: Tensor, case: InverseProblem, figures: Mapping[str, Any]
) -> None:
    """Observation, mean, spread, some draws and the truth, side by side under their names."""
    low, high = _range(members, case)
    title = f"mean, {figures['psnr_of_mean']:.1f} dB" if "psnr_of_mean" in figures else "mean"
    panels = [("observation", case.y, low, high), (title, mean, low, high)]
    panels.append(("standard deviation", spread, 0.0, float(spread.max()) or 1.0))
    panels += [(f"sample {i}", x[None], low, high) for i, x in enumerate(members[:8])]
    if case.truth is not None:
        covered = figures["coverage"]
        share = "" if covered is None else f", {100 * covered:.0f} % in the {100 * LEVEL:.0f} % interval"
        panels.append((f"truth{share}", case.truth, low, high))
    save_panels(path, panels)


def _range(members: Tensor, case: InverseProblem) -> tuple[float, float]:
    """From black to white."""
    if case.whole:
        return 0.0, 255.0
    shown = members if case.truth is None else case.truth
    shown = shown[shown.isfinite()] if bool(shown.isfinite().any()) else members
    low, high = float(shown.min()), float(shown.max())
    return low, high if high > low else low + 1


def table(figures: Mapping[str, Any], folder: Path) -> str:
    """A few lines for people. Figures that are infinite are null in the file."""
    lines = [f"{figures['samples']} samples, their mean, standard deviation and picture in {folder}"]
    if "psnr_of_mean" in figures:
        mean, *each = (math.inf if x is None else x for x in (figures["psnr_of_mean"], *figures["psnr_of_samples"]))
        lines.append(f"  PSNR of the mean       {mean:.2f} dB   (peak {figures['peak']:g})")
        lines.append(f"  PSNR of the samples    {sum(each) / len(each):.2f} dB")
    if "psnr_of_interpolation" in figures:
        lines.append(f"  PSNR of interpolation  {figures['psnr_of_interpolation']:.2f} dB   (without a model)")
    if figures.get("coverage") is not None:
        lines.append(f"  {100 * LEVEL:.0f} % interval covers   {100 * figures['coverage']:.1f} % of what is uncertain")
    if "factor" in figures:
        lines.append(f"  widened by calibration {figures['factor']:.3f} times: standard deviation and interval")
    if "log_evidence" in figures:
        lines.append(
            f"  log p(y) in nats       {figures['log_evidence']:.2f}   ({figures['effective']:.1f} effective particles)"
        )
    return "\n".join(lines)
