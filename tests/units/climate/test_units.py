"""Units: one unit whatever its spelling, and numbers that go from one to another."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scorefield.climate.units import conversion, millimetres_per_day, rain_per_day, same_units, wet_threshold

ONE = [  # spellings of one unit, of files and of models
    ("mm/day", "mm d-1", "mm day-1", "mm/d", "mm day^-1", "mm d**-1"),
    ("mm/h", "mm h-1", "mm hr-1", "mm/hr", "mm hour-1", "mm h^-1"),
    ("kg m-2 s-1", "kg/m2/s", "kg m**-2 s**-1", "kg m^-2 s^-1", "Kg m-2 s-1", "kg m-2 sec-1"),
    ("K", "degK", "Kelvin", "kelvin", "deg K"),
    ("degC", "°C", "deg C", "C", "celsius", "Celsius", "degree_Celsius", "degrees_celsius", "degrees C"),
    ("1", "", "kg kg-1", "fraction", "(0 - 1)"),
    ("%", "percent"),
    ("hPa", "mb", "mbar", "millibar"),
    ("m", "metres", "meter", "m of water equivalent"),
]


@pytest.mark.parametrize("spellings", ONE, ids=lambda s: s[0])
def test_spellings_of_one_unit_are_one_and_of_two_are_two(spellings: tuple[str, ...]) -> None:
    for text in spellings:
        assert same_units(text, spellings[0]) and conversion(text, spellings[0]) == pytest.approx((1, 0))
        for others in ONE:
            assert same_units(text, others[0]) == (others is spellings), (text, others[0])


def test_what_is_no_unit_is_compared_as_it_is_written() -> None:
    assert same_units("dBZ", " dBZ ") and not same_units("dBZ", "K") and not same_units("none", "1")
    assert same_units("days since 1850-01-01", "days since 1850-01-01") and conversion("dBZ", "dBZ") is None


def test_values_go_from_one_unit_to_another() -> None:
    """expected = factor · value + offset; water has a mass of 1 kg for each mm on 1 m², and nothing else has."""
    for found, expected, value, wanted in (
        ("K", "degC", 273.15, 0.0),
        ("degF", "K", 32.0, 273.15),
        ("%", "1", 5, 0.05),
    ):
        factor, offset = conversion(found, expected) or (np.nan, np.nan)
        assert factor * value + offset == pytest.approx(wanted, abs=1e-9)
    assert conversion("kg m-2 s-1", "mm/day", water=True) == pytest.approx((86400, 0))
    assert conversion("kg m-2 s-1", "mm/day") is None and conversion("K", "m", water=True) is None
    assert same_units("kg m-2 d-1", "mm/day", water=True) and not same_units("kg m-2 s-1", "mm/day", water=True)


@pytest.mark.parametrize(
    ("units", "step", "per_day", "wet"),
    [
        ("mm/h", 1.0, 24, 0.1),
        ("mm h-1", float("nan"), 24, 0.1),
        ("mm hr-1", float("nan"), 24, 0.1),
        ("kg m-2 s-1", 24.0, 86400, 1 / 86400),
        ("kg m**-2 s**-1", 1.0, 86400, 0.1 / 3600),
        ("kg/m2/s", 24.0, 86400, 1 / 86400),
        ("mm", 1.0, 24, 0.1),
        ("mm day-1", 24.0, 1, 1),
        ("mm/d", 24.0, 1, 1),
        ("m s-1", 24.0, 86400e3, 1 / 86400e3),
        ("inches/day", 24.0, 25.4, 1 / 25.4),
    ],
)
def test_units_of_rain(units: str, step: float, per_day: float, wet: float) -> None:
    found = millimetres_per_day(units, step)
    assert found == pytest.approx(per_day) and wet_threshold(found, step) == pytest.approx(wet)
    assert millimetres_per_day("K", step) is None and millimetres_per_day("mm", float("nan")) is None


@pytest.mark.parametrize(
    ("name", "units", "more", "rain"),
    [
        ("u10", "m s-1", {}, False),
        ("u10", "cm/s", {}, False),
        ("zg", "m", {"standard_name": "geopotential_height"}, False),
        ("swe", "kg m-2", {"standard_name": "surface_snow_amount"}, False),
        ("evspsbl", "kg m-2 s-1", {"standard_name": "water_evapotranspiration_flux"}, False),
        ("tp", "m", {"standard_name": "unknown"}, True),
        ("pred_pr", "mm", {}, True),
        ("var228", "m", {"long_name": "Total precipitation"}, True),
        ("x1", "kg m-2", {"standard_name": "precipitation_amount"}, True),
        ("precip_rate", "m s-1", {}, True),
        ("radar", "mm h-1", {}, True),
        ("x2", "kg m-2 s-1", {}, True),
        ("pr", "K", {}, False),
        ("pressure", "m", {}, False),
    ],
)
def test_metres_are_rain_only_by_name(name: str, units: str, more: dict[str, str], rain: bool) -> None:
    data = xr.DataArray(np.zeros(2), name=name, attrs={"units": units, **more})
    assert (rain_per_day(data, 24.0) is not None) == rain
