"""Fields in NumPy files: one array in a .npy, or named arrays in a .npz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorefield.data.fields import (
    MOST_CLASSES,
    ArrayFields,
    ChannelAxis,
    FieldDataset,
    Subset,
    are_numbers,
    check_labels,
    count_classes,
    is_one_hot,
)
from scorefield.data.listing import in_natural_order
from scorefield.data.source import Source, Split, check_split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.limits import check_memory, check_unpacked

BROKEN = (Exception,)  # a damaged file raises almost any
PARTS: Mapping[Split, tuple[str, ...]] = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
IMAGES = "images"  # what MedMNIST calls the fields
LABELS = ("y", "labels")


@dataclass(frozen=True)
class Part:
    """The names of a split's arrays, such as x_train and y_train, or train_images and train_labels.

    Attributes:
        x: of the fields.
        name: of anything, with {} in its place: {}_train.
        labels: of the labels.
    """

    x: str
    name: str
    labels: str


@dataclass(frozen=True)
class Arrays(Source):
    """Fields in a .npy file (memory-mapped) or a .npz file; nothing pickled is ever read.

    In a .npz, arrays `x_train` and `x_valid` or `x_test` (or `train_images`, `val_images`, `test_images`, as MedMNIST has them)
    are used as the splits, and `valid` and `seed` are not; otherwise the array `x`, `images` or the only one there is, is split.
    Complex channels become pairs of real ones.

    Args:
        path: the file.
        key: the name of the fields in a .npz, without the name of the split.
        labels: the name of the labels in a .npz, without the name of the split, or the path of a second .npy: a column of
            integers or names of classes, or one-hot rows. By default `y` or `labels` if that holds such, which must then
            be classes.
            Floats that are named so, one or a row for each field, are vectors and no classes.
        channel_axis: none for (N, *grid), first for (N, channels, *grid), last for (N, *grid, channels).
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
        vector: like `labels`, the name or the path of numbers of any type that are vectors: a year, or several coefficients.
    """

    path: Path
    key: str = "x"
    labels: str | None = None
    channel_axis: ChannelAxis = "auto"
    valid: int | float = 0.1
    seed: int = 0
    vector: str | None = None

    def load(self, split: Split) -> FieldDataset:
        file = ArrayFile(Path(self.path))
        parts = parts_of(file.names, self.key)
        if "train" in parts and len(parts) > 1:
            return self._given(file, parts, split)
        check_split(split)
        names = (self.key, *((IMAGES,) if self.key == "x" else ()))
        name = next((name for name in names if name in file.names), self.key)
        name = file.names[0] if self.key == "x" and len(file.names) == 1 else name
        x = file.read(name, "key")
        labels, notes = self._whole_labels(file, len(x))
        vector = self._vector(file, "{}")
        (labels,), classes = numbered([labels])
        fields = ArrayFields(x, self.channel_axis, labels, classes, str(self.path), vector)
        fields.notes += notes
        return Subset(fields, hold_out(len(fields), self.valid, self.seed, split))

    def files_read(self) -> list[Path]:
        path = Path(self.path)
        others = (self.labels, self.vector) if path.suffix == ".npy" else ()
        return [path, *(Path(other) for other in others if other is not None)]

    def _vector(self, file: ArrayFile, name: str) -> np.ndarray | None:
        """The vectors that go with a split, whose arrays have such names."""
        if self.vector is None:
            return None
        return (
            ArrayFile(Path(self.vector)).read("", "vector")
            if file.plain
            else file.read(name.format(self.vector), "vector")
        )

    def _whole_labels(self, file: ArrayFile, n: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """The labels of all fields, and what is to be said of them."""
        if self.labels is not None and file.plain:
            return ArrayFile(Path(self.labels)).read("", "labels"), ()
        if self.labels is not None:
            return file.read(self.labels, "labels"), ()
        name = next((name for name in LABELS if name in file.names), None)
        if name is None:
            return None, ()
        labels, notes = self._found(file, name)
        return (labels if labels is None or is_text(labels) else checked(labels, n, name, file.path)), notes

    def _given(self, file: ArrayFile, parts: Mapping[str, Part], split: Split) -> ArrayFields:
        """One of the file's own splits; the classes are counted over all, so that they cannot differ."""
        name = "test" if split == "valid" and "valid" not in parts else split
        if name not in parts:
            raise InputError(f"{self.path} has no part {name!r} but {', '.join(parts)}: give one of them.")
        part, used = parts[name], [parts["train"], parts["valid" if "valid" in parts else "test"]]
        used += [part] if part not in used else []
        x = file.read(part.x, "key")
        origin = f"{part.x} of {self.path}"
        known, notes = dict[str, np.ndarray](), tuple[str, ...]()
        for other in used:
            labels, said = self._part_labels(file, other)
            notes += said
            if labels is not None:
                n = len(x) if other is part else None
                numbers = is_text(labels) or (self.labels is not None and are_numbers(labels))
                known[other.labels] = labels if numbers else checked(labels, n, other.labels, file.path, MOST_CLASSES)
        lacking = [other.labels for other in used if other.labels not in known]
        if known and lacking:
            has = next(iter(known))
            raise InputError(f"{self.path} has classes in {has} but none in {lacking[0]}: give or rename both.")
        found, names = numbered(list(known.values()))
        known = {called: labels for called, labels in zip(known, found, strict=True) if labels is not None}
        numbers = all(map(are_numbers, known.values()))
        names = names or tuple(map(str, range(0 if numbers else count_all(list(known.values()), f"{self.path}"))))
        vector = self._vector(file, part.name)
        fields = ArrayFields(x, self.channel_axis, known.get(part.labels), names, origin, vector)
        fields.notes += notes
        return fields

    def _part_labels(self, file: ArrayFile, part: Part) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """The labels of a split, and what is to be said of them."""
        if self.labels is not None:
            return file.read(part.name.format(self.labels), "labels"), ()
        return self._found(file, part.labels) if part.labels in file.names else (None, ())

    def _found(self, file: ArrayFile, name: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """Labels that were not asked for: they are taken only where they look like classes."""
        y = file.read(name, "labels")
        if is_text(y) and len(np.unique(y)) <= min(MOST_CLASSES, len(y) - 1):
            return y, ()  # names that come back are of classes, those that do not are of fields
        if is_one_hot(y) or (y.dtype.kind in "iu" and y.shape[1:] in ((), (1,))):
            return y, ()
        return None, (f"{name} of {self.path}, {y.dtype} {y.shape}, holds no classes and is not used.",)


def parts_of(names: Sequence[str], key: str) -> dict[str, Part]:
    """The splits that a file has, by the names of its arrays."""
    patterns = [("{}_" + "{split}", key, LABELS[0])]
    patterns += [("{split}_" + "{}", IMAGES if key == "x" else key, LABELS[1])]
    for pattern, fields, labels in patterns:
        found = {}
        for split, called in PARTS.items():
            for word in called:
                name = pattern.replace("{split}", word)
                if name.format(fields) in names:
                    found.setdefault(split, Part(name.format(fields), name, name.format(labels)))
        if found:
            return found
    return {}


def is_text(labels: np.ndarray) -> bool:
    """Whether labels are the names of classes, one for each field."""
    return labels.dtype.kind in "US" and labels.shape[1:] in ((), (1,))


def numbered(parts: Sequence[np.ndarray | None]) -> tuple[list[np.ndarray | None], tuple[str, ...]]:
    """The labels of all parts as numbers, and the names that they had, in natural order; as they are where they are no text."""
    if not parts or not all(part is not None and is_text(part) for part in parts):
        return list(parts), ()
    # Names in another encoding than UTF-8 stay apart from each other, as \xe9.
    texts = [
        np.char.decode(part, "utf-8", "backslashreplace") if part.dtype.kind == "S" else part
        for part in parts
        if part is not None
    ]
    names = in_natural_order({str(name) for part in texts for name in part.flat})
    number = {name: i for i, name in enumerate(names)}
    return [np.array([number[str(name)] for name in part.flat]) for part in texts], tuple(names)


def checked(labels: np.ndarray, n: int | None, name: str, path: Path, most: int = 0) -> np.ndarray:
    """Labels, (n) or one-hot (n, classes), that were found and not given, or InputError."""
    try:
        check_labels(labels, len(labels) if n is None else n, str(path), 0 if is_one_hot(labels) else most)
    except InputError as error:
        raise InputError(f"{error} If they are no classes, rename {name}.") from None
    return labels


def count_all(labels: Sequence[np.ndarray], origin: str) -> int:
    """How many classes the labels of all splits tell apart."""
    if any(is_one_hot(part) for part in labels):
        counts = {count_classes(part) for part in labels}
        if len(counts) > 1 or not all(is_one_hot(part) for part in labels):
            raise InputError(
                f"The labels of the parts of {origin} are of several kinds: make them all one-hot, or integers."
            )
        return counts.pop()
    whole = np.concatenate([part.reshape(-1) for part in labels])
    return 1 + int(check_labels(whole, len(whole), origin).max())


class ArrayFile:
    """The arrays of a .npy or .npz file, read without ever unpickling; a .npy has one array, of no name."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise AbsentDataError(f"There is no file {path}: correct the path.")
        self.path = path
        with path.open("rb") as file:
            if not file.read(6).startswith((b"\x93NUMPY", b"PK")):
                raise InputError(f"{path} is no .npy or .npz, as its first bytes say: save it as one by numpy.")
        try:
            self._content = np.load(path, mmap_mode="r", allow_pickle=False)
        except BROKEN as error:
            raise InputError(
                f"{path} is no .npy or .npz of plain numbers ({brief(error)}): save it again by numpy."
            ) from error
        self.plain = isinstance(self._content, np.ndarray)
        self.names: tuple[str, ...] = ("",) if self.plain else tuple(self._content.files)
        if self.plain and min(self._content.shape, default=0) < 0:
            raise InputError(f"{path} says that its shape is {self._content.shape}: save it again by numpy.")
        if not self.plain:
            check_unpacked(self._content.zip.infolist(), path.stat().st_size, str(path))

    def read(self, name: str, argument: str) -> np.ndarray:
        """One array by name, of at least one axis, as stored; `argument` is what the user would correct."""
        array = self._read(name, argument)
        if array.ndim == 0:
            raise InputError(f"{name or 'The array'} of {self.path} is a single number: save one entry for each field.")
        return array

    def axes(self, name: str) -> tuple[str, ...]:
        """NumPy's files name no axes."""
        return ()

    def units(self, name: str) -> str:
        """Nor units."""
        return ""

    def _read(self, name: str, argument: str) -> np.ndarray:
        if self.plain:
            return self._content
        if name not in self.names:
            raise InputError(f"{self.path} holds no {name!r} but {', '.join(self.names)}: correct {argument}.")
        sizes = {Path(file.filename).stem: file.file_size for file in self._content.zip.infolist()}
        check_memory(sizes.get(name, 0), f"{name} of {self.path}")
        try:
            return self._content[name]
        except BROKEN as error:
            raise InputError(
                f"{name} of {self.path} cannot be read ({brief(error)}): save it again as plain numbers."
            ) from error
