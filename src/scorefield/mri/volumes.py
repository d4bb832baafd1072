"""Slices of MR volumes in NIfTI files or DICOM series, as complex images: magnitude, with its phase where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.data.nifti import filled, read_volumes
from scorefield.data.source import Source, Split, check_split
from scorefield.data.statistics import robust_maximum
from scorefield.foundation.errors import InputError, NothingHeldOutError
from scorefield.foundation.fourier import fit_matrix
from scorefield.mri.dicom import canonical, is_dicom

SCALED = 1e-3  # of 1: if the robust maximum of every slice is as near, the slices were scaled before
TWICE = (
    "The 99th percentile of every slice is 1 already: the volumes were scaled slice by slice before, and what the slices had in "
    "common, such as their noise, no longer is. Take the volumes as they were."
)


@dataclass(frozen=True)
class Volumes(Source):
    """Slices of volumes as complex fields: channel 0 is the real part, channel 1 the imaginary part.

    Each slice is divided by the 99th percentile of its foreground (see `robust_maximum`), and cut or filled up with
    zeros to one size. Volumes are brought to the nearest canonical orientation first: axis 0 right, 1 anterior, 2 superior.
    A fourth axis (echoes, repetitions) gives as many volumes. Slices that are all but empty are left out.

    Args:
        paths: NIfTI files of magnitude; or folders of a DICOM series each, or of two that are parts of complex images.
        phases: a file of phase for each of them, or none: the phase is 0. In radians, or in any unit that `radians` knows.
        axes: the axes that are cut across: 2 gives axial slices, 1 coronal, 0 sagittal ones.
        matrix: (height, width) of the fields; 0 for as many as the largest slice has.
        valid: the validation split: positions first to last − 1 along the first of `axes`, in voxels. They are kept out of the
            training slices of every orientation, in which they are blanked.
    """

    paths: list[Path]
    phases: list[Path] | None = None
    axes: tuple[int, ...] = (2,)
    matrix: tuple[int, int] = (0, 0)
    valid: tuple[int, int] = (0, 0)

    def load(self, split: Split) -> FieldDataset:
        check_split(split)
        self._check()
        if split == "valid" and self.valid[0] == self.valid[1]:
            raise NothingHeldOutError(
                f"valid={list(self.valid)} holds out no slices: give the first and the one after the last."
            )
        slices = [image for volume in self._volumes() for image in self._slices(volume, split)]
        if not slices and self.valid[0] == self.valid[1]:
            raise InputError(f"{self.paths[0]} holds no slice that is not all but empty: give other paths.")
        if not slices:
            raise InputError(f"valid={self.valid} leaves no {split} slices that hold anything: give others.")
        largest = tuple(max(image.shape[axis] for image in slices) for axis in (0, 1))
        matrix = tuple(size or most for size, most in zip(self.matrix, largest, strict=True))
        scales = np.array([robust_maximum(image) for image in slices])
        scaled = [fit_matrix(image / scale, matrix) for image, scale in zip(slices, scales, strict=True)]
        fields = ArrayFields(np.stack(scaled).astype(np.complex64), "none", origin=f"the slices of {self.paths[0]}")
        if len(scales) > 1 and np.abs(scales - 1).max() < SCALED:
            fields.notes = (TWICE,)
        return fields

    def _check(self) -> None:
        if not self.paths:
            raise InputError("Volumes needs the paths of NIfTI files.")
        if self.phases is not None and len(self.phases) != len(self.paths):
            raise InputError(
                f"There are {len(self.paths)} files of magnitude and {len(self.phases)} of phase: give pairs."
            )
        if not self.axes or not set(self.axes) <= {0, 1, 2}:
            raise InputError(f"axes is {self.axes}: give 0, 1 or 2, or several of them.")
        if not 0 <= self.valid[0] <= self.valid[1]:
            raise InputError(f"valid is {self.valid}: give the first position and the one after the last.")

    def _volumes(self) -> Iterator[np.ndarray]:
        phases = self.phases or [None] * len(self.paths)
        for path, phase in zip(self.paths, phases, strict=True):
            if not is_dicom(Path(path)):
                yield from read_volumes(Path(path), None if phase is None else Path(phase))
            elif phase is None:
                yield from canonical(Path(path))
            else:
                raise InputError(
                    f"{path} is a series of DICOM: put its phase, {phase}, into the same folder, without phases."
                )

    def _slices(self, volume: np.ndarray, split: Split) -> Iterator[np.ndarray]:
        first, last = self.valid
        slab = self.axes[0]
        if split == "valid":
            held_out = np.moveaxis(volume, slab, 0)[first:last]
            yield from (held_out[n] for n in filled(held_out))
            return
        rest = volume.copy()
        np.moveaxis(rest, slab, 0)[first:last] = 0
        for axis in self.axes:
            slices = np.moveaxis(rest, axis, 0)
            yield from (slices[n] for n in filled(slices))
