"""Restoring as a job: draws from p(x | y) for one measured image, their mean and spread, and what they are worth.

y = A x + n is measured in data units, while a model works in units of its own, x = s u + b elementwise. In those it is the
measurement y − A b = (A s) u + n of u, with the noise it had.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.normalise import Normaliser
from scorefield.data.picture import save_grid, save_panels
from scorefield.data.single import peak_of, read_array, read_field
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing, write_json
from scorefield.foundation.random import Generators, Stream
from scorefield.guidance import Guided, Measurement, Method, MomentMatching
from scorefield.jobs import sampling
from scorefield.jobs.tasks import TASKS
from scorefield.metrics.image import interval_coverage, psnr, spread_of
from scorefield.model import Model
from scorefield.operators import Compose, LinearOperator, Scale
from scorefield.run.configuration import Parser, known_classes
from scorefield.samplers import Sampler

LEVEL = 0.9


def add_arguments(parser: Parser) -> None:
    """What was measured, how, and how to restore it."""
    parser.add_argument("image", type=Path, help="the measured image, or .npy, in data units; NaN where it is hidden")
    parser.add_argument(
        "--task",
        type=LinearOperator,
        required=True,
        help=f"how it was measured: {', '.join(task.__name__ for task in TASKS)}, or any LinearOperator",
    )
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of its noise, in data units")
    parser.add_argument(
        "--degrade",
        action="store_true",
        help="the image is the truth: measure it first, by the task and with the noise",
    )
    parser.add_argument("--truth", type=Path | None, default=None, help="image or .npy to compare the result with")
    parser.add_argument(
        "--method",
        type=Method,
        default=MomentMatching(),
        help="MomentMatching, PiGDM, DPS or Replacement (for a noise of 0)",
    )
    parser.add_argument("-n", "--samples", type=int, default=8, help="how many draws")
    parser.add_argument("--seed", type=int, default=0, help="draw i depends on (seed, i) alone")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    sampling.add_arguments(parser)


def named(arguments: Sequence[str]) -> list[str]:
    """The arguments with the plain name of a task replaced by its import path."""
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


@dataclass(frozen=True, eq=False)
class InverseProblem:
    """One image to restore, in data units.

    Attributes:
        operator: A.
        y: what was measured, (1, channels, *grid).
        noise: its standard deviation.
        truth: the field that was measured, where it is known; NaN where it is not.
        peak: its largest possible value, for PSNR.
        whole: whether values are 8-bit colours, so that results can be shown as such.
    """

    operator: LinearOperator
    y: Tensor
    noise: float
    truth: Tensor | None
    peak: float
    whole: bool

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the result: hashes of y and of what A does."""
        shape = self.operator.adjoint(torch.zeros_like(self.y)).shape
        probe = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        return {"observation": _hash(self.y), "operator": _hash(self.operator(probe)), "noise": self.noise}


def read_case(
    operator: LinearOperator,
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
    return InverseProblem(operator, y, noise, known, peak_of(stored), stored.dtype == np.uint8 and len(shape) == 3)


def in_model_space(normaliser: Normaliser, case: InverseProblem, shape: Sequence[int]) -> Measurement:
    """The measurement of normalised fields. Raises InputError where the normaliser is not affine."""
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    shift = normaliser.inverse(zero)
    scale = normaliser.inverse(zero + 1) - shift
    probe = torch.randn(zero.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if not torch.allclose(
        normaliser.inverse(probe), shift + scale * probe, rtol=1e-4, atol=1e-4 * float(scale.abs().max())
    ):
        raise InputError(
            f"{type(normaliser).__name__} is not affine, so that a linear measurement is none of normalised fields: "
            "train with Standardise, UnitRange or Centre."
        )
    y = case.y.double() - case.operator(shift)
    return Measurement(Compose((Scale(scale), case.operator)), y.float(), case.noise)


def restore(
    folder: Path,
    model: Model,
    case: InverseProblem,
    *,
    method: Method,
    sampler: Sampler,
    n: int = 8,
    seed: int = 0,
    chunk: int = 64,
    label: sampling.Label | None = None,
    provenance: Mapping[str, Any],
    progress: Callable[[int], object] = lambda _: None,
    grid: tuple[int, ...] = (),
    prior: DenoiserProtocol | None = None,
) -> dict[str, Any]:
    """Write n draws of p(x | y), their mean and standard deviation, pictures and figures; returns the figures.

    An interrupted job is completed by the same call; a folder that holds another is left alone.

    Args:
        folder: where to.
        model: p(x).
        case: what was measured.
        method: how p(y | x_t) is approximated.
        sampler: how draws are made.
        n: how many.
        seed: of the draws.
        chunk: how many at once.
        label: the class, of a network with labels.
        provenance: facts of the model that decide the result.
        progress: called with the number of new draws.
        grid: of the draws, where it is another than that of the model's data.
        prior: the denoiser of p(x), where it is not simply the model's own.
    """
    shape = (model.shape[0], *grid) if grid else model.shape
    measurement = in_model_space(model.normaliser.cpu(), case, shape)
    model.normaliser.to(model.device)
    members = sampling.sample_to(
        folder,
        model,
        n,
        seed=seed,
        sampler=sampler,
        chunk=min(chunk, max(n, 1)),
        provenance={**provenance, **case.facts, "method": repr(method)},
        label=label,
        progress=progress,
        denoiser=Guided(prior or model.generative, measurement, method),
        grid=grid,
    )
    mean, spread = members.mean(0, keepdim=True), spread_of(members)
    figures = {"samples": n, "noise": case.noise, "method": repr(method), **_figures(members, case)}
    for name, value in (("observation", case.y), ("mean", mean), ("std", spread)):
        with replacing(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, value[0].numpy())
    _pictures(folder, members, mean, case)
    _overview(folder / "picture.png", members, mean, spread, case, figures)
    write_json(folder / "restoring.json", figures)
    return figures


def _figures(members: Tensor, case: InverseProblem) -> dict[str, Any]:
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
    coverage = interval_coverage(drawn, truth, LEVEL) if len(members) > 1 and bool(known.any()) else math.nan
    return found | {"interval": LEVEL, "coverage": None if math.isnan(coverage) else coverage}


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


def _hash(x: Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()


def table(figures: Mapping[str, Any], folder: Path) -> str:
    """A few lines for people."""
    lines = [f"{figures['samples']} samples, their mean, standard deviation and picture in {folder}"]
    if "psnr_of_mean" in figures:
        each = figures["psnr_of_samples"]
        lines.append(f"  PSNR of the mean       {figures['psnr_of_mean']:.2f} dB   (peak {figures['peak']:g})")
        lines.append(f"  PSNR of the samples    {sum(each) / len(each):.2f} dB")
    if figures.get("coverage") is not None:
        lines.append(f"  {100 * LEVEL:.0f} % interval covers   {100 * figures['coverage']:.1f} % of what is uncertain")
    return "\n".join(lines)
