"""Which points of k-space are sampled. Acceleration R = all points / sampled points, those of the calibration region included.

Scanners fill up the edges of k-space with zeros to an image's matrix: these change nothing but the resolution of an image,
whereas lines that were left out between others alias it, and lines that are missing on one side (partial Fourier) blur it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorefield.data.arrays import ArrayFile
from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred_box
from scorefield.foundation.lazy import require
from scorefield.foundation.random import Stream, seed_of

ATTEMPTS = 8
WHOLE = 0.95  # of what was encoded: sampled less, images are aliased
LEAST_ENCODED = 0.5  # of an axis is encoded: a narrower middle is one of calibration lines
CORNERS = 0.05  # times as densely as the ellipse: sampled less, the corners of k-space were never meant to be
LOPSIDED = 0.8  # of the longer side of k-space: if the shorter one reaches less far, it may have been sampled in part
ONE_SIDED = 7  # lines that are the outermost and all on one side: by chance once in 2^6


class Sampling(ABC):
    """A mask for every grid."""

    @abstractmethod
    def __call__(self, grid: tuple[int, int], number: int = 0) -> np.ndarray:
        """True where k-space (height, width) is sampled, its centre at n // 2; lines run along the height.

        Args:
            grid: (height, width).
            number: of the mask, such as the slice; random masks of several numbers differ.
        """

    @property
    def content(self) -> np.ndarray | None:
        """What decides the masks beside the arguments, such as what a file holds; nothing by default."""
        return None


@dataclass(frozen=True)
class Everything(Sampling):
    """All of k-space that was acquired."""

    def __call__(self, grid: tuple[int, int], number: int = 0) -> np.ndarray:
        return np.ones(grid, dtype=bool)


@dataclass(frozen=True)
class RandomLines(Sampling):
    """All lines of the calibration region, and others drawn at random, uniformly, up to width/acceleration in all.

    Args:
        acceleration: R.
        calibration: lines in the middle: a number (integer) or a fraction of all (float).
        seed: draws the lines.
    """

    acceleration: float = 4.0
    calibration: int | float = 24
    seed: int = 0

    def __call__(self, grid: tuple[int, int], number: int = 0) -> np.ndarray:
        width = grid[1]
        middle, rest = split_lines(width, self.acceleration, self.calibration)
        draw = np.random.default_rng(seed_of(self.seed, number, Stream.MASK))
        middle[draw.choice(np.flatnonzero(~middle), rest, replace=False)] = True
        return np.broadcast_to(middle, grid).copy()


@dataclass(frozen=True)
class EquispacedLines(Sampling):
    """All lines of the calibration region, and others as evenly spaced as can be, width/acceleration in all.

    Args:
        acceleration: R.
        calibration: lines in the middle: a number (integer) or a fraction of all (float).
    """

    acceleration: float = 4.0
    calibration: int | float = 24

    def __call__(self, grid: tuple[int, int], number: int = 0) -> np.ndarray:
        middle, rest = split_lines(grid[1], self.acceleration, self.calibration)
        outside = np.flatnonzero(~middle)
        middle[outside[np.floor((np.arange(rest) + 0.5) * len(outside) / max(rest, 1)).astype(int)]] = True
        return np.broadcast_to(middle, grid).copy()


@dataclass(frozen=True)
class PoissonDisc(Sampling):
    """Points at random, no two of them near, sparser outwards, with a full box in the middle (two phase-encoded axes).

    Args:
        acceleration: R.
        calibration: height and width of the box.
        seed: draws the points.
    """

    acceleration: float = 8.0
    calibration: tuple[int, int] = (24, 24)
    seed: int = 0

    def __call__(self, grid: tuple[int, int], number: int = 0) -> np.ndarray:
        mri = require("sigpy.mri", "Poisson-disc masks", "mri")
        check_acceleration(self.acceleration)
        for attempt in range(ATTEMPTS):  # sigpy's search for the density fails now and then: another seed succeeds
            seed = seed_of(self.seed, number, attempt, Stream.MASK) % 2**31
            try:
                mask = mri.poisson(
                    grid,
                    self.acceleration,
                    calib=self.calibration,
                    seed=seed,
                    tol=0.02 * self.acceleration,
                    crop_corner=False,
                )
            except ValueError:
                continue
            return np.abs(mask) > 0
        raise InputError(
            f"No Poisson-disc mask of {grid} has acceleration {self.acceleration:g} with a box of {self.calibration}: "
            "give a smaller box, or another acceleration."
        )


@dataclass(frozen=True)
class Radial(Sampling):
    """The grid points nearest to spokes through the centre, one golden angle apart.

    Args:
        spokes: how many.
    """

    spokes: int = 32

    def __call__(self, grid: tuple[int, int], number: int = 0) -> np.ndarray:
        if self.spokes < 1:
            raise InputError(f"Radial needs spokes >= 1, not {self.spokes}.")
        mask = np.zeros(grid, dtype=bool)
        along = np.linspace(-1, 1, 2 * max(grid) + 1)
        golden = math.pi * (math.sqrt(5) - 1) / 2
        for angle in (np.arange(self.spokes) + number * self.spokes) * golden:
            place = (np.rint(n // 2 + along * (n / 2) * f(angle)) for n, f in zip(grid, (np.sin, np.cos), strict=True))
            rows, columns = (np.clip(p, 0, n - 1).astype(int) for p, n in zip(place, grid, strict=True))
            mask[rows, columns] = True
        return mask


@dataclass(frozen=True)
class MaskFile(Sampling):
    """A mask from a .npy file: (width) for lines, (height, width), or one of these for each slice.

    One of whole lines holds for a readout without oversampling, too, which has fewer points.

    Args:
        path: the file.
    """

    path: Path

    @property
    def content(self) -> np.ndarray:
        values = np.asarray(ArrayFile(Path(self.path)).read("", "the mask"))
        sampled_by(values, f"The mask {self.path}")
        return values

    def __call__(self, grid: tuple[int, int], number: int = 0) -> np.ndarray:
        mask = self.content != 0
        if mask.ndim > 1 and mask.shape[-2] > grid[0] and (mask == mask[..., :1, :]).all():
            mask = mask[..., :1, :]
        if mask.shape[-1:] != grid[1:] or mask.ndim > 3 or (mask.ndim > 1 and mask.shape[-2] not in (1, grid[0])):
            raise InputError(
                f"The mask {self.path} is {mask.shape}, where k-space is {grid}: give one of width {grid[1]}, or of both; where "
                "the readout is oversampled, one of whole lines."
            )
        if mask.ndim == 3:
            if number >= len(mask):
                raise InputError(
                    f"The mask {self.path} is of {len(mask)} slices, and there is a slice {number}: give all."
                )
            mask = mask[number]
        return np.broadcast_to(mask, grid).copy()


# ---------------------------------------------------------------------------------------------------- what a mask says
def sampled_by(values: np.ndarray, origin: str) -> np.ndarray:
    """Where a mask says that k-space was sampled, where it is not 0. Text, complex numbers and NaN are refused."""
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        what = "NaN or infinite values" if values.dtype.kind == "f" else str(values.dtype)
        raise InputError(f"{origin} holds {what}: give 1 where k-space was sampled, and 0 elsewhere.")
    return values != 0


def calibration_box(mask: np.ndarray) -> tuple[int, int]:
    """Height and width of a fully sampled box around the centre of k-space: the one of the largest shorter side.

    Args:
        mask: where k-space (height, width) is sampled, its centre at n // 2.
    """
    size = [0, 0]
    growing = [True, True]
    while any(growing):
        for axis in (0, 1):
            if not growing[axis]:
                continue
            larger = list(size)
            larger[axis] += 1
            larger = [max(n, 1) for n in larger]
            growing[axis] = larger[axis] <= mask.shape[axis] and bool(mask[centred_box(mask.shape, larger)].all())
            size = larger if growing[axis] else size
    return size[0], size[1]


def encoded(mask: np.ndarray) -> tuple[slice, ...]:
    """The box of a mask (height, width) beyond which nothing was sampled on either side, symmetric about n // 2 of each axis.

    Of k-space that was sampled in part, on one side, it has both sides. It has all of an axis of which less than half lies in it,
    and where the edges are no wider than gaps between lines: undersampled k-space ends anywhere.

    Args:
        mask: where k-space was sampled, of any number of axes.
    """
    found = []
    for axis, size in enumerate(mask.shape):
        places = _sampled(mask, axis)
        if not len(places):
            found.append(slice(0, size))
            continue
        below, above = _reach(places, size)
        edge = min(size // 2 - below, size - 1 - size // 2 - above)
        below, above = max(below, above), max(above, below - 1)  # an even number of points has one more below
        padded = below + above + 1 >= LEAST_ENCODED * size and edge >= int(np.diff(places).max(initial=1))
        found.append(slice(max(size // 2 - below, 0), size // 2 + above + 1) if padded else slice(0, size))
    return tuple(found)


def share_of(mask: np.ndarray, acquired: np.ndarray | None = None) -> float:
    """The share that is sampled of what was encoded: 1/R.

    Args:
        mask: what is sampled, (height, width).
        acquired: what was, where the mask is but a part of it.
    """
    whole = mask if acquired is None else acquired
    box = encoded(whole)
    inside = _ellipse(whole[box].shape)
    corners = whole[box][~inside]
    if corners.size and corners.mean() < CORNERS * whole[box][inside].mean():  # which 3-D scans often leave out
        return float(mask[box][inside].mean())
    return float(mask[box].mean())


def _ellipse(shape: tuple[int, ...]) -> np.ndarray:
    """The points of a box that lie within the ellipse that fills it."""
    axes = [(np.arange(size) - size // 2) / (size / 2) for size in shape]
    return np.sum([axis**2 for axis in np.meshgrid(*axes, indexing="ij")], axis=0) < 1


def partial_fourier(mask: np.ndarray) -> str:
    """A warning where one side of a mask (height, width) was left out, which random sampling seldom does; else nothing."""
    for axis, name in ((0, "height"), (1, "width")):
        places, size = _sampled(mask, axis), mask.shape[axis]
        if not len(places):
            return ""
        below, above = _reach(places, size)
        shorter, longer = min(below, above), max(below, above)
        alone = int((np.abs(places - size // 2) > shorter).sum())
        if shorter < LOPSIDED * longer and longer > size // 4 and alone >= ONE_SIDED:
            return (
                f"k-space reaches {below} points to one side of the centre of its {name} and {above} to the other: "
                "with partial Fourier sampling, what is missing is left to the prior, not to symmetry."
            )
    return ""


def _sampled(mask: np.ndarray, axis: int) -> np.ndarray:
    """The indices along an axis at which anything is sampled."""
    return np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))


def _reach(places: np.ndarray, size: int) -> tuple[int, int]:
    """How many points sampling reaches below and above the centre."""
    return size // 2 - int(places[0]), int(places[-1]) - size // 2


# ---------------------------------------------------------------------------------------------------- parts of masks
def split_lines(width: int, acceleration: float, calibration: int | float) -> tuple[np.ndarray, int]:
    """Where the lines of the calibration region are, and how many others there are to be."""
    check_acceleration(acceleration)
    count = calibration if isinstance(calibration, int) else round(calibration * width)
    total = round(width / acceleration)
    if not 0 <= count <= total:
        raise InputError(
            f"{count} calibration lines are more than the {total} of {width} that acceleration {acceleration:g} leaves: "
            "give fewer, or a smaller acceleration."
        )
    middle = np.zeros(width, dtype=bool)
    middle[centred_box((width,), (count,))] = True
    return middle, total - count


def check_acceleration(acceleration: float) -> None:
    """Refuse what is no acceleration."""
    if not acceleration >= 1:
        raise InputError(f"An acceleration is at least 1, not {acceleration}.")
