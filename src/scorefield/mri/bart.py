"""BART's k-space: pairs of .cfl and .hdr, columns first; axes readout, phase encoding 1 and 2, coils, ..., 13 slices; of
a slice across the readout the image is on axes 1 and 2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scorefield.foundation.errors import AbsentDataError, InputError
from scorefield.foundation.fourier import centred
from scorefield.mri.kspace import NEAR, KSpace, check_layout
from scorefield.mri.masks import encoded

PARTITIONS, SLICES = 2, 13  # axes: phase encoding 2 of 3-D scans, and slices
PEAKED = 8.0  # times the energy of its median that of frequency 0 is at least: of brains 600 and more, of their slices about 2


def open_cfl(base: Path, origin: str) -> KSpace:
    """k-space of slices (axis 13), or of a 3-D scan that is sampled as a whole along phase encoding 2: its partitions then are
    slices, by the inverse centred Fourier transform along that axis.

    Raises:
        InputError: a 3-D scan that is undersampled along phase encoding 2, whose partitions alias.
    """
    array, axis = _read(base)
    shape = check_layout(array.shape, array.dtype, origin)
    note = ""
    if axis == PARTITIONS:
        array = _partitions(array, origin)
        note = (
            f"{origin} is a 3-D scan: its {len(array)} partitions along phase encoding 2 (axis 2) were made slices by the "
            "inverse Fourier transform. What are slices already belongs on axis 13."
        )
    return KSpace(origin, shape, lambda number: array[number], note=note)


def _partitions(array: np.ndarray, origin: str) -> np.ndarray:
    """k-space (partitions, coils, height, width) of a 3-D scan as that of slices; its zeros stay zeros."""
    energy = np.array([float((np.abs(partition) ** 2).sum()) for partition in array])
    middle = len(energy) // 2
    if abs(int(energy.argmax()) - middle) > max(1, NEAR * len(energy)) or energy.max() < PEAKED * np.median(energy):
        raise InputError(
            f"{origin} has {len(energy)} of axis 2, phase encoding 2, of which number {middle} does not stand out as frequency 0 "
            "does: if they are slices, put them on axis 13; else shift frequency 0 there."
        )
    sampled = np.stack([np.any(partition != 0, axis=0) for partition in array])
    inside = sampled[encoded(sampled)[0]]
    if not (inside == inside[:1]).all():
        raise InputError(
            f"{origin} is a 3-D scan that is undersampled along phase encoding 2 (axis 2), so that its partitions alias. Make "
            "slices of its readout: bart fft -u -i 1, then (readout, coils, phase 1, phase 2) as .npy."
        )
    slices = np.empty_like(array)
    for coil in range(array.shape[1]):
        slices[:, coil] = centred(array[:, coil], (0,), inverse=True)
    return slices * inside[:1]


def read_cfl(base: Path) -> np.ndarray:
    """What .cfl and .hdr hold as (slices, coils, height, width), as it is: phase encoding 2 or the axis of slices (13) become
    slices, whichever is there; others must be 1.
    """
    return _read(base)[0]


def read_whole_cfl(base: Path) -> np.ndarray:
    """What .cfl and .hdr hold, with BART's 16 axes."""
    header, data = _pair(base)
    for path in (header, data):
        if not path.is_file():
            raise AbsentDataError(f"There is no file {path}: BART's k-space is a pair of .cfl and .hdr.")
    try:
        lines = header.read_text().splitlines()
        sizes = [int(word) for word in lines[lines.index("# Dimensions") + 1].split()]
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise InputError(f"{header} gives no dimensions: it is no header of BART.") from error
    sizes += [1] * (16 - len(sizes))
    values = np.fromfile(data, dtype="<c8")
    if values.size != int(np.prod(sizes)):
        raise InputError(
            f"{data} holds {values.size} numbers, where {header} says {int(np.prod(sizes))}: is it complete?"
        )
    return values.reshape(sizes, order="F")


def _read(base: Path) -> tuple[np.ndarray, int]:
    """The array (slices, coils, height, width), and which axis slices are from."""
    header, array = _pair(base)[0], read_whole_cfl(base)
    sizes = array.shape
    # A slice of a 3-D scan, across its readout, has its image on axes 1 and 2.
    image = (1, 2) if sizes[0] == 1 and min(sizes[1:3]) > 1 else (0, 1)
    many = [axis for axis, size in enumerate(sizes) if size > 1 and axis not in (*image, 3)]
    if len(many) > 1 or any(axis not in (PARTITIONS, SLICES) for axis in many):
        raise InputError(
            f"{header} has axes {list(sizes)}: besides readout, phase and coils only axis 2 or 13 may be larger than 1."
        )
    slices = many[0] if many else SLICES
    kept = (slices, 3, *image)
    rest = tuple(axis for axis in range(16) if axis not in kept)
    order = sorted(kept)
    return np.ascontiguousarray(array.squeeze(rest).transpose([order.index(axis) for axis in kept])), slices


def write_cfl(base: Path, kspace: np.ndarray) -> None:
    """Write k-space (slices, coils, height, width) as BART's pair of files; slices become its axis 13."""
    slices, coils, height, width = kspace.shape
    sizes = [height, width, 1, coils, *[1] * 9, slices, 1, 1]
    ordered = np.moveaxis(kspace, (2, 3, 1, 0), (0, 1, 2, 3)).astype("<c8")
    header, data = _pair(base)
    header.write_text("# Dimensions\n" + " ".join(map(str, sizes)) + "\n")
    ordered.reshape(sizes).flatten(order="F").tofile(data)


def _pair(base: Path) -> tuple[Path, Path]:
    """The header and the data of a name, which may hold points: scan.v1.hdr is not scan.hdr."""
    return base.with_name(f"{base.name}.hdr"), base.with_name(f"{base.name}.cfl")
