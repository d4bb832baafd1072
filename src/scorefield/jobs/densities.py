"""Densities of functions: there are none with respect to Lebesgue measure, and what there is on grids.

In function space no measure is shift-invariant, so log p(x) means nothing there. On a grid of N points the model has a density,
which changes with N. A density with respect to the noise measure N(0, σ²C), σ that of the level at which data are taken, may
exist in function space: then log p − log N(·; 0, σ²C) settles as the grid is refined, and log p drifts. Both are computed on two
grids or more, so that one sees which of them does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.core.noise import Boundary, Noise
from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.foundation.errors import InputError
from scorefield.model import Model
from scorefield.samplers.learned_likelihood import LearnedLikelihood
from scorefield.samplers.likelihood import ProbabilityFlow

NOTE = (
    "Functions have no density with respect to Lebesgue measure: log p is that on the values of a grid, and changes with it. "
    "log p - log N(0, s²C) is relative to the noise measure, and may have a limit."
)


def check(noise: Noise, resolutions: Sequence[int]) -> None:
    """Refuse a density of functions without grids, and grids where the noise is one of pixels."""
    if noise.white and resolutions:
        raise InputError("The model's noise is white, of pixels and not of functions: leave --resolutions out.")
    if noise.white:
        return
    if not resolutions:
        raise InputError(
            "The model's noise is a field: functions have no density with respect to Lebesgue measure. Give --resolutions "
            "16 32 for the densities on two grids, and those relative to the noise, to see which drifts."
        )
    if len(set(resolutions)) < 2 or min(resolutions) < 2:
        raise InputError(f"--resolutions needs two different grids or more, to compare, not {list(resolutions)}.")


class Resampled(FieldDataset):
    """Fields on another grid, by their modes.

    Args:
        fields: without conditions or masks.
        boundary: of the modes.
        size: of the grid.
    """

    def __init__(self, fields: FieldDataset, boundary: Boundary, size: Sequence[int]) -> None:
        self.fields, self.boundary, self.size = fields, boundary, list(size)

    def __len__(self) -> int:
        return len(self.fields)

    def gather(self, indices: Tensor) -> Batch:
        batch = self.fields.gather(indices)
        if "field" in batch.cond or batch.mask is not None:
            raise InputError("Densities on several grids are for fields that no field conditions, and without masks.")
        return replace(batch, x=self.boundary.resample(batch.x.double(), self.size).to(torch.get_default_dtype()))


def grid_of(shape: Sequence[int], resolution: int) -> list[int]:
    """So many points along the longest axis, and in proportion along the others. Raises InputError beyond the data's own."""
    longest = max(shape)
    if resolution > longest:
        raise InputError(
            f"The data have {longest} points along the longest axis, and no modes for a resolution of {resolution}."
        )
    grid = [n * resolution / longest for n in shape]
    if any(abs(n - round(n)) > 1e-9 for n in grid):
        points = "×".join(f"{n:.4g}" for n in grid)
        raise InputError(
            f"--resolutions {resolution} makes {points} points of {'×'.join(map(str, shape))}: give one that makes whole ones, "
            f"a multiple of {longest // math.gcd(*shape)}."
        )
    return [round(n) for n in grid]


def log_noise(noise: Noise, x: Float[Tensor, "batch channels *grid"], sigma: float) -> Float[Tensor, " batch"]:
    """log N(x; 0, σ²C) in nats, on the grid of x."""
    square = (x * noise.precision(x)).double().flatten(1).sum(1) / sigma**2
    return -0.5 * (square + noise.log_det(x.double()) + noise.dimension(x.shape[1:]) * math.log(2 * math.pi * sigma**2))


def grids_of(noise: Noise, fields: FieldDataset, resolutions: Sequence[int]) -> list[FieldDataset]:
    """The same functions on each grid, the coarsest first. Raises InputError where the fields or the noise have no such modes."""
    shape = list(fields[0].x.shape[1:])
    boundary, _ = noise.basis(len(shape))
    grids = [grid_of(shape, resolution) for resolution in sorted(set(resolutions))]
    for grid in grids:
        noise.log_det(torch.zeros(1, 1, *grid, dtype=torch.float64))
    return [Resampled(fields, boundary, grid) for grid in grids]


def level(model: Model, flow: ProbabilityFlow | LearnedLikelihood) -> float:
    """σ/α where data are taken."""
    t_min, _ = flow.ends(model.sde.schedule)
    return float(model.sde.schedule.sigma(t_min) / model.sde.schedule.alpha(t_min))


def log_reference(model: Model, flow: ProbabilityFlow | LearnedLikelihood, x: Tensor) -> Float[Tensor, " batch"]:
    """log N(z; 0, σ²C) of fields x in data units, as a density of x."""
    z, _ = model.enter(Batch(x))
    return log_noise(model.sde.noise, z, level(model, flow)).cpu() + model.log_det(x).double().cpu()


def table(record: Mapping[str, Any]) -> str:
    """For people: both densities on every grid, and how far each moved."""
    rows = record["resolutions"]
    lines = [record["note"], f"  grid            log p           log p - log N(0, s²C), s = {record['sigma']:.3g}"]
    for row in rows:
        lines.append(
            f"  {'x'.join(map(str, row['grid'])):12s}{row['nats']['mean']:14.2f}  {row['relative']['mean']:16.2f}"
        )
    moves = [rows[-1][key]["mean"] - rows[-2][key]["mean"] for key in ("nats", "relative")]
    drifting = "log p" if abs(moves[0]) > abs(moves[1]) else "the density relative to the noise"
    lines.append(f"  last change {moves[0]:+14.2f}  {moves[1]:+16.2f}   {drifting} drifts more")
    return "\n".join(lines)
