"""Cartesian 2-D scans in ISMRMRD's HDF5 (Inati et al. 2017), read by h5py: lines are put where their counters say."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.mri.kspace import KSpace, check_layout

NOISE_SCAN = 1 << 18  # flags count from 1: ACQ_IS_NOISE_MEASUREMENT is 19
# 20-23: parallel calibration alone (it is measured data, too: kept), navigation 23, phase correction 24, dummy 27
OTHER = (1 << 22) | (1 << 23) | (1 << 26)
SEPARATE = ("contrast", "phase", "repetition", "set")  # counters of different images of a slice
REVERSED = 1 << 21  # ACQ_IS_REVERSE is 22


def read_ismrmrd(file: Any, origin: str) -> KSpace:
    """The first encoding of a scan; averages are added up and divided by their number.

    The noise scan comes in the units of k-space: divided by the root of the averages, and multiplied by that of
    the sampling time of the noise scan, divided by that of the lines (the variance is proportional to the bandwidth).
    """
    size, image, centre = _header(file, origin)
    records = file["dataset/data"]
    heads = records["head"]
    flags = heads["flags"].astype(np.uint64)
    noise = np.flatnonzero(flags & NOISE_SCAN)
    lines = np.flatnonzero((flags & (NOISE_SCAN | OTHER)) == 0)
    if not len(lines):
        raise InputError(f"{origin} holds no lines of k-space.")
    index = heads["idx"]
    coils = int(heads["active_channels"][lines[0]])
    slices = int(index["slice"][lines].max()) + 1
    shape = check_layout((slices, coils, *size), np.dtype(np.complex64), origin)
    for name in SEPARATE:
        if name in (index.dtype.names or ()) and len(found := np.unique(index[name][lines])) > 1:
            raise InputError(
                f"{origin} holds {len(found)} of the counter '{name}' ({found[0]} to {found[-1]}), each of them another image: "
                "split the file, and give one at a time."
            )
    if (index["kspace_encode_step_2"][lines] > 0).any() or (heads["trajectory_dimensions"][lines] > 0).any():
        raise InputError(f"{origin} is a 3-D or non-Cartesian scan: only Cartesian slices are read.")

    def read(number: int) -> np.ndarray:
        kspace, count = np.zeros((coils, *size), np.complex64), np.zeros(size[1])
        for line in lines[index["slice"][lines] == number]:
            record = records[int(line)]
            samples = _samples(record, coils, origin)
            samples = samples[:, ::-1] if int(flags[line]) & REVERSED else samples
            first = size[0] // 2 - int(heads["center_sample"][line])
            column = int(index["kspace_encode_step_1"][line]) + size[1] // 2 - centre
            if first < 0 or first + samples.shape[1] > size[0] or not 0 <= column < size[1]:
                raise InputError(
                    f"A line of {origin} lies outside of its encoded matrix {size}: the header is of another scan."
                )
            kspace[:, first : first + samples.shape[1], column] += samples
            count[column] += 1
        return kspace / np.maximum(count, 1).astype(np.float32)

    scan = np.concatenate([_samples(records[int(n)], coils, origin) for n in noise], axis=1) if len(noise) else None
    if scan is not None:
        scan = scan * np.float32(_noise_units(heads, lines, noise))
    return KSpace(origin, shape, read, None, scan, image)


def _noise_units(heads: np.ndarray, lines: np.ndarray, noise: np.ndarray) -> float:
    """What a noise scan is to be multiplied by: √(its time per sample / that of the lines / averages of a line)."""
    index = heads["idx"][lines]
    places = np.unique(np.stack([index["slice"], index["kspace_encode_step_1"]]), axis=1, return_counts=True)[1]
    ratio = float(np.mean(1 / places))
    if "sample_time_us" in (heads.dtype.names or ()):
        times = [float(np.median(heads["sample_time_us"][chosen])) for chosen in (noise, lines)]
        ratio *= times[0] / times[1] if min(times) > 0 else 1.0
    return math.sqrt(ratio)


def _samples(record: Any, coils: int, origin: str) -> np.ndarray:
    """The samples (coils, samples) of one acquisition: pairs of floats, coil after coil."""
    values = np.asarray(record["data"], dtype=np.float32)
    if values.size % (2 * coils):
        raise InputError(f"A line of {origin} does not have {coils} coils, as the first one has.")
    return values.view(np.complex64).reshape(coils, -1)


def image_size(header: Any) -> tuple[int, int] | None:
    """The reconstructed (height, width) that a header says, such as fastMRI's files hold; None where it says none."""
    try:
        encoding = _encoding(header)
        return None if encoding is None else _matrix(encoding, "reconSpace")
    except (ValueError, TypeError, IndexError, ElementTree.ParseError):
        return None


def _encoding(header: Any) -> ElementTree.Element | None:
    """The first encoding of a header, a data set of text, without namespaces."""
    text = np.asarray(header).ravel()[0]
    root = ElementTree.fromstring(text if isinstance(text, str) else bytes(text))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root.find("encoding")


def _matrix(encoding: ElementTree.Element, space: str) -> tuple[int, int]:
    """(height, width), readout and phase."""
    height, width = (int(encoding.findtext(f"{space}/matrixSize/{axis}", "")) for axis in ("x", "y"))
    return height, width


def _header(file: Any, origin: str) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Encoded and reconstructed (height, width), and the number of the central line."""
    try:
        encoding = _encoding(file["dataset/xml"])
        if encoding is None or encoding.findtext("trajectory", "cartesian").strip() != "cartesian":
            raise InputError(f"{origin} is not a Cartesian scan, and cannot be read.")
        size, image = (_matrix(encoding, space) for space in ("encodedSpace", "reconSpace"))
        centre = encoding.findtext("encodingLimits/kspace_encoding_step_1/center")
    except (KeyError, ValueError, ElementTree.ParseError) as error:
        raise InputError(f"{origin} has no header that says its matrix: is it ISMRMRD?") from error
    return (size[0], size[1]), (image[0], image[1]), size[1] // 2 if centre is None else int(centre)
