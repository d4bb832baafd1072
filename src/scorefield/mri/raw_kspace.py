"""Measured k-space to learn from as it is, undersampled and noisy: with what was sampled, what the coils see, and the noise."""

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
from scorefield.mri.maps import estimate_maps
from scorefield.mri.masks import Everything, Sampling
from scorefield.mri.noise import spread_over, whitening_of
from scorefield.mri.prepare import Mixing, normalised, remove_oversampling, strongest
from scorefield.mri.scaling import scale_of
from scorefield.mri.simulate import centred
from scorefield.mri.slices import ScanSlices, of_split
from scorefield.mri.undersampled import as_channels


@dataclass(frozen=True)
class Scanned(Source):
    """Slices of files of k-space, y = M F S x + n, for losses that learn from measurements alone, such as `GSURE`.

    Noise of covariance C = L Lᴴ between the coils is made white, L⁻¹y taken for y and L⁻¹S for S, so that Aᴴy/σ² is AᴴC⁻¹y.
    Maps are those of the file, or estimated from the whitened calibration region, with Σ|S|² = 1 before whitening, so that x is
    what the coils see together. Readout oversampling is removed where the file tells the height of the image, has no maps, and
    its lines are whole. All is divided by the 99th percentile of the foreground of Aᴴy. A batch holds y (batch,
    2 · coils, height, width), 0 where nothing was sampled, `given` mask and maps, the noise of y, and x = Aᴴy, known where any
    coil sees. Where all of k-space was sampled, the noise in x is √Σ|S|² as strong as in y: white, as `SURE` wants it, of coils
    whose noise is independent and alike, or with `noise` given.

    Args:
        path: a folder of k-space (fastMRI, ISMRMRD, .npy, .cfl), or one file; all of one size, without oversampling.
        sampling: which of the points that were acquired are used; where all files have the same ones, let them vary.
        noise: standard deviation per real component in all coils; None to whiten it by the noise scan, or by k-space.
        coils: how many they are compressed to, where maps are estimated.
        cache: a folder in which estimated maps are kept; else they are estimated whenever a slice is asked for.
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
    """The slices of some files, prepared when they are asked for.

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
        """`shapes` of what is left. Whether lines are whole, a slice of one file tells: the others are of the same make."""
        shorter = [file for file, height in enumerate(self.heights) if height < self.shapes[file][2]]
        for file, number in self.places:
            if file not in shorter[:1]:
                continue
            try:
                acquired = self.scan(file).slice(number)[1]
            except InputError:  # which is said when the slice is asked for
                continue
            if self.scan(file).height(acquired) == len(acquired):
                return self.shapes
            break
        return [(n, c, height, width) for (n, c, _, width), height in zip(self.shapes, self.heights, strict=True)]

    def gather(self, indices: Tensor) -> Batch:
        rows = [self._row(index) for index in indices.tolist()]
        kspace, mask, maps, noise = (np.stack(part) for part in zip(*rows, strict=True))
        filled = (maps.conj() * centred(kspace, inverse=True)).sum(1, keepdims=True)
        given = {"mask": torch.from_numpy(mask), "maps": torch.from_numpy(maps)}
        seen = torch.from_numpy(np.any(maps != 0, axis=1, keepdims=True))
        return Batch(as_channels(filled), y=as_channels(kspace), mask=seen, given=given, noise=torch.from_numpy(noise))

    def _row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.float32]:
        """k-space, mask, maps and noise of a slice, in units in which its image is about 1."""
        file, number = self.places[index]
        scan, source = self.scan(file), self.source
        number, (kspace, acquired) = self.nearest(file, number, self._slice)
        mask = acquired & source.sampling((kspace.shape[1], kspace.shape[2]), index)
        whitening, noise = self._whitening(file)
        mixing = Mixing.by(whitening)
        kspace = np.where(mask, mixing(kspace), 0)
        if source.coils is not None:
            mixing, kspace = mixing.compressed(kspace, source.coils)
        if scan.maps is None or source.coils is not None:
            maps = mixing.rescaled(estimate_maps(kspace, mask, noise=noise, cache=source.cache))
        else:
            maps = mixing(normalised(scan.maps(number)))
        largest = strongest(maps)
        kspace, maps, noise = kspace / largest, maps / largest, noise / largest
        scale = scale_of((maps.conj() * centred(kspace, inverse=True)).sum(0))
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

    def _whitening(self, file: int) -> tuple[np.ndarray, float]:
        """What makes the noise of a scan white, (coils, coils), and the standard deviation that it has then."""
        scan = self.scan(file)
        if self.source.noise is not None:
            return np.eye(scan.shape[1]), self.source.noise
        if file not in self._found:
            numbers = [number for which, number in self.places if which == file]
            slices = (self.nearest(file, numbers[place], self._slice)[1] for place in spread_over(len(numbers)))
            self._found[file] = whitening_of(scan.noise_scan, slices)[:2]
        return self._found[file]
