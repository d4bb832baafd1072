"""Random changes of MR images in training: what differs from scan to scan, but not in what was scanned."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield.data.augment import Augment, draw
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Stream


@dataclass(frozen=True)
class RandomCrop(Augment):
    """A part of each field, anywhere in it; what does not depend on the whole field is learned for less.

    Args:
        size: of the part along each grid axis.
    """

    size: tuple[int, ...]

    def __call__(self, batch: Batch, seed: int) -> Batch:
        grid = batch.x.shape[2:]
        if len(grid) != len(self.size) or any(part > whole for part, whole in zip(self.size, grid, strict=True)):
            raise InputError(f"No crop of {self.size} can be taken from fields of {tuple(grid)}: give a smaller size.")
        if batch.y is not None or "field" in batch.cond:
            raise InputError(
                "RandomCrop takes fields alone, not what was measured of them, or conditioned on: remove it."
            )
        u = draw(batch, seed, Stream.CROP, (len(grid),)).double()
        room = torch.tensor([whole - part + 1 for part, whole in zip(self.size, grid, strict=True)])
        boxes = [
            (slice(None), *(slice(a, a + n) for a, n in zip(start, self.size, strict=True)))
            for start in (u * room).long().tolist()
        ]
        mask = None if batch.mask is None else batch.mask.expand_as(batch.x)
        cut = None if mask is None else torch.stack([m[box] for m, box in zip(mask, boxes, strict=True)])
        return replace(batch, x=torch.stack([x[box] for x, box in zip(batch.x, boxes, strict=True)]), mask=cut)


@dataclass(frozen=True)
class RandomPhase(Augment):
    """Multiply each complex field, a pair of channels, by e^{iφ} with a smooth random φ; its magnitude stays.

    φ is uniform plus Σ_k a_k Π_j cos(π k_j (u_j + n_j/length)), a_k ~ N(0, (strength/(1 + |k|²))²), u_j uniform. With strength 0
    it is the same everywhere, and turns what was measured by a complex-linear A in the same way; with any other strength, fields
    with a measurement are refused.

    Args:
        strength: of the modulation, in radians; 0 leaves the uniform part.
        length: half the longest wavelength, in grid points.
        modes: so many per axis.
    """

    strength: float = 1.5
    length: float = 256.0
    modes: int = 4

    def __post_init__(self) -> None:
        if not (self.strength >= 0 and self.length > 0 and self.modes >= 1):
            raise InputError("RandomPhase needs strength >= 0, length > 0 and modes >= 1.")

    def __call__(self, batch: Batch, seed: int) -> Batch:
        if batch.y is not None and self.strength > 0:
            raise InputError(
                "RandomPhase would turn the fields and not the measurement y of them: give strength 0, the same phase "
                "everywhere, or remove it."
            )
        rank = batch.x.ndim - 2
        count = self.modes**rank
        u = draw(batch, seed, Stream.PHASE, (1 + rank + count,)).double()
        phase = smooth_phase(u, batch.x.shape[2:], self.strength, self.length, self.modes)
        x = rotate(batch.x, phase.to(batch.x))
        if batch.y is None:
            return replace(batch, x=x)
        angle = phase.flatten(1)[:, 0].reshape(-1, *(1,) * (batch.y.ndim - 2))
        return replace(batch, x=x, y=rotate(batch.y, angle.to(batch.y)))


@dataclass(frozen=True)
class RandomGain(Augment):
    """Multiply each field by a random factor, log-uniform: the scale of an image is known but roughly when it is reconstructed.

    What was measured of it, and the noise, are multiplied with it.

    Args:
        low: the least.
        high: the most.
    """

    low: float = 0.8
    high: float = 1.25

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise InputError(f"RandomGain needs 0 < low <= high, not {self.low} and {self.high}.")

    def __call__(self, batch: Batch, seed: int) -> Batch:
        u = draw(batch, seed, Stream.GAIN, ())
        gain = (math.log(self.low) + u * math.log(self.high / self.low)).exp()
        noise = None if batch.noise is None else batch.noise * gain
        y = None if batch.y is None else batch.y * expanded(gain, batch.y)
        return replace(batch, x=batch.x * expanded(gain, batch.x), y=y, noise=noise)


def expanded(factor: Tensor, like: Tensor) -> Tensor:
    """One number for each sample, (batch), against all axes of another tensor."""
    return factor.to(like).reshape(-1, *(1,) * (like.ndim - 1))


def smooth_phase(u: Tensor, grid: torch.Size | tuple[int, ...], strength: float, length: float, modes: int) -> Tensor:
    """φ of `RandomPhase` on a grid, (batch, *grid), from uniform numbers u (batch, 1 + rank + modes^rank)."""
    rank = len(grid)
    shift, normal = u[:, 1 : 1 + rank], torch.special.ndtri(u[:, 1 + rank :].clamp(1e-9, 1 - 1e-9))
    k = torch.arange(modes, dtype=u.dtype)
    square = sum(index**2 for index in torch.meshgrid(*[k] * rank, indexing="ij"))
    phase = strength * normal.reshape(-1, *(modes,) * rank) / (1 + square)
    for axis, size in enumerate(grid):
        place = shift[:, axis, None] + torch.arange(size, dtype=u.dtype) / length
        basis = torch.cos(math.pi * place[..., None] * k)  # (batch, size, modes)
        phase = torch.movedim(torch.einsum("b...k,bnk->b...n", phase.movedim(axis + 1, -1), basis), -1, axis + 1)
    return phase + 2 * math.pi * u[:, 0].reshape(-1, *(1,) * rank)


def rotate(x: Tensor, phase: Tensor) -> Tensor:
    """Pairs of channels, (batch, 2 pairs, *grid), times e^{iφ}, with φ in radians."""
    if x.shape[1] % 2:
        raise InputError(f"Fields of {x.shape[1]} channels have no phase: give pairs of channels, real and imaginary.")
    cos, sin = phase.cos()[:, None], phase.sin()[:, None]
    real, imaginary = x[:, ::2], x[:, 1::2]
    return torch.stack((cos * real - sin * imaginary, sin * real + cos * imaginary), dim=2).flatten(1, 2)
