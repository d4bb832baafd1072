"""Images to train on from fully sampled k-space: what all coils saw, as one complex image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split
from scorefield.foundation.errors import InputError
from scorefield.mri.partial_fourier import WHOLE, share_of
from scorefield.mri.scaling import fit_matrix, scale_of
from scorefield.mri.simulate import centred
from scorefield.mri.slices import ScanSlices, of_split

SMOOTH = 24  # frequencies of a coil's image that are taken for its sensitivity


@dataclass(frozen=True)
class Combined(Source):
    """Slices of files of fully sampled k-space as complex fields, real and imaginary part, each scaled by its 99th percentile.

    Coils are combined by their own smooth images, x = Σ_c s̄_c x_c/√Σ|s_c|² (McKenzie et al. 2002); the middle of the image of
    the size of `matrix` is kept, which leaves readout oversampling out. Files are read when a slice is asked for.

    Args:
        path: a folder of k-space (fastMRI, ISMRMRD, .npy, .cfl), or one file.
        matrix: (height, width) of the fields: images are cut or filled up with zeros.
        skip: so many slices are left out at either end of each file, where there is little to see.
        valid: how many files are held out (integer) or which fraction (float); of a single file, slices.
        seed: draws which ones.
    """

    path: Path
    matrix: tuple[int, int] = (384, 384)
    skip: int = 0
    valid: int | float = 0.1
    seed: int = 0

    def load(self, split: Split) -> FieldDataset:
        return of_split(
            self.path, lambda files: CombinedFields(files, self.matrix, self.skip), self.valid, self.seed, split
        )


class CombinedFields(ScanSlices):
    """The slices of some files, combined when they are asked for."""

    def __init__(self, files: list[Path], matrix: tuple[int, int], skip: int) -> None:
        super().__init__(files, skip)
        self.matrix = matrix

    def gather(self, indices: Tensor) -> Batch:
        return Batch(torch.stack([self._field(index) for index in indices.tolist()]))

    def _field(self, index: int) -> Tensor:
        file, number = self.places[index]
        _, (kspace, mask) = self.nearest(file, number, lambda file, number: self.scan(file).slice(number))
        if (share := share_of(mask)) < WHOLE:
            raise InputError(
                f"{self.files[file]} is sampled to {100 * share:.0f} %: k-space that is masked already gives aliased "
                "images, of which no prior should be learned. Take fully sampled files, or learn from Scanned by GSURE."
            )
        image = combine(kspace, self.matrix)
        image = (image / scale_of(image)).astype(np.complex64)
        return torch.view_as_real(torch.from_numpy(image)).movedim(-1, 0).contiguous()


def combine(kspace: np.ndarray, matrix: tuple[int, int] | None = None) -> np.ndarray:
    """One complex image (height, width) of k-space (coils, height, width), complex64; a single coil's is its own.

    Args:
        kspace: of a slice.
        matrix: the middle of the image that is wanted; the rest of the readout is left out before the second transform.
    """
    size = tuple(min(sizes) for sizes in zip(matrix or kspace.shape[1:], kspace.shape[1:], strict=True))
    images = np.asarray(kspace, dtype=np.complex64)
    for axis, points in zip((-2, -1), size, strict=True):
        images = _middle(centred(images, inverse=True, axes=(axis,)), axis, points)
    if len(kspace) > 1:
        smooth = _smooth(kspace, size)
        strength = np.sqrt(np.einsum("cyx,cyx->yx", smooth, smooth.conj(), optimize=False).real)
        images = np.einsum("cyx,cyx->yx", smooth.conj(), images) / np.maximum(strength, 1e-6 * strength.max())
    else:
        images = images[0]
    return images if matrix is None else fit_matrix(images, matrix)


def _smooth(kspace: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The coils' images of the lowest frequencies under a Hann window, of the middle points of the image."""
    low, waves = kspace, []
    for axis, points in zip((-2, -1), size, strict=True):
        whole = kspace.shape[axis]
        count = min(SMOOTH, whole)
        places = np.arange(count) - count // 2
        window = 0.5 + 0.5 * np.cos(2 * np.pi * places / count)
        along = np.arange(points) - points // 2
        wave = np.exp(2j * np.pi / whole * np.outer(along, places)) * (window / np.sqrt(whole))
        waves.append(wave.astype(np.complex64))
        low = _middle(low, axis, count)
    return waves[0] @ low.astype(np.complex64) @ waves[1].T


def _middle(values: np.ndarray, axis: int, points: int) -> np.ndarray:
    first = values.shape[axis] // 2 - points // 2
    return np.take(values, range(first, first + points), axis) if points < values.shape[axis] else values
