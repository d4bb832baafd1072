"""What data a run is made of, in few numbers: enough to tell them from others when the run goes on or is evaluated."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from scorefield.data.fields import FieldDataset
from scorefield.data.listing import FileList, counted
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import strict

LOOKED_AT = 4  # fields of each split whose mean and standard deviation are kept
TOLERANCE = (
    1e-3  # of these, in standard deviations: decoders and Fourier transforms round differently on other machines
)


LATER = ("lists", "labels")  # what records of before lack


@dataclass(frozen=True)
class Manifest:
    """What data are made of. Files are known by their names and sizes and a bounded sample of their bytes, so that it is cheap.

    Args:
        train: how many training fields there are.
        valid: how many held-out ones.
        shape: (channels, *grid).
        dtype: the number type in which they are stored.
        classes: the name of each class, in the order of their numbers.
        members: how many fields each class has, training and held-out ones together; empty where that is not known.
        files: how many files they come from; 0 where that is not known.
        bytes: of all files.
        left_out: how many other files there are, by the reason why they are not used.
        names: SHA-256 of the names and sizes of the files.
        content: SHA-256 of a sample of their bytes, at most 64 parts of 64 KiB.
        values: mean and standard deviation of a few fields, in data units.
        lists: SHA-256 of the lists of labels beside the files; empty without, and in records of before.
        labels: SHA-256 of all classes and vectors; empty where they are not known without reading the fields, or likewise.
    """

    train: int
    valid: int
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...] = ()
    members: tuple[int, ...] = ()
    files: int = 0
    bytes: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    names: str = ""
    content: str = ""
    values: tuple[tuple[float, float], ...] = ()
    lists: str = ""
    labels: str = ""

    @classmethod
    def of(cls, train: FieldDataset, valid: FieldDataset | None, files: Sequence[FileList]) -> Manifest:
        """The manifest of data.

        Args:
            train: the training fields.
            valid: the held-out ones; None where there are none.
            files: that they come from.
        """
        splits = [train] if valid is None else [train, valid]
        known = [split.labels for split in splits if split.labels is not None and len(split.labels)]
        members: list[int] = []
        if train.classes and len(known) == len(splits):
            members = torch.cat(known).bincount(minlength=len(train.classes)).tolist()
        left_out: Counter[str] = Counter()
        for part in files:
            left_out.update(part.left_out)
        unreadable = {reason: count for split in splits for reason, count in split.left_out.items()}  # of each its own
        return cls(
            train=len(train),
            valid=0 if valid is None else len(valid),
            shape=tuple(train.gather(torch.zeros(1, dtype=torch.int64)).x.shape[1:]),
            dtype=train.dtype,
            classes=tuple(train.classes),
            members=tuple(members),
            left_out={**left_out, **unreadable},
            **summary_of(files),
            values=tuple(pair for split in splits for pair in _values(split)),
            labels=_of_labels(splits),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of all that is known but the values, which are compared within a tolerance, and of what is left out."""
        known = {name: value for name, value in asdict(self).items() if name not in ("values", "left_out")}
        known = {name: value for name, value in known.items() if value or name not in LATER}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """The manifest as JSON has it."""
        return strict(asdict(self)) | {"digest": self.digest}

    @classmethod
    def read(cls, record: Any, origin: str) -> Manifest | None:
        """The manifest of a record; None where there is none, as in runs of before.

        Raises:
            InputError: it is no manifest.
        """
        if record is None:
            return None
        try:
            given = {
                part.name: record[part.name] for part in fields(cls) if part.name in record or part.name not in LATER
            }
            found = cls(**{name: _fixed(value) for name, value in given.items()})
            numbers = (found.train, found.valid, found.files, found.bytes, *found.shape, *found.members)
            if not all(isinstance(number, int) for number in numbers):
                raise ValueError("counts are no whole numbers")
            if not all(
                isinstance(text, str)
                for text in (found.dtype, found.names, found.content, found.lists, found.labels, *found.classes)
            ):
                raise ValueError("names are no text")
            if len(found.members) not in (0, len(found.classes)) or any(len(pair) != 2 for pair in found.values):
                raise ValueError("it is not of one piece")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"{origin} holds no manifest of its data ({brief(error)}): it was tampered with."
            ) from error
        return found

    def changes(self, now: Manifest) -> list[str]:
        """In what other data differ from these, what matters most first; nothing where they are the same."""
        found = _of_classes(self.classes, now.classes)
        for what, before, after in (("training", self.train, now.train), ("held-out", self.valid, now.valid)):
            found += [f"{after} {what} fields, not {before}"] if before != after else []
        if self.shape != now.shape:
            found.append(f"fields of {_size(now.shape)}, not {_size(self.shape)}")
        if self.dtype != now.dtype and (self.dtype, now.dtype) != (">u2", "uint16"):  # as records of before call it
            found.append(f"stored as {now.dtype}, not {self.dtype}")
        if self.classes == now.classes and self.members != now.members and self.members and now.members:
            name, before, after = next(
                row for row in zip(self.classes, self.members, now.members, strict=True) if row[1] != row[2]
            )
            found.append(f"{after} fields of class {brief(name)}, not {before}")
        found += self.changes_of_files(now.files, now.bytes, now.names, now.content, now.lists)
        found += ["other labels of fields"] if self.labels and now.labels and self.labels != now.labels else []
        if len(self.values) == len(now.values) and not all(map(_close, self.values, now.values)):
            found.append("other values")
        return found

    def changes_of_files(self, files: int, bytes: int, names: str, content: str, lists: str = "") -> list[str]:
        """In what other files differ from these. Arguments as those of a manifest."""
        if not self.files:
            return []  # not known, as of tars in records of before
        if self.files != files:
            return [f"{files} files, not {self.files}"]
        if self.names != names:
            return [f"other names or sizes of files ({bytes - self.bytes:+d} bytes)"]
        if self.content != content:
            return ["other content of files"]
        return ["other content of lists of labels"] if self.lists and lists and self.lists != lists else []

    def lines(self) -> list[str]:
        """What people want to know of it, one thing a line."""
        found = [f"held out    {self.valid}"]
        if self.files:
            out = f"; left out: {counted(self.left_out)}" if self.left_out else ""
            found.append(f"files       {self.files}, {_memory(self.bytes)}{out}")
        return [*found, f"digest      {self.digest[:16]}"]


def summary_of(files: Sequence[FileList]) -> dict[str, Any]:
    """What a manifest keeps of files: files, bytes, names, content, lists."""
    return {
        "files": sum(len(part.sizes) for part in files),
        "bytes": sum(size[0] for part in files for size in part.sizes.values()),
        "names": _joined([part.digest for part in files]),
        "content": _joined([part.content for part in files]),
        "lists": _joined([part.lists for part in files if part.lists]),
    }


def class_lines(classes: Sequence[str], members: Sequence[int], most: int = 20) -> list[str]:
    """The number, the name and the members of each class, the first ones."""
    counts = members if len(members) == len(classes) else [None] * len(classes)
    rows = zip(range(most), classes, counts, strict=False)
    found = [f"{number}: {brief(name)}" + ("" if n is None else f" ({n})") for number, name, n in rows]
    return found + ([f"and {len(classes) - most} more"] if len(classes) > most else [])


def _of_classes(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """In what classes differ."""
    if tuple(before) == tuple(now):
        return []
    new, gone = ([name for name in one if name not in set(other)] for one, other in ((now, before), (before, now)))
    if not (new or gone):
        return ["classes in another order"]
    parts = (("new", new), ("gone", gone))
    return [
        f"{what}: class {', '.join(brief(name) for name in names[:3])}{' ...' if len(names) > 3 else ''}"
        for what, names in parts
        if names
    ]


def _values(split: FieldDataset) -> list[tuple[float, float]]:
    """Mean and standard deviation of a few fields of a split, spread evenly, over known and finite values."""
    n = min(LOOKED_AT, len(split))
    batch = split.gather(torch.arange(n) * len(split) // max(n, 1))
    known = torch.isfinite(batch.x) if batch.mask is None else torch.isfinite(batch.x) & batch.mask.bool()
    return [_moments(x[where]) for x, where in zip(batch.x.double(), known, strict=True)]


def _of_labels(splits: Sequence[FieldDataset]) -> str:
    """SHA-256 of the classes and vectors of all fields; empty where they are not known without reading the fields."""
    known = [part for split in splits for part in (split.labels, split.vector) if part is not None]
    return _joined([f"{x.shape} {hashlib.sha256(x.numpy().tobytes()).hexdigest()}" for x in known])


def _moments(x: Tensor) -> tuple[float, float]:
    return (float(x.mean()), float(x.std(correction=0))) if x.numel() else (0.0, 0.0)


def _close(before: tuple[float, float], now: tuple[float, float]) -> bool:
    """Whether two pairs of mean and standard deviation are of the same field."""
    scale = max(before[1], now[1], 1e-6 * abs(before[0]), 1e-30)
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=TOLERANCE * scale) for a, b in zip(before, now, strict=True))


def _fixed(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(map(_fixed, value)) if isinstance(value, list | tuple) else value


def _joined(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest() if digests else ""


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _memory(count: int) -> str:
    """Bytes for people."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {unit}"
    return f"{count} bytes"
