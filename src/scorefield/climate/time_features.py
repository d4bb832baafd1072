"""What time it is, as numbers that a network can use: channels that are constant over a field."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from scorefield.climate.times import dates
from scorefield.foundation.errors import InputError


class TimeFeature(ABC):
    """Numbers by which a network knows the time."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What the numbers are called."""

    @abstractmethod
    def __call__(self, times: np.ndarray) -> np.ndarray:
        """Of each time, (times, numbers) float32."""


@dataclass(frozen=True)
class DayOfYear(TimeFeature):
    """(sin, cos) of the share of the year that has passed, in the calendar of the data."""

    @property
    def names(self) -> tuple[str, ...]:
        return "day_sin", "day_cos"

    def __call__(self, times: np.ndarray) -> np.ndarray:
        return _circle(np.array([fraction_of_year(date) for date in dates(times)]))


@dataclass(frozen=True)
class HourOfDay(TimeFeature):
    """(sin, cos) of the share of the day that has passed."""

    @property
    def names(self) -> tuple[str, ...]:
        return "hour_sin", "hour_cos"

    def __call__(self, times: np.ndarray) -> np.ndarray:
        return _circle(np.array([fraction_of_day(date) for date in dates(times)]))


@dataclass(frozen=True)
class Position(TimeFeature):
    """Where in a climate period a time is: 0 at the start of its first year, 1 at the end of its last.

    Args:
        first: year.
        last: year.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise InputError(f"Position from {self.first} to {self.last} is no period: give first <= last.")

    @property
    def names(self) -> tuple[str, ...]:
        return ("position",)

    def __call__(self, times: np.ndarray) -> np.ndarray:
        years = np.array([date.year + fraction_of_year(date) for date in dates(times)])
        return ((years - self.first) / (self.last + 1 - self.first)).astype(np.float32)[:, None]


def fraction_of_year(date: Any) -> float:
    """The share of the year that has passed at a date, of any calendar."""
    start = date.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    end = start.replace(year=start.year + 1)
    return (date - start).total_seconds() / (end - start).total_seconds()


def fraction_of_day(date: Any) -> float:
    """The share of the day that has passed at a date."""
    midnight = date.replace(hour=0, minute=0, second=0, microsecond=0)
    return (date - midnight).total_seconds() / 86400


def _circle(fraction: np.ndarray) -> np.ndarray:
    return np.stack((np.sin(2 * np.pi * fraction), np.cos(2 * np.pi * fraction)), axis=1).astype(np.float32)
