"""Interferograms of volcanoes as they might be: a Mogi source below a turbulent atmosphere, with decorrelation, wrapped.

Displacement d of the ground towards the radar changes the phase by −4π d/λ, λ the wavelength; the atmosphere's delay and the
speckle of the ground add theirs (Hanssen 2001, chapters 2 to 4). All that is seen are the phase's cosine and sine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split, check_split
from scorefield.foundation.errors import InputError, NothingHeldOutError
from scorefield.foundation.random import Generators, Stream

POISSON = 0.25  # Poisson's ratio of rock
KOLMOGOROV = 11 / 3  # the phase's spectrum falls as |k|^(−11/3): structure function r^(5/3) (Hanssen 2001, section 4.7)
HELD_OUT = 2**31  # held-out interferograms are numbered from here


def mogi(
    east: Float[Tensor, "*grid"],
    north: Float[Tensor, "*grid"],
    depth: Float[Tensor, "*grid"],
    volume: Float[Tensor, "*grid"],
) -> tuple[Float[Tensor, "*grid"], Float[Tensor, "*grid"], Float[Tensor, "*grid"]]:
    """Displacement (east, north, up) of the surface over a small sphere that grows by ΔV at depth D, in an elastic half-space:
    (1 − ν) ΔV/π · (e, n, D)/(e² + n² + D²)^(3/2) (Mogi 1958).

    Args:
        east: distance from the point above the source; all in metres.
        north: likewise.
        depth: D.
        volume: ΔV.
    """
    scale = (1 - POISSON) / math.pi * volume / (east.square() + north.square() + depth.square()) ** 1.5
    return scale * east, scale * north, scale * depth


def towards_radar(east: Tensor, north: Tensor, up: Tensor, incidence: Tensor, heading: Tensor) -> Tensor:
    """The part of a displacement that shortens the way to a radar that looks to its right (Hanssen 2001, eq. 5.1.1).

    Args:
        east: components of the displacement.
        north: likewise.
        up: likewise.
        incidence: angle of the beam to the vertical.
        heading: of the flight, clockwise from north.
    """
    across = east * heading.cos() - north * heading.sin()
    return up * incidence.cos() - across * incidence.sin()


def turbulence(white: Float[Tensor, "batch size size"], outer: float, slope: float = KOLMOGOROV) -> Tensor:
    """Gaussian fields of unit variance on a torus with the spectrum (|k|² + outer⁻²)^(−slope/2), of white noise.

    Args:
        white: standard normal.
        outer: the outer scale as a fraction of the torus's side.
        slope: of the spectrum at scales far below the outer one.
    """
    size = white.shape[-1]
    square = torch.fft.fftfreq(size, 1 / size, dtype=white.dtype).square()
    power = (square[:, None] + square + outer**-2) ** (-slope / 2)
    power[0, 0] = 0
    gain = (power / power.mean()).sqrt()
    return torch.fft.ifft2(torch.fft.fft2(white) * gain).real


def decorrelate(
    phase: Float[Tensor, "batch *grid"],
    coherence: Float[Tensor, "batch *grid"],
    speckle: Float[Tensor, "batch looks 4 *grid"],
) -> Complex[Tensor, "batch *grid"]:
    """The interferogram ⟨s₁ s̄₂⟩ over looks of two circular Gaussian signals of coherence γ and phase difference φ.

    s₁ = a, s₂ = (γ a + √(1 − γ²) b) e^(−iφ). Of one look its phase has the variance π²/3 − π asin γ + asin² γ − Li₂(γ²)/2
    (Bamler and Hartl 1998), of many looks L about (1 − γ²)/(2 L γ²).

    Args:
        phase: φ.
        coherence: γ in [0, 1].
        speckle: standard normal: real and imaginary part of a and of b.
    """
    a, b = torch.complex(speckle[:, :, 0], speckle[:, :, 1]), torch.complex(speckle[:, :, 2], speckle[:, :, 3])
    gamma = coherence[:, None]
    second = gamma * a + (1 - gamma.square()).clamp(min=0).sqrt() * b
    return (a * second.conj()).mean(1) * torch.polar(torch.ones_like(phase), phase)


@dataclass(frozen=True)
class Volcano(Source):
    """Wrapped interferograms, two channels cos φ and sin φ: interferogram i is drawn from (seed, i) alone, whenever it is needed.

    Depth and volume are drawn uniformly in their logarithms, the volume with either sign; everything else uniformly. The source
    lies in the inner half of the square.

    Args:
        n: how many for training.
        size: points along each side.
        extent: length of the side in km.
        wavelength: of the radar in m.
        depth: least and largest depth of the source in km.
        volume: least and largest change of its volume in 10⁶ m³.
        atmosphere: least and largest standard deviation of the atmosphere's phase in rad.
        outer: outer scale of the turbulence in km.
        coherence: least and largest coherence of an interferogram.
        looks: independent pixels that are averaged to one; on the same ground at twice the `size`, take a quarter of them.
        incidence: angle of the beam to the vertical, in degrees.
        valid: how many for validation.
        seed: of the draws.
    """

    n: int = 4096
    size: int = 64
    extent: float = 20.0
    wavelength: float = 0.0555
    depth: tuple[float, float] = (2.0, 8.0)
    volume: tuple[float, float] = (0.3, 30.0)
    atmosphere: tuple[float, float] = (0.3, 3.0)
    outer: float = 20.0
    coherence: tuple[float, float] = (0.4, 0.95)
    looks: int = 4
    incidence: float = 35.0
    valid: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            min(self.n, self.looks, self.size - 1, self.valid + 1) < 1
            or min(self.extent, self.wavelength, self.outer) <= 0
        ):
            raise InputError("Volcano needs n and looks >= 1, valid >= 0, size >= 2 and positive lengths.")
        for name in ("depth", "volume", "atmosphere", "coherence"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name == "coherence" and high > 1):
                raise InputError(f"Volcano's {name} is {low} to {high}: give a positive least and a largest one.")

    def load(self, split: Split) -> FieldDataset:
        check_split(split)
        if split == "valid" and not self.valid:
            raise NothingHeldOutError("valid=0 of Volcano holds out none: give the number to hold out, at least 1.")
        return VolcanoFields(self, self.valid if split == "valid" else self.n, HELD_OUT if split == "valid" else 0)


class VolcanoFields(FieldDataset):
    """Interferograms, drawn when they are asked for."""

    def __init__(self, source: Volcano, count: int, first: int) -> None:
        self.source, self.count, self.first = source, count, first

    def __len__(self) -> int:
        return self.count

    def gather(self, indices: Tensor) -> Batch:
        source, n, batch = self.source, self.source.size, len(indices)
        generator = Generators((source.seed, self.first + index, Stream.VOLCANO) for index in indices.tolist())
        like = torch.empty(0, dtype=torch.float32)
        u = generator.rand((batch, 8), like=like)[:, :, None, None]
        white = generator.randn((batch, 2 * n, 2 * n), like=like)
        speckle = generator.randn((batch, source.looks, 4, n, n), like=like)
        delay = turbulence(white, source.outer / (2 * source.extent))[:, :n, :n]  # a part of a torus is not periodic
        phase = self.deformation(u) + between(source.atmosphere, u[:, 0]) * delay
        z = decorrelate(phase, between(source.coherence, u[:, 1]).expand_as(phase), speckle)
        return Batch(torch.view_as_real(z / z.abs().clamp(min=1e-20)).movedim(-1, 1).contiguous())

    def deformation(self, u: Float[Tensor, "batch 8 1 1"]) -> Float[Tensor, "batch size size"]:
        """The phase of the displacement, of uniform numbers."""
        source = self.source
        at = ((torch.arange(source.size) + 0.5) / source.size - 0.5) * source.extent * 1e3
        east = at - (u[:, 2] - 0.5) * source.extent * 500
        north = -at[:, None] - (u[:, 3] - 0.5) * source.extent * 500  # the first row is the northern one
        depth = 1e3 * between_logs(source.depth, u[:, 4])
        volume = 1e6 * between_logs(source.volume, u[:, 5]) * torch.where(u[:, 6] < 0.5, -1, 1)
        heading = torch.deg2rad(torch.where(u[:, 7] < 0.5, -10.0, 190.0))  # ascending, descending
        displacement = mogi(*torch.broadcast_tensors(east, north, depth, volume))
        incidence = torch.tensor(math.radians(source.incidence))
        return -4 * math.pi / source.wavelength * towards_radar(*displacement, incidence, heading)


def between(ends: tuple[float, float], u: Tensor) -> Tensor:
    """Uniform between two ends."""
    return ends[0] + (ends[1] - ends[0]) * u


def between_logs(ends: tuple[float, float], u: Tensor) -> Tensor:
    """Uniform in the logarithm between two ends."""
    return ends[0] * (ends[1] / ends[0]) ** u
