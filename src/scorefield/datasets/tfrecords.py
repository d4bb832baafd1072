"""TFRecord files of images as StyleGAN and its predecessors wrote them, parsed without TensorFlow.

A file is a sequence of records: the length n of the data (8 bytes, little endian), a check sum of it (4), n bytes of data, a
check sum of these (4). The data are a protocol buffer tf.train.Example, a map from names to lists of bytes or numbers: "shape"
is (channels, height, width), "data" the pixels as bytes.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from scorefield.data.archives import Archive, ArchiveSource, read_range
from scorefield.data.arrays import ArrayFile
from scorefield.data.fields import FieldDataset, check_labels
from scorefield.data.source import Split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError

HEADER, FOOTER = 12, 4  # bytes
LOOKS = 256  # at records, to see whether all have the length of the first
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # how a protocol buffer encodes a value


@dataclass(frozen=True)
class TFRecords(ArchiveSource):
    """Images in TFRecord files NAME-r02.tfrecords to NAME-r10.tfrecords, each of the size 2^NN, as FFHQ and CelebA-HQ have them.

    Classes are read from NAME-rxx.labels beside them, where there is one.

    Args:
        path: a .tfrecords file; or the folder with those of one data set, of which the smallest images count that have
            `size`, or the largest without it.
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
        channels: 1 for grey or 3 for colour; by default in colour if any of 64 looked at is.
        crop: the part of each image that is used, before it is resized: CentreCrop, Square.
        size: (height, width) to resize to, the aspect ratio not kept.
        filter: how to resize; each is antialiased, "box" is the mean over areas.
        cache_gib: images that take up to this many GiB are decoded once and kept; more than that, on the fly.
    """

    path: Path
    valid: int | float = 0.1
    seed: int = 0

    def load(self, split: Split) -> FieldDataset:
        path = self._file()
        archive = RecordArchive(path)
        labels, classes = _labels(path, len(archive))
        return self.fields(archive, hold_out(len(archive), self.valid, self.seed, split), labels, classes)

    def _file(self) -> Path:
        """The file with the images."""
        path = Path(self.path)
        if path.is_file():
            return path
        if not path.is_dir():
            raise AbsentDataError(f"There is no folder or .tfrecords file {path}: correct the path.")
        sizes = {file: _size(file) for file in sorted(path.glob("*.tfrecords"))}
        if not sizes:
            raise InputError(f"{path} holds no .tfrecords files: correct the path.")
        if len({file.name.rpartition("-r")[0] for file in sizes}) > 1 or (len(sizes) > 1 and 0 in sizes.values()):
            raise InputError(
                f"{path} holds several data sets, such as {', '.join(f.name for f in [*sizes][:3])}: give one file."
            )
        enough = [file for file in sizes if self.size is not None and sizes[file] >= max(self.size)]
        return min(enough, key=sizes.__getitem__) if enough else max(sizes, key=sizes.__getitem__)


def _size(file: Path) -> int:
    """The height and width of the images of NAME-rNN.tfrecords, 2^NN; 0 where the name does not say."""
    found = re.search(r"-r(\d\d)\.tfrecords$", file.name)
    return 2 ** int(found[1]) if found else 0


def _labels(path: Path, n: int) -> tuple[Tensor | None, tuple[str, ...]]:
    """The classes from the file of labels beside a file of images: whole numbers, or rows with a single 1 in a class's place."""
    file = path.with_name(re.sub(r"(-r\d\d)?\.tfrecords$", "-rxx.labels", path.name))
    if not file.is_file():
        return None, ()
    labels = ArrayFile(file).read("", "path")
    if labels.ndim == 2:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
            raise InputError(
                f"{file} has rows that are no classes, each with a single 1: move it away to train without."
            )
        count, labels = labels.shape[1], labels.argmax(1)
    else:
        count = 0
    found = check_labels(labels, n, str(file), count)
    return found, tuple(map(str, range(count or int(found.max()) + 1)))


# ---------------------------------------------------------------------------------------------------------------- records
class RecordArchive(Archive):
    """The records of a file, each an image of the same shape."""

    def __init__(self, path: Path) -> None:
        self.origin, self.path = str(path), path
        self.places = index_records(path)

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        return f"Record {index}"

    def open(self, index: int) -> Image.Image:
        offset, length = (int(value) for value in self.places[index])
        record = read_range(self.path, offset, HEADER + length + FOOTER)
        if struct.unpack("<Q", record[:8])[0] != length or masked_crc(record[:8]) != record[8:HEADER]:
            raise ValueError(f"there is no record of {length} bytes at byte {offset}")
        return image_of(record[HEADER : HEADER + length])


def index_records(path: Path) -> np.ndarray:
    """(N, 2) integers: where each record begins, and the length of its data.

    Where the records seem to be of one length, as those of images of one shape are, some of them are looked at and no more: a
    disk takes minutes to find each of 10^5. Each is looked at when it is read.

    Raises:
        InputError: the file is cut off, or no TFRecord file.
    """
    end = path.stat().st_size
    if end == 0:
        raise InputError(f"{path} is empty: download it again.")
    with path.open("rb", buffering=0) as file:

        def length(position: int) -> int:
            """The length of the data of the record at a position; -1 where there is none."""
            file.seek(position)
            header = file.read(HEADER)
            whole = len(header) == HEADER and masked_crc(header[:8]) == header[8:]
            return struct.unpack("<Q", header[:8])[0] if whole else -1

        first = length(0)
        n, rest = divmod(end, HEADER + first + FOOTER)
        if first >= 0 and rest == 0:
            starts = np.arange(n, dtype=np.int64) * (HEADER + first + FOOTER)
            if all(length(int(starts[i])) == first for i in np.linspace(0, n - 1, LOOKS).astype(np.int64)):
                return np.stack((starts, np.full_like(starts, first)), axis=1)
        position, places = 0, []
        while position < end:
            places.append((position, length(position)))
            if places[-1][1] < 0:
                raise InputError(f"{path} is no TFRecord file, or damaged at byte {position}: download it again.")
            position += HEADER + places[-1][1] + FOOTER
    if position > end:
        raise InputError(f"{path} is cut off in its last record: download it again.")
    return np.array(places, dtype=np.int64)


def image_of(example: bytes) -> Image.Image:
    """The image in a tf.train.Example with "shape" and "data"; anything else raises ValueError."""
    features = parse_example(example)
    shape, data = features.get("shape"), features.get("data")
    if not (isinstance(shape, list) and len(shape) == 3 and isinstance(data, bytes)):
        raise ValueError(f"the record has {', '.join(sorted(features)) or 'nothing'}, not shape and data")
    if shape[0] not in (1, 3) or math.prod(shape) != len(data):
        raise ValueError(f"{len(data)} bytes are no image of shape {tuple(shape)}")
    pixels = np.frombuffer(data, np.uint8).reshape(shape)
    return Image.fromarray(pixels[0] if shape[0] == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def parse_example(example: bytes) -> dict[str, bytes | list[int]]:
    """The features of a tf.train.Example by name: the first of a list of bytes, or all of a list of integers."""
    found: dict[str, bytes | list[int]] = {}
    for features in _submessages(example, 1):
        for entry in _submessages(features, 1):
            name = b"".join(_submessages(entry, 1)).decode("utf-8", "replace")
            for feature in _submessages(entry, 2):
                for values in _submessages(feature, 1):
                    found[name] = bytes(next(_submessages(values, 1), b""))
                for values in _submessages(feature, 3):
                    found[name] = _integers(values)
    return found


def _submessages(message: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """The fields of a number that are bytes."""
    return (value for found, value in _fields(message) if found == number and isinstance(value, memoryview))


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protocol buffer, by number."""
    view, position = memoryview(message), 0
    while position < len(view):
        key, position = _varint(view, position)
        kind = key & 7
        if kind == VARINT:
            value, position = _varint(view, position)
            yield key >> 3, value
            continue
        if kind == LENGTH:
            size, position = _varint(view, position)
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(kind, -1)
        if size < 0 or position + size > len(view):
            raise ValueError("the record is no tf.train.Example")
        yield key >> 3, view[position : position + size]
        position += size


def _integers(values: memoryview) -> list[int]:
    """The integers of an Int64List, packed or not."""
    found: list[int] = []
    for number, value in _fields(values):
        if number == 1 and isinstance(value, memoryview):
            position = 0
            while position < len(value):
                integer, position = _varint(value, position)
                found.append(integer)
        elif number == 1 and isinstance(value, int):
            found.append(value)
    return found


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """An integer of seven bits to the byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            break
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("the record is no tf.train.Example")


# ------------------------------------------------------------------------------------------------------------- check sums
def _crc_table() -> list[int]:
    """CRC-32C of each byte, reflected, with the polynomial 0x1EDC6F41 (Castagnoli et al. 1993)."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # noqa: PLW2901
        table.append(byte)
    return table


TABLE = _crc_table()


def masked_crc(data: bytes) -> bytes:
    """The check sum of a record: CRC-32C, turned by 15 bits, plus a constant; 4 bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
