"""Times of any calendar: dates, steps, months, seasons."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

CALENDARS = {
    "gregorian": "standard", "proleptic_gregorian": "standard", "365_day": "noleap", "366_day": "all_leap",
}  # fmt: skip
DAY = 3  # parts of a date that tell days apart
SEASONS = {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}


class Dates(NamedTuple):
    """What dates say; zeros and NaN where time is no date.

    Args:
        month: 1 to 12.
        year: of the calendar that the data have.
        hour: whole hours, 0 to 23.
        hours: since the first time.
        day: number of the day since the first, beginning at midnight.
        step: hours between the two times that are nearest to one another: a series may lack some.
        dated: whether there are any.
    """

    month: np.ndarray
    year: np.ndarray
    hour: np.ndarray
    hours: np.ndarray
    day: np.ndarray
    step: float
    dated: bool

    @property
    def following(self) -> np.ndarray:
        """The numbers of the times whose next one is a single step later, (n) int."""
        return (np.abs(np.diff(self.hours) - self.step) < 1e-3 * self.step).nonzero()[0]

    @property
    def seasons(self) -> dict[str, np.ndarray]:
        """Which times lie in each season that has any."""
        found = {name: np.isin(self.month, months) for name, months in SEASONS.items()}
        return {name: times for name, times in found.items() if times.any()}


def is_date(time: DataArray) -> bool:
    """Whether a coordinate holds dates, of the standard calendar or another."""
    return time.dtype.kind == "M" or (time.dtype == object and hasattr(time.to_numpy().flat[0], "calendar"))


def dates_of(data: Dataset, coordinate: str = "time") -> Dates:
    """The dates of a data set by a coordinate along time."""
    n = data.sizes["time"]
    if coordinate not in data.coords or not is_date(data[coordinate]):
        none = np.zeros(n, int)
        return Dates(none, none, none, np.full(n, np.nan), np.arange(n), float("nan"), dated=False)
    time = data[coordinate]
    values = time.to_numpy()
    since = values - values[0]
    hours = since / np.timedelta64(1, "h") if time.dtype.kind == "M" else [d.total_seconds() / 3600 for d in since]
    hours = np.asarray(hours, float)
    month, year, hour, minute = (getattr(time.dt, part).to_numpy() for part in ("month", "year", "hour", "minute"))
    day = np.floor((hours + hour[0] + minute[0] / 60) / 24 + 1e-9).astype(int)
    steps = np.diff(np.unique(hours))
    step = round(float(steps.min()), 6) if len(steps) else float("nan")
    return Dates(month, year, hour, hours, day, step, dated=True)


def season_of(month: int) -> str:
    """DJF, MAM, JJA or SON."""
    return next(name for name, months in SEASONS.items() if month in months)


def dates(times: np.ndarray) -> list[Any]:
    """Times (n) as calendar dates with year, month, ... of any calendar."""
    return times.astype("datetime64[us]").tolist() if times.dtype.kind == "M" else list(times)


def stamps(times: np.ndarray) -> list[tuple[int, ...]]:
    """Year, month, day, hour, minute and second of times (n) of any calendar, to the nearest: files round."""
    rounded = (date + timedelta(microseconds=500_000) for date in dates(times))
    return [(d.year, d.month, d.day, d.hour, d.minute, d.second) for d in rounded]


def span_of(times: np.ndarray) -> int:
    """How many parts of a date tell fields apart: its year (1), its month (2) or its day (3) by the usual step; else all 6."""
    step = usual_step(times)
    return 1 if 360 <= step <= 366 else 2 if 28 <= step <= 31 else DAY if abs(step - 1) < 1e-3 else 6


def irregular(times: np.ndarray) -> np.ndarray:
    """Which steps between neighbouring times are none of the usual length, (times - 1) bool: months and leap days pass, holes
    and what comes twice do not.
    """
    if len(times) < 2 or times.dtype.kind not in "MO":
        return np.zeros(max(len(times) - 1, 0), bool)
    share = np.diff(days_since_first(times)) / usual_step(times)
    return (share < 0.5) | (share > 1.5)


def usual_step(times: np.ndarray) -> float:
    """The median of the steps of times (n), in days; 1 where there are none."""
    steps = np.diff(days_since_first(times)) if len(times) > 1 else np.ones(1)
    return float(np.median(steps)) or 1.0


def days_since_first(times: np.ndarray) -> np.ndarray:
    """Days since the first of the times, (n) float64, in their own calendar."""
    found = dates(times)
    return np.array([(date - found[0]).total_seconds() / 86400 for date in found])


def calendar_of(time: DataArray) -> str:
    """The calendar of a time coordinate, by one of its names."""
    name = str(time.encoding.get("calendar", "")) or (str(time.dt.calendar) if time.dtype.kind in "MO" else "")
    return CALENDARS.get(name, name)
