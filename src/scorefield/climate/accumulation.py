"""Over how many hours each value of a file is a sum or a mean, and what an amount of rain is as a rate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from scorefield.climate.axes import bounds_name
from scorefield.climate.times import days_since_first, is_date
from scorefield.climate.units import millimetres_per_day

if TYPE_CHECKING:
    from xarray import Dataset

INTERVAL = re.compile(r"time: sum[^()]*\(interval: ([\d.]+) (hour|hr|h|day|d)s?\b")  # of cell_methods
WITHIN = re.compile(r"time: \w+ (within|over) days")
DURATION = re.compile(r"P?(T?)(\d*\.?\d*)(hour|hr|h|day|d|min|mon|m|yr|y)\w*", re.IGNORECASE)  # 1hr, day, PT15M, P1M
HOURS = {"h": 1.0, "d": 24.0, "m": 24 * 365.25 / 12, "y": 24 * 365.25}  # of units of time, by their first letter


def accumulation(*data: Dataset) -> float:
    """Hours over which each value is a sum or a mean, NaN where nobody knows; a series that lacks times keeps them.

    By the bounds of times, else by `frequency` or `time_coverage_resolution` of the file, by `cell_methods`, else the smallest
    distance of two times.

    Args:
        data: canonical fields of one kind; what the first does not say, the next may.
    """
    for said in (_by_bounds, _by_frequency, _by_methods):
        if found := next((hours for one in data if (hours := said(one))), 0.0):
            return found
    return min((hours for one in data if (hours := smallest_step(one))), default=float("nan"))


def _by_bounds(data: Dataset) -> float:
    name = bounds_name(data, "time") if "time" in data.coords else ""
    if not name or data[name].ndim != 2 or not is_date(data[name]):
        return 0.0
    pairs = data[name].transpose("time", ...).to_numpy()
    return round(float(np.median([abs(days_since_first(pair)[-1]) * 24 for pair in pairs])), 6)


def _by_frequency(data: Dataset) -> float:
    for text in (str(data.attrs.get(key, "")) for key in ("frequency", "time_coverage_resolution")):
        if found := DURATION.fullmatch(text):
            time, count, unit = found.groups()
            minutes = unit.lower() == "min" or (time and unit == "M")
            return float(count or 1) * (1 / 60 if minutes else HOURS[unit[0].lower()])
    return 0.0


def _by_methods(data: Dataset) -> float:
    for text in (str(value.attrs.get("cell_methods", "")) for value in data.data_vars.values()):
        if WITHIN.search(text):
            return 24.0
        if found := INTERVAL.search(text):
            return float(found[1]) * HOURS[found[2][0]]
    return 0.0


def smallest_step(data: Dataset) -> float:
    """Hours between the two times that are nearest to one another; 0 where there are no two dates."""
    coordinate = next((data[name] for name in ("time", "date") if name in data.coords and is_date(data[name])), None)
    if coordinate is None or coordinate.size < 2:
        return 0.0
    steps = np.diff(np.unique(days_since_first(coordinate.to_numpy()))) * 24
    return round(float(steps.min()), 6) if len(steps) else 0.0


def with_time(data: Dataset, name: str, time: str) -> Dataset:
    """A variable of a file with its time and the bounds of this, under the name `time`."""
    bounds = bounds_name(data, time) if time in data.coords else ""
    found = data[[name, *([bounds] if bounds else [])]].assign_attrs(data.attrs)
    return found if time == "time" or "time" in found.variables else found.rename({time: "time"})


def rain_rate(found: str, expected: str, hours: float) -> tuple[float, float] | None:
    """Factor and offset of rain from one unit to another, of which one is an amount and the other a rate, `mm` and `mm/day`.

    Args:
        found: units.
        expected: others.
        hours: over which an amount fell; NaN or 0 where it is not known: there is no factor then.
    """
    ours, theirs = (millimetres_per_day(units, hours) for units in (found, expected))
    return None if not ours or not theirs else (ours / theirs, 0.0)
