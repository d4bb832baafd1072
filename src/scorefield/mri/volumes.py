"""Slices of MR volumes in NIfTI files, as complex images: magnitude, with its phase where there is one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.data.source import Source, Split, check_split
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.mri.phase import radians
from scorefield.mri.scaling import fit_matrix, foreground, scale_of

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

ALIKE = 1e-3
BROKEN = (OSError, EOFError, ValueError, zlib.error, gzip.BadGzipFile)  # what reading a file that is not whole raises
TWICE = (
    "The 99th percentile of every slice is 1 already: the volumes were scaled slice by slice before, and what the slices had in "
    "common, such as their noise, no longer is. Take the volumes as they were."
)
LEAST_FOREGROUND = 0.02  # of a slice: below that it is empty


@dataclass(frozen=True)
class Volumes(Source):
    """Slices of NIfTI volumes as complex fields: channel 0 is the real part, channel 1 the imaginary part.

    Each slice is divided by the 99th percentile of its foreground (see `scorefield.mri.scaling`), and cut or filled up with
    zeros to one size. Volumes are brought to the nearest canonical orientation first: axis 0 right, 1 anterior, 2 superior.
    A fourth axis (echoes, repetitions) gives as many volumes. Slices that are all but empty are left out.

    Args:
        paths: files of magnitude.
        phases: a file of phase for each of them, or none: the phase is 0. In radians, or whatever the circle is stored as.
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
        slices = [image for volume in self._volumes() for image in self._slices(volume, split)]
        if not slices:
            raise InputError(f"valid={self.valid} leaves no {split} slices that hold anything: give others.")
        largest = tuple(max(image.shape[axis] for image in slices) for axis in (0, 1))
        matrix = tuple(size or most for size, most in zip(self.matrix, largest, strict=True))
        scales = np.array([scale_of(image) for image in slices])
        scaled = [fit_matrix(image / scale, matrix) for image, scale in zip(slices, scales, strict=True)]
        fields = ArrayFields(np.stack(scaled).astype(np.complex64), "none", origin=f"the slices of {self.paths[0]}")
        if len(scales) > 1 and np.abs(scales - 1).max() < ALIKE:
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
            yield from read_volumes(Path(path), None if phase is None else Path(phase))

    def _slices(self, volume: np.ndarray, split: Split) -> Iterator[np.ndarray]:
        first, last = self.valid
        slab = self.axes[0]
        if split == "valid":
            yield from filled(np.moveaxis(volume, slab, 0)[first:last])
            return
        rest = volume.copy()
        np.moveaxis(rest, slab, 0)[first:last] = 0
        for axis in self.axes:
            yield from filled(np.moveaxis(rest, axis, 0))


def read_volumes(magnitude: Path, phase: Path | None = None) -> list[np.ndarray]:
    """The complex volumes (right, anterior, superior) of a NIfTI file of magnitude and, if there is one, a file of phase."""
    volume = read_nifti(magnitude)
    if float(volume.min()) < 0:
        raise InputError(f"{magnitude} holds values below 0: it is no magnitude. Are magnitude and phase exchanged?")
    angle = np.zeros_like(volume) if phase is None else radians(read_nifti(phase), phase)
    if angle.shape != volume.shape:
        raise InputError(
            f"{phase} is {angle.shape} and {magnitude} {volume.shape}: give magnitude and phase of the same scan."
        )
    image = (volume * np.exp(1j * angle)).astype(np.complex64)
    return list(np.moveaxis(image, -1, 0)) if image.ndim == 4 else [image]


def load_nifti(path: Path) -> Nifti1Image:
    """A NIfTI file in canonical orientation, its values not yet read."""
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
    except ImportError as error:
        raise InputError("NIfTI files need nibabel: pip install 'scorefield[mri]'.") from error
    if not path.is_file():
        raise AbsentDataError(f"There is no file {path}: correct the path.")
    try:
        return nibabel.as_closest_canonical(nibabel.load(path))
    except (ImageFileError, *BROKEN) as error:
        raise InputError(f"{path} cannot be read as NIfTI ({brief(error)}): is it complete?") from error


def read_nifti(path: Path) -> np.ndarray:
    """The values of a NIfTI file of 3 or 4 axes in canonical orientation, in the units that its header says, float32."""
    image = load_nifti(path)
    try:
        values = image.get_fdata(dtype=np.float32)
    except BROKEN as error:
        raise InputError(f"{path} cannot be read as NIfTI ({brief(error)}): is it complete?") from error
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise InputError(f"{path} has shape {values.shape}: a volume has 3 axes, or 4 with echoes or repetitions.")
    if not np.isfinite(values).all():
        raise InputError(f"{path} holds NaN or infinite values: replace them by 0.")
    return values


def filled(slices: Sequence[np.ndarray] | np.ndarray) -> Iterator[np.ndarray]:
    """The slices that hold more than a little foreground."""
    for image in slices:
        if np.any(image) and foreground(image).mean() > LEAST_FOREGROUND:
            yield image
