"""How samples lie on disk: one array, or one picture for each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield.foundation.errors import InputError

DOUBTFUL = 0.1  # of the range from black to white, that a chunk of samples should span at least
CUT = 0.01  # of the values, that may lie beyond a range that was assumed by more than a tenth of it
DEPTHS = {
    "bool": (0.0, 1.0),
    "uint16": (0.0, 65535.0),
}  # of pixels, by how they are stored; 8 bits may be of other things


@dataclass(frozen=True)
class Pixels:
    """Grey or colour values of a picture: pixel = round((x − low) / (high − low) · white), cut to 0..white; NaN is black.

    White is 255; 65535 where the range is wider than 255, as that of 16-bit images is.

    Args:
        low: the value in data units that is black.
        high: the value that is white.
        certain: whether the range is known; otherwise samples that contradict it are refused.
    """

    low: float = 0.0
    high: float = 255.0
    certain: bool = True

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"--range {self.low:g} {self.high:g} is no range: give the values of black and of white.")

    @classmethod
    def as_stored(cls, dtype: str | None) -> Pixels:
        """Black and white of pictures whose numbers are stored in a type; for others those of 8 bits, not for certain."""
        return cls(*DEPTHS[dtype]) if dtype in DEPTHS else cls(certain=False)

    @property
    def white(self) -> int:
        return 255 if self.high - self.low <= 255 else 65535

    def __call__(self, x: Tensor) -> np.ndarray:
        unit = (x.double() - self.low) / (self.high - self.low)
        return (
            (unit.nan_to_num(0).clamp(0, 1) * self.white)
            .round()
            .numpy()
            .astype(np.uint8 if self.white == 255 else np.uint16)
        )

    def inverse(self, pixels: Tensor) -> Tensor:
        """The values in data units that are shown by such pixels."""
        return self.low + (self.high - self.low) / self.white * pixels

    def check(self, shape: Sequence[int]) -> None:
        """Refuse samples (channels, *grid) that are no pictures."""
        if len(shape) != 3 or shape[0] not in (1, 3):
            size = "×".join(map(str, shape))
            raise InputError(f"Samples of {size} are no grey or colour images: leave out --png.")
        if self.white > 255 and shape[0] == 3:
            raise InputError("Colour PNGs have 8 bits: give a --range of at most 255, or leave out --png.")

    def check_range(self, x: Tensor) -> None:
        """Refuse samples that contradict a range that was merely assumed."""
        if self.certain:
            return
        low, high = (float(bound) for bound in x.nan_to_num(self.low).aminmax())
        slack = DOUBTFUL * (self.high - self.low)
        beyond = float(((x < self.low - slack) | (x > self.high + slack)).double().mean())
        least, most = max(low, self.low), min(high, self.high)
        if beyond > CUT or most - least < max(slack, 0.5 * (high - low)):
            raise InputError(
                f"The samples go from {low:.4g} to {high:.4g}, not from 0 to 255 as 8-bit images do: "
                "give --range BLACK WHITE in their units."
            )


def write_array(path: Path, shape: Sequence[int], parts: Iterable[np.ndarray]) -> None:
    """Write a .npy of a shape from arrays that follow each other along its first axis, one in memory at a time.

    numpy's own way to write does not say when the disk is full.
    """
    with path.open("wb") as file:
        for number, part in enumerate(parts):
            if number == 0:
                _write_header(file, shape, part.dtype)
            file.write(np.ascontiguousarray(part).data)


def write_times(path: Path, times: Sequence[int], n: int, sequences: int) -> None:
    """Which time each field of n sequences is of, and which of some given ones each goes on from or is given, as a .npz.

    Args:
        path: the file: `time` (times), in steps of the data; `sequence` and `member` (n), of samples (n, times, ...).
        times: of the fields, 0 the first that is given.
        n: how many sequences.
        sequences: how many were given; 0 where all are members of one.
    """
    rows = np.arange(n)
    given = max(sequences, 1)
    with path.open("wb") as file:
        np.savez(file, time=np.array(times), sequence=rows % given, member=rows // given)


def write_pictures(folder: Path, n: int, parts: Iterable[np.ndarray], pixels: Pixels) -> None:
    """Write `000000.png` and so on, one for each of n samples, which come in parts (count, channels, height, width)."""
    folder.mkdir()
    digits, index = max(6, len(str(n - 1))), 0
    for part in parts:
        for sample in pixels(torch.from_numpy(part)):
            picture = Image.fromarray(sample[0] if len(sample) == 1 else np.moveaxis(sample, 0, -1))
            picture.save(folder / f"{index:0{digits}d}.png", format="PNG")
            index += 1


def _write_header(file: BinaryIO, shape: Sequence[int], dtype: np.dtype) -> None:
    """The beginning of a .npy file, as numpy writes it."""
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, facts)
