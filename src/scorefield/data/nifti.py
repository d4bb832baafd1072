"""NIfTI volumes: magnitude and phase, in canonical orientation: axis 0 to the right, 1 anterior, 2 superior."""

from __future__ import annotations

import gzip
import logging
import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scorefield.data.statistics import foreground, robust_maximum
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.files import replacing
from scorefield.foundation.fourier import to_channels, to_complex
from scorefield.foundation.lazy import require

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

log = logging.getLogger("scorefield")

BROKEN = (OSError, EOFError, ValueError, zlib.error, gzip.BadGzipFile)  # what reading a file that is not whole raises
LEAST_FOREGROUND = 0.02  # of a slice: below that it is empty
LEVELS = tuple(2**bits - 1 for bits in range(8, 17))  # steps in the whole circle, of phase stored as whole numbers
# ranges that are the whole circle
CIRCLES = (*(2.0**bits for bits in range(8, 17)), 2000.0, 2000.0 * math.pi, 2 * math.pi, 360.0)
CLOSE = 0.02  # of a range: its ends are missed by so much where no pixel has the largest phase
OVERSHOOT = 0.05  # of the largest value, by which resampling leaves magnitudes below 0
LEAST_PHASE = 0.1  # radians, below which phase of an MR image would be none


def load_nifti(path: Path) -> Nifti1Image:
    """A NIfTI file in canonical orientation, its values not yet read."""
    nibabel = require("nibabel", "NIfTI files", "mri")
    if not path.is_file():
        raise AbsentDataError(f"There is no file {path}: correct the path.")
    try:
        return nibabel.as_closest_canonical(nibabel.load(path))
    except (nibabel.filebasedimages.ImageFileError, *BROKEN) as error:
        raise InputError(f"{path} cannot be read as NIfTI ({brief(error)}): is it complete?") from error


def read_nifti(path: Path) -> np.ndarray:
    """The values of a NIfTI file of 3 or 4 axes in canonical orientation, in the units of its header, float32 or complex64.

    Axes of length 1 after the third are left out.
    """
    image = load_nifti(path)
    stored = np.dtype(image.get_data_dtype())
    if stored.names is not None:
        raise InputError(
            f"{path} holds colours ({', '.join(stored.names)}), which are no measurement: give a grey volume."
        )
    try:
        whole = stored.kind == "c"
        values = np.asarray(image.dataobj).astype(np.complex64) if whole else image.get_fdata(dtype=np.float32)
    except BROKEN as error:
        raise InputError(f"{path} cannot be read as NIfTI ({brief(error)}): is it complete?") from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise InputError(f"{path} has shape {values.shape}: a volume has 3 axes, or 4 with echoes or repetitions.")
    if not np.isfinite(values).all():
        raise InputError(f"{path} holds NaN or infinite values: replace them by 0.")
    return values


def warn_of_another_place(path: Path, other: Path) -> None:
    """Warn where two files of the same shape are not of the same place in space, by more than half a pixel."""
    first, second = (np.asarray(load_nifti(each).affine) for each in (path, other))
    corners = np.array(
        [[*np.array(place) * (np.array(load_nifti(path).shape[:3]) - 1), 1] for place in np.ndindex(2, 2, 2)]
    )
    apart = float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())
    if apart > float(np.linalg.norm(first[:3, :3], axis=0).min()) / 2:
        log.warning(
            "%s lies up to %.3g mm beside %s, by their headers: taken for the same place, point by point",
            path,
            apart,
            other,
        )


def write_nifti(path: Path, values: np.ndarray, place: Path) -> None:
    """Write a volume (right, anterior, superior) as float32, .nii.gz, at the position in space of another file."""
    import nibabel

    at = load_nifti(place)
    at.header.set_data_dtype(np.float32)
    image = nibabel.Nifti1Image(values.astype(np.float32), at.affine, at.header)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def read_volumes(magnitude: Path, phase: Path | None = None) -> list[np.ndarray]:
    """The complex volumes (right, anterior, superior) of a NIfTI file of magnitude and, if there is one, a file of phase."""
    volume = read_nifti(magnitude)
    if volume.dtype.kind == "c":
        if phase is not None:
            raise InputError(f"{magnitude} is complex, its phase is part of it: leave out {phase}.")
        image = volume
    else:
        volume = _magnitude(volume, magnitude)
        angle = np.zeros_like(volume) if phase is None else radians(_real(read_nifti(phase), phase), phase)
        if angle.shape != volume.shape:
            raise InputError(
                f"{phase} is {angle.shape} and {magnitude} {volume.shape}: give magnitude and phase of the same scan."
            )
        if phase is not None:
            warn_of_another_place(phase, magnitude)
        image = (volume * np.exp(1j * angle)).astype(np.complex64)
    return list(np.moveaxis(image, -1, 0)) if image.ndim == 4 else [image]


def _real(values: np.ndarray, path: Path) -> np.ndarray:
    """Values that are not complex."""
    if values.dtype.kind == "c":
        raise InputError(f"{path} is complex: give its magnitude alone, or complex images without a file of phase.")
    return values


def _magnitude(values: np.ndarray, path: Path) -> np.ndarray:
    """Values of at least 0: where resampling left some a little below, these become 0."""
    low, high = float(values.min()), float(values.max())
    if low < -OVERSHOOT * high:
        raise InputError(
            f"{path} goes from {low:g} to {high:g}: it is no magnitude. Are magnitude and phase exchanged?"
        )
    if low < 0:
        log.warning("%s goes down to %g, as resampling leaves it: taken for 0", path, low)
    return np.maximum(values, 0)


def filled(slices: np.ndarray) -> list[int]:
    """The numbers of the slices (slices, height, width) that hold more than a little foreground."""
    return [n for n, image in enumerate(slices) if np.any(image) and foreground(image).mean() > LEAST_FOREGROUND]


@dataclass(frozen=True, eq=False)
class Volume:
    """Axial slices of a volume, each divided by its robust maximum; slices that are all but empty stay as they are.

    Attributes:
        fields: (slices, channels, right, anterior), dimensionless; real and imaginary part where there are two channels.
        scale: of each of them, (slices), in the units of the file.
        numbers: their positions in the volume.
        values: the volume, (right, anterior, superior), complex where its phase is known, in the units of the file.
        origin: its file, from which the result gets its position in space.
    """

    fields: Tensor
    scale: Tensor
    numbers: Sequence[int]
    values: np.ndarray
    origin: Path

    @classmethod
    def read(cls, magnitude: Path, phase: Path | None, channels: int) -> Volume:
        """The slices of a NIfTI file as fields of 1 channel, or with a file of phase of 2.

        Raises:
            InputError: magnitude alone for a model of complex images, the reverse, or a volume of more than three axes.
        """
        whole = phase is not None or np.dtype(load_nifti(magnitude).get_data_dtype()).kind == "c"
        if channels != (2 if whole else 1):
            have = "magnitude and phase" if whole else "magnitude alone"
            need = f"{channels} channels: give its magnitude alone" if whole else "complex images: give --phases"
            raise InputError(f"{magnitude} is {have}, and the model is of {need}.")
        volumes = [_real(read_nifti(magnitude), magnitude)] if channels == 1 else read_volumes(magnitude, phase)
        if len(volumes) != 1 or volumes[0].ndim != 3:
            raise InputError(f"{magnitude} holds several volumes: denoise them one by one.")
        slices = np.moveaxis(volumes[0], 2, 0)
        numbers = filled(slices)
        if not numbers:
            raise InputError(f"{magnitude} has no slices that hold anything.")
        phased = channels == 2
        scale = np.array([robust_maximum(slices[n]) for n in numbers], dtype=np.float32)
        scaled = torch.from_numpy(np.ascontiguousarray(slices[numbers] / scale[:, None, None]))[:, None]
        fields = to_channels(scaled).contiguous() if phased else scaled
        return cls(fields, torch.from_numpy(scale), numbers, volumes[0], magnitude)

    def map_of(self, path: Path) -> Tensor:
        """The noise of every point of the fields, (slices, 1, *grid), from a volume in the units of the file."""
        found = _real(read_nifti(path), path)
        if found.shape != self.values.shape or not (found > 0).all():
            raise InputError(
                f"{path} is {found.shape} from {found.min():.3g} to {found.max():.3g}: give a standard deviation > 0 for every "
                f"point of {self.origin}, {self.values.shape}."
            )
        warn_of_another_place(path, self.origin)
        slices = torch.from_numpy(np.ascontiguousarray(np.moveaxis(found, 2, 0)[list(self.numbers)]))[:, None]
        return slices / self.scale.reshape(-1, 1, 1, 1)

    def write(self, stem: Path, x: Tensor) -> list[Path]:
        """Write fields (slices, channels, *grid) in the file's units, NAME.nii.gz, and a phase in radians, NAME-phase.nii.gz."""
        found = x * self.scale.reshape(-1, 1, 1, 1)
        phased, result = x.shape[1] == 2, self.values.copy()
        result[..., list(self.numbers)] = np.moveaxis((to_complex(found) if phased else found)[:, 0].numpy(), 0, 2)
        parts = {"": np.abs(result), "-phase": np.angle(result)} if phased else {"": result}
        written = {stem.with_name(f"{stem.name}{name}.nii.gz"): values for name, values in parts.items()}
        for path, values in written.items():
            write_nifti(path, values, self.origin)
        return list(written)


def radians(phase: np.ndarray, path: Path) -> np.ndarray:
    """Phase in radians, in (−π, π]: unchanged within ±π, unless it has the 2ⁿ levels of stored whole numbers; else by its range.

    Siemens stores 0..4095 or −4096..4094, GE thousandths of radians, Philips radians; converters multiply by a slope, or drop it.
    Warns where the range is none that is known to be 2π.

    Args:
        phase: of any shape, in the unit of the file.
        path: the file, named in messages.

    Raises:
        InputError: a range with which none of this goes: phase that was unwrapped, a few whole numbers, or no phase at all.
    """
    low, high = float(phase.min()), float(phase.max())
    if high == low:
        raise InputError(f"{path} is constant: it holds no phase.")
    span, largest = high - low, max(-low, high)
    for levels in LEVELS:
        if _has_levels(phase, low, span, levels):
            return _rescaled(phase, low, span * (1 + 1 / levels))
    whole = bool((phase == np.round(phase)).all())
    if largest <= math.pi * 1.01 and not whole and largest >= LEAST_PHASE:
        if abs(largest - 1) < CLOSE:
            warnings.warn(
                f"{path} goes from {low:g} to {high:g}, taken for radians: multiply half turns by π.", stacklevel=2
            )
        return phase
    lopsided = abs(high + low) > 2 * CLOSE * span and abs(low) > CLOSE * span
    if lopsided or largest < LEAST_PHASE or (whole and span < LEVELS[0]):
        raise InputError(
            f"{path} goes from {low:g} to {high:g}, neither in radians nor from −a to a or from 0 to a: is it wrapped phase? "
            "Give it in radians, as decimal numbers."
        )
    if not any(abs(span / circle - 1) < CLOSE for circle in CIRCLES):
        warnings.warn(f"{path} goes from {low:g} to {high:g}, taken for 2π: if it is not, give radians.", stacklevel=2)
    return _rescaled(phase, low, span)


def _has_levels(phase: np.ndarray, low: float, span: float, levels: int) -> bool:
    """Whether phase is 2ⁿ evenly spaced values from −a to a, or from 0 to a; of the two ends one may be missing."""
    if abs(2 * low + span) > 2.5 * span / levels and low != 0:
        return False
    places = (phase.astype(np.float64) - low) * (levels / span)
    return bool((np.abs(places - np.round(places)) < 0.01).all())


def _rescaled(phase: np.ndarray, low: float, circle: float) -> np.ndarray:
    """Phase from −a to a, or from 0 to a, in radians from −π to π."""
    return (phase * (2 * math.pi / circle) - (math.pi if low >= 0 else 0)).astype(np.float32)
