"""From a file of k-space to scans that can be reconstructed: one strength of noise, coil maps, the points that are used."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.mri.coils import LEAST_CALIBRATION, Mixing, as_tensor, combine_by_maps, strongest
from scorefield.mri.kspace import SMALLEST, EmptySliceError, KSpace, remove_oversampling, whole_readout
from scorefield.mri.layout_checks import check_axes, check_shift
from scorefield.mri.masks import (
    WHOLE,
    EquispacedLines,
    Everything,
    RandomLines,
    Sampling,
    check_acceleration,
    partial_fourier,
    share_of,
)
from scorefield.mri.noise import noise_covariance, spread_slices, whitening_of
from scorefield.mri.off_grid import by_angle, gridded_centre, readout_noise, share_of_cells
from scorefield.mri.scan import Baselines, Scan
from scorefield.mri.trajectory import Trajectory
from scorefield.mri.tuning import RULE, tuned
from scorefield.operators import NonUniformSense, cg_sense, largest_singular_value, to_complex

log = logging.getLogger("scorefield")

WIDEST = 4  # times the field of view that k-space off the grid has by itself
REFERENCE = 15  # iterations of CG-SENSE, by which references off the grid are made
STEPS, BOUND = 20, 1.03  # iterations for ‖A‖, and how far it may be above what they find
MANY = 24  # lines of the middle of k-space: more add little to maps


@dataclass(frozen=True, eq=False)
class Scans:
    """Scans from a file, prepared one by one.

    Args:
        kspace: the file.
        sampling: which of the points that were acquired are used.
        maps: coil maps (coils, height, width), or for each slice; by default the file's own, or estimated.
        cache: a folder for estimated maps.
        noise: standard deviation per real component in all coils; by default they, and the maps, are whitened by what is
            measured of it in the scan as a whole. The image stays that of the coils as they are: their root sum of squares.
        coils: how many they are compressed to.
        height: of the image, where the readout is oversampled; by default as the file says, where it has no maps.
        baselines: how these are regularised.
    """

    kspace: KSpace
    sampling: Sampling = Everything()
    maps: np.ndarray | None = None
    cache: Path | None = None
    noise: float | None = None
    coils: int | None = None
    height: int | None = None
    baselines: Baselines = Baselines()

    def __post_init__(self) -> None:
        if self.maps is not None and (self.coils is not None or self.height is not None):
            raise InputError("Given maps are of the coils and sizes of the file: leave out --coils and --height.")
        if self.kspace.maps is not None and (self.coils is not None or self.height is not None):
            log.warning(
                "the file's own maps are of its coils and sizes: by --coils or --height they are estimated anew"
            )
        if self.noise is not None and not 0 < self.noise < np.inf:
            raise InputError(f"The noise of k-space is a standard deviation > 0, not {self.noise}: correct --noise.")
        if self.height is not None and self.kspace.trajectory is None and not 1 <= self.height <= self.kspace.shape[2]:
            raise InputError(
                f"k-space has {self.kspace.shape[2]} points along its height, and --height {self.height} is no part of them: "
                f"give 1 to {self.kspace.shape[2]}."
            )

        off_grid = self.kspace.trajectory
        if (
            off_grid is not None
            and self.height is not None
            and not SMALLEST <= self.height <= WIDEST * off_grid.matrix[0]
        ):
            raise InputError(
                f"--height {self.height} is no field of view of an image of {off_grid.matrix[0]} rows: give {SMALLEST} to "
                f"{WIDEST * off_grid.matrix[0]} of the same pixels."
            )

    def scan(self, number: int) -> tuple[Scan, Tensor | None, list[str]]:
        """A slice, its complex reference where k-space is sampled as a whole, and what is to be said about it."""
        scan, reference, notes = self._plain_scan(number)
        return replace(scan, baselines=self.chosen_baselines), reference, notes

    @cached_property
    def chosen_baselines(self) -> Baselines:
        """Those that are given, and for the rest what is best on the slice in the middle of the scan that holds anything."""
        for number in self._telling:
            with suppress(InputError):  # said when it is reconstructed
                return tuned(self._plain_scan(number)[0], self.baselines)
        return self.baselines

    @property
    def _telling(self) -> list[int]:
        """The slices of which one tells how baselines are regularised, where that is not given."""
        given, middle = self.baselines, len(self.kspace) // 2
        whole = None not in (given.damping, given.iterations, given.wavelet)
        return [] if whole else sorted(range(len(self.kspace)), key=lambda number: abs(number - middle))[:8]

    def _plain_scan(self, number: int) -> tuple[Scan, Tensor | None, list[str]]:
        """`scan` with the baselines as they are given."""
        if self.trajectory is not None:
            return self._off_grid_scan(number, self.trajectory)
        kspace, acquired, mask = self._slice(number)
        notes = [note for note in (*self._doubts, partial_fourier(acquired)) if note]
        if self.height is None and len(mask) < self.kspace.shape[2]:
            notes.append(
                f"the readout is oversampled: of {self.kspace.shape[2]} points the middle {len(mask)} are kept, as the file "
                f"says; --height {self.kspace.shape[2]} keeps all."
            )
        given = self._given(number, kspace.shape)
        whitening, noise, note = self._whitening
        notes += [note] if note else []
        mixing, kspace = Mixing.of(kspace, mask, whitening, self.coils)
        region = mixing.calibration(self.kspace, number, len(mask), noise) or (kspace, mask)
        maps = mixing.maps(given, *region, noise, self.cache)
        largest, why = strongest(maps), "" if self.kspace.target else _incomparable(acquired, mask)
        parts = as_tensor(kspace / largest), torch.from_numpy(mask), as_tensor(maps / largest)
        reference = None
        if _comparable(acquired, mask):
            best = maps if region[0] is not kspace else mixing.maps(given, kspace, acquired, noise, self.cache)
            reference = as_tensor(combine_by_maps(np.where(acquired, kspace, 0), best))
        return Scan(*parts, noise / largest, self.baselines, largest), reference, notes + ([why] if why else [])

    def _off_grid_scan(self, number: int, trajectory: Trajectory) -> tuple[Scan, Tensor | None, list[str]]:
        """`_plain_scan` of k-space off the grid. Of all of it, where that is whole, the reference is made by CG-SENSE."""
        kspace, acquired, mask = self._slice(number)
        places, matrix = trajectory.of(number), trajectory.matrix
        whitening, noise, note = self._whitening
        mixing, kspace = Mixing.of(kspace, mask, whitening, self.coils)
        given = self._given(number, (self.kspace.shape[1], *matrix))

        def scan(used: np.ndarray) -> Scan:
            region = gridded_centre(kspace[:, used], places[used], matrix) if given is None else (kspace, used)
            maps = as_tensor(mixing.maps(given, *region, noise, self.cache))
            parts, where = as_tensor(kspace), torch.from_numpy(places)
            shape = (2, *matrix)
            largest = BOUND * largest_singular_value(NonUniformSense(maps, where, torch.from_numpy(used)), shape, STEPS)
            units = parts / largest, torch.from_numpy(used), maps / largest, noise / largest
            return Scan(*units, self.baselines, largest, where)

        notes, reference = [note] if note else [], None
        share, less = share_of_cells(places[acquired], matrix), mask.sum() < acquired.sum()
        if share >= WHOLE and less:
            whole = scan(acquired)
            reference = to_complex(cg_sense(whole.operator, whole.y(1.0), iterations=REFERENCE))[0, 0]
        elif less:
            notes.append(
                f"{share:.0%} of the cells of k-space hold a sample: without a whole reference nothing is compared."
            )
        return scan(mask), reference, notes

    def fingerprint(self, numbers: Sequence[int]) -> str:
        """A digest of all in the file, and in files of maps and masks, that decides what `scan` gives of some slices. The other
        fields of this object decide it, too, and are recorded as they are.

        It holds one slice at a time, and reads those from which the noise is estimated as well.

        Raises:
            InputError: one of `numbers` cannot be read, or is no k-space; or all of them are zeros.
        """
        parts, held = hashlib.sha256(repr((self.kspace.shape, self.kspace.size)).encode()), 0

        def add(array: np.ndarray | None) -> None:
            parts.update(b"none" if array is None else repr((array.shape, array.dtype.str)).encode())
            parts.update(b"" if array is None else np.ascontiguousarray(array).data.cast("B"))

        parts.update(RULE.encode() if self._telling else b"")  # another version's would begin members elsewhere
        add(self.kspace.noise_scan)
        add(self.sampling.content)
        if self.trajectory is not None:
            add(self.trajectory.places)
        for number in sorted({*numbers, *self._noisy, *self._telling}):
            try:
                kspace, acquired = self.kspace.slice(number)
            except EmptySliceError:
                parts.update(b"empty")
                continue
            except InputError as error:
                if number in numbers:  # of others the noise is estimated without it
                    spans = [f"{a}:{b}" for a, b in ((0, number), (number + 1, len(self.kspace))) if a < b]
                    others = f" The others are --slices {','.join(spans)}." if spans else ""
                    raise InputError(f"{error}{others}") from error
                parts.update(b"left out")
                continue
            held += number in numbers
            for array in (kspace, acquired, *((self._maps(number), self.target(number)) if number in numbers else ())):
                add(array)
            if self.kspace.calibration is not None:
                add(self.kspace.calibration(number))
        if not held:
            raise InputError(f"The chosen slices of {self.kspace.origin} are all zeros: give other --slices.")
        return parts.hexdigest()

    def target(self, number: int) -> np.ndarray | None:
        """The magnitude image of a slice that is in the file, (height, width) in its units, if there is one."""
        return None if self.kspace.target is None else self.kspace.target(number)

    def _slice(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """k-space of a slice without oversampling, where it was sampled, and what is used of that."""
        kspace, acquired = self.kspace.slice(number)
        if self.trajectory is None:
            kspace, acquired = remove_oversampling(kspace, acquired, self._height(acquired))
        mask = acquired & self._used(acquired, number)
        if not mask.any():
            raise InputError(
                f"Nothing of slice {number} of {self.kspace.origin} is used: it was not sampled where the mask is not 0."
            )
        return kspace, acquired, mask

    def _used(self, acquired: np.ndarray, number: int) -> np.ndarray:
        """Which points of a slice are used: of a mask of (slices, width), its lines."""
        lines, shape = self.sampling.content, self.kspace.shape
        if lines is not None and lines.shape == (shape[0], shape[3]) and shape[0] != shape[2]:
            return np.broadcast_to(lines[number] != 0, acquired.shape)
        if self.trajectory is None or lines is not None:
            return self.sampling(acquired.shape, number)
        # An even part of the angles of what was acquired, in whichever order it was measured
        readouts, used = acquired.any(0), np.zeros_like(acquired)
        even = self.sampling((len(acquired), int(readouts.sum())), number)
        used[:, readouts] = even[:, np.argsort(by_angle(self.trajectory.of(number)[:, readouts]))]
        return used

    def _noisy_slice(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """k-space of a slice with the air that oversampling has at the ends of its lines, and what is used of it."""
        kspace, _, mask = self._slice(number)
        if self.trajectory is not None:
            readouts = mask.all(0) if mask.all(0).any() else mask.any(0)
            return kspace[..., readouts], self.trajectory.of(number)[:, readouts]
        return whole_readout(self.kspace, number, mask) or (kspace, mask)

    def _height(self, acquired: np.ndarray) -> int:
        """Of the image of a slice, without oversampling."""
        if self.height is not None:
            return self.height
        return len(acquired) if self.maps is not None else self.kspace.height(acquired)

    @property
    def _noisy(self) -> list[int]:
        """The slices from which the noise is estimated, where it is not known otherwise."""
        known = self.noise is not None or self.kspace.noise_scan is not None
        return [] if known else spread_slices(len(self.kspace))

    @cached_property
    def trajectory(self) -> Trajectory | None:
        """Where samples off the grid are, in cycles per field of view of the image."""
        found = self.kspace.trajectory
        return found if found is None or self.height is None else found.on(self.height)

    @cached_property
    def _doubts(self) -> tuple[str, ...]:
        """What may be wrong with the axes of the scan as a whole; an error where it is."""
        return (check_axes(self.kspace), check_shift(self.kspace)) if self.trajectory is None else ()

    @cached_property
    def _whitening(self) -> tuple[np.ndarray, float, str]:
        """W of all slices, the standard deviation of the noise of W y, and a warning, or ""."""
        slices, wrong = [], None
        for number in self._noisy:
            try:
                slices.append(self._noisy_slice(number))
            except InputError as error:  # of a slice that is perhaps not reconstructed
                wrong = error
        if wrong is not None and not slices:
            raise wrong
        estimate = noise_covariance if self.trajectory is None else readout_noise
        return whitening_of(
            self.kspace, slices, None if self.noise is None else self.noise / self.kspace.unit, estimate
        )

    def _given(self, number: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """Maps of the coils as they are, from outside or from the file; None where they are to be estimated."""
        maps = self._maps(number)
        if maps is not None and maps.shape != shape:
            raise InputError(
                f"The maps are {maps.shape} and k-space is {shape} (coils, height, width): give the maps of this scan, "
                "or none, and they are estimated."
            )
        return maps

    def _maps(self, number: int) -> np.ndarray | None:
        """Maps from outside, or from the file where they fit."""
        if self.maps is not None:
            if self.maps.ndim == 4 and number >= len(self.maps):
                raise InputError(f"The maps are of {len(self.maps)} slices, and there is a slice {number}: give all.")
            return self.maps if self.maps.ndim == 3 else self.maps[number]
        if self.kspace.maps is not None and self.coils is None and self.height is None:
            return self.kspace.maps(number)
        return None


def _comparable(acquired: np.ndarray, mask: np.ndarray) -> bool:
    """Whether there is a whole reference for what is made of a part."""
    return bool(share_of(acquired) >= WHOLE and mask.sum() < acquired.sum())


def _incomparable(acquired: np.ndarray, mask: np.ndarray) -> str:
    """Why nothing is compared, where that may surprise; or nothing."""
    share, used = share_of(acquired), share_of(mask, acquired)
    if share < WHOLE and used < share:
        return (
            f"k-space was sampled to {share:.1%} already, and {used:.1%} of it is used, R = {1 / used:.1f}: without a whole "
            "reference nothing is compared."
        )
    if share >= WHOLE and used == share:
        return "k-space is sampled as a whole, and all of it used: nothing is compared without --acceleration."
    return ""


def sampling_of(
    mask: Sampling | None, acceleration: float | None, width: int | None, calibration: int | float | None = None
) -> Sampling:
    """The sampling that `--mask`, or `--acceleration` and `--calibration`, mean; all that was acquired by default.

    By default 24 lines in the middle, or 0.32/R of all where these would be more than half of the 1/R that are used: 8 % at R = 4
    and 4 % at R = 8, as in fastMRI's data.

    Args:
        mask: of one's own.
        acceleration: R.
        width: lines of k-space; None off the grid, where every R-th readout by its angle is used.
        calibration: lines in the middle, a number or a share of all.
    """
    if mask is not None and acceleration is not None:
        raise InputError("--mask and --acceleration both say what is used of k-space: give one of them.")
    if acceleration is None:
        if calibration is not None:
            raise InputError("--calibration is for --acceleration: add it, or leave --calibration out.")
        return mask or Everything()
    if width is None:
        if calibration is not None:
            raise InputError(
                "--calibration is for lines on a grid: leave it out, readouts off the grid meet in the middle."
            )
        return EquispacedLines(acceleration, 0)
    if calibration is None:
        check_acceleration(acceleration)
        few = max(round(0.32 * width / acceleration), LEAST_CALIBRATION)
        calibration = MANY if width / acceleration >= 2 * MANY else min(few, MANY)
    return RandomLines(acceleration, calibration)
