"""Training data from files of k-space: `Combined`, fully sampled, as images; `Scanned`, as it was measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.source import Source, Split, check_split, hold_out
from scorefield.data.statistics import robust_maximum
from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import to_channels
from scorefield.mri.coils import Mixing, as_tensor, combine_by_images, combine_by_maps, strongest
from scorefield.mri.files import files_of, open_kspace
from scorefield.mri.kspace import EmptySliceError, KSpace, remove_oversampling, whole_readout
from scorefield.mri.layout_checks import check_axes, check_shift
from scorefield.mri.masks import WHOLE, Everything, Sampling, share_of
from scorefield.mri.noise import spread_slices, whitening_of

OPEN = 16  # files at most at once in a process: data sets have more than a system lets it have

Slice = TypeVar("Slice")


class ScanSlices(FieldDataset):
    """The slices of some files, to be read when they are gathered; each process opens the files for itself, a few at a time.

    Args:
        files: of k-space.
        skip: so many slices are left out at either end of each file.

    Attributes:
        shapes: (slices, coils, height, width) of each file.
        heights: of the images of each file, without readout oversampling where lines along it are whole.
        places: (file, slice) of each field.
    """

    def __init__(self, files: list[Path], skip: int) -> None:
        self.paths = files
        scans = map(self.scan, range(len(files)))
        found = [(_on_grid(scan).shape, scan.height(np.ones(scan.shape[2:], bool))) for scan in scans]
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
        raise InputError(f"All slices of {self.paths[file]} are zeros: leave it out.")

    def scan(self, file: int) -> KSpace:
        """A file by its number, opened."""
        return self._opened(self.paths[file])

    @cached_property
    def _opened(self) -> Callable[[Path], KSpace]:
        return lru_cache(OPEN)(open_kspace)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}  # open files go to no worker

    def __len__(self) -> int:
        return len(self.places)


def _on_grid(scan: KSpace) -> KSpace:
    """A scan, if it is on a grid."""
    if scan.trajectory is not None:
        raise InputError(
            f"{scan.layout}: a prior is learned of images, or of k-space on a grid. `reconstruct` takes this file."
        )
    return scan


@dataclass(frozen=True)
class Combined(Source):
    """Slices of files of fully sampled k-space as complex fields, real and imaginary part, each scaled by its 99th percentile.

    Coils are combined by their own smooth images, x = Σ_c s̄_c x_c/√Σ|s_c|² (McKenzie et al. 2002); the middle of the image of
    the size of `matrix` is kept, which leaves readout oversampling out. Files are read when a slice is wanted.

    Args:
        path: a folder of k-space (fastMRI, ISMRMRD, .npy, .npz, .mat, .cfl), or one file.
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
    """The slices of some files, combined when they are gathered: x (batch, 2, height, width), of robust maximum 1."""

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
                f"{self.paths[file]} is sampled to {100 * share:.0f} %: k-space that is masked already gives aliased "
                "images, of which no prior should be learned. Take fully sampled files, or learn from Scanned by GSURE."
            )
        image = combine_by_images(kspace, self.matrix)
        return to_channels(as_tensor(image / robust_maximum(image))[None, None])[0]


@dataclass(frozen=True)
class Scanned(Source):
    """Slices of files of k-space, y = M F S x + n, for losses that learn from measurements alone, such as `GSURE`.

    Noise of covariance C = L Lᴴ between the coils is made white, L⁻¹y taken for y and L⁻¹S for S, so that Aᴴy/σ² is AᴴC⁻¹y.
    Maps are those of the file, or estimated from the whitened calibration region, with Σ|S|² = 1 before whitening, so that x is
    what the coils see together. Readout oversampling is removed where the file says the height of the image, has no maps, and
    its lines are whole. All is divided by the 99th percentile of the foreground of Aᴴy/Σ|S|². A batch holds y (batch,
    2 · coils, height, width), 0 where nothing was sampled, `given` mask and maps, the noise of y, and x = Aᴴy/Σ|S|², known where
    any coil sees. Where all of k-space was sampled, the noise in x is 1/√Σ|S|² as strong as in y: white, as `SURE` wants it, of
    coils whose noise is independent and equally strong, or with `noise` given.

    Args:
        path: a folder of k-space (fastMRI, ISMRMRD, .npy, .npz, .mat, .cfl), or one file; all of one size, without oversampling.
        sampling: which of the points that were acquired are used; where all files have the same ones, let them vary.
        noise: standard deviation per real component in all coils; None to whiten it by the noise scan, or by k-space.
        coils: how many they are compressed to, where maps are estimated.
        cache: a folder in which estimated maps are kept; else they are estimated whenever a slice is gathered.
        skip: so many slices are left out at either end of each file.
        valid: how many files are held out (integer) or which fraction (float); of a single file, slices.
        seed: draws which ones.
    """

    path: Path
    sampling: Sampling = Everything()
    noise: float | None = None
    coils: int | None = None
    cache: Path | None = None
    skip: int = 0
    valid: int | float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.noise is not None and not self.noise > 0:
            raise InputError(f"The noise of Scanned is a standard deviation > 0, not {self.noise}.")

    def load(self, split: Split) -> FieldDataset:
        return of_split(self.path, lambda files: ScannedFields(self, files), self.valid, self.seed, split)


class ScannedFields(ScanSlices):
    """The slices of some files, prepared when they are gathered.

    Args:
        source: how.
        files: of k-space.
    """

    def __init__(self, source: Scanned, files: list[Path]) -> None:
        super().__init__(files, source.skip)
        self.source = source
        self.shapes = self._without_oversampling()
        first = self.shapes[0][1:]
        for file, shape in zip(files, self.shapes, strict=True):
            if shape[1:] != first:
                raise InputError(
                    f"{file} is {shape[1:]} (coils, height, width), and {files[0]} {first}: batches are of one size, so "
                    "give files of each size a folder of their own."
                )
        self._found: dict[int, tuple[np.ndarray, float]] = {}

    def _without_oversampling(self) -> list[tuple[int, int, int, int]]:
        """`shapes` of what is left. Whether lines are whole is seen in a slice of one file: the others are of the same make."""
        shorter = [file for file, height in enumerate(self.heights) if height < self.shapes[file][2]]
        for file, number in self.places:
            if file not in shorter[:1]:
                continue
            try:
                acquired = self.scan(file).slice(number)[1]
            except InputError:  # which is said when the slice is gathered
                continue
            if self.scan(file).height(acquired) == len(acquired):
                return self.shapes
            break
        return [(n, c, height, width) for (n, c, _, width), height in zip(self.shapes, self.heights, strict=True)]

    def gather(self, indices: Tensor) -> Batch:
        rows = [self._row(index) for index in indices.tolist()]
        kspace, mask, maps, noise = (np.stack(part) for part in zip(*rows, strict=True))
        x, y = (to_channels(as_tensor(z)) for z in (combine_by_maps(kspace, maps)[:, None], kspace))
        given = {"mask": torch.from_numpy(mask), "maps": torch.from_numpy(maps)}
        seen = torch.from_numpy(np.any(maps != 0, axis=1, keepdims=True))
        return Batch(x, y=y, mask=seen, given=given, noise=torch.from_numpy(noise))

    def _row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.float32]:
        """k-space (coils, height, width), mask, maps and noise of a slice, in units in which the maximum of Aᴴy/Σ|S|² is 1."""
        file, number = self.places[index]
        scan, source = self.scan(file), self.source
        number, (kspace, acquired) = self.nearest(file, number, self._slice)
        mask = acquired & source.sampling((kspace.shape[1], kspace.shape[2]), index)
        whitening, noise = self._whitening(file)
        mixing, kspace = Mixing.of(kspace, mask, whitening, source.coils)
        given = None if scan.maps is None or source.coils is not None else scan.maps(number)
        region = mixing.calibration(scan, number, len(mask), noise) or (kspace, mask)
        maps = mixing.maps(given, *region, noise, source.cache)
        largest = strongest(maps)
        kspace, maps, noise = np.where(mask, kspace / largest, 0), maps / largest, noise / largest
        scale = robust_maximum(combine_by_maps(kspace, maps))
        return (kspace / scale).astype(np.complex64), mask, maps.astype(np.complex64), np.float32(noise / scale)

    def _slice(self, file: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """k-space of a slice without oversampling, and where it was sampled."""
        scan, height = self.scan(file), self.shapes[file][2]
        kspace, acquired = scan.slice(number)
        if height < scan.height(acquired):
            raise InputError(
                f"Slice {number} of {scan.origin} is sampled in single points, where others are in whole lines, and readout "
                "oversampling is removed: give such files a folder of their own."
            )
        return remove_oversampling(kspace, acquired, height)

    def _noisy(self, file: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """k-space of a slice with the air that oversampling has at the ends of its lines, and where it was sampled."""
        kspace, mask = self._slice(file, number)
        return whole_readout(self.scan(file), number, mask) or (kspace, mask)

    def _whitening(self, file: int) -> tuple[np.ndarray, float]:
        """What makes the noise of a scan white, (coils, coils), and the standard deviation that it has then."""
        if file not in self._found:
            numbers = [number for which, number in self.places if which == file]
            slices = (self.nearest(file, numbers[place], self._noisy)[1] for place in spread_slices(len(numbers)))
            scan, noise = self.scan(file), self.source.noise
            self._found[file] = whitening_of(scan, slices, None if noise is None else noise / scan.unit)[:2]
        return self._found[file]


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
