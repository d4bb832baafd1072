"""Which points of k-space are sampled. Acceleration R = all points / sampled points, those of the calibration region included."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorefield.data.arrays import ArrayFile
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Stream, seed_of

ATTEMPTS = 8


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
        """What decides the masks beside the fields, such as what a file holds; nothing by default."""
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
        sigpy = import_sigpy("Poisson-disc masks")
        check_acceleration(self.acceleration)
        for attempt in range(ATTEMPTS):  # sigpy's search for the density fails now and then: another seed succeeds
            seed = seed_of(self.seed, number, attempt, Stream.MASK) % 2**31
            try:
                mask = sigpy.mri.poisson(
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
        return np.asarray(ArrayFile(Path(self.path)).read("", "the mask"))

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
                raise InputError(f"The mask {self.path} has {len(mask)} slices, and is asked for slice {number}.")
            mask = mask[number]
        return np.broadcast_to(mask, grid).copy()


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
    first = width // 2 - count // 2
    middle[first : first + count] = True
    return middle, total - count


def check_acceleration(acceleration: float) -> None:
    """Refuse what is no acceleration."""
    if not acceleration >= 1:
        raise InputError(f"An acceleration is at least 1, not {acceleration}.")


def import_sigpy(what: str):  # noqa: ANN201 - a module
    """sigpy with its MRI part, or InputError."""
    try:
        import sigpy
        import sigpy.mri
    except ImportError as error:
        raise InputError(f"{what} need sigpy: pip install 'scorefield[mri]'.") from error
    return sigpy
