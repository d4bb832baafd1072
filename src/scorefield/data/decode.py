"""Pillow's images as arrays, cropped and resized, at their own depth: what is stored with 16 bits stays 16 bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import ArrayFields, ChannelAxis, FieldDataset
from scorefield.data.precision import fits_float32, needed, spread_rows
from scorefield.foundation.errors import InputError, brief

BROKEN = (Exception,)  # a damaged, encrypted or exploding file raises almost any
GREY_MODES = ("1", "L", "LA", "La")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
MOST_UNREADABLE = 0.05  # of images are left out; if more cannot be read, something else is wrong
SURVEYED = 2000  # images of a collection whose kind is looked at before the first is decoded, at most
HEAD = 2**16  # bytes of a JPEG 2000 file in which its code begins
PAGED = ("TIFF", "GIF", "WEBP", "PNG")  # the second image in a photograph is a preview
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # grey values of more than 8 bits


class UnreadableImageError(InputError):
    """The content of an image file cannot be decoded: it was cut off or damaged, or is no image at all.

    Args:
        name: of the image.
        origin: where it is.
        reason: what is wrong with it.
    """

    def __init__(self, name: str, origin: str, reason: str) -> None:
        super().__init__(f"{name} of {origin} is not a readable image ({reason}): replace or remove it.")
        self.name, self.reason = name, reason


Channels = Literal[1, 3]
Depth = Literal[8, 16]
Pages = Literal["first", "frames", "volume"]
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
    """From an image to an array (height, width) or (height, width, 3): crop, channels, size, depth; of a volume with pages first.

    Args:
        channels: 1 for grey or 3 for colour; the image's own by default.
        crop: the part that is used; all by default.
        size: (height, width) to resize to; 1-bit images become grey 0-255.
        filter: how to resize; each is antialiased, "box" is the mean over areas.
        depth: bits to bring 1, 8 and 16 bits to, black and white staying so; the image's own by default.
        pages: of an image with several, the first, all as fields (`frames`), or as one field of three axes (`volume`).
    """

    channels: Channels | None = None
    crop: Crop | None = None
    size: tuple[int, int] | None = None
    filter: Filter = "bicubic"
    depth: Depth | None = None
    pages: Pages | None = None

    def __call__(self, image: Image.Image, page: int = 0) -> np.ndarray:
        """The values as stored, (height, width) or (height, width, 3), with all pages first where they are a volume."""
        count = pages_of(image)
        if self.pages is None and count > 1:
            raise InputError(f"has {count} pages: give pages frames, volume or first.")
        if self.pages == "volume":
            return np.stack([self._page(image, number) for number in range(count)])
        return self._page(image, page)

    def _page(self, image: Image.Image, page: int) -> np.ndarray:
        if page or self.pages == "volume":
            image.seek(page)
        if self.depth != 8:
            check_depth(image)
        array = self._values(ImageOps.exif_transpose(image))
        return array if self.depth is None else to_depth(array, self.depth)

    def _values(self, image: Image.Image) -> np.ndarray:
        if self.crop is not None:
            image = image.crop(self.crop(image.height, image.width))
        if image.mode in DEEP_MODES:
            array = np.asarray(image) if self.size is None else self._resize_deep(image, self.size)
            array = array.astype(array.dtype.newbyteorder("="), copy=False)  # a TIFF may have the other order
            return np.stack([array] * 3, axis=-1) if self.channels == 3 else array
        if self.size is not None and image.mode == "1":
            image = image.convert("L")
        grey = not is_colour(image) if self.channels is None else self.channels == 1
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
    if is_deep(image) and image.mode not in DEEP_MODES:
        raise InputError("has colours of more than 8 bits, of which only 8 would be read: save it as .npy.")


def is_deep(image: Image.Image) -> bool:
    """Whether a file stores 16 bits for each channel, in any mode that it is read in."""
    tiles = getattr(image, "tile", ())  # of an image file; others have none
    if tiles and image.format == "JPEG2000":
        return bits_of_jpeg2000(image) > 8
    if not tiles or image.format not in ("PNG", "TIFF", "PPM"):
        return False
    given = tiles[0][3]  # the raw mode, such as RGB;16B, alone or with more: of a PPM its largest value
    raw, *more = given if isinstance(given, tuple) and given else (given,)
    return ";16" in str(raw) or (image.format == "PPM" and any(value > 255 for value in more))


def bits_of_jpeg2000(image: Image.Image) -> int:
    """The bits of its deepest channel by the header of its code (ISO 15444-1, A.5.1), which pillow keeps to itself."""
    file = getattr(image, "fp", None)
    if file is None:
        return 8
    place = file.tell()
    file.seek(0)
    head = file.read(HEAD)
    file.seek(place)
    size = head.find(b"\xff\x4f\xff\x51")  # the start of the code, and of the segment on sizes
    count = int.from_bytes(head[size + 40 : size + 42], "big") if size >= 0 else 0
    return max(((byte & 0x7F) + 1 for byte in head[size + 42 : size + 42 + 3 * count : 3]), default=8)


def is_colour(image: Image.Image) -> bool:
    """Whether it has colours, or a palette of them."""
    return image.mode not in GREY_MODES + DEEP_MODES


def has_alpha(image: Image.Image) -> bool:
    """Whether it says which of its pixels are transparent."""
    return image.mode in ALPHA_MODES or "transparency" in image.info


def pages_of(image: Image.Image) -> int:
    """How many images there are in a file."""
    return int(getattr(image, "n_frames", 1)) if image.format in PAGED and getattr(image, "is_animated", False) else 1


def to_depth(array: np.ndarray, depth: Depth) -> np.ndarray:
    """Values of 1, 8 or 16 bits, of any shape, as those of another depth: black stays black, and white white."""
    if array.dtype not in (np.bool_, np.uint8, np.uint16):
        raise InputError(f"holds {array.dtype}, not 1, 8 or 16 bits: leave depth out, or save it with 16 bits.")
    white = {np.dtype(np.bool_): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}[array.dtype]
    wanted = 2**depth - 1
    return np.rint(array * (wanted / white)).astype(np.uint8 if depth == 8 else np.uint16)


class Decoder(ABC):
    """Reads a collection of images as arrays of one shape and type: in colour if any image is, otherwise as the first one.

    Any other raises InputError, and one that cannot be decoded UnreadableImageError. Of large collections the kind of 2000 images
    is looked at; a colour image that is met later is refused.

    Args:
        origin: what to call the collection in an error.
        convert: how an image becomes an array.

    Attributes:
        looked_at: how many images' kind is looked at, at most.
    """

    looked_at = SURVEYED

    def __init__(self, origin: str, convert: Conversion) -> None:
        self.origin, self.convert = origin, convert

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """The image of a number; one that cannot be read raises one of `BROKEN`."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call it."""

    def __len__(self) -> int:
        """How many images there are, as far as they may differ in kind."""
        return 1

    @cached_property
    def kinds(self) -> Kinds:
        """What the images are, by their headers."""

        def look(index: int) -> tuple[bool, bool] | UnreadableImageError:
            try:
                with self._reading(index) as image:
                    return is_colour(image), has_alpha(image)
            except UnreadableImageError as error:
                return error

        chosen = np.unique(np.linspace(0, len(self) - 1, min(len(self), self.looked_at)).round().astype(int)).tolist()
        with ThreadPoolExecutor() as pool:
            found = dict(zip(chosen, pool.map(look, chosen), strict=True))
        bad = {index: kind for index, kind in found.items() if isinstance(kind, UnreadableImageError)}
        check_unreadable(list(bad.values()), len(chosen), self.origin)
        kinds = {index: kind for index, kind in found.items() if not isinstance(kind, UnreadableImageError)}
        transparent = tuple(index for index, (_, alpha) in kinds.items() if alpha)
        return Kinds(any(colour for colour, _ in kinds.values()), transparent, len(chosen), bad)

    @cached_property
    def channels(self) -> Channels:
        """1 for grey, 3 for colour."""
        return self.convert.channels or (3 if self.kinds.colour else 1)

    @cached_property
    def _own(self) -> Conversion:
        return replace(self.convert, channels=self.channels)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the images."""
        if not self.kinds.transparent:
            return ()
        count, first = len(self.kinds.transparent), self.name(self.kinds.transparent[0])
        return (f"{count} of {self.kinds.looked_at} images have an alpha channel, which is dropped: {brief(first)}.",)

    @property
    def first(self) -> np.ndarray:
        """The image that all others have to be like, as `Conversion` gives it."""
        return self._first[1]

    @cached_property
    def _first(self) -> tuple[int, np.ndarray]:
        """The number of the first image that can be read, and the image."""
        bad: list[UnreadableImageError] = []
        for index in range(min(len(self), self.looked_at)):
            try:
                return index, self._decode(index, 0)
            except UnreadableImageError as error:
                bad.append(error)
        raise bad[0]

    def pages(self, index: int) -> int:
        """How many pages an image has."""
        with self._reading(index) as image:
            return pages_of(image)

    def alpha(self, index: int) -> np.ndarray | None:
        """How opaque each pixel of an image is, (height, width) from 0 to 255; None where it does not say."""
        with self._reading(index) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))[..., 3] if has_alpha(image) else None

    def __call__(self, index: int, page: int = 0) -> np.ndarray:
        """One image as (height, width) or (height, width, 3), a volume as (pages, height, width) or (pages, height, width, 3)."""
        (number, first), image = self._first, self._decode(index, page)
        if image.shape != first.shape:
            sizes = " but ".join(f"{self.name(i)} is {self._size(a)}" for i, a in ((index, image), (number, first)))
            advice = "give size (height, width) to resize them"
            if self.convert.pages == "volume" and len(image) != len(first):
                advice = "volumes need as many pages each"
            raise InputError(f"Images of {self.origin} differ in size, {sizes}: {advice}.")
        if image.dtype != first.dtype:
            names = f"{self.name(index)} of {self.origin} is {image.dtype} but {self.name(number)} is {first.dtype}"
            raise InputError(f"{names}: give depth 8 or 16 to bring all to it.")
        return image

    def _size(self, array: np.ndarray) -> str:
        return "×".join(map(str, array.shape[:-1] if self.channels == 3 else array.shape))

    def _decode(self, index: int, page: int) -> np.ndarray:
        own = self._own  # of all, whose errors have names of their own
        with self._reading(index) as image:
            if self.convert.channels is None and own.channels == 1 and is_colour(image):
                raise InputError("is in colour, unlike those looked at first: give channels 3, or 1 to make all grey.")
            return own(image, page)

    @contextmanager
    def _reading(self, index: int) -> Iterator[Image.Image]:
        """An open image. What goes wrong with it raises InputError that names it."""
        try:
            with self.open(index) as image:
                yield image
        except InputError as error:
            raise InputError(f"{self.name(index)} of {self.origin} {error}") from None
        except BROKEN as error:
            unreadable = UnreadableImageError(self.name(index), self.origin, brief(error))
            if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                raise InputError(str(unreadable)) from error  # of the machine: another time it may be read
            raise unreadable from error


class Kinds(NamedTuple):
    """What the images of a collection are.

    Args:
        colour: whether any is in colour.
        transparent: the numbers of those with an alpha channel.
        looked_at: how many were looked at.
        unreadable: what is wrong with those of which not even that can be read, by their numbers.
    """

    colour: bool
    transparent: tuple[int, ...]
    looked_at: int
    unreadable: Mapping[int, UnreadableImageError]


def check_unreadable(errors: Sequence[UnreadableImageError], n: int, origin: str) -> None:
    """Refuse n images of which none can be read, or so many not that more is wrong than an odd file."""
    bad = len(errors)
    if bad and bad == n == 1:
        raise errors[0]
    if bad and (bad == n or bad > max(1, MOST_UNREADABLE * n)):
        raise InputError(
            f"{bad} of {n} images of {origin} cannot be read, such as {brief(errors[0].name)} ({errors[0].reason}): replace or "
            "remove them."
        )


class ImageFields(FieldDataset):
    """Some images of a collection, decoded when they are gathered. Where pages are frames, each page of them is a field.

    Files that are seen at the start to be unreadable are left out, and said; if more than one in twenty is, InputError is raised.

    Args:
        decoder: reads them.
        indices: which ones.
        labels: one class for each of them, if there are classes.
        classes: a name per label value.
        vector: (n, entries) numbers that each is conditioned on, if there are such.
    """

    def __init__(
        self,
        decoder: Decoder,
        indices: Tensor,
        labels: Tensor | None,
        classes: tuple[str, ...],
        vector: Tensor | None = None,
    ) -> None:
        bad = decoder.kinds.unreadable
        self.unreadable = [bad[index] for index in indices.tolist() if index in bad]
        self.n = len(indices)  # of all, also those left out
        if self.unreadable:
            check_unreadable(self.unreadable, self.n, decoder.origin)
            readable = torch.tensor([index not in bad for index in indices.tolist()])
            labels, vector = (None if x is None else x[readable] for x in (labels, vector))
            indices = indices[readable]
        self.pages = torch.zeros_like(indices)
        if decoder.convert.pages == "frames":
            counts = torch.tensor([decoder.pages(index) for index in indices.tolist()])
            indices = indices.repeat_interleave(counts)
            labels, vector = (None if x is None else x.repeat_interleave(counts, 0) for x in (labels, vector))
            self.pages = torch.cat([torch.arange(count) for count in counts.tolist()])
        self.decoder, self.indices, self.labels, self.classes = decoder, indices, labels, classes
        self.vector = vector
        self.dtype = str(decoder.first.dtype)
        self.notes, self.left_out = self._said(self.unreadable)
        self.quantum = 0.0 if decoder.first.dtype.kind == "f" else 1.0
        self.precision = torch.float32
        if not fits_float32(decoder.first.dtype):
            rows = self._rows(torch.from_numpy(spread_rows(len(self), decoder.first.size)))
            self.precision = needed(rows, decoder.origin)

    def __len__(self) -> int:
        return len(self.indices)

    def gather(self, indices: Tensor) -> Batch:
        rows = self._rows(indices).astype(str(self.precision).removeprefix("torch."), copy=False)
        given = {"label": self.labels, "vector": self.vector}
        cond = {name: value[indices] for name, value in given.items() if value is not None}
        return Batch(torch.from_numpy(np.ascontiguousarray(rows)), cond)

    def _said(self, unreadable: Sequence[UnreadableImageError]) -> tuple[tuple[str, ...], dict[str, int]]:
        """What is to be said of the images, and which of them are left out."""
        if not unreadable:
            return self.decoder.notes, {}
        count, first = len(unreadable), unreadable[0]
        names = ", ".join(brief(error.name) for error in unreadable[:2]) + (f", ... ({count})" if count > 2 else "")
        what = f"{count} of {self.n} images of {self.decoder.origin} cannot be read and are left out: {names} ({first.reason})."
        return (what, *self.decoder.notes), {f"unreadable ({names})": count}

    def _one(self, index: int) -> np.ndarray:
        return self.decoder(int(self.indices[index]), int(self.pages[index]))

    def _rows(self, indices: Tensor) -> np.ndarray:
        """Some images (n, channels, *grid) as they are stored."""
        rows = np.stack([self._one(i) for i in indices.tolist()])
        return np.moveaxis(rows, -1, 1) if self.decoder.channels == 3 else rows[:, None]

    def kept(self, gib: float) -> FieldDataset:
        """The same fields, all decoded now and kept in memory at their own depth, if they take up to so many GiB."""
        if not gib >= 0:
            raise InputError(f"cache_gib is {gib:g}: give 0 for none, or the GiB that decoded images may take.")
        if self.decoder.first.nbytes * len(self) > gib * 2**30:
            return self
        array = np.empty((len(self), *self.decoder.first.shape), self.decoder.first.dtype)

        def fill(i: int) -> UnreadableImageError | None:
            try:
                array[i] = self._one(i)
            except UnreadableImageError as error:
                return error

        with ThreadPoolExecutor() as pool:
            errors = list(pool.map(fill, range(len(self))))
        unreadable = [*self.unreadable, *(error for error in errors if error is not None)]
        check_unreadable(unreadable, self.n, self.decoder.origin)
        labels, vector = (None if x is None else x.numpy() for x in (self.labels, self.vector))
        if any(errors):
            readable = np.array([error is None for error in errors])
            labels, vector = (None if x is None else x[readable] for x in (labels, vector))
            array = array[readable]
        axis: ChannelAxis = "last" if self.decoder.channels == 3 else "none"
        fields = ArrayFields(array, axis, labels, self.classes, self.decoder.origin, vector)
        fields.notes, fields.left_out = self._said(unreadable)
        return fields
