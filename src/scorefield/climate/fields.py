"""Gridded fields beside what they are to be predicted from: read once into memory where they fit, else when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.climate.carried import Predictors
from scorefield.climate.files import Cube
from scorefield.climate.grid import Grid
from scorefield.climate.times import dates
from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.foundation.errors import InputError


@dataclass(frozen=True)
class Place:
    """Where and when a field is.

    Attributes:
        number: of the field in its cube: member by member, and in each by time.
        row: its first row in the domain.
        column: its first column.
    """

    number: int
    row: int
    column: int


class GriddedFields(FieldDataset):
    """Targets x with cond["field"] on the target's grid, in the units of the files; x is 0 where it is unknown, and mask too.

    Args:
        targets: the variables to learn.
        predictors: what they are learnt from; None for fields without conditions.
        places: number, first row and first column of each field, (n, 3).
        size: rows and columns of a field.
        domain: the grid of the whole domain.
        mask_channel: give the network one more channel, of where the target is known.
        matching: the number of the predictors' field for every one of the targets'; the same by default.
        about: what to say of the fields, found when it is asked for.
        describe: their template, likewise.
        window: times that follow one another in one field: x has all variables of the first, then of the next.
        kept: bytes that the fields may take in memory, where they are from the first use of several on.
    """

    def __init__(
        self,
        targets: Cube,
        predictors: Predictors | None,
        places: np.ndarray,
        size: tuple[int, int],
        domain: Grid,
        *,
        mask_channel: bool = False,
        matching: np.ndarray | None = None,
        about: Callable[[GriddedFields], tuple[str, ...]] | None = None,
        describe: Callable[[GriddedFields], Tensor] | None = None,
        kept: float = 0.0,
        window: int = 1,
    ) -> None:
        self.targets, self.predictors, self.places = targets, predictors, places
        self.size, self.domain, self.mask_channel, self.window = size, domain, mask_channel, window
        self.matching = np.arange(len(targets)) if matching is None else matching
        self.holes = False
        self._cache: tuple[Tensor, Tensor] | None = None
        names = () if predictors is None else predictors.names
        self.conditions = (*names, *(("known",) if mask_channel else ()))
        self._about, self._describe, self._kept = about, describe, kept

    @cached_property
    def metadata(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return () if self._about is None else self._about(self)

    @cached_property
    def template(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return torch.empty(0, dtype=torch.uint8) if self._describe is None else self._describe(self)

    def ready(self) -> None:
        if self.bytes <= self._kept:
            self.remember()

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the channels of x."""
        return tuple(name + (f"+{step}" if step else "") for step in range(self.window) for name in self.targets.names)

    def __len__(self) -> int:
        return len(self.places)

    def place(self, index: int) -> Place:
        """Where and when a field is."""
        return Place(*(int(value) for value in self.places[index]))

    def grid(self, index: int) -> Grid:
        """The grid of a field."""
        place = self.place(index)
        return self.domain.crop(*self._slices(place))

    def time(self, index: int) -> Any:
        """The date of a field."""
        return self.targets.times[self.place(index).number % len(self.targets.times)]

    def coarse(self, index: int) -> np.ndarray:
        """The predictors of a field's time over the whole domain, as they are given, (channels, y, x)."""
        if self.predictors is None:
            raise InputError("These fields have no predictors.")
        return self.predictors.coarse(self.given_number(self.place(index).number))

    def given_number(self, number: int) -> int:
        """The number of the predictors' field that belongs to one of the targets."""
        return int(self.matching[number])

    @property
    def given_places(self) -> np.ndarray:
        """Number of the predictors' field, first row and first column of each field, (n, 3)."""
        return np.column_stack([self.matching[self.places[:, 0]], self.places[:, 1:]])

    @property
    def bytes(self) -> int:
        """What all fields take in memory."""
        size = self.targets.dtype.itemsize
        return size * len(self) * (len(self.variables) + len(self.conditions)) * self.size[0] * self.size[1]

    @property
    def remembered(self) -> bool:
        """Whether all fields are in memory."""
        return self._cache is not None

    def remember(self) -> GriddedFields:
        """Read everything into memory; returns itself."""
        if self._cache is None and len(self):
            given = np.dtype(np.float32) if self.predictors is None else self.predictors.dtype
            parts = ((len(self.variables), self.targets.dtype), (self._given, given))
            x, cond = (torch.from_numpy(np.empty((len(self), n, *self.size), dtype)) for n, dtype in parts)
            for rows in self._by_number(np.arange(len(self))):
                for index, (target, field) in zip(rows, self._read(rows), strict=True):
                    x[index], cond[index] = torch.from_numpy(target), torch.from_numpy(field)
            self._cache = (x, cond)
            self.holes = bool(torch.isnan(x).any())
        return self

    def some(self, most: int) -> GriddedFields:
        """At most so many of them, evenly spread."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(int))
        found = copy(self)
        found.places = self.places[rows]
        if self._cache is not None:
            x, cond = self._cache
            found._cache = (x[rows], cond[rows])
        return found

    def gather(self, indices: Tensor) -> Batch:
        if self._cache is None and len(indices) > 1:
            self.ready()
        if self._cache is not None:
            x, field = (part[indices] for part in self._cache)
        else:
            pairs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
            for rows in self._by_number(np.unique(indices.numpy())):
                pairs |= dict(zip(rows.tolist(), self._read(rows), strict=True))
            x, field = (torch.from_numpy(np.stack([pairs[i][part] for i in indices.tolist()])) for part in (0, 1))
        return self._batch(x, field)

    @property
    def _given(self) -> int:
        return 0 if self.predictors is None else len(self.predictors.names)

    def _batch(self, x: Tensor, field: Tensor) -> Batch:
        known = ~torch.isnan(x)
        whole = bool(known.all())
        parts = ([field] if self._given else []) + ([known.all(1, keepdim=True).float()] if self.mask_channel else [])
        cond = {"field": torch.cat(parts, dim=1)} if parts else {}
        # Batches of one data set are of one kind: with a mask wherever any has one.
        mask = None if whole and self._cache is not None and not self.holes else known
        return Batch(x if whole else x.nan_to_num(0.0), cond, mask=mask)

    def _by_number(self, rows: np.ndarray) -> list[np.ndarray]:
        """Fields of one time together: it is read once for all its tiles."""
        numbers = self.places[rows, 0]
        order = np.argsort(numbers, kind="stable")
        cuts = np.flatnonzero(np.diff(numbers[order])) + 1
        return [rows[part] for part in np.split(order, cuts) if len(part)]

    def _read(self, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        number = int(self.places[rows[0], 0])
        target = np.concatenate([self._target(number + step) for step in range(self.window)])
        given_number = self.given_number(number)
        window = None if self.predictors is None else self.predictors.window(given_number)
        found = []
        for index in rows:
            part = self._slices(self.place(int(index)))
            given = np.empty((0, *self.size), np.float32)
            if self.predictors is not None and window is not None:
                given = self.predictors.at(given_number, window, *part)
            found.append((target[:, part[0], part[1]], given))
        return found

    def _target(self, number: int) -> np.ndarray:
        """The targets of a time. InputError where they are infinite."""
        target = self.targets.read(number)
        for name, channel in zip(self.targets.names, target, strict=True):
            if infinite := int(np.isinf(channel).sum()):
                date = dates(self.targets.times)[number % len(self.targets.times)]
                raise InputError(
                    f"{self.targets.origin}: {name} is infinite at {infinite} points of {date}: make them NaN, for unknown, "
                    "or correct the file."
                )
        return target

    def _slices(self, place: Place) -> tuple[slice, slice]:
        return slice(place.row, place.row + self.size[0]), slice(place.column, place.column + self.size[1])
