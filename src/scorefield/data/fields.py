"""A finite set of fields in data units, gathered by index: many at once, because one at a time is slow."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from scorefield.data.batch import Batch
from scorefield.data.listing import FileList
from scorefield.data.precision import fits_float32, needed, spread_rows
from scorefield.data.vectors import check_vectors, notes_on
from scorefield.foundation.errors import InputError

HALVES = (torch.bfloat16, torch.float16)
MOST_CLASSES = 100_000  # more than that are numbers of something else

ChannelAxis = Literal["auto", "none", "first", "last"]
MAX_CHANNELS = 4  # an axis of at most this length is taken for channels where the layout has to be guessed


class FieldDataset(Dataset[Batch], ABC):
    """Fields x of shape (channels, *grid) in data units, with what they are conditioned on; float32, or float64 where that would
    round off what tells them apart.

    Attributes:
        quantum: the step between neighbouring values in data units; 0 for continuous data.
        dtype: the number type in which the values are stored.
        classes: a name per label value; empty where there are no labels.
        notes: what is odd about the data, one line each, for who looks at them first.
        metadata: what the files say about themselves, one line each.
        periodic: what the fields are conditioned on are functions on a torus.
        windows_each: how many windows of each sequence follow one another, where fields are windows.
        files: the files that they come from, where that is known.
        left_out: how many fields were to be read and cannot be, by the reason.
        labels: the class of each field, (n) int64, where that is known without reading them.
        vector: the numbers that each is conditioned on, (n, entries), where these are known likewise.
        template: the bytes of a file with the places of the fields and their names; empty where none is needed.
    """

    quantum: float = 0.0
    dtype: str = "float32"
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    periodic: bool = False
    windows_each: int = 0
    files: FileList | None = None
    left_out: Mapping[str, int] = MappingProxyType({})
    labels: Tensor | None = None
    vector: Tensor | None = None
    template: Tensor = torch.empty(0, dtype=torch.uint8)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def gather(self, indices: Tensor) -> Batch:
        """The fields at some indices (int64, each in [0, len)), in that order."""

    def forecasts(self, indices: Tensor) -> dict[str, Tensor]:
        """Simple forecasts of the fields at some indices from what they are conditioned on, by name; none where that is another
        quantity.
        """
        return {}

    def ready(self) -> None:
        """Read what is to stay in memory, where that is put off: before others read on from copies of it."""

    def content(self, indices: Tensor, chunk: int = 256) -> str:
        """SHA-256 of the fields at some indices and all that is with them, so many read at once."""
        found = hashlib.sha256()

        def taken_in(tensor: Tensor) -> Tensor:
            found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
            return tensor

        for part in indices.split(chunk):
            self.gather(part).mapped(taken_in)
        return found.hexdigest()

    def __getitem__(self, index: int) -> Batch:
        """One field, without a batch dimension."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} fields")
        return self.gather(torch.tensor([index % len(self)])).mapped(lambda tensor: tensor[0])


def stack(items: Sequence[Batch]) -> Batch:
    """Stack single fields to a batch. Fields of several shapes raise InputError."""
    shapes = {tuple(item.x.shape) for item in items}
    if len(shapes) > 1:
        raise InputError(f"Fields of several shapes, {sorted(shapes)}, cannot share a batch: crop or resize to one.")

    def join(tensors: list[Tensor | None]) -> Tensor | None:
        return None if tensors[0] is None else torch.stack([tensor for tensor in tensors if tensor is not None])

    conditions = {tuple(sorted((name, tuple(value.shape)) for name, value in item.cond.items())) for item in items}
    if len(conditions) > 1:
        first, second = (dict(found) for found in sorted(conditions)[:2])
        raise InputError(
            f"Fields with conditions of several kinds, {first} and {second}, cannot share a batch: give all the same."
        )
    cond = {name: torch.stack([item.cond[name] for item in items]) for name in items[0].cond}
    given = {name: torch.stack([item.given[name] for item in items]) for name in items[0].given}
    y, mask, key, noise = (join([getattr(item, name) for item in items]) for name in ("y", "mask", "key", "noise"))
    return Batch(torch.stack([item.x for item in items]), cond, y, mask, key, given, noise)


class Subset(FieldDataset):
    """Some of the fields, in a given order."""

    def __init__(self, fields: FieldDataset, indices: Tensor) -> None:
        self.fields, self.indices = fields, indices
        self.quantum, self.dtype, self.classes = fields.quantum, fields.dtype, fields.classes
        self.notes, self.files, self.left_out = fields.notes, fields.files, dict(fields.left_out)
        self.labels, self.vector = (None if x is None else x[indices] for x in (fields.labels, fields.vector))

    def __len__(self) -> int:
        return len(self.indices)

    def gather(self, indices: Tensor) -> Batch:
        return self.fields.gather(self.indices[indices])

    def forecasts(self, indices: Tensor) -> dict[str, Tensor]:
        return self.fields.forecasts(self.indices[indices])


@runtime_checkable
class Stored(Protocol):
    """An array, in memory or on disk, of which rows are read by number."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class ArrayFields(FieldDataset):
    """Fields in one array, in memory or on disk; each gather copies and converts only what it needs.

    A complex array with C channels becomes 2C real ones: channel 2c is the real part of c, 2c + 1 the imaginary part.

    Args:
        array: (N, *grid), (N, channels, *grid) or (N, *grid, channels); boolean, integer, float or complex.
        channel_axis: where the channels are, see `find_channels`.
        labels: (N) integers, one class per field; or floats, (N) or (N, entries), which are vectors and no classes.
        classes: a name per label value; the numbers themselves by default.
        origin: what to call the array in an error.
        vector: (N) or (N, entries) numbers of any type to be conditioned on.
    """

    def __init__(
        self,
        array: Stored,
        channel_axis: ChannelAxis = "auto",
        labels: np.ndarray | None = None,
        classes: tuple[str, ...] = (),
        origin: str = "the array",
        vector: np.ndarray | None = None,
    ) -> None:
        if array.dtype.kind not in "biufc":
            raise InputError(f"{origin} holds {array.dtype}, not numbers: convert it to integers, floats or complex.")
        self.array, self.origin = array, origin
        self.channel_axis = find_channels(array.shape, channel_axis, origin)
        self.vector = None if vector is None else check_vectors(vector, len(array), origin)
        if labels is not None and vector is None and are_numbers(labels):
            self.vector, labels = check_vectors(labels, len(array), origin), None
            self.notes = notes_on(self.vector, origin)
        self.labels = None if labels is None else check_labels(labels, len(array), origin, len(classes))
        self.dtype = str(array.dtype)
        self.quantum = 1.0 if array.dtype.kind in "biu" else 0.0
        self.precision = torch.float32
        if not fits_float32(array.dtype):
            rows = self._rows(spread_rows(len(array), math.prod(array.shape[1:])))
            self.precision = needed(rows, origin)
        if self.labels is not None:
            self.classes = classes or tuple(map(str, range(count_classes(np.asarray(labels)))))

    def __len__(self) -> int:
        return len(self.array)

    def gather(self, indices: Tensor) -> Batch:
        rows = self._rows(indices.numpy())
        try:
            with np.errstate(over="raise"):
                x = torch.from_numpy(rows.astype(str(self.precision).removeprefix("torch."), order="C"))
        except FloatingPointError:
            raise InputError(
                f"{self.origin} has values beyond those of float32, ±3.4e38: save it in other units."
            ) from None
        given = {"label": self.labels, "vector": self.vector}
        return Batch(x, {name: value[indices] for name, value in given.items() if value is not None})

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        """Some fields (n, channels, *grid) as they are stored, complex ones as pairs of real channels."""
        rows: Any = np.asarray(self.array[indices])
        if self.channel_axis == "none":
            rows = rows[:, None]
        elif self.channel_axis == "last":
            rows = np.moveaxis(rows, -1, 1)
        if rows.dtype.kind == "c":
            rows = np.stack((rows.real, rows.imag), axis=2).reshape(len(rows), -1, *rows.shape[2:])
        return rows


class DatasetFields(FieldDataset):
    """Any map-style dataset whose items are x, (x, label) or Batch, x being a tensor (channels, *grid).

    What holds for arrays holds here: complex channels become pairs of real ones, labels are integers from 0.
    Without names of classes, a float, or a row of floats, is a vector and no class; with `vector` any label is one.
    """

    def __init__(
        self, dataset: Dataset, quantum: float = 0.0, classes: tuple[str, ...] = (), vector: bool = False
    ) -> None:
        self.dataset, self.quantum, self.classes, self.as_vector = dataset, quantum, classes, vector
        self.precision = torch.float32
        if len(self):
            x = self._item(0).x
            self.dtype = str(x.dtype).removeprefix("torch.")
            if x.dtype not in HALVES and not fits_float32(np.dtype(self.dtype)):
                rows = [pairs(self._item(int(i))).x for i in spread_rows(len(self), x.numel())]
                if len({row.shape for row in rows}) == 1:  # else `stack` refuses them
                    self.precision = needed(torch.stack(rows).numpy(), "The dataset")

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def gather(self, indices: Tensor) -> Batch:
        items = [pairs(self._item(index)) for index in indices.tolist()]
        return stack([replace(item, x=item.x.to(self.precision)) for item in items])

    def _item(self, index: int) -> Batch:
        """An item, with x of the type that it has."""
        match self.dataset[index]:
            case Batch() as batch:
                return self._checked(index, batch)
            case Tensor() as x:
                return self._checked(index, Batch(x))
            case (Tensor() as x, label):
                return self._checked(index, Batch(x, self._told(index, label)))
            case other:
                raise InputError(
                    f"Item {index} of the dataset is {type(other).__name__}: return x, (x, label) or Batch, x being a tensor."
                )

    def _checked(self, index: int, item: Batch) -> Batch:
        x, cond = item.x.detach(), dict(item.cond)
        if x.layout != torch.strided or x.is_quantized:
            raise InputError(f"x of item {index} of the dataset is a {x.layout} tensor: return x.to_dense().")
        if not 1 <= x.ndim - 1 <= 3:
            raise InputError(
                f"x of item {index} of the dataset has shape {tuple(x.shape)}: return (channels, *grid), a grid of 1 to 3 axes."
            )
        if "label" in cond:
            cond |= self._told(index, cond.pop("label"))
        return replace(item, x=x.resolve_conj().resolve_neg().cpu(), cond=cond)

    def _told(self, index: int, label: Any) -> dict[str, Any]:
        """What the label of an item says: its class, a whole number or a one-hot vector; or numbers, which are a vector."""
        try:
            found = np.asarray(label)
        except (TypeError, ValueError, RuntimeError):
            found = np.asarray(None)
        origin = f"item {index} of the dataset"
        if self.as_vector or (
            not self.classes and are_numbers(found[None])
        ):  # where classes are named, it is one of them
            return {"vector": check_vectors(found.reshape(1, -1), 1, origin)[0]}
        known = len(self.classes) or (len(found) if found.ndim and len(found) > 1 else MOST_CLASSES)
        return {"label": check_labels(found[None], 1, origin, known)[0]}


def pairs(item: Batch) -> Batch:
    """A field without a batch dimension with its complex channels as pairs of real ones, and its mask likewise."""
    x, mask = item.x, item.mask
    if not x.is_complex():
        return item
    if mask is not None and len(mask) == len(x) > 1:
        mask = mask.repeat_interleave(2, dim=0)
    return replace(item, x=torch.view_as_real(x).movedim(-1, 1).flatten(0, 1), mask=mask)


def find_channels(shape: Sequence[int], channel_axis: ChannelAxis, origin: str) -> ChannelAxis:
    """Where the channels of an array (N, ...) are: "none", "first" (N, channels, *grid) or "last" (N, *grid, channels).

    "auto" takes an axis of length 1 to 4 at either end for channels, but at one end only; without one, (N, L) and
    (N, H, W) have no channel axis, while four axes or more without one could be volumes or many channels. Raises
    InputError where that does not decide.
    """
    axes = len(shape) - 1
    if axes < 1 or 0 in shape:
        raise InputError(f"{origin} has shape {tuple(shape)}: give fields along the first axis, at least one.")
    found = channel_axis
    if found == "auto":
        first, last = (axes > 1 and shape[end] <= MAX_CHANNELS for end in (1, -1))
        if first != last:
            found = "first" if first else "last"
        elif not first and axes < 3:
            found = "none"
        else:
            advice = "give channel_axis none, first or last"
            raise InputError(f"{origin} has shape {tuple(shape)}, where the channels may be on any axis: {advice}.")
    rank = axes if found == "none" else axes - 1
    if not 1 <= rank <= 3:
        raise InputError(
            f"{origin} has shape {tuple(shape)}: with channel_axis {found} that is a grid of rank {rank}, not 1-3."
        )
    return found


def check_labels(labels: np.ndarray, n: int, origin: str, classes: int = 0) -> Tensor:
    """One class per field as int64, or InputError; where the number of classes is not known, there are at most n.

    Args:
        labels: (n) or (n, 1) integers, or (n, classes) with a single 1 in each row.
        n: the number of fields.
        origin: what to call the labels in an error.
        classes: how many there are, if that is known.
    """
    labels = np.asarray(labels)
    if n and is_one_hot(labels) and len(labels) == n and classes in (0, labels.shape[1]):
        return torch.from_numpy(labels.argmax(1).astype(np.int64))
    if labels.shape not in ((n,), (n, 1)) or labels.dtype.kind not in "biu" or n == 0:
        raise InputError(
            f"Labels of {origin} are {labels.dtype} {labels.shape}: give one integer for each of {n} fields, or one-hot rows."
        )
    if labels.min() < 0:
        raise InputError(f"Labels of {origin} go down to {labels.min()}: number the classes from 0.")
    if int(labels.max()) >= (most := classes or min(n, MOST_CLASSES)):
        raise InputError(
            f"Labels of {origin} go up to {labels.max()}, but there can be {most} classes: number them from 0."
        )
    return torch.from_numpy(labels.reshape(n).astype(np.int64))


def are_numbers(labels: np.ndarray) -> bool:
    """Whether labels are numbers and no classes: of a floating type, (N) or (N, entries), and no one-hot rows."""
    return labels.dtype.kind == "f" and labels.ndim in (1, 2) and not is_one_hot(labels)


def is_one_hot(labels: np.ndarray) -> bool:
    """Whether labels are rows (n, classes) of zeros with a single 1."""
    if labels.ndim != 2 or labels.shape[1] < 2 or labels.dtype.kind not in "biuf":
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def count_classes(labels: np.ndarray) -> int:
    """How many classes checked labels have: the length of one-hot rows (n, classes), or one more than the largest of (n)."""
    return labels.shape[1] if labels.ndim == 2 and labels.shape[1] > 1 else int(labels.max()) + 1
