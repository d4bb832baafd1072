"""Files that tell the same in other ways are compared; others are refused, not scored."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scorefield.climate.alignment import fields_of, nearest
from scorefield.climate.verification.job import limits
from scorefield.climate.verification.pair import pair_up
from scorefield.climate.verification.score import Options, score
from scorefield.foundation.errors import InputError

KILOMETRES = 12000.0


def on_a_plane(n: int = 4, rows: int = 6, columns: int = 24) -> xr.Dataset:
    """Random fields on a grid of 12 km in metres."""
    axes = {
        name: (name, np.arange(size) * KILOMETRES, {"units": "m", "standard_name": f"projection_{name}_coordinate"})
        for name, size in (("y", rows), ("x", columns))
    }
    values = np.random.default_rng(0).normal(size=(n, rows, columns)).astype(np.float32)
    times = xr.date_range("2001-01-01", periods=n)
    return xr.Dataset({"tas": (("time", "y", "x"), values, {"units": "K"})}, {"time": times} | axes)


def test_the_truth_itself_scores_zero_on_a_grid_in_metres() -> None:
    truth = on_a_plane()
    found = score(pair_up(truth.copy(), truth), Options(replicates=0))["tas"].record["all"]
    assert found["crps"]["value"] == 0 and found["rmse_of_mean"]["value"] == 0
    with pytest.raises(InputError, match="grids differ along x"):  # 360 m and 360 degrees are not the same
        pair_up(truth, truth.assign_coords(x=truth["x"] + 360.0 * 12))


@pytest.mark.parametrize(
    ("freq", "ours", "theirs"), [("D", "2001-01-01T12", "2001-01-01"), ("MS", "2001-01-01", "2001-01-16")]
)
def test_days_and_months_are_the_same_whatever_they_are_stamped(freq: str, ours: str, theirs: str) -> None:
    truth = on_a_plane()
    first = xr.date_range("2001-01-01", periods=4, freq=freq)
    stamped = [first + (np.datetime64(text, "h") - np.datetime64("2001-01-01", "h")) for text in (ours, theirs)]
    pred, other = (truth.assign_coords(time=times) for times in stamped)
    pair = pair_up(pred.isel(time=slice(1, 4)), other)
    np.testing.assert_array_equal(pair.at("tas")[1], truth["tas"].values[1:])
    np.testing.assert_array_equal(pair.truth["time"], stamped[0][1:])
    with pytest.raises(InputError, match="The truth lacks"):
        pair_up(pred, other.isel(time=slice(1, 4)))
    hours = on_a_plane().assign_coords(time=xr.date_range("2001-01-01", periods=4, freq="6h"))
    with pytest.raises(InputError, match="The truth lacks"):  # of four in a day nobody knows which
        pair_up(truth.isel(time=[0]).assign_coords(time=[np.datetime64("2001-01-01T03", "ns")]), hours)


def test_months_are_none_of_the_days_that_they_are_stamped_with(caplog: pytest.LogCaptureFixture) -> None:
    """A mean of a month stamped at noon of its middle is not the truth of that day; where the stamps agree, that is said."""
    months = on_a_plane().assign_coords(time=xr.date_range("2001-01-15T12", periods=4, freq="30D"))
    days = on_a_plane(100).assign_coords(time=xr.date_range("2001-01-10", periods=100))
    with pytest.raises(InputError, match="The truth lacks 4 of the 4 times"):
        pair_up(months, days)
    assert not caplog.records
    pair_up(months.assign_coords(time=months["time"] - np.timedelta64(12, "h")), days)
    assert "matched, not means" in caplog.text


def test_fields_are_what_changes_with_time_whatever_its_units_and_levels() -> None:
    """Degrees Celsius are no latitudes, and a field on levels beside it takes no field away; orography is left out."""
    truth = on_a_plane()
    truth["tas"].attrs["units"] = "degree_Celsius"
    levels = truth["tas"].expand_dims(plev=2).rename("ta")
    beside = truth.assign(ta=levels, orog=truth["tas"][0].drop_vars("time").assign_attrs(units="m"))
    assert list(pair_up(truth.copy(), beside).truth.data_vars) == ["tas"]
    points = xr.full_like(truth["tas"], 50.0).assign_attrs(units="degrees_north")
    assert fields_of(beside.assign(where=points)) == ["tas", "ta"]
    assert fields_of(truth.isel(time=0)) == ["tas"]


def test_longitudes_are_turned_only_where_they_do_not_fit_as_they_are() -> None:
    around = np.array([-180.0, -90.0, 0.0, 90.0, 180.0])
    np.testing.assert_array_equal(nearest(around, around, "x", turning=True), np.arange(5))
    np.testing.assert_array_equal(nearest(np.array([270.0, 0.0]), around, "x", turning=True), [1, 2])
    with pytest.raises(InputError, match="grids differ along x"):
        nearest(np.array([270.0]), around, "x", turning=False)


def tiles(values: np.ndarray, name: str = "pr", units: str = "mm/h", **more: object) -> xr.Dataset:
    """What `downscale` writes of tiles: numbers along `tile`, dates, places and positions beside it."""
    n, rows, columns = values.shape[-3:]
    coords = {
        "tile": np.arange(n),
        "time": ("tile", np.repeat(np.array(["2019-06-10T00", "2019-06-10T01"], "M8[ns]"), n // 2)),
        "place": ("tile", np.arange(n) % (n // 2)),
        "y": np.arange(rows),
        "x": np.arange(columns),
        "lat": (("tile", "y"), np.zeros((n, rows))),
        "lon": (("tile", "x"), np.zeros((n, columns))),
    }
    dims = ("member", "tile", "y", "x")[-values.ndim :]
    return xr.Dataset({name: (dims, values.astype(np.float32), {"units": units})}, coords | more)


def test_tiles_are_cases_with_dates_and_places_beside_them() -> None:
    values = np.random.default_rng(0).gamma(0.5, 5, (3, 8, 6, 6))
    pred, truth = tiles(values), tiles(values[0])
    pair = pair_up(pred, truth)
    assert pair.block.tolist() == list(range(8)) and not pair.dates.dated
    assert pair_up(pred, truth, blocks="place").block.tolist() == [0, 1, 2, 3] * 2
    assert pair_up(pred, truth, blocks="day").block.tolist() == [0] * 8
    assert score(pair, Options(replicates=0))["pr"].record["all"]["crps"]["value"] < 3
    later = truth.assign_coords(time=truth["time"] + np.timedelta64(1, "D"))
    elsewhere = truth.assign_coords(place=truth["place"] + 1)
    for other, words in ((later, "time of 8 of the 8.*another than"), (elsewhere, "place of 8 of the 8.*another than")):
        with pytest.raises(InputError, match=words):
            pair_up(pred, other)


def test_a_date_of_reference_is_no_second_time() -> None:
    truth = on_a_plane().rename(time="valid_time").assign_coords(time=np.datetime64("2001-01-01", "ns"))
    assert pair_up(truth.copy(), truth).dates.dated


def test_what_is_taken_for_independent_is_told_where_nobody_says() -> None:
    days, cases = on_a_plane(), tiles(np.ones((4, 6, 6)))
    for data, blocks, word in (
        (days, "2D", None),
        (days, None, "Each day"),
        (cases, None, "Each tile"),
        (cases, "place", None),
    ):
        notes = limits(pair_up(data, data, blocks=blocks), blocks)
        found = [note for note in notes if "is taken for independent" in note]
        assert len(found) == (word is not None) and all(note.startswith(str(word)) for note in found)


def test_wind_has_no_wet_days() -> None:
    wind = on_a_plane().rename(tas="u10")
    wind["u10"].attrs["units"] = "m s-1"
    for wet in (None, 0.5):  # asked for, the area above is counted, and still no amount of rain is told
        found = score(pair_up(wind, wind), Options(replicates=0, wet=wet))["u10"].record["all"]
        assert ("wet_share" in found) == (wet is not None) and "rx1day" not in found["boxes"]["u10"]


def test_two_spellings_of_one_unit_are_one() -> None:
    truth, pred = tiles(np.ones((4, 6, 6))), tiles(np.ones((4, 6, 6)), units="mm h-1")
    assert pair_up(pred, truth).members == 1


def curved(rows: int = 5, columns: int = 7, *, turned: float = 0.3) -> xr.Dataset:
    """Fields on lines that are numbered 0, 1, ..., with a latitude and longitude of every point."""
    data = on_a_plane(3, rows, columns).drop_vars(["y", "x"])
    y, x = np.mgrid[:rows, :columns].astype(float)
    points = {"lat": 40 + y + turned * x, "lon": 355 + 2 * x - turned * y}
    for name, units in (("lat", "degrees_north"), ("lon", "degrees_east")):
        data = data.assign_coords({name: (("y", "x"), points[name], {"units": units})})
    return data.assign_coords(y=np.arange(rows), x=np.arange(columns))


@pytest.mark.parametrize(
    "told",
    [
        lambda d: d.isel(y=slice(None, None, -1)).assign_coords(y=d["y"]),
        lambda d: d.isel(x=slice(None, None, -1)).drop_vars("x"),
        lambda d: d.rename(y="x", x="y"),
        lambda d: d.rename(y="i", x="j").transpose("time", "j", "i"),
        lambda d: d.assign_coords(lon=(d["lon"] + 180) % 360 - 180),
        lambda d: d.pad(y=(1, 2), x=(0, 1), mode="reflect", reflect_type="odd"),
        lambda d: d.assign(tas=(d["tas"] - 273.15).assign_attrs(units="degC")),
    ],
    ids=["north up", "west", "swapped", "transposed", "-180", "larger", "degC"],
)
def test_points_on_curved_lines_are_found_by_latitude_and_longitude(told) -> None:
    pred = curved()
    found = score(pair_up(pred, told(pred)), Options(replicates=0))["tas"].record["all"]
    assert found["crps"]["value"] == pytest.approx(0, abs=1e-4)


def test_curved_lines_elsewhere_are_refused_with_both_places() -> None:
    pred = curved()
    with pytest.raises(InputError, match=r"44.9,359.8, the nearest of the truth is at 45.3,359.8"):
        pair_up(pred, pred.assign_coords(lat=pred["lat"] + 0.4))


def test_a_regular_grid_is_found_by_its_points_and_its_lines() -> None:
    points = curved(turned=0.0)
    lines = points.drop_vars(["lat", "lon"]).assign_coords(
        y=("y", points["lat"].data[:, 0], {"units": "degrees_north"}),
        x=("x", points["lon"].data[0] - 360, {"units": "degrees_east"}),
    )
    for ours, theirs in ((points, lines), (lines, points)):
        turned = theirs.isel(y=slice(None, None, -1))
        assert score(pair_up(ours, turned), Options(replicates=0))["tas"].record["all"]["crps"]["value"] == 0
        far = theirs.assign_coords(
            {n: v + 0.5 for n, v in theirs.coords.items() if n == "lat" or (n == "y" and v[0] == 40)}
        )
        with pytest.raises(InputError, match="grids differ"):
            pair_up(ours, far)


def test_a_grid_without_coordinates_is_taken_by_position_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    truth = on_a_plane()
    pair_up(truth.drop_vars(["y", "x"]), truth)
    assert "compared by position along y" in caplog.text


@pytest.mark.parametrize("name", ["realisation", "realization", "ens", "number", "ensemble_member", "member"])
def test_members_by_any_name_whole_numbers_and_a_single_height(name: str) -> None:
    truth = on_a_plane()
    whole = (truth * 10).round().astype("int16").assign_coords(height=2.0).expand_dims("height", axis=1)
    whole["tas"].attrs["units"] = "K"
    pred = xr.concat([whole.astype("f4"), whole.astype("f4") + 1], name)
    pred["tas"].attrs["units"] = "K"
    pair = pair_up(pred, whole.expand_dims("member"))
    found = score(pair, Options(replicates=0))["tas"].record["all"]
    assert pair.members == 2 and found["bias"]["value"] == pytest.approx(0.5, abs=1e-6)


def test_fill_values_that_no_file_names_are_no_truth() -> None:
    """1e20 at one point of the truth, or -9999 of the predictions, would be the whole score."""
    data = on_a_plane()
    for wrong, role in ((1e20, "the truth"), (-9999.0, "the predictions")):
        other = data.copy(deep=True)
        other["tas"][2, 3, 3] = wrong
        pair = pair_up(data, other) if role == "the truth" else pair_up(other, data)
        with pytest.raises(InputError, match=f"{role}: tas is .* at 1 points, which can only stand for unknown"):
            pair.at("tas")
