"""Images of which k-space alone is known, and that in part and with noise; other points of it for each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.mri.masks import RandomLines, Sampling, import_sigpy
from scorefield.mri.simulate import centred


@dataclass(frozen=True)
class Undersampled(Source):
    """What a scanner would have measured of another source's complex images: y = M F S x + n, the same at every sight.

    A batch holds y (batch, 2 · coils, height, width), 0 where it was not sampled, as `given` the mask and the maps, and the
    noise. Its x is the zero-filled image Aᴴy: the clean one stays unseen by who learns, unless `truth` is asked for.

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
        filled = (maps.conj() * centred(kspace, inverse=True)).sum(1)
        given = {
            "mask": torch.from_numpy(mask),
            "maps": torch.from_numpy(maps.astype(np.complex64)).expand(len(mask), *maps.shape),
        }
        x = clean if self.scan.truth else as_channels(filled[:, None])
        return Batch(x, y=as_channels(kspace), given=given, noise=torch.full((len(mask),), self.scan.noise))

    def _mask(self, index: int, grid: tuple[int, ...]) -> np.ndarray:
        return self.scan.sampling((grid[0], grid[1]), 2 * index + self.split if self.scan.vary else 0)

    def _draws(self, indices: Tensor) -> Generators:
        return Generators((self.scan.seed, self.split, index, Stream.UNDERSAMPLED) for index in indices.tolist())

    def _sensitivities(self, grid: tuple[int, ...]) -> np.ndarray:
        """The maps of a grid; those of the last one are kept."""
        found = self._maps
        if found is None or found.shape[1:] != grid:
            coils = self.scan.coils
            flat = np.ones((1, *grid), np.complex64)
            found = flat if coils == 1 else import_sigpy("Simulated coils").mri.birdcage_maps((coils, *grid), r=1.5)
            self._maps = found
        return found


def as_channels(z: np.ndarray) -> Tensor:
    """Complex (batch, channels, *grid) as pairs of real channels."""
    pairs = np.stack((np.real(z), np.imag(z)), axis=2)
    return torch.from_numpy(pairs.reshape(len(z), -1, *z.shape[2:]).astype(np.float32))
