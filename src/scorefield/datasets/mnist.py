"""MNIST, and what is published in its files: idx, gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.data.source import Source, Split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError, brief

UNSIGNED_BYTE = 8  # the code of a type of numbers in an idx file
PACKED = b"\x1f\x8b"  # how a gzipped file begins


@dataclass(frozen=True)
class MNIST(Source):
    """Handwritten digits: grey images of 28×28 in 10 classes, 60 000 for training and 10 000 for testing (LeCun et al. 1998).

    Also what has files of the same names, such as Fashion-MNIST and KMNIST, whose classes are numbers here. The split "valid"
    is drawn from the training images; "test" is the data set's own. All are kept in memory, as bytes.

    Args:
        path: the folder with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and
            t10k-labels-idx1-ubyte.gz, unpacked or not.
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
    """

    path: Path
    valid: int | float = 0.1
    seed: int = 0

    def load(self, split: Split) -> FieldDataset:
        part = "t10k" if split == "test" else "train"
        x = read_idx(_find(Path(self.path), f"{part}-images", "idx3-ubyte"), 3)
        labels = read_idx(_find(Path(self.path), f"{part}-labels", "idx1-ubyte"), 1)
        if len(x) != len(labels):
            raise InputError(
                f"{part} of {self.path} has {len(x)} images but {len(labels)} labels: download them again."
            )
        classes = tuple(map(str, range(10)))
        if split != "test":
            chosen = hold_out(len(x), self.valid, self.seed, split).numpy()
            x, labels = x[chosen], labels[chosen]
        return ArrayFields(x, "none", labels, classes, str(self.path))


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The bytes in an idx file: two zeros, the type, the number of axes, their lengths, then the values.

    Args:
        path: the file, gzipped or not.
        axes: how many it must have.

    Raises:
        InputError: it is cut off, too long, or no idx file of bytes with so many axes.
    """
    data = path.read_bytes()
    if data.startswith(PACKED):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} cannot be unpacked ({brief(error)}): download it again.") from error
    start = 4 + 4 * axes
    if len(data) < start or data[:4] != bytes((0, 0, UNSIGNED_BYTE, axes)):
        raise InputError(f"{path} is no idx file of bytes with {axes} axes: download it again.")
    shape = struct.unpack(f">{axes}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise InputError(f"{path} has {len(data) - start} values for the shape {shape}: download it again.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find(path: Path, part: str, kind: str) -> Path:
    """A file of the data, by the names under which it is published."""
    if path.is_file():
        raise InputError(
            f"{path} is a file, and MNIST is a folder of {part}-{kind}.gz: of an archive of arrays, --data Arrays."
        )
    if not path.is_dir():
        raise AbsentDataError(f"There is no folder {path}: give the one with {part}-{kind}.gz.")
    names = [f"{part}{mark}{kind}{packed}" for packed in ("", ".gz") for mark in ("-", ".")]
    for name in names:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path} lacks {part}-{kind}.gz: download it, and give the folder that it is in.")
