"""Gridded data sets: every real file opens, and what reaches the network is what the files say."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from scorefield.cli import main
from scorefield.climate import Blocks, Climate, Cube, DayOfYear, HourOfDay, Nearest, Periods, Tiles, Variables, Years
from scorefield.climate.fields import GriddedFields
from scorefield.climate.source import grid_of_cube
from scorefield.climate.summary import correlation_length
from scorefield.climate.template import Template
from scorefield.data import Loader
from scorefield.foundation.errors import AbsentDataError, InputError
from weather import dataset, described, recipe, save, times

FILES = {  # name: variables, shape, units
    "E1_north_america.nc": (["air_temperature"], (240, 37, 49), "K"),
    "bcsd_obs_1999.nc": (["pr", "tas"], (12, 33, 81), "mm/m"),
    "era5_t2m_uk_201903.nc": (["t2m"], (744, 33, 49), "K"),
    "mrms_preciprate_conus_20190610.nc": (["precip_rate"], (6, 3500, 7000), "mm/h"),
    "stageiv_florence_20180913.nc": (["Total_precipitation_surface_1_Hour_Accumulation"], (23, 118, 87), "kg m-2"),
    "ukcp_cpm_pr_2.2km_2steps.nc": (["pr"], (2, 654, 532), "kg m-2 s-1"),
    "ukcp_cpm_pr_2.2km_coarsened4x_2steps.nc": (["pr"], (2, 163, 133), "kg m-2 s-1"),
    "ukcp_gcm_pr_60km_1step.nc": (["precipitation_flux"], (1, 324, 432), "kg m-2 s-1"),
    "xclim_conus_annual_pr_tas_1950_1999.nc": (["meantemp", "totalpr"], (50, 56, 116), "degC"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_real_file_opens(name, data_folder) -> None:
    names, (n, rows, columns), units = FILES[name]
    cube = Cube(Variables(str(data_folder / "climate" / name), names, {names[0]: units}))
    assert (len(cube), *cube.shape) == (n, rows, columns) and len(cube.times) == n
    field = cube.read(n - 1)
    assert field.shape == (len(names), rows, columns) and np.isfinite(field).any()
    latitude, longitude = grid_of_cube(cube).points()
    assert latitude.shape == (rows, columns) and np.abs(latitude).max() <= 90 and np.isfinite(longitude).all()


def test_global_rainfall_reaches_the_rotated_grid(data_folder) -> None:
    """The 60 km model over the UK, on the 2.2 km model's grid: the same field as the nearest point's, roughly."""
    folder = data_folder / "climate"
    fine = Cube(Variables(str(folder / "ukcp_cpm_pr_2.2km_2steps.nc"), ["pr"]))
    globe = Cube(Variables(str(folder / "ukcp_gcm_pr_60km_1step.nc"), ["precipitation_flux"]))
    source = Climate(fine.variables, Years(valid=(1981,)), globe.variables)
    grids = grid_of_cube(globe), grid_of_cube(fine)
    linear = source.regrid.between(*grids)(globe.read(0))
    nearest = Nearest().between(*grids)(globe.read(0))
    assert linear.shape == (1, 654, 532) and np.corrcoef(linear.ravel(), nearest.ravel())[0, 1] > 0.9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weather")


@pytest.fixture(scope="module")
def plain(folder) -> str:
    return save(dataset(40, names=("tas", "psl")), folder / "plain.nc")


def source(path: str, **more) -> Climate:
    arguments = {"division": Blocks(5, 4, (3,), ()), "coarsen": 4} | more
    return Climate(Variables(path, ["tas"]), **arguments)


def test_fields_are_the_files_beside_their_own_coarse_means(plain) -> None:
    fields = source(plain).load("train")
    truth = xr.open_dataset(plain, engine="h5netcdf").tas.values
    batch = fields.gather(torch.tensor([7, 2]))
    assert np.array_equal(batch.x[:, 0].numpy(), truth[[fields.place(i).number for i in (7, 2)]])
    assert batch.mask is None and batch.cond["field"].shape == batch.x.shape
    coarse = fields.coarse(7)
    areas = np.cos(np.radians(np.arange(40, 44)))[:, None] * np.ones(4)
    assert coarse[0, 0, 0] == pytest.approx(np.average(truth[fields.place(7).number][:4, :4], weights=areas), rel=1e-5)
    assert fields.conditions == ("tas",) and fields.variables == ("tas",)


MORE = {"features": (DayOfYear(), HourOfDay()), "before": 1, "after": 1, "tiles": Tiles((8, 8), stride=4)}


def test_what_is_read_as_it_is_asked_for_is_what_memory_holds(plain) -> None:
    """Also as another process gets it, which opens the files for itself."""
    remembered, lazy = (source(plain, memory=size, **MORE).load("train") for size in (4.0, 0.0))
    assert remembered.conditions == ("tas-1", "tas", "tas+1", "day_sin", "day_cos", "hour_sin", "hour_cos")
    rows = torch.tensor([5, 3, 5, len(lazy) - 1])
    for other in (lazy, pickle.loads(pickle.dumps(lazy))):
        a, b = remembered.gather(rows), other.gather(rows)
        assert torch.equal(a.x, b.x) and torch.equal(a.cond["field"], b.cond["field"])


@pytest.mark.slow
def test_what_is_read_as_it_is_asked_for_is_the_same_in_other_processes(plain) -> None:
    lazy = source(plain, memory=0.0, **MORE).load("train")
    one, many = (Loader(lazy, 4, workers=w) for w in (0, 2))
    for _, a, b in zip(range(3), one, many, strict=False):
        assert torch.equal(a.x, b.x)


def test_settings_are_checked_before_all_data_are_read(folder, plain, monkeypatch, capsys) -> None:
    monkeypatch.setattr(GriddedFields, "remember", lambda self: pytest.fail("all data are read"))
    (folder / "run.yaml").write_text(yaml.safe_dump(recipe(described(plain))))
    assert main(["train", str(folder / "run.yaml"), "--out", str(folder / "run"), "--train.seed", "-1"]) == 2
    assert "train.seed must be at least 0" in capsys.readouterr().err


def test_what_is_told_of_data_does_not_depend_on_memory(folder, monkeypatch) -> None:
    """The last field alone is hot, has a gap of its predictor, and is known at a point where no other is."""
    monkeypatch.setattr("scorefield.climate.source.SURVEYED", 2**14)
    fine = dataset(12)
    driving = fine.coarsen(lat=4, lon=4).mean(keep_attrs=True)
    fine["tas"][:-1, 0, 0], fine["tas"][-1, 5, 5], driving["tas"][-1, 2, 2] = np.nan, 400, np.nan
    path, other = save(fine, folder / "late.nc"), save(driving, folder / "late_coarse.nc")
    more = {"division": Blocks(100, 2, (1,), ()), "predictors": Variables(other, ["tas"]), "coarsen": 1}
    held, lazy = (Template.read(source(path, memory=m, **more).load("train").template) for m in (4.0, 0.0))
    assert lazy.facts == held.facts and np.array_equal(lazy.known, held.known)
    assert lazy.facts["ranges"][0][1] == 400 and lazy.facts["predictors"]["gaps"] and lazy.known.all()


def test_a_window_of_times_stays_within_its_member(folder) -> None:
    members = xr.concat([dataset(6, seed=s) for s in range(3)], "ensemble_member")
    path = save(members, folder / "members.nc")
    fields = source(path, division=Blocks(100, 2, (1,), ()), before=1, coarsen=2).load("train")
    assert len(fields) == 3 * 5
    x, field = fields[5].x, fields[5].cond["field"]  # the second time of the second member
    np.testing.assert_array_equal(x[0], members.tas.values[1, 1])
    previous = fields.predictors.regrid(fields.predictors.coarsen(members.tas.values[1, 0][None]))
    np.testing.assert_array_equal(field[0], previous[0])


def test_packed_integers_gaps_and_other_orders_of_dimensions(folder) -> None:
    """int16 with scale, offset and fill value; latitude falling; the member axis last; NetCDF-3 and Zarr."""
    data = dataset(8)
    data["tas"][:, 2:4, 5] = np.nan
    packing = {"tas": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}}
    turned = data.isel(lat=slice(None, None, -1)).transpose("lon", "time", "lat")
    turned.to_netcdf(folder / "packed.nc", encoding=packing, engine="h5netcdf")
    data.to_netcdf(folder / "classic.nc3", engine="scipy")
    data.to_zarr(folder / "store")
    for name, falling in (("packed.nc", True), ("classic.nc3", False), ("store", False)):
        fields = source(str(folder / name), division=Blocks(100, 2, (1,), ())).load("train")
        batch = fields.gather(torch.tensor([3]))
        expected = data.tas.values[3][::-1] if falling else data.tas.values[3]
        known = ~np.isnan(expected)
        assert np.array_equal(batch.mask[0, 0].numpy(), known)
        np.testing.assert_allclose(batch.x[0, 0].numpy()[known], expected[known], atol=0.006 if falling else 0)
        assert not torch.isnan(batch.x).any()


def test_many_files_follow_one_another(folder) -> None:
    data = dataset(20)
    for part in range(2):
        save(data.isel(time=slice(10 * part, 10 * part + 10)), folder / f"part_{1 - part}.nc")
    fields = source(str(folder / "part_*.nc"), division=Blocks(100, 2, (1,), ())).load("train")
    assert len(fields) == 20
    np.testing.assert_array_equal(fields[13].x[0], data.tas.values[13])


def test_predictors_on_levels_static_fields_and_what_is_known(folder) -> None:
    fine, coarse = dataset(10), dataset(10, 8, 10).rename(tas="ta")
    coarse = coarse.assign_coords(lat=38 + 3.0 * np.arange(8), lon=346 + 4.0 * np.arange(10))
    coarse = xr.concat([coarse, 2 * coarse], xr.Variable("plev", [850.0, 500.0])).transpose(
        "time", "plev", "lat", "lon"
    )
    fine["orog"] = fine.tas[0].drop_vars("time") * 10
    fine["tas"][:, 0, 0] = np.nan
    a, b = save(fine, folder / "fine.nc"), save(coarse, folder / "coarse.nc")
    given = Variables(b, ["ta"], levels=[500.0])
    fields = Climate(
        Variables(a, ["tas"]), Blocks(100, 2, (1,), ()), given, static=Variables(a, ["orog"]), mask_channel=True
    ).load("train")
    assert fields.conditions == ("ta@500", "orog", "known")
    field = fields[4].cond["field"]
    np.testing.assert_array_equal(field[1], fine.orog.values)
    assert field[2, 0, 0] == 0 and field[2].sum() == 16 * 24 - 1
    np.testing.assert_allclose(field[0, 1, 0], coarse.ta.values[4, 1, 1, 1], rtol=2e-2)  # near the point 41, 350


def test_bad_input_is_named(plain, folder) -> None:
    cases = [
        (lambda: source("nowhere.nc"), AbsentDataError, "no file nowhere.nc"),
        (lambda: source(plain, predictors=Variables(plain, ["hus"])), InputError, "no variable hus: it has tas, psl"),
        (
            lambda: Climate(Variables(plain, ["tas"], {"tas": "mm"}), Years((2000,))),
            InputError,
            "tas is in K, and mm",
        ),
        (lambda: source(plain, division=Years((2010,))), InputError, ""),
        (
            lambda: source(plain, division=Periods(("2011", "2012"), ("2013", "2014"))),
            InputError,
            "No field .* split train",
        ),
        (lambda: source(plain, tiles=Tiles((32, 32))), InputError, "16×24, too small for tiles of 32×32"),
        (lambda: source(plain, coarsen=30), InputError, "cannot be coarsened 30"),
        (
            lambda: source(plain, predictors=Variables(short, ["tas"]), coarsen=1),
            InputError,
            "lacks 5 times of the targets, the first 2000-02-01",
        ),
        (lambda: source(str(folder / "text.nc")), InputError, "no NetCDF file"),
    ]
    short = save(dataset(30), folder / "short.nc")
    (folder / "text.nc").write_text("time,tas")
    for make, kind, message in cases:
        if message:
            with pytest.raises(kind, match=message):
                make().load("train")
    assert len(times(3)) == 3


def test_the_length_of_correlation_tells_how_large_tiles_must_be() -> None:
    """φ^d falls below 1/e at d = −1/log φ; with 0.8 at 4.5 points, also where a third is unknown."""
    draw = torch.Generator().manual_seed(0)
    x = torch.zeros(4, 300, 300)
    noise = torch.randn(4, 300, 300, generator=draw)
    for i in range(1, 300):
        x[:, i] = 0.8 * x[:, i - 1] + 0.6 * noise[:, i]
    for j in range(1, 300):
        x[:, :, j] = 0.8 * x[:, :, j - 1] + 0.6 * x[:, :, j]
    x = x[:, 50:, 50:]
    known = torch.rand(x.shape, generator=draw) > 0.3
    assert correlation_length(x, known) == correlation_length(x, known | True) == 5
    even = torch.tensor([1.0, -1.0])[:, None, None].expand(2, 8, 8)
    assert correlation_length(even, even < 2) is None


def test_check_data_tells_units_ranges_calendar_and_gaps(plain, tmp_path, capsys) -> None:
    targets = [f"--data.targets.path={plain}", "--data.targets.names=[tas]", "--data.coarsen=4"]
    division = ["--data.division=scorefield.climate.Blocks", "--data.division.days=5", "--data.division.cycle=4"]
    division += ["--data.division.valid=[3]", "--data.division.test=[]"]
    assert main(["check-data", "Climate", *targets, *division, "--preview", str(tmp_path / "p.png")]) == 0
    said = capsys.readouterr().out
    assert "target tas in K: 2" in said and "360_day" in said and "predictor tas: 2" in said and "sigma_data" in said
    assert "domain 16 × 24, latitude_longitude, steps 1 and 1" in said
