"""Units: whether two spellings mean one unit, how values go from one unit to another, and what rain is in millimetres a day."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from scorefield.foundation.lazy import require

if TYPE_CHECKING:
    from xarray import DataArray

SPELLINGS = (  # what UDUNITS and the registry of cf-xarray do not know, or know as something else: there mb is a millibarn
    (re.compile(r"(°|\bdeg(ree)?s?)[\s_]+[Cc](elsius)?\b"), "degC"),
    (re.compile(r"((°|\bdeg(ree)?s?)[\s_]+)?\bK(elvin)?\b"), "K"),
    (re.compile(r"\bmb\b"), "mbar"),
    (re.compile(r"\bKg\b"), "kg"),
    (re.compile(r"\bgpm\b"), "m"),  # of geopotential height
    (re.compile(r"^(fraction|-|\(0 ?- ?1\))$"), "1"),
    (re.compile(r" of water equivalent$"), ""),
)
WATER = 1e-3  # m³/kg: 1 kg on 1 m² is 1 mm deep
RAIN = re.compile(r"precipitation|rainfall", re.IGNORECASE)
RAIN_NAMES = re.compile(
    r"(pred_)?(pr|prc|tp|cp|lsp|rr|prcp|prate|apcp|qpe|precip.*|rain.*|.*precipitation.*|.*rainfall.*)", re.IGNORECASE
)
WET_HOUR, WET_DAY = 0.1 * 24, 1.0  # mm/day: 0.1 mm/h and 1 mm/day


class Unit(NamedTuple):
    """A unit by SI: value · scale + zero, of a dimension."""

    dimension: str
    scale: float
    zero: float


@lru_cache(maxsize=1024)
def unit_of(text: str) -> Unit | None:
    """What a spelling means; None where it is no unit."""
    units = require("cf_xarray.units", "Units", "climate").units
    for pattern, plain in SPELLINGS:
        text = pattern.sub(plain, text)
    try:
        zero, one = (units.Quantity(float(value), units.parse_units(text)).to_base_units() for value in (0, 1))
    except Exception:  # of a text that is no unit the parser raises errors of many kinds
        return None
    return Unit(str(zero.dimensionality), float(one.magnitude - zero.magnitude), float(zero.magnitude))


def conversion(found: object, expected: object, *, water: bool = False) -> tuple[float, float] | None:
    """Factor a and offset b of values in other units: expected = a · found + b. None where there are none.

    Args:
        found: units, such as `K`.
        expected: others, such as `degC`.
        water: whether these are of water, of which 1 kg m-2 is 1 mm.
    """
    ours, theirs = (_depth(unit_of(str(units).strip()), water) for units in (found, expected))
    if ours is None or theirs is None or ours.dimension != theirs.dimension:
        return None
    return ours.scale / theirs.scale, (ours.zero - theirs.zero) / theirs.scale


def same_units(found: object, expected: object, *, water: bool = False) -> bool:
    """Whether two spellings are of one unit: mm/h and mm h-1, °C and degC; of water, kg m-2 and mm, too.

    What is no unit, such as `dBZ`, is compared as it is written.
    """
    if str(found).strip() == str(expected).strip():
        return True
    factor, offset = conversion(found, expected, water=water) or (math.nan, math.nan)
    return math.isclose(factor, 1, rel_tol=1e-9) and abs(offset) < 1e-9


def _depth(unit: Unit | None, water: bool) -> Unit | None:
    """Mass of water on an area as its depth."""
    mass = "[mass] / [length] ** 2"
    if unit is None or not water or not unit.dimension.startswith(mass):
        return unit
    return Unit("[length]" + unit.dimension.removeprefix(mass), unit.scale * WATER, unit.zero)


def is_precipitation(variable: DataArray) -> bool:
    """By its standard name where it has one; without, by its name, its long name, or units that rain alone has, such as mm/h."""
    standard = str(variable.attrs.get("standard_name", ""))
    if standard not in ("", "unknown"):
        return RAIN.search(standard) is not None
    if RAIN_NAMES.fullmatch(str(variable.name)) or RAIN.search(str(variable.attrs.get("long_name", ""))):
        return True
    text = str(variable.attrs.get("units", ""))
    unit = _depth(unit_of(text), water=True)
    return unit is not None and unit.dimension == "[length] / [time]" and ("kg" in text or text.startswith("mm"))


def rain_per_day(variable: DataArray, step: float) -> float | None:
    """mm that fall in a day at a constant rate of one unit of a variable, or None if it is no precipitation.

    Args:
        variable: with its name and attributes.
        step: hours from one time to the next.
    """
    return millimetres_per_day(str(variable.attrs.get("units", "")), step) if is_precipitation(variable) else None


def millimetres_per_day(units: str, step: float) -> float | None:
    """mm that fall in a day at a constant rate of one unit, or None if these are no units of precipitation.

    Args:
        units: such as `mm/h`, `kg m-2 s-1` or `mm`, the last fallen from one time to the next.
        step: hours from one time to the next.
    """
    if rate := conversion(units, "mm/day", water=True):
        return rate[0]
    amount = conversion(units, "mm", water=True)
    return amount[0] * 24 / step if amount and step > 0 else None


def wet_threshold(per_day: float, step: float) -> float:
    """From which value on it is wet, in the units of the variable: 1 mm in a day, or 0.1 mm/h within it.

    Args:
        per_day: mm per day in one unit.
        step: hours; where it is unknown, a rate per hour is taken for one within a day.
    """
    within = step < 24 if not math.isnan(step) else math.isclose(per_day, 24)
    return (WET_HOUR if within else WET_DAY) / per_day
