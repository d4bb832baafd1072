"""Precipitation: what a day of it is in the units of a variable, and from where on a day or an hour is wet."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xarray import DataArray

RATES = {  # mm per day in one unit
    "mm/h": 24.0,
    "mm/day": 1.0,
    "mm/s": 86400.0,
    "m/s": 86400e3,
}
AMOUNTS = {"mm": 1.0, "m": 1000.0}  # fallen since the last time
OTHERS_TOO = {"m/s", "mm", "m"}  # units of wind, depth and height, too: the name decides
WORDS = re.compile(r"precipitation|rainfall", re.IGNORECASE)
SHORT = re.compile(
    r"(pred_)?(pr|prc|tp|cp|lsp|rr|prcp|prate|apcp|qpe|precip.*|rain.*|.*precipitation.*|.*rainfall.*)", re.IGNORECASE
)
WET_HOUR = 0.1 * 24  # mm per day: 0.1 mm/h
WET_DAY = 1.0


def rain_per_day(variable: DataArray, step: float) -> float | None:
    """What a day of a variable is in mm at a constant rate of one unit, or None if it is no precipitation.

    Its standard name decides where it has one. Without, rates such as mm/h are of rain, and units that others have too are
    where the name or the long name says so.

    Args:
        variable: with its name and attributes.
        step: hours from one time to the next.
    """
    units = str(variable.attrs.get("units", ""))
    standard = str(variable.attrs.get("standard_name", ""))
    if standard not in ("", "unknown"):
        named = WORDS.search(standard) is not None
    else:
        named = SHORT.fullmatch(str(variable.name)) or WORDS.search(str(variable.attrs.get("long_name", "")))
        named = bool(named) or spelt(units) not in OTHERS_TOO
    return millimetres_per_day(units, step) if named else None


def millimetres_per_day(units: str, step: float) -> float | None:
    """The rain of a day at a constant rate of one unit, or None if these are no units of precipitation.

    Args:
        units: such as `mm/h`, `kg m-2 s-1` or `mm`, the last fallen from one time to the next.
        step: hours from one time to the next.
    """
    text = spelt(units)
    if text in RATES:
        return RATES[text]
    return AMOUNTS[text] * 24 / step if text in AMOUNTS and step > 0 else None


def spelt(units: str) -> str:
    """Units of rain in the spelling of the tables."""
    text = (
        units.lower().replace("kg m-2", "mm").replace("kg m^-2", "mm").replace("kg/m2", "mm").replace("kg m**-2", "mm")
    )
    text = re.sub(r"\s*\b(s|sec|h|hr|hour|d|day)\s*(?:\^|\*\*)?-1", r"/\1", text).replace(" ", "")
    text = re.sub(r"/(hr|hour)$", "/h", text)
    text = re.sub(r"/d$", "/day", text)
    return re.sub(r"/sec$", "/s", text)


def wet_threshold(per_day: float, step: float) -> float:
    """From which value on it is wet, in the units of the variable: 1 mm in a day, or 0.1 mm/h within it.

    Args:
        per_day: mm per day in one unit.
        step: hours; where it is unknown, a rate per hour is taken for one within a day.
    """
    within = step < 24 if not math.isnan(step) else per_day == RATES["mm/h"]
    return (WET_HOUR if within else WET_DAY) / per_day
