"""Predictors on their way to the targets' grid: any number of sources, each on a grid and with times of its own.

The first source numbers the fields, member by member and in each by time. What else comes from other files is found by the same
time and member, and carried to the targets' grid from its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scorefield.climate.axes import advice
from scorefield.climate.files import Cube
from scorefield.climate.grid import Grid
from scorefield.climate.opening import tell
from scorefield.climate.regrid import Regridder
from scorefield.climate.time_features import TimeFeature
from scorefield.climate.times import calendar_of, dates, irregular, span_of, stamps, usual_step
from scorefield.foundation.errors import InputError


@dataclass(frozen=True, eq=False)
class Carried:
    """Variables of some files on their way from their own grid to the targets'.

    Attributes:
        cube: on the grid of the files.
        grid: from which they are carried on: that of the files, or a coarser one.
        regrid: from there to the targets' grid.
        coarsen: to the mean over the cells of the coarser grid first; None where they are coarse already.
        name: of the source; empty for the first.
        numbers: of its field for each field of the first source, -1 where there is none; None for the first.
    """

    cube: Cube
    grid: Grid
    regrid: Regridder
    coarsen: Regridder | None = None
    name: str = ""
    numbers: np.ndarray | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of its channels, behind that of the source, as two may have one variable."""
        return tuple(f"{self.name}.{channel}" if self.name else channel for channel in self.cube.names)

    def number(self, first: int) -> int:
        """Of its field, by that of the first source."""
        return first if self.numbers is None else int(self.numbers[first])

    def coarse(self, first: int) -> np.ndarray:
        """Its field that belongs to one of the first source, (channels, y, x) on `grid`."""
        field = self.cube.read(self.number(first))
        return field if self.coarsen is None else self.coarsen(field)

    def beside(self, first: Cube) -> Carried:
        """With the numbers of its fields for those of the first source."""
        return replace(self, numbers=matched(first, self.cube, shared=True))

    def check_numbers(self, first: Cube, wanted: np.ndarray) -> None:
        """Refuse where it has no field for some of those wanted, by their numbers in the first source."""
        if self.numbers is None or not (lacking := wanted[self.numbers[wanted] < 0]).size:
            return
        ends, missing = dates(self.cube.times), dates(first.times)[lacking[0] % len(first.times)]
        raise InputError(
            f"{self.cube.origin} goes from {ends[0]} to {ends[-1]} and lacks {len(lacking)} times of {first.origin}, the first "
            f"{missing}: give files of all of them, or predict fewer."
        )


@dataclass(frozen=True, eq=False)
class Predictors:
    """What a field is predicted from, as channels: predictors of its time and of those around it, fields that do not change,
    features of the time.

    Attributes:
        sources: where predictors come from; the first numbers the fields.
        before: steps of time before that of the field.
        after: steps after it.
        static: (channels, rows, columns) on the target's grid.
        static_names: of these channels.
        features: of the time.
    """

    sources: tuple[Carried, ...]
    before: int
    after: int
    static: np.ndarray
    static_names: tuple[str, ...]
    features: tuple[TimeFeature, ...]

    @property
    def cube(self) -> Cube:
        """Of the first source."""
        return self.sources[0].cube

    @property
    def grid(self) -> Grid:
        """From which the first source is carried to the target's."""
        return self.sources[0].grid

    @property
    def regrid(self) -> Regridder:
        """That of the first source."""
        return self.sources[0].regrid

    @property
    def coarsen(self) -> Regridder | None:
        """That of the first source."""
        return self.sources[0].coarsen

    @property
    def own_names(self) -> tuple[str, ...]:
        """Of the channels of one time."""
        return tuple(name for source in self.sources for name in source.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all channels."""
        steps = [f"{step:+d}" if step else "" for step in range(-self.before, self.after + 1)]
        names = [name + step for step in steps for name in self.own_names]
        return (*names, *self.static_names, *(name for feature in self.features for name in feature.names))

    @property
    def dtype(self) -> np.dtype:
        """Of the channels."""
        return np.result_type(*(source.cube.dtype for source in self.sources), self.static.dtype)

    def coarse(self, number: int) -> np.ndarray:
        """The first source at a time as it drives the model, (channels, y, x) on the grid that it is given on."""
        return self.sources[0].coarse(number)

    def window(self, number: int) -> list[list[np.ndarray]]:
        """The sources at a time and at the times around it."""
        return [[s.coarse(number + step) for s in self.sources] for step in range(-self.before, self.after + 1)]

    def digest(self, places: np.ndarray) -> str:
        """SHA-256 of places (n, 1 or more), numbers of times first, of the grids, and of dates and values to predict from."""
        found = hashlib.sha256(repr((self.names, self.cube.quantities, places.shape)).encode())
        found.update(np.ascontiguousarray(places).tobytes())
        steps = np.arange(-self.before, self.after + 1)
        for source in self.sources:
            found.update(repr(source.cube.quantities).encode() if source.name else b"")
            for lines in (source.grid.y, source.grid.x):
                found.update(np.ascontiguousarray(lines).tobytes())
            for number in map(source.number, np.unique(places[:, :1] + steps).tolist()):
                found.update(str(dates(source.cube.times[[number % len(source.cube.times)]])[0]).encode())
                found.update(np.ascontiguousarray(source.cube.read(number)).tobytes())
        return found.hexdigest()

    def at(self, number: int, window: Sequence[Sequence[np.ndarray]], rows: slice, columns: slice) -> np.ndarray:
        """All channels on a part of the target's grid, (channels, rows, columns)."""
        parts = [
            source.regrid(field, rows, columns)
            for fields in window
            for source, field in zip(self.sources, fields, strict=True)
        ]
        parts.append(self.static[:, rows, columns])
        time = number % len(self.cube.times)
        shape = parts[0].shape[-2:]
        for feature in self.features:
            values = feature(self.cube.times[time : time + 1])[0][:, None, None]
            parts.append(np.broadcast_to(values, (len(feature.names), *shape)))
        return np.concatenate(parts)

    def complete(self, numbers: np.ndarray) -> np.ndarray:
        """Which fields have all times of their window, one step apart and none of another member, (numbers) bool."""
        time, n = numbers % len(self.cube.times), len(self.cube.times)
        found = (time >= self.before) & (time < n - self.after)
        holes = np.append(0, np.cumsum(irregular(self.cube.times)))  # before each time
        return found & (holes[(time + self.after).clip(0, n - 1)] == holes[(time - self.before).clip(0, n - 1)])

    def check_sources(self, numbers: np.ndarray) -> None:
        """Refuse where a source lacks a time in the window of some fields, by their numbers."""
        wanted = np.unique(numbers[:, None] + np.arange(-self.before, self.after + 1))
        for source in self.sources[1:]:
            source.check_numbers(self.cube, wanted)


def units_of(cube: Cube) -> dict[str, str]:
    """The units of each variable; "" where it has none."""
    return {name: str(cube.attributes(name).get("units", "")) for name in cube.variables.names}


def matched(targets: Cube, predictors: Cube, *, shared: bool = False) -> np.ndarray:
    """For every field of the targets the number of the predictors' field of the same time and member; -1 where there is none.

    Daily fields belong together by their day, monthly ones by their month, whatever the hour or the day that they are stamped.

    Args:
        targets: fields that are numbered.
        predictors: fields that belong to them.
        shared: whether predictors of one member belong to all members of the targets.
    """
    if predictors is targets:
        return np.arange(len(targets))
    predictors.check_dates()
    if predictors.members != targets.members and not (shared and predictors.members == 1):
        many, member = (
            (predictors, predictors.layout.member) if predictors.members > 1 else (targets, targets.layout.member)
        )
        raise InputError(
            f"{predictors.origin} has {predictors.members} members and {targets.origin} {targets.members}: "
            f"{advice(many.dataset, member)}."
        )
    calendars = [calendar_of(c.dataset[c.layout.time]) if c.layout.time else "" for c in (predictors, targets)]
    if all(calendars) and calendars[0] != calendars[1]:
        raise InputError(
            f"{predictors.origin} has the calendar {calendars[0]}, and {targets.origin} {calendars[1]}: convert one of them."
        )
    steps = [usual_step(cube.times) for cube in (predictors, targets)]
    if min(len(predictors.times), len(targets.times)) > 1 and not 0.5 < steps[0] / steps[1] < 2:
        tell(
            f"{predictors.origin} has steps of {steps[0]:g} days and {targets.origin} of {steps[1]:g}: fields of one time are "
            "matched"
        )
    found = numbers_at(predictors.times, targets.times)
    members = np.arange(targets.members)[:, None] * (len(predictors.times) if predictors.members > 1 else 0)
    return np.where(found < 0, -1, members + found).ravel()


def numbers_at(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each time that is wanted is among some times, -1 where it is not: to the second, else by the day or the month."""
    theirs, ours = stamps(times), stamps(wanted)
    found = np.full(len(ours), -1)
    for span in (6, max(map(span_of, (times, wanted)))):
        places = {stamp[:span]: i for i, stamp in enumerate(theirs)}
        if len(places) == len(theirs) and len({stamp[:span] for stamp in ours}) == len(ours):
            found = np.array([places.get(stamp[:span], -1) for stamp in ours])
        if (found >= 0).any():
            break
    return found
