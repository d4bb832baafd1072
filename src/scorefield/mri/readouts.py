"""Readouts with the heads of ISMRMRD (Inati et al. 2017), put into k-space where their counters or their trajectories say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, centred_box
from scorefield.mri.geometry import Slice
from scorefield.mri.kspace import KSpace, check_layout
from scorefield.mri.trajectory import Trajectory, in_cycles

SERIES = ("contrast", "phase", "repetition", "set")  # counters of different images of a slice
CARTESIAN = "cartesian"
ALONE = ("separate", "external", "other")  # modes of calibration whose readouts are of another scan than the image


def flag(number: int) -> int:
    """The bit of a flag, whose numbers count from 1."""
    return 1 << (number - 1)


NOISE, CALIBRATION, REVERSED = flag(19), flag(20), flag(22)
OTHER = {  # readouts that are of no image
    "navigation": flag(23),
    "phase correction": flag(24),
    "feedback": flag(26) | flag(28),
    "dummy": flag(27),
    "surface coil correction": flag(29),
    "phase stabilisation": flag(30) | flag(31),
}


@dataclass(frozen=True)
class Encoding:
    """What a header says of its first encoding.

    Attributes:
        matrix: points along readout, phase encoding 1 and 2.
        height: of the image along the readout, without oversampling.
        centres: the numbers of the central line along phase encoding 1 and 2.
        calibration: its mode, or "".
        trajectory: its kind: cartesian, radial, goldenangle, spiral, ...
        spacing: of the points of its image along readout, phase encoding 1 and 2, in mm; 0 where nothing is said.
    """

    matrix: tuple[int, int, int]
    height: int
    centres: tuple[int, int]
    calibration: str
    trajectory: str = CARTESIAN
    spacing: tuple[float, ...] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class _Readouts:
    """The acquisitions of a file, and how they are put into k-space."""

    origin: str
    records: Any
    heads: np.ndarray
    encoding: Encoding
    coils: int

    def kspace(self, chosen: np.ndarray) -> np.ndarray:
        """(coils, readout, phase 1, phase 2) of some readouts, 0 where there is none, the mean where there are several."""
        height, *phases = self.encoding.matrix
        found, count = np.zeros((self.coils, height, *phases), np.complex64), np.zeros(phases)
        for line in chosen:
            record, head = self.records[int(line)], self.heads[line]
            place = tuple(
                int(head["idx"][f"kspace_encode_step_{axis}"]) + size // 2 - centre
                for axis, size, centre in zip((1, 2), phases, self.encoding.centres, strict=True)
            )
            samples, first = self._placed(samples_of(record, self.coils, self.origin), head, height)
            inside = all(0 <= at < size for at, size in zip(place, phases, strict=True))
            if first < 0 or first + samples.shape[1] > height or not inside:
                size = (height, *phases)
                raise InputError(
                    f"A line of {self.origin} lies outside of its encoded matrix {size}: the header is of another scan."
                )
            found[:, first : first + samples.shape[1], *place] += samples
            count[place] += 1
        return found / np.maximum(count, 1).astype(np.float32)

    @staticmethod
    def _placed(samples: np.ndarray, head: Any, height: int) -> tuple[np.ndarray, int]:
        """The samples (coils, n) that count, in the order of k-space, and where along it the first of them is."""
        names = head.dtype.names or ()
        before, after = (int(head[name]) if name in names else 0 for name in ("discard_pre", "discard_post"))
        samples = samples[:, before : samples.shape[1] - after]
        if turned := bool(int(head["flags"]) & REVERSED):
            samples = samples[:, ::-1]
        return samples, height // 2 - int(head["center_sample"]) + (after if turned else before)


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
    elsewhere = (_column(heads, "encoding_space_ref") != 0) & ~left_out & ((flags & NOISE) == 0)
    measured = ~left_out & ~elsewhere & ((flags & NOISE) == 0)
    calibrating = measured & ((flags & CALIBRATION) > 0)
    keys = np.stack([index[name] for name in _counters(index, *SERIES)], axis=1)
    imaged = {tuple(key) for key in keys[measured & ~calibrating]}
    foreign = np.array([tuple(key) not in imaged for key in keys], dtype=bool) if imaged else np.zeros(len(keys), bool)
    alone = calibrating & (foreign | (encoding.calibration in ALONE))
    lines = np.flatnonzero(measured & ~alone)
    if not len(lines):
        raise InputError(f"{origin} holds no lines of k-space.")
    off_grid = bool((_column(heads, "trajectory_dimensions")[lines] > 0).any())
    if encoding.trajectory != CARTESIAN and not off_grid:
        raise InputError(
            f"{origin} is a scan of trajectory {encoding.trajectory}, but its readouts hold none: store it with them."
        )
    series = np.unique(keys[lines], axis=0)
    coils, slices = int(heads["active_channels"][lines[0]]), int(index["slice"][lines].max()) + 1
    readouts = _Readouts(origin, records, heads, encoding, coils)

    def of(chosen: np.ndarray, number: int) -> np.ndarray:
        which, slice_number = divmod(number, slices)
        return chosen[(index["slice"][chosen] == slice_number) & (keys[chosen] == series[which]).all(1)]

    notes = [_series(origin, index, series, slices)] if len(series) > 1 else []
    if elsewhere.any():
        notes.append(f"{int(elsewhere.sum())} readouts of {origin} are of other encoding spaces, and left out.")
    read, count, height = _slices(readouts, lambda number: of(lines, number)), slices * len(series), encoding.matrix[0]
    shape, size = (count, coils, height, encoding.matrix[1]), (encoding.height, encoding.matrix[1])
    if encoding.matrix[2] > 1 and off_grid:
        raise InputError(f"{origin} is off the grid in three dimensions: only slices are read.")
    if encoding.matrix[2] > 1:
        read = _across_readout(readouts, lambda number: of(lines, number), encoding.height)
        shape, size = (count * encoding.height, coils, *encoding.matrix[1:]), None
        notes.append(f"{origin} is a 3-D scan: its {encoding.height} positions along the readout were made slices.")
    calibration = trajectory = None
    if alone.any() and encoding.matrix[2] == 1 and not off_grid:
        held = np.flatnonzero(alone)
        calibration = _slices(readouts, lambda number: held[index["slice"][held] == number % slices])
    if off_grid:
        shape, read, trajectory = _places(readouts, lambda number: of(lines, number), count)
        size = trajectory.matrix
        notes.append(f"{origin}: {trajectory.note}.")
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
        plane=_planes(readouts, lambda number: of(lines, number)),
        trajectory=trajectory,
    )


def _counters(index: np.ndarray, *names: str) -> list[str]:
    """Those of some counters that there are."""
    return [name for name in names if name in (index.dtype.names or ())]


def _column(heads: np.ndarray, name: str) -> np.ndarray:
    """A column of the heads, 0 where there is none."""
    return heads[name] if name in (heads.dtype.names or ()) else np.zeros(len(heads), int)


def _slices(readouts: _Readouts, of: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """k-space (coils, readout, phase) of a slice by its number."""
    return lambda number: readouts.kspace(of(number))[..., 0]


def _across_readout(readouts: _Readouts, of: Callable[[int], np.ndarray], height: int) -> Callable[[int], np.ndarray]:
    """k-space (coils, phase 1, phase 2) of the slices across the readout of 3-D scans, the middle `height` of each."""

    @lru_cache(1)
    def whole(number: int) -> np.ndarray:
        kspace = readouts.kspace(of(number))
        kept = centred_box((kspace.shape[1],), (height,))[0]
        return centred(kspace, (1,), inverse=True)[:, kept]

    return lambda number: whole(number // height)[:, number % height]


def _places(
    readouts: _Readouts, of: Callable[[int], np.ndarray], count: int
) -> tuple[tuple[int, int, int, int], Callable[[int], np.ndarray], Trajectory]:
    """Shape, k-space (coils, samples, readouts) of a slice, and where its samples are; 0 for readouts that a slice lacks."""
    heads, origin = readouts.heads, readouts.origin
    chosen = [of(number) for number in range(count)]
    dimensions = np.unique(heads["trajectory_dimensions"][np.concatenate(chosen)])
    samples = np.unique(heads["number_of_samples"][np.concatenate(chosen)])
    if len(dimensions) > 1 or len(samples) > 1 or dimensions[0] < 2:
        raise InputError(
            f"{origin} has readouts of {samples.tolist()} samples with trajectories of {dimensions.tolist()} dimensions: only "
            "scans of one kind of readout, each with its trajectory, are read."
        )
    every, most = readouts.records.fields("traj")[()], max(map(len, chosen))
    places = np.zeros((count, int(samples[0]), most, 2))
    for number, lines in enumerate(chosen):
        for place, line in enumerate(lines):
            # A third column has the weights of density compensation, or the position of the slice
            places[number, :, place] = np.reshape(every[line], (-1, int(dimensions[0])))[:, :2]
    first, last = (_trim(heads, np.concatenate(chosen), name, origin) for name in ("discard_pre", "discard_post"))
    kept = slice(first, int(samples[0]) - last)
    places = places[:, kept]

    def read(number: int) -> np.ndarray:
        found = np.zeros((readouts.coils, places.shape[1], most), np.complex64)
        for place, line in enumerate(chosen[number]):
            found[..., place] = samples_of(readouts.records[int(line)], readouts.coils, origin)[:, kept]
        return found

    matrix = readouts.encoding.matrix[:2]
    same = bool((places == places[:1]).all())
    trajectory = in_cycles(places[0] if same else places, (matrix[0], matrix[1]), origin).on(readouts.encoding.height)
    return (count, readouts.coils, places.shape[1], most), read, trajectory


def _planes(readouts: _Readouts, of: Callable[[int], np.ndarray]) -> Callable[[int], Slice] | None:
    """Where slices are, by the head of a readout of each; None where the file does not say it."""
    heads, encoding = readouts.heads, readouts.encoding
    names, deep = ("read_dir", "phase_dir", "slice_dir"), encoding.matrix[2] > 1
    known = {"position", *names} <= set(heads.dtype.names or ()) and min(encoding.spacing) > 0
    if not known or not all(np.any(heads[name][of(0)[:1]]) for name in names):
        return None

    def plane(number: int) -> Slice:
        head = heads[of(number // encoding.height if deep else number)[0]]
        axes, centre = np.array([head[name] for name in names], float), np.array(head["position"], float)
        rows, columns, across = encoding.spacing
        if not deep:
            return Slice(centre, axes, (rows, columns, across))
        centre = centre + (number % encoding.height - encoding.height // 2) * rows * axes[0]
        return Slice(centre, axes[[1, 2, 0]], (columns, across, rows))

    return plane


def _trim(heads: np.ndarray, lines: np.ndarray, name: str, origin: str) -> int:
    """How many samples all readouts discard at one end."""
    found = np.unique(_column(heads, name)[lines])
    if len(found) > 1:
        raise InputError(f"{origin} has readouts off the grid of different {name}, {found.tolist()}: this is not read.")
    return int(found[0])


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


def samples_of(record: Any, coils: int, origin: str) -> np.ndarray:
    """The samples (coils, samples) of one acquisition: pairs of floats, coil after coil."""
    values = np.asarray(record["data"], dtype=np.float32)
    if values.size % (2 * coils):
        raise InputError(f"A line of {origin} does not have {coils} coils, as the first one has.")
    return values.view(np.complex64).reshape(coils, -1)
