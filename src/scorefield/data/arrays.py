"""Fields in NumPy files: one array in a .npy, or named arrays in a .npz."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorefield.data.fields import ArrayFields, ChannelAxis, FieldDataset, Subset, check_labels
from scorefield.data.source import Source, Split, check_split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.limits import check_memory, check_unpacked

HELD_OUT = ("valid", "test")  # what the given validation array may be called: x_valid or x_test
BROKEN = (Exception,)  # a damaged file raises almost any


@dataclass(frozen=True)
class Arrays(Source):
    """Fields in a .npy file (memory-mapped) or a .npz file; nothing pickled is ever read.

    In a .npz, arrays `x_train` and `x_valid` or `x_test` are used as the splits, and `valid` and `seed` are not;
    otherwise the array `x`, or the only one there is, is split. Complex channels become pairs of real ones.

    Args:
        path: the file.
        key: the name of the fields in a .npz, without the name of the split.
        labels: the name of the labels in a .npz, without the name of the split, or the path of a second .npy. By
            default `y` if that holds a column of integers, which must then be classes.
        channel_axis: none for (N, *grid), first for (N, channels, *grid), last for (N, *grid, channels).
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
    """

    path: Path
    key: str = "x"
    labels: str | None = None
    channel_axis: ChannelAxis = "auto"
    valid: int | float = 0.1
    seed: int = 0

    def load(self, split: Split) -> FieldDataset:
        check_split(split)
        file = ArrayFile(Path(self.path))
        held_out = next((f"_{part}" for part in HELD_OUT if f"{self.key}_{part}" in file.names), None)
        if f"{self.key}_train" in file.names and held_out is not None:
            return self._given(file, "_train" if split == "train" else held_out, ("_train", held_out))
        name = file.names[0] if self.key == "x" and len(file.names) == 1 else self.key
        x = file.read(name, "key")
        fields = ArrayFields(x, self.channel_axis, self._labels(file, "", len(x)), origin=str(self.path))
        return Subset(fields, hold_out(len(fields), self.valid, self.seed, split))

    def _given(self, file: ArrayFile, part: str, parts: tuple[str, str]) -> FieldDataset:
        """One of the file's own splits; the classes are counted over both, so that they cannot differ."""
        x = file.read(self.key + part, "key")
        origin = f"{self.key}{part} of {self.path}"
        labels = {other: self._labels(file, other, len(x) if other == part else None) for other in parts}
        known = {other: y for other, y in labels.items() if y is not None}
        if len(known) == 1:
            (has,), (lacks,) = known, set(parts) - set(known)
            raise InputError(f"{self.path} has classes in y{has} but none in y{lacks}: give or rename both.")
        if not known:
            return ArrayFields(x, self.channel_axis, None, (), origin)
        whole = np.concatenate([y.reshape(-1) for y in known.values()])
        count = 1 + int(check_labels(whole, len(whole), origin).max())
        return ArrayFields(x, self.channel_axis, labels[part], tuple(map(str, range(count))), origin)

    def _labels(self, file: ArrayFile, part: str, n: int | None) -> np.ndarray | None:
        """The labels that go with a split; `y` is taken for labels only where it looks like them."""
        if self.labels is not None:
            return (
                ArrayFile(Path(self.labels)).read("", "labels")
                if file.plain
                else file.read(self.labels + part, "labels")
            )
        if f"y{part}" not in file.names:
            return None
        y = file.read(f"y{part}", "labels")
        if y.dtype.kind not in "iu" or y.shape[1:] not in ((), (1,)):
            return None
        try:
            check_labels(y, len(y) if n is None else n, f"{self.path}")
        except InputError as error:
            raise InputError(f"{error} If they are no classes, rename y{part}.") from None
        return y


class ArrayFile:
    """The arrays of a .npy or .npz file, read without ever unpickling; a .npy has one array, of no name."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise AbsentDataError(f"There is no file {path}: correct the path.")
        self.path = path
        try:
            self._content = np.load(path, mmap_mode="r", allow_pickle=False)
        except BROKEN as error:
            raise InputError(
                f"{path} is no .npy or .npz of plain numbers ({brief(error)}): save it anew by numpy."
            ) from error
        self.plain = isinstance(self._content, np.ndarray)
        self.names: tuple[str, ...] = ("",) if self.plain else tuple(self._content.files)
        if self.plain and min(self._content.shape, default=0) < 0:
            raise InputError(f"{path} says that its shape is {self._content.shape}: save it anew by numpy.")
        if not self.plain:
            check_unpacked(self._content.zip.infolist(), path.stat().st_size, str(path))

    def read(self, name: str, argument: str) -> np.ndarray:
        """One array by name; `argument` is what the user would correct."""
        array = self._read(name, argument)
        if array.ndim == 0:
            raise InputError(f"{name or 'The array'} of {self.path} is a single number: save one entry for each field.")
        return array

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
                f"{name} of {self.path} cannot be read ({brief(error)}): save it anew as plain numbers."
            ) from error
