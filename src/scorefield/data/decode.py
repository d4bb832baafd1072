"""Pillow's images as arrays, cropped and resized, at their own depth: what is stored with 16 bits stays 16 bits."""

from __future__ import annotations

import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.data.precision import fits_float32, glance, needed
from scorefield.foundation.errors import InputError, brief

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile, NotImplementedError)
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # grey values of more than 8 bits

Channels = Literal[1, 3]
Filter = Literal["bicubic", "bilinear", "box", "lanczos"]
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive


class Crop(ABC):
    """Which part of an image is used."""

    @abstractmethod
    def __call__(self, height: int, width: int) -> Box:
        """The part of an image of that size."""


@dataclass(frozen=True)
class CentreCrop(Crop):
    """The middle of an image; half a pixel too much goes to the far side. Smaller images raise InputError.

    Args:
        height: of the part, in pixels.
        width: of the part, in pixels.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise InputError(f"CentreCrop needs height and width >= 1, not {self.height} and {self.width}.")

    def __call__(self, height: int, width: int) -> Box:
        if height < self.height or width < self.width:
            raise InputError(f"is {height}×{width}, too small for a crop of {self.height}×{self.width}: remove it.")
        left, top = (width - self.width) // 2, (height - self.height) // 2
        return left, top, left + self.width, top + self.height


@dataclass(frozen=True)
class Square(Crop):
    """The largest square in the middle of an image."""

    def __call__(self, height: int, width: int) -> Box:
        side = min(height, width)
        return CentreCrop(side, side)(height, width)


@dataclass(frozen=True)
class Conversion:
    """From an image to an array (height, width) or (height, width, 3): crop, channels, size.

    Args:
        channels: 1 for grey or 3 for colour; the image's own by default.
        crop: the part that is used; all by default.
        size: (height, width) to resize to; 1-bit images become grey 0-255.
        filter: how to resize; each is antialiased, "box" is the mean over areas.
    """

    channels: Channels | None = None
    crop: Crop | None = None
    size: tuple[int, int] | None = None
    filter: Filter = "bicubic"

    def __call__(self, image: Image.Image) -> np.ndarray:
        check_depth(image)
        image = ImageOps.exif_transpose(image)
        if self.crop is not None:
            image = image.crop(self.crop(image.height, image.width))
        if image.mode in DEEP_MODES:
            array = np.asarray(image) if self.size is None else self._resize_deep(image, self.size)
            return np.stack([array] * 3, axis=-1) if self.channels == 3 else array
        if self.size is not None and image.mode == "1":
            image = image.convert("L")
        grey = image.mode in ("1", "L", "LA", "La") if self.channels is None else self.channels == 1
        if image.mode != "1" or not grey:
            image = image.convert("L" if grey else "RGB")
        return np.asarray(image if self.size is None else self._resize(image, self.size))

    def _resize(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return image.resize((size[1], size[0]), Image.Resampling[self.filter.upper()])

    def _resize_deep(self, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
        """Resize grey values of more than 8 bits in floating point, within the range they had."""
        array = np.asarray(image)
        small = np.asarray(self._resize(Image.fromarray(array.astype(np.float32)), size))
        small = small.clip(array.min(), array.max())
        return small if array.dtype.kind == "f" else np.rint(small).astype(array.dtype)


def check_depth(image: Image.Image) -> None:
    """Refuse images whose depth pillow would silently cut to 8 bits, such as 16-bit colour."""
    tiles = getattr(image, "tile", ())  # of an image file; others have none
    raw = str(tiles[0][3]) if tiles else ""
    if "16" in raw and image.mode not in DEEP_MODES:
        raise InputError("has 16-bit colours, of which only 8 bits would be read: save it as .npy.")


class Decoder(ABC):
    """Reads a collection of images that are of one kind: that of the first one. Any other raises InputError.

    Args:
        origin: what to call the collection in an error.
        convert: how an image becomes an array.
    """

    def __init__(self, origin: str, convert: Conversion) -> None:
        self.origin, self.convert = origin, convert

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """The image of a number; one that cannot be read raises one of `BROKEN`."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call it."""

    @cached_property
    def first(self) -> np.ndarray:
        """The image that all others have to be like."""
        return self._decode(0, self.convert)

    def __call__(self, index: int) -> np.ndarray:
        """One image as (height, width) or (height, width, 3)."""
        first, given = self.first, self.convert
        channels: Channels = 3 if first.ndim == 3 else 1
        image = self._decode(index, Conversion(channels, given.crop, given.size, given.filter))
        if image.shape != first.shape:
            sizes = " but ".join(
                f"{self.name(i)} is {a.shape[0]}×{a.shape[1]}" for i, a in ((index, image), (0, first))
            )
            raise InputError(
                f"Images of {self.origin} differ in size, {sizes}: give size (height, width) to resize them."
            )
        if image.dtype != first.dtype:
            names = f"{self.name(index)} of {self.origin} is {image.dtype} but {self.name(0)} is {first.dtype}"
            raise InputError(f"{names}: convert to one depth.")
        return image

    def _decode(self, index: int, convert: Conversion) -> np.ndarray:
        try:
            with self.open(index) as image:
                return convert(image)
        except InputError as error:
            raise InputError(f"{self.name(index)} of {self.origin} {error}") from None
        except BROKEN as error:
            raise InputError(
                f"{self.name(index)} of {self.origin} is not a readable image ({brief(error)}): replace or remove it."
            ) from error


class ImageFields(FieldDataset):
    """Some images of a collection, decoded when they are gathered.

    Args:
        decoder: reads them.
        indices: which ones.
        labels: one class for each of them, if there are classes.
        classes: a name per label value.
    """

    def __init__(self, decoder: Decoder, indices: Tensor, labels: Tensor | None, classes: tuple[str, ...]) -> None:
        self.decoder, self.indices, self.labels, self.classes = decoder, indices, labels, classes
        self.dtype = str(decoder.first.dtype)
        self.quantum = 0.0 if decoder.first.dtype.kind == "f" else 1.0
        self.precision = torch.float32
        if not fits_float32(decoder.first.dtype):
            rows = self._rows(torch.from_numpy(glance(len(self), decoder.first.size)))
            self.precision = needed(rows, decoder.origin)

    def __len__(self) -> int:
        return len(self.indices)

    def gather(self, indices: Tensor) -> Batch:
        rows = self._rows(indices).astype(str(self.precision).removeprefix("torch."), copy=False)
        cond = {} if self.labels is None else {"label": self.labels[indices]}
        return Batch(torch.from_numpy(np.ascontiguousarray(rows)), cond)

    def _rows(self, indices: Tensor) -> np.ndarray:
        """Some images (n, channels, height, width) as they are stored."""
        rows = np.stack([self.decoder(i) for i in self.indices[indices].tolist()])
        return rows[:, None] if rows.ndim == 3 else np.moveaxis(rows, -1, 1)

    def kept(self, gib: float) -> FieldDataset:
        """The same fields, all decoded now and kept in memory at their own depth, if they take up to so many GiB."""
        if self.decoder.first.nbytes * len(self) > gib * 2**30:
            return self
        array = np.empty((len(self), *self.decoder.first.shape), self.decoder.first.dtype)

        def fill(i: int) -> None:
            array[i] = self.decoder(int(self.indices[i]))

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(len(self))))
        labels = None if self.labels is None else self.labels.numpy()
        return ArrayFields(array, "none" if array.ndim == 3 else "last", labels, self.classes, self.decoder.origin)
