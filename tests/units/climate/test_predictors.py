"""Predictors to predict from: what does not fit the model is refused by name, and means are carried over with care."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from scorefield.climate import Blocks, Climate, Conservative, Variables
from scorefield.climate.downscaling import check_conserved
from scorefield.climate.files import Layout, open_dataset
from scorefield.climate.grid import Grid, edges_between, grid_of
from scorefield.climate.output import NetCDF, frame_of
from scorefield.climate.predictors import Driving, drive, rescaled
from scorefield.climate.regrid import spreading
from scorefield.climate.template import Template
from scorefield.climate.trained_lines import _within
from scorefield.foundation.errors import InputError
from weather import dataset, save


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("driving")


def coarse(data: xr.Dataset) -> xr.Dataset:
    """Means over 4 by 4 points."""
    return data.coarsen(lat=4, lon=4).mean(keep_attrs=True)


def opened(folder, given: xr.Dataset, trained: xr.Dataset | None = None, **more) -> tuple[Driving, Template]:
    """Predictors of a file, for a model of tas and predictors of another."""
    folder = Path(tempfile.mkdtemp(dir=folder))  # files that are open must not be written again
    fine, other = save(dataset(20), folder / "fine.nc"), coarse(dataset(20)) if trained is None else trained
    predictors = Variables(save(other, folder / "trained.nc"), [str(next(iter(other.data_vars)))])
    source = Climate(Variables(fine, ["tas"]), Blocks(100, 2, (1,)), predictors, **more)
    template = Template.read(source.load("train").template)
    return drive(source, template, save(given, folder / "given.nc")), template


def test_means_are_conserved_of_the_same_variable_in_the_same_units_alone(folder) -> None:
    same = coarse(dataset(20))
    check_conserved(*opened(folder, same, same))
    for other, told in (
        (same.rename(tas="ua"), r"predictor 1 is ua \(K\), and the target is tas \(K\)"),
        (same.assign(tas=same.tas.assign_attrs(units="degC")), r"predictor 1 is tas \(degC\)"),
    ):
        with pytest.raises(InputError, match=told):
            check_conserved(*opened(folder, other, other))


def test_a_trace_of_rain_is_not_multiplied_to_a_downpour() -> None:
    """A cell with 1e-6 at one point and a mean of 5 wanted: the mean is kept, and no point has much more than it."""
    lines = np.arange(40.125, 50, 0.25), np.arange(-9.875, 2, 0.25)
    fine = Grid(*lines, *map(edges_between, lines))
    driving = fine.coarsened(4)
    between = Conservative().between(fine, driving), spreading(driving, fine)
    x = np.random.default_rng(0).gamma(0.5, 2, (1, *fine.shape))
    x[0, :4, :4] = 0
    x[0, 1, 1], x[0, 4:8, 4:8] = 1e-6, -0.1
    wanted = between[0](x).astype(float).clip(0)
    wanted[0, :2, :2] = 5
    found = rescaled(x, wanted, *between, multiply=True)
    np.testing.assert_allclose(between[0](found), wanted, rtol=1e-5, atol=1e-6)
    assert found.min() >= 0 and found[0, :4, :4].max() < 5.1
    plain = np.s_[0, 8:, 8:]  # where nothing is wrong the ratio is 1
    np.testing.assert_allclose(found[plain], x[plain], rtol=1e-5)


def test_what_a_model_never_saw_is_refused_by_name(folder) -> None:
    same = coarse(dataset(20))
    infinite, large = same.copy(deep=True), same.copy(deep=True)
    infinite["tas"][1, 2, 2] = np.inf
    large["tas"] = (large.tas * 1000).assign_attrs(units="K")
    for given, told in (
        (infinite, "tas has 1 infinite values around 2000-01-02"),
        (large, r"tas has a value of .*e\+05 around 2000-01-02 .*, and had .* in training: check its units"),
    ):
        driving, _ = opened(folder, given, same)
        with pytest.raises(InputError, match=told):
            driving.field(1)
    nat = same.isel(time=slice(3)).assign_coords(time=np.array(["2000-01-01", "NaT", "2000-01-03"], "M8[ns]"))
    for given, told in (
        (same.drop_vars("time"), "time has no dates but .*: give it a coordinate of CF units"),
        (nat, r"time is no date \(NaT\) at position 1"),
    ):
        with pytest.raises(InputError, match=told):
            opened(folder, given, same)


def test_what_was_never_negative_is_not_taken_negative(folder) -> None:
    rain = coarse(dataset(20))
    rain["tas"] = (rain.tas - rain.tas.mean()).clip(min=0).assign_attrs(units="K")
    for value, refused in ((-3.0, True), (-1e-3, False)):  # a fault, and rounding
        given = rain.copy(deep=True)
        given["tas"][1, 1, 1] = value
        driving, _ = opened(folder, given, rain)
        with pytest.raises(InputError, match=r"tas has a value of -3 .* none below 0 in") if refused else nullcontext():
            driving.field(1)


def test_windows_have_no_holes(folder) -> None:
    """Days 5 to 8 are not there: day 9 has no day before it, neither to learn from nor to predict from."""
    holed = coarse(dataset(20)).isel(time=[*range(5), *range(9, 20)])
    driving, _ = opened(folder, holed, coarse(dataset(20)), before=1)
    assert driving.numbers.tolist() == [1, 2, 3, 4, *range(6, 16)] and driving.left_out == 2
    twice = coarse(dataset(20)).isel(time=slice(None, None, 2))
    with pytest.raises(InputError, match="steps of 2 days, and the model was trained on 1"):
        opened(folder, twice, coarse(dataset(20)), before=1)
    fine = dataset(20).isel(time=[*range(5), *range(9, 20)])
    source = Climate(Variables(save(fine, folder / "holed.nc"), ["tas"]), Blocks(100, 2, (1,)), coarsen=4, before=1)
    fields = source.load("train")
    assert fields.places[:, 0].tolist() == driving.numbers.tolist()
    assert any(line.startswith("2 of 16 fields are in no split") for line in fields.metadata)


def test_longitudes_turn_around_and_metres_do_not() -> None:
    metres = np.arange(1100.0, 440_000, 2200)
    assert _within(metres, np.array([0.0, 44_000]), circle=False) == slice(0, 20)
    lines = {axis: (axis, metres[:8], {"units": "m"}) for axis in ("y", "x")}
    data = xr.Dataset({"pr": (("y", "x"), np.zeros((8, 8)))}, lines)
    grid = grid_of(data, "pr", Layout("x", "y"))  # a file that does not say which projection
    assert not grid.spherical and grid.step == (2200, 2200) and np.ptp(grid.areas()) == 0
    assert _within(np.arange(350.0, 374), np.array([-5.5, 4.5]), circle=True) == slice(5, 15)


def test_a_curvilinear_grid_is_coarsened_by_blocks(folder, data_folder) -> None:
    """Radar and gauges on a polar stereographic grid: area means of blocks; what was coarsened so drives the model, too."""
    name = "Total_precipitation_surface_1_Hour_Accumulation"
    path = data_folder / "climate" / "stageiv_florence_20180913.nc"
    fine = open_dataset([str(path)]).isel(time=slice(6), y=slice(30, 54), x=slice(20, 36)).load()
    source = Climate(Variables(save(fine, folder / "curved.nc"), [name]), Blocks(1, 2, (1,)), coarsen=4)
    fields = source.load("train")
    grid, values = fields.domain, fine[name].values[0].astype(float)
    areas, block = grid.areas(), np.s_[4:8, 8:12]
    assert 0.9 < areas.min() / areas.max() < 1
    expected = (values[block] * areas[block]).sum() / areas[block].sum()
    assert fields.coarse(0)[0, 1, 2] == pytest.approx(expected, rel=1e-6)
    driving = fields.predictors.grid
    assert driving.shape == (6, 4) and driving.latitude[1, 2] == pytest.approx(fine.lat.values[block].mean(), abs=1e-3)
    template = Template.read(fields.template)
    coords = {"time": fine.time, "lat": (("y", "x"), driving.latitude), "lon": (("y", "x"), driving.longitude)}
    means = np.stack([fields.predictors.coarse(i) for i in range(6)])[:, 0]
    given = xr.Dataset({name: (("time", "y", "x"), means, fine[name].attrs)}, coords)
    opened = drive(source, template, save(given, folder / "blocks.nc"))
    np.testing.assert_allclose(opened.field(0), fields[0].cond["field"], rtol=1e-5)
    kept = opened.conserved(0, values[None] + 1, multiply=False)
    np.testing.assert_allclose(opened.to_coarse(kept)[0], means[0], atol=1e-5)
    moved = given.assign_coords(lat=(("y", "x"), driving.latitude + 0.1))
    with pytest.raises(InputError, match="another grid than the predictors of training"):
        drive(source, template, save(moved, folder / "moved.nc"))


def rotated(n: int = 20) -> xr.Dataset:
    """Fields as models of regions have them: lines of a rotated pole, latitude and longitude of every point, one height."""
    data = dataset(n).rename(lat="rlat", lon="rlon")
    data["rlat"].attrs = {"standard_name": "grid_latitude", "units": "degrees"}
    data["rlon"].attrs = {"standard_name": "grid_longitude", "units": "degrees"}
    lat, lon = (
        np.add.outer(40 + np.arange(16.0), 0.1 * np.arange(24)),
        np.add.outer(0.1 * np.arange(16), np.arange(24.0)),
    )
    data = data.assign_coords(
        lat=(("rlat", "rlon"), lat, {"standard_name": "latitude", "units": "degrees_north"}),
        lon=(("rlat", "rlon"), lon, {"standard_name": "longitude", "units": "degrees_east"}),
    )
    pole = {"grid_north_pole_latitude": 37.5, "grid_north_pole_longitude": 177.5}
    data["crs"] = ((), 0, {"grid_mapping_name": "rotated_latitude_longitude", **pole})
    return data


def plain(n: int = 20) -> xr.Dataset:
    return dataset(n).assign(crs=((), 0, {"grid_mapping_name": "latitude_longitude"}))


@pytest.mark.parametrize("make", [plain, rotated])
def test_a_grid_mapping_beside_single_coordinates_goes_into_the_prediction(make, tmp_path) -> None:
    data = make().assign_coords(height=((), 2.0, {"units": "m"}), realization=3)
    data["tas"].attrs["grid_mapping"] = "crs"
    source = Climate(Variables(save(data, tmp_path / "a.nc"), ["tas"]), Blocks(100, 2, (1,)), coarsen=4)
    fields = source.load("train")
    template, driving = Template.read(fields.template), fields.predictors.grid
    coarse = xr.Dataset({"tas": (("time", *data.tas.dims[1:]), np.stack([fields.coarse(i)[0] for i in range(3)]))})
    coarse = coarse.assign_coords(
        {d: (d, line) for d, line in zip(data.tas.dims[1:], (driving.y, driving.x), strict=True)}
    )
    coarse = coarse.assign_coords(time=data.time[:3]).assign(crs=data.crs.drop_vars(["height", "realization"]))
    coarse["tas"].attrs = data.tas.attrs
    for name in data.tas.dims[1:]:
        coarse[name].attrs = data[name].attrs
    given = drive(source, template, save(coarse, tmp_path / "b.nc"))
    frame = frame_of(template, given, 2, {}, raw=False)
    pieces = [((m, t), np.full((1, *given.shape), 280, np.float32)) for m in range(2) for t in range(3)]
    NetCDF().write(tmp_path / "out.nc", frame, pieces)
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as found:
        assert found.tas.attrs["grid_mapping"] == "crs" and found.crs.attrs == data.crs.attrs
        assert found.height == 2 and "realization" not in found.variables
        for name in {"lat", "lon", *data.tas.dims[1:]}:
            np.testing.assert_array_equal(found[name], data[name])
