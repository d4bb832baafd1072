"""Readouts with the heads of ISMRMRD (Inati et al. 2017), put into k-space where their counters or their trajectories say."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, centred_box
from scorefield.mri.encoding import CARTESIAN, Encoding, Readouts, column, flag, samples_of
from scorefield.mri.geometry import Slice
from scorefield.mri.kspace import KSpace, check_layout
from scorefield.mri.stacks import places_of, stack_of

SERIES = ("contrast", "phase", "repetition", "set")  # counters of different images of a slice
ALONE = ("separate", "external", "other")  # modes of calibration whose readouts are of another scan than the image

NOISE, CALIBRATION = flag(19), flag(20)
OTHER = {  # readouts that are of no image
    "navigation": flag(23),
    "phase correction": flag(24),
    "feedback": flag(26) | flag(28),
    "dummy": flag(27),
    "surface coil correction": flag(29),
    "phase stabilisation": flag(30) | flag(31),
}


def scan_of(encoding: Encoding, records: Any, heads: np.ndarray, origin: str) -> KSpace:
    """The first encoding of a scan; averages are added up and divided by their number, each contrast, phase, repetition and set
    is a series of slices of its own, and 3-D scans become slices across the readout by a Fourier transform along it.

    Readouts of no image (navigation, phase correction, ...) and of other encodings are left out; those of a separate calibration
    are of the coil maps alone. The noise scan comes in the units of k-space: divided by the root of the averages, and multiplied
    by that of the sampling time of the noise scan, divided by that of the lines (the variance is proportional to the bandwidth).

    Args:
        encoding: what the header says.
        records: the acquisitions, each with `data`, and where they are off the grid with `traj`.
        heads: of these.
        origin: of the file.
    """
    flags, index = heads["flags"].astype(np.uint64), heads["idx"]
    noise = np.flatnonzero(flags & NOISE)
    left_out = (flags & sum(OTHER.values())) > 0
    elsewhere = (column(heads, "encoding_space_ref") != 0) & ~left_out & ((flags & NOISE) == 0)
    measured = ~left_out & ~elsewhere & ((flags & NOISE) == 0)
    calibrating = measured & ((flags & CALIBRATION) > 0)
    keys = np.stack([index[name] for name in _counters(index, *SERIES)], axis=1)
    imaged = {tuple(key) for key in keys[measured & ~calibrating]}
    foreign = np.array([tuple(key) not in imaged for key in keys], dtype=bool) if imaged else np.zeros(len(keys), bool)
    alone = calibrating & (foreign | (encoding.calibration in ALONE))
    lines = np.flatnonzero(measured & ~alone)
    if not len(lines):
        raise InputError(f"{origin} holds no lines of k-space.")
    off_grid = bool((column(heads, "trajectory_dimensions")[lines] > 0).any())
    if encoding.trajectory != CARTESIAN and not off_grid:
        raise InputError(
            f"{origin} is a scan of trajectory {encoding.trajectory}, but its readouts hold none: store it with them."
        )
    series = np.unique(keys[lines], axis=0)
    coils, slices = int(heads["active_channels"][lines[0]]), int(index["slice"][lines].max()) + 1
    readouts = Readouts(origin, records, heads, encoding, coils)

    def of(chosen: np.ndarray, number: int) -> np.ndarray:
        which, slice_number = divmod(number, slices)
        return chosen[(index["slice"][chosen] == slice_number) & (keys[chosen] == series[which]).all(1)]

    notes = [_series(origin, index, series, slices)] if len(series) > 1 else []
    if elsewhere.any():
        notes.append(f"{int(elsewhere.sum())} readouts of {origin} are of other encoding spaces, and left out.")
    read, count, height = _slices(readouts, lambda number: of(lines, number)), slices * len(series), encoding.matrix[0]
    shape, size = (count, coils, height, encoding.matrix[1]), (encoding.height, encoding.matrix[1])
    deep = encoding.matrix[2] > 1
    if deep and not off_grid:
        read = _across_readout(readouts, lambda number: of(lines, number), encoding.height)
        shape, size = (count * encoding.height, coils, *encoding.matrix[1:]), None
        notes.append(f"{origin} is a 3-D scan: its {encoding.height} positions along the readout were made slices.")
    calibration = trajectory = None
    if alone.any() and not deep and not off_grid:
        held = np.flatnonzero(alone)
        calibration = _slices(readouts, lambda number: held[index["slice"][held] == number % slices])
    if off_grid:
        shape, read, trajectory = (stack_of if deep else places_of)(readouts, lambda number: of(lines, number), count)
        size = trajectory.matrix
        notes.append(f"{origin}: {trajectory.note}.")
    if deep and off_grid:
        notes.append(f"{origin} is a stack of {encoding.matrix[2]} partitions, of which slices were made.")
    scan = np.concatenate([samples_of(records[int(n)], coils, origin) for n in noise], axis=1) if len(noise) else None
    if scan is not None:
        scan = scan * np.float32(_noise_units(heads, lines, noise, averaged=not off_grid))
    shape = shape if off_grid else check_layout(shape, np.dtype(np.complex64), origin)
    return KSpace(
        origin,
        shape,
        read,
        noise_scan=scan,
        size=size,
        note=" ".join(notes),
        calibration=calibration,
        labelled=True,
        plane=_planes(readouts, lambda number: of(lines, number), stacked=off_grid),
        trajectory=trajectory,
    )


def _counters(index: np.ndarray, *names: str) -> list[str]:
    """Those of some counters that there are."""
    return [name for name in names if name in (index.dtype.names or ())]


def _slices(readouts: Readouts, of: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """k-space (coils, readout, phase) of a slice by its number."""
    return lambda number: readouts.kspace(of(number))[..., 0]


def _across_readout(readouts: Readouts, of: Callable[[int], np.ndarray], height: int) -> Callable[[int], np.ndarray]:
    """k-space (coils, phase 1, phase 2) of the slices across the readout of 3-D scans, the middle `height` of each."""

    @lru_cache(1)
    def whole(number: int) -> np.ndarray:
        kspace = readouts.kspace(of(number))
        kept = centred_box((kspace.shape[1],), (height,))[0]
        return centred(kspace, (1,), inverse=True)[:, kept]

    return lambda number: whole(number // height)[:, number % height]


def _planes(readouts: Readouts, of: Callable[[int], np.ndarray], *, stacked: bool) -> Callable[[int], Slice] | None:
    """Where slices are, by the head of a readout of each; None where the file does not say it.

    Args:
        readouts: of the scan.
        of: those of a slice or slab.
        stacked: slabs are cut into their partitions, and not across the readout.
    """
    heads, encoding = readouts.heads, readouts.encoding
    names, deep = ("read_dir", "phase_dir", "slice_dir"), encoding.matrix[2] > 1
    known = {"position", *names} <= set(heads.dtype.names or ()) and min(encoding.spacing) > 0
    if not known or not all(np.any(heads[name][of(0)[:1]]) for name in names):
        return None

    def plane(number: int) -> Slice:
        each = (encoding.matrix[2] if stacked else encoding.height) if deep else 1
        head, place = heads[of(number // each)[0]], number % each - each // 2
        axes, centre = np.array([head[name] for name in names], float), np.array(head["position"], float)
        rows, columns, across = encoding.spacing
        if not deep or stacked:
            return Slice(centre + place * across * axes[2], axes, (rows, columns, across))
        return Slice(centre + place * rows * axes[0], axes[[1, 2, 0]], (columns, across, rows))

    return plane


def _series(origin: str, index: np.ndarray, series: np.ndarray, slices: int) -> str:
    """Which images of a slice there are."""
    names = _counters(index, *SERIES)
    several = {name: len(np.unique(column)) for name, column in zip(names, series.T, strict=True)}
    counts = " and ".join(f"{count} of {name}" for name, count in several.items() if count > 1)
    return f"{origin} holds {counts}: {len(series)} series of {slices} slices, numbered one after another."


def _noise_units(heads: np.ndarray, lines: np.ndarray, noise: np.ndarray, *, averaged: bool) -> float:
    """What a noise scan is to be multiplied by: √(its time per sample / that of the lines / averages of a line), the last where
    lines of one place are averaged.
    """
    index = heads["idx"][lines]
    counters = ("slice", "kspace_encode_step_1", "kspace_encode_step_2", *SERIES)
    columns = [index[name] for name in _counters(index, *counters)]
    ratio = float(np.mean(1 / np.unique(np.stack(columns), axis=1, return_counts=True)[1])) if averaged else 1.0
    if "sample_time_us" in (heads.dtype.names or ()):
        times = [float(np.median(heads["sample_time_us"][chosen])) for chosen in (noise, lines)]
        ratio *= times[0] / times[1] if min(times) > 0 else 1.0
    return math.sqrt(ratio)
