"""Archives of encoded images: folders, zips, tars and other files that hold many, each image read when it is asked for.

An archive is an index of places and no more. Each read opens its file again (some 20 µs, where the smallest image takes 60 to
decode), so that nothing is shared by threads and worker processes, however they were started, and memory stays flat.
"""

from __future__ import annotations

import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from scorefield.data.decode import Channels, Conversion, Crop, Decoder, Filter, ImageFields
from scorefield.data.fields import FieldDataset
from scorefield.data.listing import archive, is_image, member_name, read
from scorefield.data.source import Source
from scorefield.foundation.errors import InputError


class Archive(ABC):
    """Encoded images by number.

    Attributes:
        origin: what to call all of them in an error.
    """

    origin: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call an image."""

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """An image; one that cannot be read raises one of `decode.BROKEN`."""


class Archived(Decoder):
    """Images of an archive, each of which is read whole to look at its kind."""

    looked_at = 64

    def __init__(self, archive: Archive, convert: Conversion) -> None:
        super().__init__(archive.origin, convert)
        self.archive = archive

    def open(self, index: int) -> Image.Image:
        return self.archive.open(index)

    def name(self, index: int) -> str:
        return self.archive.name(index)

    def __len__(self) -> int:
        return len(self.archive)


@dataclass(frozen=True, kw_only=True)
class ArchiveSource(Source):
    """Images of an archive: what is common to all, how an image becomes a field.

    Args:
        channels: 1 for grey or 3 for colour; by default in colour if any of 64 looked at is.
        crop: the part of each image that is used, before it is resized: CentreCrop, Square.
        size: (height, width) to resize to, the aspect ratio not kept.
        filter: how to resize; each is antialiased, "box" is the mean over areas.
        cache_gib: images that take up to this many GiB are decoded once and kept; more than that, on the fly.
    """

    channels: Channels | None = None
    crop: Crop | None = None
    size: tuple[int, int] | None = None
    filter: Filter = "bicubic"
    cache_gib: float = 2.0

    def fields(
        self, archive: Archive, chosen: Tensor, labels: Tensor | None = None, classes: tuple[str, ...] = ()
    ) -> FieldDataset:
        """The images of an archive whose numbers are `chosen`, (n) int64; `labels` has one class for each image of it."""
        decoder = Archived(archive, Conversion(self.channels, self.crop, self.size, self.filter))
        some = None if labels is None else labels[chosen]
        return ImageFields(decoder, chosen, some, classes if labels is not None else ()).kept(self.cache_gib)


def read_range(path: Path, offset: int, size: int) -> bytes:
    """Some bytes of a file; raises EOFError where it ends before."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise EOFError(f"{path} ends {size - len(data)} bytes too early")
    return data


# ------------------------------------------------------------------------------------------------------- folders and zips
class FileArchive(Archive):
    """The images in a folder, sub-folders not looked into, or in a zip, sorted by name."""

    def __init__(self, path: Path) -> None:
        self.origin, self.path = str(path), path
        self.names = sorted(filter(is_image, os.listdir(path) if path.is_dir() else archive(path).places))  # noqa: PTH208

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def open(self, index: int) -> Image.Image:
        return Image.open(BytesIO(read(self.path, self.names[index])))


# ------------------------------------------------------------------------------------------------------------------- tars
class Member(NamedTuple):
    """A file in a tar: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


BLOCK = 512  # bytes, of which a tar is made
PADDING = 2**20  # bytes at most that are looked at after its end, which are zeros
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # how gzip, bzip2, xz and zstandard begin


def tar_members(path: Path) -> Iterator[Member]:
    """The files in an uncompressed tar, in their order, found by hopping from header to header.

    The headers are read here, because tarfile takes five times as long for each, and there may be millions.

    Raises:
        InputError: it is compressed, cut off, or no tar.
    """
    longer: dict[str, str] = {}  # what an entry of its own says of the next one: a long name, a large size
    position, end = 0, path.stat().st_size
    with path.open("rb", buffering=0) as file:
        while True:
            file.seek(position)
            header = file.read(BLOCK)
            if position == 0 and header.startswith(PACKED):
                raise InputError(f"{path} is compressed, and cannot be read from the middle: decompress it (gunzip).")
            if not header:
                raise InputError(f"{path} is {'cut off: it lacks its end' if position else 'empty'}. Get it again.")
            if header.count(0) == BLOCK:
                if any(file.read(PADDING)):
                    raise InputError(f"{path} holds several tars, one after the other: unpack it, and pack it as one.")
                return
            try:
                name, size, kind = _header(header)
                size = int(longer.get("size", size))
            except ValueError as error:
                raise InputError(f"{path} is no tar, or damaged at byte {position}: get it again.") from error
            offset = position + BLOCK
            if not 0 <= size <= end - offset:
                raise InputError(f"{path} is cut off in {name[:60]}: get it again.")
            if kind == tarfile.XHDTYPE:
                longer = _extended(file.read(size))
            elif kind == tarfile.GNUTYPE_LONGNAME:
                longer = {"path": _text(file.read(size))}
            else:
                if kind in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    yield Member(member_name(longer.get("path", name)), offset, size)
                longer = {}
            position = offset + -(-size // BLOCK) * BLOCK


def _header(header: bytes) -> tuple[str, int, bytes]:
    """Name, size and kind of a header; one that is broken raises ValueError."""
    if len(header) < BLOCK or _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise ValueError("the check sum is another")
    name, kind = _text(header[:100]), header[156:157]
    if header[257:263] == b"ustar\0" and header[345]:  # POSIX's; GNU's has other things in this place
        name = f"{_text(header[345:500])}/{name}"
    no_data = kind in (
        tarfile.LNKTYPE,
        tarfile.SYMTYPE,
        tarfile.DIRTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
    )  # whatever the size that is given
    return name, 0 if no_data else _number(header[124:136]), kind


def _number(field: bytes) -> int:
    """Octal digits; or, where the first bit is set, the bytes themselves, as GNU writes sizes from 8 GiB."""
    return int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(_text(field).strip() or "0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _extended(data: bytes) -> dict[str, str]:
    """The records "LENGTH KEY=VALUE" of an extended header."""
    found = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            break
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return found


class RangeArchive(Archive):
    """Images that are ranges of bytes in files.

    Args:
        origin: what to call all of them.
        files: where they are.
        places: (N, 3) integers: number of the file, offset, size in bytes.
        names: of the images.
    """

    def __init__(self, origin: str, files: Sequence[Path], places: np.ndarray, names: Sequence[str]) -> None:
        self.origin, self.files, self.places, self.names = origin, files, places, names

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        return self.names[index]

    def open(self, index: int) -> Image.Image:
        file, offset, size = (int(value) for value in self.places[index])
        return Image.open(BytesIO(read_range(self.files[file], offset, size)))
