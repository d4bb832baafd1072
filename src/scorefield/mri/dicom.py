"""DICOM series as volumes: a folder of slices, or a multi-frame file, put in order by their positions in the patient.

Affines map indices (row, column, slice) to millimetres. DICOM counts to the left, posterior and superior; here as in NIfTI to the
right, anterior and superior.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.data.nifti import OVERSHOOT, radians
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.lazy import require

log = logging.getLogger("scorefield")

ENDINGS = (".dcm", ".ima", ".dicom")
KINDS = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary"}
NAMES = {"MAGNITUDE": "M", "PHASE": "P", "PHASE MAP": "P", "REAL": "R", "IMAGINARY": "I"} | {
    kind: kind for kind in KINDS
}
GE_KIND = (0x0043, 0x102F)  # 0 to 3: magnitude, phase, real, imaginary
PARALLEL = 1e-3  # by which direction cosines of the slices of a volume may differ
EVEN = 0.05  # of the distance of slices, by which it may vary
PAIRS = ({"M", "P"}, {"R", "I"})


def is_dicom(path: Path) -> bool:
    """Whether a path is a folder, or a file with an ending of DICOM."""
    return path.is_dir() or path.suffix.lower() in ENDINGS


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a file.

    Attributes:
        file: its path.
        number: of the frame in the file.
        series: the UID of the series, and what it is called.
        kind: M, P, R or I.
        position: of its first pixel, in mm, left, posterior, superior.
        axes: directions along a column and along a row, (2, 3).
        spacing: of rows and columns in mm, and thickness.
        scale: slope and intercept.
        order: what comes first at the same position.
    """

    file: Path
    number: int
    series: tuple[str, str]
    kind: str
    position: np.ndarray
    axes: np.ndarray
    spacing: tuple[float, float, float]
    scale: tuple[float, float]
    order: tuple[float, ...]

    @property
    def along(self) -> float:
        """Its place along the normal of the slices."""
        return float(self.position @ np.cross(self.axes[1], self.axes[0]))


def read_dicom(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """The volumes (row, column, slice) of a series, float32, or complex64 where phase or both parts are there, and their affine.

    Several images at each position (echoes, repetitions) are as many volumes.

    Raises:
        InputError: no series or several, colours, secondary captures, slices that are missing, or compression that nothing here
            decodes.
    """
    frames = _frames(path)
    kinds = {frame.kind for frame in frames}
    if len(kinds) > 1 and kinds not in PAIRS:
        held = " and ".join(KINDS[kind] for kind in sorted(kinds))
        raise InputError(
            f"{path} holds {held}: give magnitude and phase, real and imaginary part, or one of these alone."
        )
    parts = {kind: _stack([frame for frame in frames if frame.kind == kind], path) for kind in sorted(kinds)}
    affines = [affine for _, affine in parts.values()]
    shapes = {tuple(np.shape(volumes)) for volumes, _ in parts.values()}
    if len(shapes) > 1 or not all(np.allclose(affine, affines[0], atol=1e-2) for affine in affines):
        raise InputError(
            f"{path} holds parts of complex images that are not of the same slices: give one of them alone."
        )
    return _joined({kind: volumes for kind, (volumes, _) in parts.items()}, path), affines[0]


def canonical(path: Path) -> list[np.ndarray]:
    """The volumes of a series with axes to the right, anterior and superior, complex64; the phase is 0 where there is none."""
    nibabel = require("nibabel", "DICOM series", "mri")
    volumes, affine = read_dicom(path)
    found = [nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine)) for volume in volumes]
    return [np.asarray(image.dataobj).astype(np.complex64) for image in found]


def _joined(parts: Mapping[str, list[np.ndarray]], path: Path) -> list[np.ndarray]:
    if "R" in parts and "I" in parts:
        return [
            (real + 1j * imaginary).astype(np.complex64) for real, imaginary in zip(parts["R"], parts["I"], strict=True)
        ]
    if "M" in parts and "P" in parts:
        angles = radians(np.stack(parts["P"]), path)
        return [
            (size * np.exp(1j * angle)).astype(np.complex64) for size, angle in zip(parts["M"], angles, strict=True)
        ]
    kind, volumes = next(iter(parts.items()))
    if kind != "M":
        raise InputError(f"{path} holds {KINDS[kind]} alone: add the other part of the complex images.")
    low, high = min(float(volume.min()) for volume in volumes), max(float(volume.max()) for volume in volumes)
    if low < -OVERSHOOT * high:
        raise InputError(
            f"{path} goes from {low:g} to {high:g}: it is no magnitude. Is it an MR image, and no map made of one?"
        )
    return [np.maximum(volume, 0) for volume in volumes]


# ------------------------------------------------------------------------------------------------------------- headers
def _frames(path: Path) -> list[Frame]:
    """The frames of the one series of a folder or file, or of a pair of series that are parts of complex images."""
    pydicom = require("pydicom", "DICOM series", "mri")
    if not path.exists():
        raise AbsentDataError(f"There is no {path}: correct the path.")
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    frames: list[Frame] = []
    for file in files:
        if file.name == "DICOMDIR" or file.name.startswith("."):
            continue
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError) as error:
            if file == path or file.suffix.lower() in ENDINGS:
                raise InputError(f"{file} cannot be read as DICOM ({brief(error)}): is it complete?") from error
            continue
        if "Rows" in header:
            frames += _frames_of(header, file)
        elif "Image Storage" in getattr(header.get("SOPClassUID"), "name", ""):  # others are reports and the like
            raise InputError(f"{file} is an image of DICOM without its size: is it complete?")
    if not frames:
        raise InputError(f"{path} holds no images of DICOM: give the folder of a series.")
    counts: dict[tuple[str, str], int] = {}
    for frame in frames:
        counts[frame.series] = counts.get(frame.series, 0) + 1
    kinds = [{frame.kind for frame in frames if frame.series == series} for series in counts]
    paired = len(kinds) == 2 and all(len(kind) == 1 for kind in kinds) and set.union(*kinds) in PAIRS
    if len(counts) > 1 and not paired:
        names = ", ".join(f"{name} ({count})" for (_, name), count in list(counts.items())[:6])
        raise InputError(f"{path} holds {len(counts)} series of images, {brief(names)}: give a folder of one of them.")
    return frames


def _frames_of(header: Any, file: Path) -> list[Frame]:
    colours = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if not colours.startswith("MONOCHROME") or int(header.get("SamplesPerPixel", 1)) != 1:
        raise InputError(f"{file} holds colours ({colours}), which are no measurement: give a series of grey images.")
    if colours == "MONOCHROME1":
        raise InputError(
            f"{file} is stored as a negative ({colours}: the least value is white): give a series in which air is dark."
        )
    if "Secondary Capture" in getattr(header.get("SOPClassUID"), "name", ""):
        raise InputError(
            f"{file} is a secondary capture, a picture of a screen: give the series as the scanner wrote it."
        )
    shared = _first(header, "SharedFunctionalGroupsSequence")
    each = header.get("PerFrameFunctionalGroupsSequence") or [None] * int(header.get("NumberOfFrames", 1) or 1)
    if len(each) > 1 and each[0] is None:
        raise InputError(
            f"{file} holds {len(each)} frames and not where they are: give files of single slices, or enhanced MR."
        )
    return [_frame(header, [own, shared], number, file) for number, own in enumerate(each)]


def _frame(header: Any, groups: list[Any], number: int, file: Path) -> Frame:
    """What a header, and the groups of a frame in it, say of that frame."""

    def value(name: str, group: str = "") -> Any:
        for place in groups:
            inner = _first(place, group) if place is not None and group else None
            if inner is not None and name in inner:
                return inner[name].value
        return header.get(name)

    position = value("ImagePositionPatient", "PlanePositionSequence")
    turned = value("ImageOrientationPatient", "PlaneOrientationSequence")
    spacing = value("PixelSpacing", "PixelMeasuresSequence")
    if position is None or turned is None or spacing is None:
        raise InputError(
            f"{file} does not say where its image is (position, orientation, spacing): give a series of slices."
        )
    thickness = value("SliceThickness", "PixelMeasuresSequence") or value(
        "SpacingBetweenSlices", "PixelMeasuresSequence"
    )
    slope = value("RescaleSlope", "PixelValueTransformationSequence")
    intercept = value("RescaleIntercept", "PixelValueTransformationSequence")
    axes = np.array(turned, float).reshape(2, 3)[::-1]  # of DICOM the first is that along a row
    echo, time = value("EffectiveEchoTime", "MREchoSequence") or value("EchoTime"), value("TemporalPositionIdentifier")
    order = tuple(float(x or 0) for x in (time, echo, value("AcquisitionNumber"), value("InstanceNumber"), number))
    return Frame(
        file,
        number,
        (
            str(header.get("SeriesInstanceUID", "")),
            str(header.get("SeriesDescription", "") or header.get("SeriesNumber", "")),
        ),
        _kind(
            header,
            value("ComplexImageComponent", "MRImageFrameTypeSequence"),
            value("FrameType", "MRImageFrameTypeSequence"),
        ),
        np.array(position, float),
        axes,
        (float(spacing[0]), float(spacing[1]), float(thickness or 1)),
        (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)),
        order,
    )


def _kind(header: Any, component: Any, frame_type: Any) -> str:
    """Which part of complex images an image is: magnitude, if nothing is said."""
    if str(component) in NAMES:
        return NAMES[str(component)]
    found = header[GE_KIND].value if GE_KIND in header else -1
    number = (
        int.from_bytes(found[:2], "little") if isinstance(found, bytes) else found if isinstance(found, int) else -1
    )
    if 0 <= number < len(KINDS):
        return "MPRI"[number]
    words = [str(word) for word in (frame_type or header.get("ImageType") or [])][2:]
    return next((NAMES[word] for word in words if word in NAMES), "M")


def _first(header: Any, name: str) -> Any:
    """The first item of a sequence, if there is one."""
    found = None if header is None else header.get(name)
    return found[0] if found else None


# -------------------------------------------------------------------------------------------------------------- pixels
def _stack(frames: list[Frame], path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Volumes (row, column, slice) of frames by their positions, and their affine."""
    first = frames[0]
    same = [
        np.abs(frame.axes - first.axes).max() < PARALLEL and np.allclose(frame.spacing[:2], first.spacing[:2])
        for frame in frames
    ]
    if not all(same):
        raise InputError(
            f"{path} holds {len(same) - sum(same)} images in another direction or of another spacing: give one volume."
        )
    normal = np.cross(first.axes[1], first.axes[0])
    away = np.stack([frame.position - first.position for frame in frames])
    aside = float(np.linalg.norm(away - np.outer(away @ normal, normal), axis=1).max())
    if aside > min(first.spacing[:2]) / 2:
        raise InputError(
            f"{path} holds slices that lie up to {aside:.3g} mm beside each other: give a volume whose slices are in a row."
        )
    frames = sorted(frames, key=lambda frame: (round(frame.along, 3), frame.order))
    places = np.unique([round(frame.along, 3) for frame in frames])
    repeats = len(frames) // len(places)
    steps = np.diff(places)
    count = [sum(round(frame.along, 3) == place for frame in frames) for place in places]
    if len(set(count)) > 1 or (len(steps) and np.ptp(steps) > EVEN * np.median(steps)):
        raise InputError(
            f"{path} has slices at {len(places)} positions that are not evenly spaced, or some are missing: give whole series."
        )
    pixels: dict[Path, np.ndarray] = {}
    images = [_image(frame, pixels, path) for frame in frames]
    if len({image.shape for image in images}) > 1:
        raise InputError(f"{path} holds images of different sizes: give one series.")
    volumes = [np.stack(images[n::repeats], axis=-1) for n in range(repeats)]
    step = float(np.median(steps)) if len(steps) else first.spacing[2]
    affine = np.eye(4)
    affine[:3, :3] = np.stack([*(first.axes * np.array(first.spacing[:2])[:, None]), step * normal], axis=1)
    affine[:3, 3] = frames[0].position
    return volumes, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _image(frame: Frame, pixels: dict[Path, np.ndarray], path: Path) -> np.ndarray:
    """A frame in the units of its rescaling, float32."""
    pydicom = require("pydicom", "DICOM series", "mri")
    if frame.file not in pixels:
        pixels.clear()
        read = pydicom.dcmread(frame.file)
        try:
            pixels[frame.file] = np.asarray(read.pixel_array)
        except Exception as error:  # of a decoder that is missing, or of data that are not whole
            syntax = read.file_meta.TransferSyntaxUID
            packed = syntax.is_compressed
            why = (
                f"is compressed ({syntax.name}) and nothing here decodes it: decompress it (dcmdjpeg, gdcmconv -w)"
                if packed
                else (f"cannot be read ({brief(error)}): is it complete?")
            )
            raise InputError(f"{frame.file} {why}") from error
    stored = pixels[frame.file]
    image = stored[frame.number] if stored.ndim == 3 else stored
    return (image * np.float32(frame.scale[0]) + np.float32(frame.scale[1])).astype(np.float32)
