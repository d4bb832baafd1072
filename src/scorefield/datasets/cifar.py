"""CIFAR-10 and CIFAR-100 as they are downloaded: the binary or the Python version, packed or not."""

from __future__ import annotations

import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.data.source import Source, Split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.pickles import read_arrays

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
LARGEST = 200_000_000  # bytes of a file; the largest there is, CIFAR-100's train, has 154 million


@dataclass(frozen=True)
class CIFAR10(Source):
    """CIFAR-10: colour images of 32×32 in 10 classes, 50 000 for training and 10 000 for testing (Krizhevsky 2009).

    The split "valid" is drawn from the training images; "test" is the data set's own. All are kept in memory, as bytes.

    Args:
        path: cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or the folder that comes out of it.
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
    """

    path: Path
    valid: int | float = 0.1
    seed: int = 0

    def load(self, split: Split) -> FieldDataset:
        batches = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
        binary = Binary([f"{name}.bin" for name in batches], "batches.meta.txt", columns=1, column=0)
        pickled = Pickled(batches, "batches.meta", labels="labels", names_key="label_names")
        return _load(Path(self.path), (binary, pickled), self.valid, self.seed, split)


@dataclass(frozen=True)
class CIFAR100(Source):
    """CIFAR-100: colour images of 32×32, 50 000 for training and 10 000 for testing (Krizhevsky 2009).

    The split "valid" is drawn from the training images; "test" is the data set's own. All are kept in memory, as bytes.

    Args:
        path: cifar-100-binary.tar.gz or cifar-100-python.tar.gz, or the folder that comes out of it.
        labels: fine for the 100 classes, coarse for the 20 groups of five.
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
    """

    path: Path
    labels: Literal["fine", "coarse"] = "fine"
    valid: int | float = 0.1
    seed: int = 0

    def load(self, split: Split) -> FieldDataset:
        part = "test" if split == "test" else "train"
        names = f"{self.labels}_label_names"
        binary = Binary([f"{part}.bin"], f"{names}.txt", columns=2, column=("coarse", "fine").index(self.labels))
        pickled = Pickled([part], "meta", labels=f"{self.labels}_labels", names_key=names)
        return _load(Path(self.path), (binary, pickled), self.valid, self.seed, split)


# ------------------------------------------------------------------------------------------------------- the two versions
@dataclass(frozen=True)
class Version(ABC):
    """One of the versions that the data are published in.

    Args:
        batches: the files with the images of a split.
        meta: the file with the names of the classes.
    """

    batches: Sequence[str]
    meta: str

    @property
    def names(self) -> list[str]:
        """All files that are needed."""
        return [*self.batches, self.meta]

    @abstractmethod
    def batch(self, data: bytes, origin: str) -> tuple[np.ndarray, np.ndarray]:
        """The pixels (N, 3072) and the classes (N) of one file."""

    @abstractmethod
    def classes(self, data: bytes, origin: str) -> tuple[str, ...]:
        """The names of the classes."""


@dataclass(frozen=True)
class Binary(Version):
    """Rows of bytes: `columns` with classes, of which one is used, then 3072 with pixels."""

    columns: int
    column: int

    def batch(self, data: bytes, origin: str) -> tuple[np.ndarray, np.ndarray]:
        length = self.columns + PIXELS
        if len(data) == 0 or len(data) % length:
            raise InputError(f"{origin} has {len(data)} bytes, not a multiple of {length}: download it again.")
        rows = np.frombuffer(data, np.uint8).reshape(-1, length)
        return rows[:, self.columns :], rows[:, self.column]

    def classes(self, data: bytes, origin: str) -> tuple[str, ...]:
        return tuple(data.decode("ascii", "replace").split())


@dataclass(frozen=True)
class Pickled(Version):
    """Pickled dictionaries, read without running them."""

    labels: str
    names_key: str

    def batch(self, data: bytes, origin: str) -> tuple[np.ndarray, np.ndarray]:
        content = read_arrays(data, origin)
        x, labels = content.get("data"), content.get(self.labels)
        if not (isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.shape[1:] == (PIXELS,)):
            raise InputError(f"{origin} holds no data of {PIXELS} bytes for each image: download it again.")
        if not (isinstance(labels, list) and len(labels) == len(x) and all(isinstance(y, int) for y in labels)):
            raise InputError(f"{origin} holds no {self.labels} for each of its {len(x)} images: download it again.")
        return x, np.array(labels)

    def classes(self, data: bytes, origin: str) -> tuple[str, ...]:
        names = read_arrays(data, origin).get(self.names_key)
        if not isinstance(names, list):
            raise InputError(f"{origin} holds no {self.names_key}: download it again.")
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)


def _load(path: Path, versions: tuple[Binary, Pickled], valid: int | float, seed: int, split: Split) -> FieldDataset:
    """The fields of a split from whichever version is there."""
    files = _files(path, versions)
    version = next(version for version in versions if all(name in files for name in version.names))
    batches = [version.batch(files[name], f"{name} of {path}") for name in version.batches]
    classes = version.classes(files[version.meta], f"{version.meta} of {path}")
    x, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    if split != "test":
        chosen = hold_out(len(x), valid, seed, split).numpy()
        x, labels = x[chosen], labels[chosen]
    return ArrayFields(x.reshape(-1, *SHAPE), "first", labels, classes, str(path))


def _files(path: Path, versions: Sequence[Version]) -> Mapping[str, bytes]:
    """All files of one of the versions, from a folder or a packed tar."""
    if path.is_dir():
        files = _unpacked(path, {name for version in versions for name in version.names})
    elif path.is_file():
        files = _packed(path, versions)
    else:
        raise AbsentDataError(f"There is no file or folder {path}: correct the path.")
    if not _complete(files, versions):
        lacking = min(([name for name in version.names if name not in files] for version in versions), key=len)
        raise InputError(
            f"{path} lacks {', '.join(lacking)}: give the whole download; for images in folders use Images."
        )
    return files


def _complete(files: Mapping[str, bytes], versions: Sequence[Version]) -> bool:
    return any(all(name in files for name in version.names) for version in versions)


def _unpacked(path: Path, names: set[str]) -> dict[str, bytes]:
    """Files of a folder, or of the one folder in it that has some of them, as an archive is often unpacked."""
    places = [path, *sorted(place for place in path.iterdir() if place.is_dir())]
    for place in places:
        if found := {name: (place / name).read_bytes() for name in sorted(names) if (place / name).is_file()}:
            return found
    return {}


def _packed(path: Path, versions: Sequence[Version]) -> dict[str, bytes]:
    """Files of a tar, which is read from its start as far as needed."""
    wanted = {name for version in versions for name in version.names}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if name not in wanted or not member.isreg():
                    continue
                if member.size > LARGEST:
                    raise InputError(
                        f"{name} of {path} has {member.size} bytes, more than any of CIFAR: correct the path."
                    )
                content = tar.extractfile(member)
                found[name] = content.read() if content is not None else b""
                if len(found[name]) != member.size:
                    raise EOFError(f"{name} ends early")
                if _complete(found, versions):
                    break
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path} is cut off, or no tar ({brief(error)}): download it again.") from error
    return found
