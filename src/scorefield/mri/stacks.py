"""Readouts off the grid: where the samples of slices are, and stacks of stars, whose partitions are on a grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred
from scorefield.mri.encoding import Readouts, column, samples_of
from scorefield.mri.trajectory import Trajectory, in_cycles

FLAT = 1e-4  # of the reach of k-space: a readout that changes its partition by less does not leave it


def places_of(
    readouts: Readouts, of: Callable[[int], np.ndarray], count: int
) -> tuple[tuple[int, int, int, int], Callable[[int], np.ndarray], Trajectory]:
    """Shape, k-space (coils, samples, readouts) of a slice, and where its samples are; 0 for readouts that a slice lacks."""
    chosen = [of(number) for number in range(count)]
    found = _paths(readouts, np.concatenate(chosen))
    most = max(map(len, chosen))
    places = np.zeros((count, found.shape[1], most, 2))
    start = 0
    for number, lines in enumerate(chosen):
        # A third column has the weights of density compensation, or the position of the slice
        places[number, :, : len(lines)] = found[start : start + len(lines), :, :2].swapaxes(0, 1)
        start += len(lines)
    kept = _kept(readouts, np.concatenate(chosen))
    places = places[:, kept]

    def read(number: int) -> np.ndarray:
        found = np.zeros((readouts.coils, places.shape[1], most), np.complex64)
        for place, line in enumerate(chosen[number]):
            found[..., place] = _samples(readouts, line)[:, kept]
        return found

    return (count, readouts.coils, places.shape[1], most), read, _trajectory(readouts, places)


def stack_of(
    readouts: Readouts, of: Callable[[int], np.ndarray], count: int
) -> tuple[tuple[int, int, int, int], Callable[[int], np.ndarray], Trajectory]:
    """What `places_of` gives of stacks of stars or spirals: the same readouts in each partition, which are on a grid along the
    slab and become slices by a Fourier transform along it. Partitions that are missing at the ends are 0.

    Raises:
        InputError: the readouts leave their partition, are others in other partitions, or partitions are missing between others.
    """
    origin, size = readouts.origin, readouts.encoding.matrix[2]
    order: list[list[list[np.ndarray]]] = []  # of each slab, spoke and partition the lines that are averaged
    places: list[np.ndarray] = []
    for number in range(count):
        lines = of(number)
        paths = _paths(readouts, lines)
        if paths.shape[2] > 2 and np.ptp(paths[..., 2], axis=1).max() > FLAT * np.abs(paths[..., :2]).max():
            raise InputError(
                f"{origin} is off the grid in three dimensions: only slices, and stacks of these, are read."
            )
        level = (
            readouts.heads["idx"]["kspace_encode_step_2"][lines].astype(int) + size // 2 - readouts.encoding.centres[1]
        )
        held = np.unique(level)
        if held[0] < 0 or held[-1] >= size or np.diff(held).max(initial=1) > 1 or not held[0] <= size // 2 <= held[-1]:
            raise InputError(
                f"{origin} has partitions {held.tolist()} of {size}: none may be missing in the middle, or "
                "between two others."
            )
        rounded = np.rint(paths[..., :2] / (FLAT * np.abs(paths[..., :2]).max())).astype(np.int64)
        _, first, spoke = np.unique(rounded.reshape(len(lines), -1), axis=0, return_index=True, return_inverse=True)
        seen = {(int(n), int(z)) for n, z in zip(spoke.ravel(), level, strict=True)}
        if len(seen) < len(first) * len(held):
            raise InputError(
                f"{origin} is a stack whose partitions have other readouts ({len(first)} kinds, {len(seen)} of "
                f"{len(first) * len(held)} measured): only those with the same angles in every partition are read."
            )
        ranks = np.argsort(first)  # in the order in which they were measured
        order.append([[lines[(spoke.ravel() == n) & (level == z)] for z in range(size)] for n in ranks])
        places.append(paths[first[ranks]][..., :2].swapaxes(0, 1))
    if len({one.shape for one in places}) > 1:
        raise InputError(f"{origin} is several stacks of different numbers of readouts: give them one by one.")
    kept = _kept(readouts, np.concatenate([of(number) for number in range(count)]))

    @lru_cache(1)
    def whole(number: int) -> np.ndarray:
        found = np.zeros((size, readouts.coils, places[0][kept].shape[0], len(order[number])), np.complex64)
        for spoke, partitions in enumerate(order[number]):
            for z, lines in enumerate(partitions):
                if len(lines):
                    found[z, ..., spoke] = np.mean([_samples(readouts, line)[:, kept] for line in lines], axis=0)
        return centred(found, (0,), inverse=True)

    def read(number: int) -> np.ndarray:
        return whole(number // size)[number % size]

    trajectory = _trajectory(readouts, np.repeat(np.stack(places)[:, kept], size if count > 1 else 1, axis=0))
    shape = (count * size, readouts.coils, places[0][kept].shape[0], len(order[0]))
    return shape, read, trajectory


def _paths(readouts: Readouts, lines: np.ndarray) -> np.ndarray:
    """The trajectories of some readouts, (readouts, samples, dimensions)."""
    heads, origin = readouts.heads, readouts.origin
    dimensions, samples = (np.unique(heads[name][lines]) for name in ("trajectory_dimensions", "number_of_samples"))
    if len(dimensions) > 1 or len(samples) > 1 or dimensions[0] < 2:
        raise InputError(
            f"{origin} has readouts of {samples.tolist()} samples with trajectories of {dimensions.tolist()} dimensions: only "
            "scans of one kind of readout, each with its trajectory, are read."
        )
    every = readouts.records.fields("traj")[()]
    return np.stack([np.reshape(every[line], (-1, int(dimensions[0]))) for line in lines]).astype(float)


def _samples(readouts: Readouts, line: int | np.integer) -> np.ndarray:
    """(coils, samples) of a readout."""
    return samples_of(readouts.records[int(line)], readouts.coils, readouts.origin)


def _kept(readouts: Readouts, lines: np.ndarray) -> slice:
    """The samples that are not discarded, which are the same of all readouts."""
    first, last = (_trim(readouts.heads, lines, name, readouts.origin) for name in ("discard_pre", "discard_post"))
    return slice(first, int(readouts.heads["number_of_samples"][lines[0]]) - last)


def _trajectory(readouts: Readouts, places: np.ndarray) -> Trajectory:
    """Of slices (slices, samples, readouts, 2), in cycles per field of view; one for all where they are the same."""
    matrix, same = readouts.encoding.matrix[:2], bool((places == places[:1]).all())
    found = in_cycles(places[0] if same else places, (matrix[0], matrix[1]), readouts.origin)
    return found.on(readouts.encoding.height)


def _trim(heads: np.ndarray, lines: np.ndarray, name: str, origin: str) -> int:
    """How many samples all readouts discard at one end."""
    found = np.unique(column(heads, name)[lines])
    if len(found) > 1:
        raise InputError(f"{origin} has readouts off the grid of different {name}, {found.tolist()}: this is not read.")
    return int(found[0])
