"""Slices of files of k-space: which files and slices there are, and which are held out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.source import Split, check_split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError
from scorefield.mri.kspace import EmptySliceError, KSpace, open_kspace
from scorefield.mri.layout_checks import check_axes, check_shift

OPEN = 16  # files at most at once in a process: data sets have more than a system lets it have
KINDS = (".h5", ".hdf5", ".mrd", ".npy", ".cfl")

Slice = TypeVar("Slice")


class ScanSlices(FieldDataset):
    """The slices of some files, to be read when they are asked for; each process opens the files for itself, a few at a time.

    Args:
        files: of k-space.
        skip: so many slices are left out at either end of each file.

    Attributes:
        shapes: (slices, coils, height, width) of each file.
        heights: of the images of each file, without readout oversampling where lines along it are whole.
        places: (file, slice) of each field.
    """

    def __init__(self, files: list[Path], skip: int) -> None:
        self.files = files
        scans = map(self.scan, range(len(files)))
        found = [(scan.shape, scan.height(np.ones(scan.shape[2:], bool))) for scan in scans]
        self.shapes, self.heights = [shape for shape, _ in found], [height for _, height in found]
        self.places = [
            (file, number) for file, shape in enumerate(self.shapes) for number in range(skip, shape[0] - skip)
        ]
        if not self.places:
            raise InputError(f"skip={skip} leaves no slices of {files[0]} and {len(files) - 1} others: give less.")
        self.dtype = "complex64"
        for note in (check_axes(self.scan(0)), check_shift(self.scan(0))):  # the others are of the same make
            if note:
                warnings.warn(note, stacklevel=2)

    def nearest(self, file: int, number: int, read: Callable[[int, int], Slice]) -> tuple[int, Slice]:
        """What `read` gives of a slice of a file, and its number; in place of a slice of zeros, the nearest that holds anything.

        Files are filled up with slices of zeros; training is not to end where one of them is drawn.
        """
        for other in sorted(range(self.shapes[file][0]), key=lambda n: abs(n - number)):
            try:
                return other, read(file, other)
            except EmptySliceError:
                continue
        raise InputError(f"All slices of {self.files[file]} are zeros: leave it out.")

    def scan(self, file: int) -> KSpace:
        """A file by its number, opened."""
        return self._opened(self.files[file])

    @cached_property
    def _opened(self) -> Callable[[Path], KSpace]:
        return lru_cache(OPEN)(open_kspace)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}  # open files go to no worker

    def __len__(self) -> int:
        return len(self.places)


def of_split(
    path: Path, make: Callable[[list[Path]], FieldDataset], valid: int | float, seed: int, split: Split
) -> FieldDataset:
    """The slices of a split.

    Args:
        path: a folder of k-space, or one file.
        make: the slices of some files.
        valid: how many files are held out (integer) or which fraction (float); of a single file, slices.
        seed: draws which ones.
        split: which.
    """
    check_split(split)
    files = files_of(path)
    if len(files) == 1:
        fields = make(files)
        return Subset(fields, hold_out(len(fields), valid, seed, split))
    return make([files[index] for index in hold_out(len(files), valid, seed, split).tolist()])


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
