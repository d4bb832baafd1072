"""Images to train on from fully sampled k-space: what all coils saw, as one complex image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import Fields, Subset
from scorefield.data.mri.kspace import KSpace, open_kspace
from scorefield.data.mri.scaling import fit_matrix, scale_of
from scorefield.data.mri.simulate import centred
from scorefield.data.source import Source, Split, check_split, hold_out
from scorefield.errors import AbsentDataError, InputError

KINDS = (".h5", ".hdf5", ".mrd", ".npy", ".cfl")
SMOOTH = 24  # frequencies of a coil's image that are taken for its sensitivity
WHOLE = 0.95  # of k-space: sampled less, its images are aliased


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

    def load(self, split: Split) -> Fields:
        check_split(split)
        files = files_of(self.path)
        if len(files) == 1:
            fields = CombinedFields(files, self.matrix, self.skip)
            return Subset(fields, hold_out(len(fields), self.valid, self.seed, split))
        chosen = hold_out(len(files), self.valid, self.seed, split).tolist()
        return CombinedFields([files[index] for index in chosen], self.matrix, self.skip)


def files_of(path: Path) -> list[Path]:
    """The files of k-space in a folder, by name, or the one that is given."""
    path = Path(path)
    if path.suffix in KINDS:
        return [path]
    if not path.is_dir():
        raise AbsentDataError(f"There is no folder {path} of k-space: correct data.path.")
    files = sorted(file for file in path.iterdir() if file.suffix in KINDS)
    if not files:
        raise AbsentDataError(f"{path} holds no k-space ({', '.join(KINDS)}): correct data.path.")
    return files


def places_of(scans: Sequence[KSpace], skip: int) -> list[tuple[int, int]]:
    """(scan, slice) of all slices but so many at either end of each scan."""
    places = [(index, number) for index, scan in enumerate(scans) for number in range(skip, len(scan) - skip)]
    if not places:
        raise InputError(f"skip={skip} leaves no slices of {scans[0].origin} and {len(scans) - 1} others: give less.")
    return places


class CombinedFields(Fields):
    """The slices of some files, combined when they are asked for."""

    def __init__(self, files: list[Path], matrix: tuple[int, int], skip: int) -> None:
        self.files, self.matrix = files, matrix
        self.places = places_of(self.scans, skip)
        self.dtype = "complex64"

    @cached_property
    def scans(self) -> list[KSpace]:
        return [open_kspace(file) for file in self.files]

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "scans"}  # open files go to no worker

    def __len__(self) -> int:
        return len(self.places)

    def gather(self, indices: Tensor) -> Batch:
        return Batch(torch.stack([self._field(index) for index in indices.tolist()]))

    def _field(self, index: int) -> Tensor:
        file, number = self.places[index]
        kspace, mask = self.scans[file].slice(number)
        if mask.mean() < WHOLE:
            raise InputError(
                f"{self.files[file]} is sampled to {100 * mask.mean():.0f} %: k-space that is masked already gives aliased "
                "images, of which no prior should be learned. Take fully sampled files, or learn from Scanned by GSURE."
            )
        image = fit_matrix(combine(kspace), self.matrix)
        image = (image / scale_of(image)).astype(np.complex64)
        return torch.view_as_real(torch.from_numpy(image)).movedim(-1, 0).contiguous()


def combine(kspace: np.ndarray) -> np.ndarray:
    """One complex image (height, width) of k-space (coils, height, width); a single coil's is its own."""
    images = centred(kspace, inverse=True)
    if len(kspace) == 1:
        return images[0]
    window = np.ones(())
    for size in kspace.shape[1:]:
        near = np.abs(np.arange(size) - size // 2) / (min(SMOOTH, size) / 2)
        window = np.multiply.outer(window, np.where(near < 1, 0.5 + 0.5 * np.cos(np.pi * np.minimum(near, 1)), 0))
    smooth = centred(kspace * window, inverse=True)
    strength = np.sqrt((np.abs(smooth) ** 2).sum(0))
    return (smooth.conj() * images).sum(0) / np.maximum(strength, 1e-6 * strength.max())
