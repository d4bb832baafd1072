"""Channels of radio links with many antennas at both ends: complex matrices, sparse in angle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split
from scorefield.foundation.errors import InputError, NothingHeldOutError
from scorefield.foundation.random import Stream, sequence


@dataclass(frozen=True)
class Channels(Source):
    """H = Σ_c Σ_r g_cr a(φ_cr) b(θ_cr)ᴴ, scaled to E|H_ij|² = 1: the clustered narrowband model of Saleh and Valenzuela
    (1987) with angles, as El Ayach et al. (2014, IEEE Trans. Wireless Commun. 13, eq. 4) state it.

    Both arrays are lines of antennas half a wavelength apart, a_k(φ) = exp(iπk sin φ). The mean angles of a cluster are
    uniform, those of its rays Laplacian about them; powers of clusters fall exponentially with delay, which is itself
    exponential, as in 3GPP TR 38.901 (section 7.5, steps 5 and 6); gains g are complex Gaussian. The two channels of a field
    are real and imaginary part.

    Args:
        n: how many to train on.
        valid: how many to hold out.
        receive: antennas at one end, the rows.
        transmit: antennas at the other, the columns.
        clusters: C.
        rays: of each cluster.
        spread: standard deviation of the rays' angles about those of their cluster, in degrees.
        decay: how fast powers fall: the power of a cluster is exp(−decay · delay), delay ~ Exp(1).
        seed: draws them; each depends on (seed, split, its number) alone.
    """

    n: int = 10_000
    valid: int = 500
    receive: int = 16
    transmit: int = 64
    clusters: int = 4
    rays: int = 10
    spread: float = 5.0
    decay: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n, self.receive, self.transmit, self.clusters, self.rays) < 1 or self.valid < 0:
            raise InputError(
                "Channels needs n, receive, transmit, clusters and rays of at least 1, and valid of at least 0."
            )
        if not (self.spread >= 0 and self.decay >= 0):
            raise InputError(f"Channels needs spread >= 0 and decay >= 0, not {self.spread} and {self.decay}.")

    def load(self, split: Split) -> FieldDataset:
        if split == "valid" and not self.valid:
            raise NothingHeldOutError("valid=0 of Channels holds out none: give the number to hold out, at least 1.")
        return ChannelFields(self, self.n if split == "train" else self.valid, int(split == "valid"))

    def draw(self, key: tuple[int, ...]) -> np.ndarray:
        """One channel, complex64 (receive, transmit)."""
        generator = np.random.Generator(np.random.SFC64(sequence(*key)))
        shape = (self.clusters, self.rays)
        power = np.exp(-self.decay * generator.exponential(size=(self.clusters, 1)))
        amplitude = np.sqrt(power / (power.sum() * self.rays) / 2)
        gain = amplitude * (generator.standard_normal(shape) + 1j * generator.standard_normal(shape))
        ends = [self._directions(generator, shape, antennas) for antennas in (self.receive, self.transmit)]
        return ((ends[0] * gain.ravel()) @ ends[1].conj().T).astype(np.complex64)

    def _directions(self, generator: np.random.Generator, shape: tuple[int, int], antennas: int) -> np.ndarray:
        """The responses of an array to all rays, (antennas, rays)."""
        centre = generator.uniform(-math.pi, math.pi, (shape[0], 1))
        angle = centre + generator.laplace(scale=math.radians(self.spread) / math.sqrt(2), size=shape)
        return np.exp(1j * math.pi * np.arange(antennas)[:, None] * np.sin(angle).ravel())


class ChannelFields(FieldDataset):
    """Channels, each made when it is asked for."""

    def __init__(self, law: Channels, n: int, split: int) -> None:
        self.law, self.n, self.split = law, n, split

    def __len__(self) -> int:
        return self.n

    def gather(self, indices: Tensor) -> Batch:
        drawn = np.stack(
            [self.law.draw((self.law.seed, self.split, index, Stream.CHANNEL)) for index in indices.tolist()]
        )
        return Batch(torch.from_numpy(np.stack((np.real(drawn), np.imag(drawn)), axis=1)))
