"""Simulated k-space, from images: of one image, fully sampled; and as training data, undersampled and noisy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split
from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, to_channels
from scorefield.foundation.lazy import require
from scorefield.foundation.random import Generators, Stream, seed_of
from scorefield.mri.augment import smooth_phase
from scorefield.mri.coils import as_tensor, combine_by_maps
from scorefield.mri.masks import RandomLines, Sampling


@dataclass(frozen=True)
class Simulation:
    """What a scanner would have measured.

    Attributes:
        image: the complex image x, (height, width).
        maps: S, (coils, height, width), Σ|S|² = 1.
        kspace: F S x + noise, (coils, height, width).
        noise: standard deviation of the noise per real component.
    """

    image: np.ndarray
    maps: np.ndarray
    kspace: np.ndarray
    noise: float


def simulate(
    magnitude: np.ndarray, *, coils: int = 8, decibels: float = 30.0, phase: float = 1.5, seed: int = 0, number: int = 0
) -> Simulation:
    """Fully sampled k-space of a birdcage of coils.

    Args:
        magnitude: the image (height, width); a complex one keeps its phase and is given more.
        coils: how many.
        decibels: how far the energy of the noise lies below that of all coils' k-space.
        phase: strength of a smooth random phase in radians, see `RandomPhase`; 0 for none.
        seed: of phase and noise.
        number: of the image under that seed.
    """
    if magnitude.ndim != 2 or not magnitude.any():
        raise InputError(
            f"k-space is simulated of an image with two axes that holds something, not of {magnitude.shape}."
        )
    rng = np.random.default_rng(seed_of(seed, number, Stream.SIMULATION))
    maps = birdcage(coils, magnitude.shape)
    angle = np.zeros(magnitude.shape)
    if phase:
        u = torch.from_numpy(rng.random((1, 1 + 2 + 16)))
        angle = smooth_phase(u, magnitude.shape, phase, 256.0, 4)[0].numpy()
    image = magnitude * np.exp(1j * angle)
    kspace = centred(maps * image)
    noise = math.sqrt(float((np.abs(kspace) ** 2).sum()) * 10 ** (-decibels / 10) / (2 * kspace.size))
    white = rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)
    return Simulation(image.astype(np.complex64), maps, (kspace + noise * white).astype(np.complex64), noise)


def birdcage(coils: int, grid: tuple[int, ...]) -> np.ndarray:
    """Maps (coils, *grid) of coils around the object, Σ|S|² = 1, complex64."""
    return require("sigpy.mri", "Simulated coils", "mri").birdcage_maps((coils, *grid), r=1.5).astype(np.complex64)


@dataclass(frozen=True)
class Undersampled(Source):
    """What a scanner would have measured of another source's complex images: y = M F S x + n, the same in every epoch.

    A batch holds y (batch, 2 · coils, height, width), 0 where it was not sampled, as `given` the mask and the maps, and the
    noise. Its x is the zero-filled image Aᴴy: the clean one is not given, unless `truth` is set.

    Args:
        source: complex images, two channels each.
        sampling: which points of k-space are sampled.
        noise: standard deviation per real component of k-space; that of images, too, since the Fourier transform is orthonormal.
        coils: of a birdcage, Σ|S|² = 1; one coil has S = 1.
        vary: other masks for each example; with one and the same, what it leaves out is never learnt.
        truth: give the clean image as x, for `SupervisedGSURE`.
        seed: draws the noise; masks have a seed of their own.
    """

    source: Source
    sampling: Sampling = RandomLines()
    noise: float = 0.02
    coils: int = 1
    vary: bool = True
    truth: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.noise > 0 or self.coils < 1:
            raise InputError(f"Undersampled needs noise > 0 and coils >= 1, not {self.noise} and {self.coils}.")

    def files_read(self) -> list[Path]:
        return self.source.files_read()

    def load(self, split: Split) -> FieldDataset:
        return UndersampledFields(self, self.source.load(split), int(split == "valid"))


class UndersampledFields(FieldDataset):
    """The measurements of some images.

    Args:
        scan: how they are measured.
        fields: the images.
        split: a number of their split, so that training and validation have other noise and masks.
    """

    def __init__(self, scan: Undersampled, fields: FieldDataset, split: int) -> None:
        self.scan, self.fields, self.split = scan, fields, split
        self._maps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.fields)

    def gather(self, indices: Tensor) -> Batch:
        clean = self.fields.gather(indices).x
        if clean.shape[1] != 2 or clean.ndim != 4:
            raise InputError(f"Undersampled takes complex images, (2, height, width), not {tuple(clean.shape[1:])}.")
        image = torch.complex(clean[:, 0], clean[:, 1]).numpy()
        maps = self._sensitivities(image.shape[1:])
        kspace = centred(maps * image[:, None])
        white = self._draws(indices).randn((*kspace.shape, 2), like=clean).double().numpy()
        mask = np.stack([self._mask(index, image.shape[1:]) for index in indices.tolist()])
        kspace = np.where(mask[:, None], kspace + self.scan.noise * (white[..., 0] + 1j * white[..., 1]), 0)
        given = {"mask": torch.from_numpy(mask), "maps": as_tensor(maps).expand(len(mask), *maps.shape)}
        x = clean if self.scan.truth else to_channels(as_tensor(combine_by_maps(kspace, maps)[:, None]))
        noise = torch.full((len(mask),), self.scan.noise)
        return Batch(x, y=to_channels(as_tensor(kspace)), given=given, noise=noise)

    def _mask(self, index: int, grid: tuple[int, ...]) -> np.ndarray:
        return self.scan.sampling((grid[0], grid[1]), 2 * index + self.split if self.scan.vary else 0)

    def _draws(self, indices: Tensor) -> Generators:
        return Generators((self.scan.seed, self.split, index, Stream.UNDERSAMPLED) for index in indices.tolist())

    def _sensitivities(self, grid: tuple[int, ...]) -> np.ndarray:
        """The maps of a grid; those of the last one are kept."""
        found = self._maps
        if found is None or found.shape[1:] != grid:
            coils = self.scan.coils
            self._maps = found = np.ones((1, *grid), np.complex64) if coils == 1 else birdcage(coils, grid)
        return found
