"""Dates of any calendar: months, years, steps, and blocks of time that are independent of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

SEASONS = {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}


class Dates(NamedTuple):
    """What dates say; zeros and NaN where time is no date.

    Args:
        month: 1 to 12.
        year: of the calendar that the data have.
        hour: whole hours, 0 to 23.
        hours: since the first time.
        day: number of the day since the first, beginning at midnight.
        step: hours from one time to the next, usually.
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
        """The times whose next one is a single step later."""
        return (np.abs(np.diff(self.hours) - self.step) < 1e-3 * self.step).nonzero()[0]

    @property
    def seasons(self) -> dict[str, np.ndarray]:
        """Which times lie in each season that has any."""
        found = {name: np.isin(self.month, months) for name, months in SEASONS.items()}
        return {name: times for name, times in found.items() if times.any()}


def is_date(time: DataArray) -> bool:
    """Whether a coordinate holds dates, of the standard calendar or another."""
    return time.dtype.kind == "M" or (time.dtype == object and hasattr(time.to_numpy().flat[0], "calendar"))


def dates_of(data: Dataset, told: str = "time") -> Dates:
    """What the times of a data set are, told by a coordinate along time."""
    n = data.sizes["time"]
    if told not in data.coords or not is_date(data[told]):
        none = np.zeros(n, int)
        return Dates(none, none, none, np.full(n, np.nan), np.arange(n), float("nan"), dated=False)
    time = data[told]
    values = time.to_numpy()
    since = values - values[0]
    hours = since / np.timedelta64(1, "h") if time.dtype.kind == "M" else [d.total_seconds() / 3600 for d in since]
    hours = np.asarray(hours, float)
    month, year, hour, minute = (getattr(time.dt, part).to_numpy() for part in ("month", "year", "hour", "minute"))
    day = np.floor((hours + hour[0] + minute[0] / 60) / 24 + 1e-9).astype(int)
    step = float(np.median(np.abs(np.diff(hours)))) if n > 1 else float("nan")
    return Dates(month, year, hour, hours, day, step, dated=True)


def same_times(pred: Dataset, truth: Dataset) -> Dataset:
    """The truth at the times of the predictions.

    Raises:
        InputError: it does not have all of them, or another calendar.
    """
    if "time" not in pred.coords or "time" not in truth.coords:
        counts = pred.sizes["time"], truth.sizes["time"]
        if counts[0] != counts[1]:
            raise InputError(f"Predictions have {counts[0]} times and the truth {counts[1]}, and not both tell which.")
        return truth
    calendars = [data["time"].dt.calendar if is_date(data["time"]) else "none" for data in (pred, truth)]
    if calendars[0] != calendars[1]:
        raise InputError(
            f"Predictions have the calendar {calendars[0]}, the truth {calendars[1]}: convert one of them first."
        )
    ours, theirs = pred.indexes["time"], truth.indexes["time"]
    for index, role in ((ours, "predictions"), (theirs, "truth")):
        if index.has_duplicates:
            raise InputError(f"The {role} have the time {index[index.duplicated()][0]} more than once.")
    if not (known := ours.isin(theirs)).all():
        raise InputError(
            f"The truth lacks {int((~known).sum())} of the {len(ours)} times of the predictions, the first of them "
            f"{ours[~known][0]}; it reaches from {theirs[0]} to {theirs[-1]}."
        )
    return truth.sel(time=pred["time"])


def same_cases(pred: Dataset, truth: Dataset) -> None:
    """Refuse cases of one number whose dates or places are not the same.

    Raises:
        InputError: `date` or `place` differ.
    """
    for name, told in (("date", "time"), ("place", "place")):
        if all(name in data.coords and data[name].dims == ("time",) for data in (pred, truth)):
            ours, theirs = (data[name].to_numpy() for data in (pred, truth))
            if (differ := ours != theirs).any():
                first = int(differ.argmax())
                raise InputError(
                    f"The {told} of {int(differ.sum())} of the {len(ours)} predictions is another than the truth's, the first "
                    f"{ours[first]}, not {theirs[first]}: the files are of different fields."
                )


def blocks_of(pred: Dataset, truth: Dataset, dates: Dates, blocks: str | None) -> np.ndarray:
    """The number of the block of each time; see `pair_up`."""
    for data in (pred, truth):
        if blocks in data.coords and data[blocks].dims == ("time",):
            return np.unique(data[blocks].to_numpy(), return_inverse=True)[1]
    if not dates.dated:
        if blocks is None:
            return dates.day
        if "date" not in pred.coords:
            raise InputError(f"There is no coordinate {blocks} along time, and time is no date: name one by --blocks.")
        dates = dates_of(pred, "date")
    if blocks in ("month", "year"):
        return np.unique(dates.year * 12 + (dates.month if blocks == "month" else 0), return_inverse=True)[1]
    days = 1 if blocks in (None, "day") else days_in(str(blocks))
    return np.unique(dates.day // days, return_inverse=True)[1]


def days_in(blocks: str) -> int:
    """`5D` as 5."""
    number = blocks.removesuffix("D")
    if not (blocks.endswith("D") and number.isdigit() and int(number) > 0):
        raise InputError(
            f"--blocks {blocks} is no coordinate along time: give day, month, year, or days in a block such as 5D."
        )
    return int(number)
