"""Which part of gridded data is for training: whole spells of time or bands of space, with guards between the parts.

Neighbouring hours and neighbouring tiles are nearly the same weather: a random split of them would be no test.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from scorefield.climate.times import dates, days_since_first, season_of, stamps
from scorefield.data.source import Split
from scorefield.foundation.errors import InputError, NothingHeldOutError

DATE = re.compile(r"\d{4}(-\d\d(-\d\d( \d\d(:\d\d(:\d\d)?)?)?)?)?")


class Division(ABC):
    """A division of data into parts."""

    def check(self) -> None:  # noqa: B027
        """Refuse parts that overlap; nothing by default."""

    @abstractmethod
    def times(self, times: np.ndarray, split: Split) -> np.ndarray:
        """Which times belong to a part, (times) bool."""

    @abstractmethod
    def places(self, shape: tuple[int, int], split: Split) -> np.ndarray:
        """Which points belong to a part, (rows, columns) bool; a field belongs to it if all its points do."""


class InTime(Division):
    """A division of times. Abstract: which is left open."""

    def places(self, shape: tuple[int, int], split: Split) -> np.ndarray:
        return np.ones(shape, bool)


@dataclass(frozen=True)
class Years(InTime):
    """Whole calendar years.

    Args:
        valid: held out to validate on.
        test: held out to test on.
    """

    valid: tuple[int, ...]
    test: tuple[int, ...] = ()

    def check(self) -> None:
        _check_apart(self.valid, self.test)

    def times(self, times: np.ndarray, split: Split) -> np.ndarray:
        return _chosen(np.array([date.year for date in dates(times)]), self.valid, self.test, split)


@dataclass(frozen=True)
class Seasons(InTime):
    """Whole seasons, DJF, MAM, JJA or SON, of all years.

    Args:
        valid: held out to validate on.
        test: held out to test on.
    """

    valid: tuple[Literal["DJF", "MAM", "JJA", "SON"], ...]
    test: tuple[Literal["DJF", "MAM", "JJA", "SON"], ...] = ()

    def check(self) -> None:
        _check_apart(self.valid, self.test)

    def times(self, times: np.ndarray, split: Split) -> np.ndarray:
        return _chosen(np.array([season_of(date.month) for date in dates(times)]), self.valid, self.test, split)


@dataclass(frozen=True)
class Blocks(InTime):
    """Blocks of days that take turns: block b belongs to the part that its place b mod `cycle` is given to.

    Args:
        days: length of a block.
        cycle: how many blocks make a round.
        valid: places held out to validate on.
        test: places held out to test on.
        guard: days at either side of held-out blocks that belong to no part.
    """

    days: float
    cycle: int = 10
    valid: tuple[int, ...] = (8,)
    test: tuple[int, ...] = (9,)
    guard: float = 0.0

    def check(self) -> None:
        _check_apart(self.valid, self.test)

    def times(self, times: np.ndarray, split: Split) -> np.ndarray:
        elapsed = days_since_first(times)
        part = _chosen(np.floor(elapsed / self.days).astype(int) % self.cycle, self.valid, self.test, split)
        if split == "train" and self.guard:
            held = [
                _chosen(np.floor((elapsed + g) / self.days).astype(int) % self.cycle, self.valid, self.test, "train")
                for g in (-self.guard, self.guard)
            ]
            part &= held[0] & held[1]
        return part


@dataclass(frozen=True)
class Periods(InTime):
    """Spells from one date to another, both included as far as they are written: 2019-03-20 is the whole day, 2019-03-20T12 and
    2019-03-20 12 the whole hour.

    Args:
        train: first and last date to train on.
        valid: to validate on.
        test: to test on.
    """

    train: tuple[str, str]
    valid: tuple[str, str]
    test: tuple[str, str] | None = None

    def check(self) -> None:
        given = (self.train, self.valid, self.test)
        spells = [(n, *map(_plain, s)) for n, s in zip(("train", "valid", "test"), given, strict=True) if s is not None]
        for name, first, last in spells:
            if first[: len(last)] > last[: len(first)]:
                raise InputError(
                    f"The period {name} ends at {last}, before it begins at {first}: give the first date first."
                )
        for (name, first, last), (other, start, end) in combinations(spells, 2):
            if start[: len(last)] <= last[: len(start)] and first[: len(end)] <= end[: len(first)]:
                raise InputError(
                    f"The periods {name}, {first} to {last}, and {other}, {start} to {end}, overlap: what is held out must not "
                    "be trained on."
                )

    def times(self, times: np.ndarray, split: Split) -> np.ndarray:
        chosen = self.train if split == "train" else self.valid if split == "valid" else self.test
        if not chosen:
            raise InputError("There is no split test: give the dates of test, or ask for train or valid.")
        first, last = map(_plain, chosen)
        written = ["{:04d}-{:02d}-{:02d} {:02d}:{:02d}:{:02d}".format(*stamp) for stamp in stamps(times)]
        return np.array([first <= w[: len(first)] and w[: len(last)] <= last for w in written])


@dataclass(frozen=True)
class Bands(Division):
    """Bands of columns, or of rows, that take turns: band b, counted from the first column, belongs to the part that names it.

    Args:
        count: how many bands of equal width.
        valid: numbers of those held out to validate on.
        test: numbers of those held out to test on.
        guard: points at either side of held-out bands that are in no part.
        axis: "x" for bands of columns, "y" for bands of rows.
    """

    count: int
    valid: tuple[int, ...]
    test: tuple[int, ...] = ()
    guard: int = 0
    axis: Literal["x", "y"] = "x"

    def __post_init__(self) -> None:
        if wrong := [band for band in (*self.valid, *self.test) if not 0 <= band < self.count]:
            raise InputError(f"There is no band {wrong[0]} of {self.count}: number them from 0.")

    def check(self) -> None:
        _check_apart(self.valid, self.test)

    def times(self, times: np.ndarray, split: Split) -> np.ndarray:
        return np.ones(len(times), bool)

    def places(self, shape: tuple[int, int], split: Split) -> np.ndarray:
        n = shape[1] if self.axis == "x" else shape[0]
        part = _chosen(np.arange(n) * self.count // n, self.valid, self.test, split)
        if split == "train" and self.guard:
            part = _far_from(np.flatnonzero(~part), n, self.guard)
        return np.broadcast_to(part[None] if self.axis == "x" else part[:, None], shape)


def _plain(text: str) -> str:
    """A date as far as it is written, 2000, 2000-01-31 or 2000-01-31T12:00, with a blank between day and hour."""
    found = text.strip().removesuffix("Z").replace("T", " ").strip()
    if not DATE.fullmatch(found):
        raise InputError(f"{text} is no date: write 2000, 2000-01, 2000-01-31 or 2000-01-31T12:00.")
    return found


def _check_apart(valid: Sequence[Any], test: Sequence[Any]) -> None:
    if both := sorted(set(valid) & set(test)):
        raise InputError(f"{both[0]} is held out in valid and in test: give it to one of them.")


def _far_from(held: np.ndarray, n: int, distance: int) -> np.ndarray:
    """Which of n points are more than a distance away from all held ones."""
    near = np.zeros(n + 1, int)
    np.add.at(near, (held - distance).clip(0), 1)
    np.add.at(near, (held + distance + 1).clip(0, n), -1)
    return near.cumsum()[:n] == 0


def _chosen(values: np.ndarray, valid: Sequence[Any], test: Sequence[Any], split: Split) -> np.ndarray:
    if split == "test" and not test:
        raise InputError("There is no split test: say which part is, or ask for train or valid.")
    if split == "valid" and not valid:
        raise NothingHeldOutError("The division holds out no part to validate on: give one in valid.")
    if split == "train":
        return ~np.isin(values, [*valid, *test])
    return np.isin(values, list(valid if split == "valid" else test))
