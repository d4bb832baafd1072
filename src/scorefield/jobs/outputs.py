"""How samples lie on disk: one array, put together from parts, or one picture for each sample."""

from __future__ import annotations

import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield.data.arrays import BROKEN
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing

UNREADABLE = (*BROKEN, AttributeError, SyntaxError)  # of a .npz in an array's place, of a broken PNG
DOUBTFUL = 0.1  # of the range from black to white, that a chunk of samples should span at least


class Output(ABC):
    """A place for n samples, filled chunk by chunk in any order; what it holds is told from the files alone.

    Args:
        folder: where.
        shape: (n, channels, *grid).
    """

    def __init__(self, folder: Path, shape: Sequence[int]) -> None:
        self.folder, self.shape = folder, tuple(shape)

    @property
    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What decides the files, beside the samples themselves."""

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether nothing is left to do, as far as can be told without reading much."""

    @abstractmethod
    def holds(self, start: int, count: int) -> bool:
        """Whether samples start to start + count - 1 are there and can be read."""

    @abstractmethod
    def write(self, start: int, x: Tensor) -> None:
        """Write a chunk, whole or not at all."""

    @abstractmethod
    def finish(self, starts: Sequence[int]) -> None:
        """Once all chunks are there: make the result of them."""

    @abstractmethod
    def first(self, count: int) -> Tensor:
        """The first samples of a complete output, for a picture."""

    @abstractmethod
    def discard(self, start: int) -> None:
        """Delete what is of no use beside the result."""


class ArrayFile(Output):
    """`samples.npy` in data units. At the end parts and result are both on disk, so it takes twice its size."""

    @property
    def record(self) -> dict[str, Any]:
        return {}

    @property
    def path(self) -> Path:
        return self.folder / "samples.npy"

    @property
    def complete(self) -> bool:
        return _is_array(self.path, self.shape)

    def holds(self, start: int, count: int) -> bool:
        return _is_array(self._part(start), (count, *self.shape[1:]))

    def write(self, start: int, x: Tensor) -> None:
        array = np.ascontiguousarray(x.numpy())
        with replacing(self._part(start)) as temporary, temporary.open("wb") as file:
            write_header(file, array.shape, array.dtype)
            file.write(array.data)  # numpy's own way to write hides that the disk is full

    def finish(self, starts: Sequence[int]) -> None:
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            dtype = np.load(self._part(starts[0]), mmap_mode="r", allow_pickle=False).dtype
            write_header(file, self.shape, dtype)
            for start in starts:
                with self._part(start).open("rb") as part:
                    skip_header(part)
                    shutil.copyfileobj(part, file, 2**20)

    def first(self, count: int) -> Tensor:
        return self.read()[:count]

    def read(self) -> Tensor:
        """The samples, left on disk until they are used; writing to them changes no file."""
        return torch.from_numpy(np.load(self.path, mmap_mode="c", allow_pickle=False))

    def discard(self, start: int) -> None:
        self._part(start).unlink(missing_ok=True)

    def _part(self, start: int) -> Path:
        return self.folder / f"part-{start:09d}.npy"


@dataclass(frozen=True)
class Pixels:
    """Grey or colour values of a picture: pixel = round((x − low) / (high − low) · white), cut to 0..white.

    White is 255; 65535 where the range is wider than 255, as that of 16-bit images is.

    Args:
        low: the value in data units that is black.
        high: the value that is white.
    """

    low: float = 0.0
    high: float = 255.0

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"--range {self.low:g} {self.high:g} is no range: give the values of black and of white.")

    @property
    def white(self) -> int:
        return 255 if self.high - self.low <= 255 else 65535

    def __call__(self, x: Tensor) -> np.ndarray:
        unit = (x.double() - self.low) / (self.high - self.low)
        return (unit.clamp(0, 1) * self.white).round().numpy().astype(np.uint8 if self.white == 255 else np.uint16)

    def inverse(self, pixels: Tensor) -> Tensor:
        """The values in data units that are shown by such pixels."""
        return self.low + (self.high - self.low) / self.white * pixels


class PictureFiles(Output):
    """`png/000000.png` and so on, one for each sample.

    Args:
        folder: where.
        shape: (n, channels, height, width), of 1 or 3 channels.
        pixels: the range of values, if it is known; without, 0..255 is assumed, and refused where the samples contradict.
    """

    def __init__(self, folder: Path, shape: Sequence[int], pixels: Pixels | None = None) -> None:
        super().__init__(folder, shape)
        self.pixels, self.certain = pixels or Pixels(), pixels is not None
        if len(self.shape) != 4 or self.shape[1] not in (1, 3):
            size = "×".join(map(str, self.shape[1:]))
            raise InputError(f"Samples of {size} are no grey or colour images: leave out --png.")
        if self.pixels.white > 255 and self.shape[1] == 3:
            raise InputError("Colour PNGs have 8 bits: give a --range of at most 255, or leave out --png.")

    @property
    def record(self) -> dict[str, Any]:
        return {"png": [self.pixels.low, self.pixels.high]}

    @property
    def complete(self) -> bool:
        return False  # it takes a look at every file

    def holds(self, start: int, count: int) -> bool:
        return all(self._is_picture(self._file(index)) for index in range(start, start + count))

    def write(self, start: int, x: Tensor) -> None:
        if not self.certain:
            self._doubt(x)
        pixels = self.pixels(x)
        for index, sample in enumerate(pixels, start):
            picture = Image.fromarray(sample[0] if len(sample) == 1 else np.moveaxis(sample, 0, -1))
            # Without waiting for the disk at each: a file that a power cut spoils is found by `holds` and made again.
            with replacing(self._file(index), flush=False) as temporary:
                picture.save(temporary, format="PNG")

    def finish(self, starts: Sequence[int]) -> None:
        """Nothing is left to do."""

    def discard(self, start: int) -> None:
        """The files are the result."""

    def first(self, count: int) -> Tensor:
        files = [self._file(index) for index in range(min(count, self.shape[0]))]
        arrays = [np.atleast_3d(np.asarray(Image.open(file), dtype=np.float32)) for file in files]
        return torch.from_numpy(np.stack(arrays)).movedim(-1, 1)

    def _file(self, index: int) -> Path:
        digits = max(6, len(str(self.shape[0] - 1)))
        return self.folder / "png" / f"{index:0{digits}d}.png"

    def _is_picture(self, path: Path) -> bool:
        try:
            with Image.open(path) as picture:
                fits = picture.size == (self.shape[3], self.shape[2]) and picture.format == "PNG"
                picture.verify()
                return fits
        except UNREADABLE:
            return False

    def _doubt(self, x: Tensor) -> None:
        low, high = (float(bound) for bound in x.aminmax())
        least, most = max(low, self.pixels.low), min(high, self.pixels.high)
        if most - least < max(DOUBTFUL * (self.pixels.high - self.pixels.low), 0.5 * (high - low)):
            raise InputError(
                f"The samples go from {low:.4g} to {high:.4g}, not from 0 to 255 as 8-bit images do: "
                "give --range BLACK WHITE in their units."
            )


def write_header(file: BinaryIO, shape: Sequence[int], dtype: np.dtype) -> None:
    """The beginning of a .npy file, as numpy writes it."""
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, facts)


def skip_header(file: BinaryIO) -> None:
    """Go to where the values of a .npy file begin."""
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)


def _is_array(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file holds a whole array of a shape."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).shape == shape
    except UNREADABLE:
        return False
