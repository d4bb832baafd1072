"""Sources: where fields come from. A constructor is plain configuration and touches no file; `load` does."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from scorefield.data.fields import HALVES, ArrayFields, ChannelAxis, DatasetFields, FieldDataset, Subset
from scorefield.data.listing import FileList
from scorefield.data.manifest import Manifest
from scorefield.foundation.errors import InputError, NothingHeldOutError, brief
from scorefield.foundation.random import seed_of

log = logging.getLogger("scorefield")

Split = Literal["train", "valid", "test"]  # few sources have a part to test on


class Source(ABC):
    """Where fields come from.

    Attributes:
        past: how many fields before it, as its condition, each field is given; 0 where that is something else.
        window: how many times of a sequence each field has as its channels; 0 where these are something else.
        given: the name of the fields that these are conditioned on, in a file of several arrays; None where there is none.
    """

    past: int = 0
    window: int = 0
    given: str | None = None

    @abstractmethod
    def load(self, split: Split) -> FieldDataset:
        """The fields of one split, in data units. What cannot be read raises InputError."""

    def files_read(self) -> list[Path]:
        """The files and folders that are read: by default all arguments that are paths, but a cache."""
        given = [value for name, value in vars(self).items() if name != "cache"]
        parts = [part for value in given for part in (value if isinstance(value, list | tuple) else [value])]
        return [part for part in parts if isinstance(part, Path)]

    def axes(self) -> dict[str, np.ndarray]:
        """The coordinates of the points along each axis of the grid, by name and in order; none where the data have no names."""
        return {}

    def order(self) -> tuple[str, ...]:
        """The names of the axes of what fields are conditioned on, or of its grid alone, in order; none where they have none."""
        return ()

    def units(self) -> str:
        """The units of what fields are conditioned on; nothing where they are not known."""
        return ""

    def files(self) -> list[FileList]:
        """The names and sizes of what is read, found without reading it."""
        return [FileList.of(path) for path in self.files_read() if path.exists()]

    def manifest(self, train: FieldDataset, valid: FieldDataset | None) -> Manifest:
        """What the data are made of, to tell them from others.

        Args:
            train: what `load` gave for training.
            valid: for validation; None where nothing is held out.
        """
        return Manifest.of(train, valid, self.files() if train.files is None else [train.files])

    def survey(self) -> tuple[list[str], list[str]]:
        """What a longer look at the files shows beside the fields themselves, and what is odd about it, one line each."""
        return [], []


def hold_out(n: int, valid: int | float, seed: int, split: Split) -> Tensor:
    """The sorted indices of one split of n fields: a held-out set drawn from the seed, and the rest.

    Args:
        n: the number of fields.
        valid: how many are held out: a number of fields (integer) or a fraction of them (float below 1).
        seed: draws which ones.
        split: the one that is wanted.

    Raises:
        NothingHeldOutError: the held-out set is wanted, and `valid` is 0.
        InputError: any other number that leaves one of the splits empty.
    """
    check_split(split)
    held = valid if isinstance(valid, int) else round(valid * n)
    if not 0 <= held < n or (isinstance(valid, float) and not 0 <= valid < 1):
        raise InputError(
            f"valid={valid} leaves no training data of {n} fields: give a number below {n} or a fraction below 1."
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed_of(seed)))
    chosen = order[:held] if split == "valid" else order[held:]
    if len(chosen) == 0:
        wrong = f"valid={valid} of {n} fields holds out none: give the number of fields to hold out, at least 1"
        if valid == 0:
            raise NothingHeldOutError(f"{wrong}.")
        raise InputError(f"{wrong}, or 0 to train on all of them.")
    return chosen.sort().values


def say_notes(*splits: FieldDataset) -> None:
    """Log what is odd about data, each thing once."""
    for note in dict.fromkeys(note for fields in splits for note in fields.notes):
        log.warning("%s", note)


def check_split(split: str) -> None:
    """Refuse any other name than those of the splits."""
    if split not in ("train", "valid"):
        raise InputError(f"There is no split {split!r}: give train or valid.")


def as_array(given: Tensor | np.ndarray | list, name: str) -> np.ndarray:
    """A tensor, an array or nested lists of numbers as an array, or InputError; halves become float32."""
    if not isinstance(given, Tensor):
        try:
            return np.asarray(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{name} is no array ({brief(error)}): give a tensor.") from error
    if given.layout != torch.strided:
        raise InputError(f"{name} is a {given.layout} tensor: give {name}.to_dense().")
    x = given.detach().resolve_conj().resolve_neg().cpu()
    return (x.float() if x.dtype in HALVES else x).numpy()


@dataclass(frozen=True, eq=False)
class Tensors(Source):
    """Fields in memory: tensors, arrays of NumPy or lists.

    Args:
        x: (N, channels, *grid), real or complex; complex channels become pairs of real ones.
        labels: (N) integers; floats, (N) or (N, entries), are vectors and no classes.
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
        channel_axis: where the channels of x are.
        vector: (N) or (N, entries) numbers to condition on, of any type.
    """

    x: Tensor | np.ndarray | list
    labels: Tensor | np.ndarray | list | None = None
    valid: int | float = 0.1
    seed: int = 0
    channel_axis: ChannelAxis = "first"
    vector: Tensor | np.ndarray | list | None = None

    def load(self, split: Split) -> FieldDataset:
        array = as_array(self.x, "x")
        given = {"labels": self.labels, "vector": self.vector}
        labels, vector = (None if found is None else as_array(found, name) for name, found in given.items())
        fields = ArrayFields(array, self.channel_axis, labels, origin="x", vector=vector)
        return Subset(fields, hold_out(len(fields), self.valid, self.seed, split))


@dataclass(frozen=True)
class Wrapped(Source):
    """Any map-style torch dataset whose items are x, (x, label) or Batch, x being a tensor (channels, *grid).

    Args:
        dataset: the dataset.
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
        quantum: the step between neighbouring values in data units; 0 for continuous data.
        classes: a name per label value.
        vector: labels are numbers to condition on, and no classes, even where they are integers; floats always are.
    """

    dataset: Dataset
    valid: int | float = 0.1
    seed: int = 0
    quantum: float = 0.0
    classes: tuple[str, ...] = ()
    vector: bool = False

    def load(self, split: Split) -> FieldDataset:
        fields = DatasetFields(self.dataset, self.quantum, self.classes, self.vector)
        return Subset(fields, hold_out(len(fields), self.valid, self.seed, split))
