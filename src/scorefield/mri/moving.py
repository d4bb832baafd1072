"""Films of slices that move, made of slices at rest by synthetic motion: data for a prior over (time, height, width)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split
from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import resample
from scorefield.foundation.random import Generators, Stream

STEEPEST = 0.6  # of |∂d/∂r| of one part of the motion: below 1 no two points of a slice come to lie on one another
FINER = 2  # times the grid on which images are interpolated
WIDTHS = (1 / 12, 1 / 4)  # of the shorter side of a slice, from which ℓ is drawn


@dataclass(frozen=True)
class Moving(Source):
    """Films x(t, r) = f(r + d(t, r)) of the images f of another source, with synthetic motion that repeats itself.

    d(t, r) = Σ_k v_k sin(2π (t/P_k + φ_k)) exp(−|r − c_k|²/2ℓ_k²), v_k ~ N(0, strength²) along either axis, shortened where its
    steepest slope would be more than 0.6, P_k log-uniform, φ_k and c_k uniform, ℓ_k log-uniform from 1/12 to 1/4 of the shorter
    side. f is 0 outside, and between pixels that of its Fourier series on a grid twice as fine, with straight lines between
    these points. A batch has x (batch, 2, frames, height, width).

    Args:
        source: of images, two channels each, such as `Volumes`.
        frames: of a film.
        strength: of the motion, in pixels.
        periods: the shortest and the longest, in frames.
        parts: how many of them move.
        copies: films of each image, each with a motion of its own.
        seed: motion depends on (seed, split, index) alone.
    """

    source: Source
    frames: int = 8
    strength: float = 4.0
    periods: tuple[float, float] = (8.0, 32.0)
    parts: int = 6
    copies: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.frames, self.parts, self.copies) < 1 or not self.strength >= 0:
            raise InputError("Moving needs frames, parts and copies >= 1, and strength >= 0.")
        if not 2 <= self.periods[0] <= self.periods[1]:
            raise InputError(f"Moving needs periods of two frames or more, the shortest first, not {self.periods}.")

    def files_read(self) -> list[Path]:
        return self.source.files_read()

    def load(self, split: Split) -> FieldDataset:
        return MovingFields(self, self.source.load(split), int(split == "valid"))


class MovingFields(FieldDataset):
    """The films of some images.

    Args:
        source: how they move.
        fields: the images.
        split: a number of their split, so that training and validation move otherwise.
    """

    def __init__(self, source: Moving, fields: FieldDataset, split: int) -> None:
        self.source, self.fields, self.split = source, fields, split
        self.dtype, self.notes = fields.dtype, fields.notes

    def __len__(self) -> int:
        return self.source.copies * len(self.fields)

    def gather(self, indices: Tensor) -> Batch:
        found = self.fields.gather(indices % len(self.fields))
        if found.x.ndim != 4:
            raise InputError(f"Moving takes images, (channels, height, width), not {tuple(found.x.shape[1:])}.")
        generator = Generators((self.source.seed, self.split, index, Stream.MOTION) for index in indices.tolist())
        motion = displacement(generator, self.source, (found.x.shape[2], found.x.shape[3]))
        return replace(found, x=torch.stack([warped(x, d) for x, d in zip(found.x, motion, strict=True)]))


def displacement(generator: Generators, how: Moving, grid: tuple[int, int]) -> Tensor:
    """d in pixels along height and width, (batch, frames, height, width, 2)."""
    white = generator.randn((len(generator), how.parts, 7), like=torch.zeros((), dtype=torch.float64))
    # v along either axis; the rest is uniform
    v, u = how.strength * white[..., :2], torch.special.ndtr(white[..., 2:])
    sides = torch.tensor(grid, dtype=torch.float64)
    low, high = (math.log(width * min(grid)) for width in WIDTHS)
    length = torch.exp(low + (high - low) * u[..., 0])
    period = torch.exp(u[..., 1] * math.log(how.periods[1] / how.periods[0])) * how.periods[0]
    slope = v.norm(dim=-1) / length * math.exp(-0.5)
    v = v * (STEEPEST / slope.clamp(min=STEEPEST))[..., None]
    wave = torch.sin(2 * math.pi * (torch.arange(how.frames) / period[..., None] + u[..., 2, None]))
    centre = u[..., 3:] * sides
    bumps = [
        torch.exp(-((torch.arange(n) - centre[..., axis, None]) ** 2) / (2 * length[..., None] ** 2))
        for axis, n in enumerate(grid)
    ]
    return torch.einsum("bkt,bki,bkj,bkc->btijc", wave, *bumps, v)


def warped(image: Tensor, motion: Tensor) -> Tensor:
    """f(r + d(t, r)) of an image (channels, height, width), (channels, frames, height, width)."""
    height, width = image.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    size = torch.tensor([FINER * width, FINER * height])
    places = FINER * (torch.stack((columns, rows), -1) + motion.flip(-1))  # along the width first
    fine = resample(image[None], (FINER * height, FINER * width)).expand(len(motion), -1, -1, -1)
    moved = F.grid_sample(fine, (2 * places / (size - 1) - 1).to(fine), padding_mode="zeros", align_corners=True)
    return moved.movedim(0, 1)
