"""Predictors from several sources, each on a grid of its own: the network is given what xarray's own interpolation gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from scorefield.cli import main
from scorefield.climate import Blocks, Climate, Conservative, FurtherPredictors, Nearest, Tiles, Variables
from scorefield.climate.predictors import drive
from scorefield.climate.template import Template
from scorefield.foundation.errors import InputError
from scorefield.run.recipe import build, data_parser
from weather import dataset, recipe, save, smooth, times

DAYS = 12


def gridded(lat: np.ndarray, lon: np.ndarray, values: np.ndarray, name: str, units: str, **more) -> xr.Dataset:
    """Fields (time, [level,] lat, lon) as reanalyses and models have them: latitude falls, days are stamped at noon."""
    coords = {
        "time": ("time", times(len(values), "standard", start="2000-01-01T12:00")),
        "lat": ("lat", lat, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
    } | more
    dims = ("time", *more, "lat", "lon")
    return xr.Dataset({name: (dims, values, {"units": units})}, coords)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Daily temperature of 1°; a model's on two levels of 2° from 180 W; radar of 0.75°; orography of 1°, a mask of 0.5°."""
    folder = tmp_path_factory.mktemp("sources")
    fine = dataset(DAYS, calendar="standard")
    lat, lon = fine.lat.values, fine.lon.values
    levels = np.stack([260 + smooth(DAYS, 12, 16, 1), 230 + 2 * smooth(DAYS, 12, 16, 2)], 1)
    model = gridded(60 - 2.0 * np.arange(12), -14 + 2.0 * np.arange(16), levels, "ta", "K",
                    plev=("plev", [850.0, 500.0], {"units": "hPa"}))  # fmt: skip
    radar = gridded(
        38 + 0.75 * np.arange(28), 345 + 0.75 * np.arange(44), np.exp(smooth(DAYS, 28, 44, 3)), "pr", "mm/day"
    )
    orog = fine.drop_vars(["tas", "time"])
    orog["orog"] = ("lat", "lon"), 100 * smooth(1, len(lat), len(lon), 4)[0], {"units": "m"}
    mask_lat, mask_lon = 38 + 0.5 * np.arange(44), 348 + 0.5 * np.arange(60)
    mask = xr.Dataset(
        {"lsm": (("lat", "lon"), (smooth(1, 44, 60, 5)[0] > 0).astype("f4"), {"units": "1"})},
        {"lat": ("lat", mask_lat, {"units": "degrees_north"}), "lon": ("lon", mask_lon, {"units": "degrees_east"})},
    )
    made = {"fine": fine, "model": model, "radar": radar, "orog": orog, "mask": mask}
    return {name: save(data, folder / f"{name}.nc") for name, data in made.items()} | {"folder": str(folder)}


def source(files: dict[str, str], **more) -> Climate:
    further = {
        "radar": FurtherPredictors(files["radar"], ["pr"], regrid=Conservative()),
        "level": FurtherPredictors(files["model"], ["ta"], levels=[500.0], regrid=Nearest()),
        "land": FurtherPredictors(files["mask"], ["lsm"], coarsen=2),
    }
    return Climate(
        Variables(files["fine"], ["tas"]), Blocks(8, 2, (1,)), Variables(files["model"], ["ta"], levels=[850.0]),
        static=Variables(files["orog"], ["orog"]), **({"further": further} | more),
    )  # fmt: skip


def on_fine(files: dict[str, str], name: str, method: str, **part) -> np.ndarray:
    """A variable of a file at the points of the fine grid by xarray and scipy, on its own branch of longitude."""
    data = xr.open_dataset(files[name], engine="h5netcdf").sel(**part)
    fine = xr.open_dataset(files["fine"], engine="h5netcdf")
    east = (fine.lon.values - data.lon.values[0]) % 360 + data.lon.values[0]
    return data[next(iter(data.data_vars))].interp(lat=fine.lat.values, lon=east, method=method).values


def by_area(files: dict[str, str]) -> np.ndarray:
    """Radar averaged over the cells of the fine grid: the integral of a function that is constant on each cell."""
    data = xr.open_dataset(files["radar"], engine="h5netcdf")
    fine = xr.open_dataset(files["fine"], engine="h5netcdf")

    def shares(own: np.ndarray, wanted: np.ndarray, step: float, height) -> np.ndarray:
        low, high = np.maximum.outer(wanted - 0.5, own - step / 2), np.minimum.outer(wanted + 0.5, own + step / 2)
        inside = np.where(high > low, height(high) - height(low), 0.0)
        return inside / inside.sum(1, keepdims=True)

    down = shares(data.lat.values, fine.lat.values, 0.75, lambda y: np.sin(np.radians(y)))
    along = shares(data.lon.values, fine.lon.values, 0.75, lambda x: x)
    return np.einsum("ij,tjk,lk->til", down, data.pr.values.astype(float), along)


def test_every_source_comes_from_its_own_grid(files: dict[str, str]) -> None:
    fields = source(files).load("train")
    assert fields.conditions == ("ta@850", "radar.pr", "level.ta@500", "orog", "land.lsm")
    days = fields.places[:, 0]
    assert days.tolist() == list(range(8))
    found = fields.gather(torch.arange(len(fields))).cond["field"].numpy()
    near = {"atol": 2e-5, "rtol": 2e-5}
    np.testing.assert_allclose(found[:, 0], on_fine(files, "model", "linear", plev=850.0)[days], **near)
    np.testing.assert_allclose(found[:, 1], by_area(files)[days], **near)
    orog = xr.open_dataset(files["orog"], engine="h5netcdf").orog.values
    np.testing.assert_allclose(found[:, 3], np.broadcast_to(orog, found[:, 3].shape), **near)
    # Points half way between two of the model's may go to either; the others go to the nearest.
    between = on_fine(files, "model", "nearest", plev=500.0)[days]
    inner = np.s_[:, 1::2, 1::2] if float(xr.open_dataset(files["fine"]).lat[1]) % 2 == 0 else np.s_[:, ::2, ::2]
    np.testing.assert_allclose(found[:, 2][inner], between[inner], **near)
    lsm = xr.open_dataset(files["mask"], engine="h5netcdf").lsm
    weight = np.cos(np.radians(lsm.lat))
    means = (lsm * weight).coarsen(lat=2, lon=2).sum() / (weight * xr.ones_like(lsm)).coarsen(lat=2, lon=2).sum()
    expected = means.interp(lat=fields.domain.y, lon=fields.domain.x)
    np.testing.assert_allclose(found[0, 4], expected, atol=1e-4)
    assert any(line.startswith("predictors radar: 28 × 44") for line in fields.metadata)


def test_a_window_of_times_is_taken_of_every_source_that_has_times(files: dict[str, str]) -> None:
    fields = source(files, before=1).load("train")
    assert fields.conditions[:3] == ("ta@850-1", "radar.pr-1", "level.ta@500-1") and len(fields.conditions) == 8
    found = fields[2].cond["field"].numpy()
    np.testing.assert_allclose(found[1], by_area(files)[fields.places[2, 0] - 1], rtol=2e-5)
    np.testing.assert_allclose(found[4], by_area(files)[fields.places[2, 0]], rtol=2e-5)


def test_a_model_is_driven_by_other_files_of_each_source(files: dict[str, str], tmp_path: Path) -> None:
    """Other files: the axes turned, times more or in part, other units. What is missing or different is named with both."""
    data = source(files)
    fields = data.load("train")
    template = Template.read(fields.template)
    radar = xr.open_dataset(files["radar"], engine="h5netcdf")
    turned = radar.isel(lat=slice(None, None, -1)).assign_coords(lon=(radar.lon + 180) % 360 - 180)
    turned["pr"] = (turned.pr / 86400).assign_attrs(units="kg m-2 s-1")
    more = {"radar": save(turned, tmp_path / "turned.nc"), "level": files["model"]}
    driving = drive(data, template, files["model"], more)
    np.testing.assert_allclose(driving.field(3), fields[3].cond["field"], rtol=1e-5)
    assert driving.digest() != drive(data, template, files["model"], more | {"radar": files["radar"]}).digest()
    cut = save(radar.isel(time=slice(5)), tmp_path / "cut.nc")
    other = save(radar.isel(lon=slice(0, 40)), tmp_path / "other.nc")
    dbz = save(radar.assign(pr=radar.pr.assign_attrs(units="K")), tmp_path / "dbz.nc")
    odd = save(radar.convert_calendar("noleap"), tmp_path / "odd.nc")
    wrong = radar.copy(deep=True)
    wrong["pr"][2, 10, 10] = 1e6
    for changed, told in (
        ({"radar": cut}, "cut.nc goes from 2000-01-01 12:00:00 to 2000-01-05 12:00:00 and lacks 7 times of .*model.nc"),
        ({"radar": other}, "along x 40 from 345 to 374.25, not 44 from 345 to 377.25"),
        ({"radar": dbz}, "pr is in K, and mm/day is expected"),
        ({"radar": odd}, "calendar noleap, and .*model.nc standard"),
        ({"sonde": cut}, "no further predictors sonde: it knows radar, level"),
    ):
        with pytest.raises(InputError, match=told):
            drive(data, template, files["model"], more | changed)
    with pytest.raises(InputError, match=r"level are not given: add --further.level FILE"):
        drive(data, template, files["model"], {"radar": files["radar"]})
    driving = drive(data, template, files["model"], more | {"radar": save(wrong, tmp_path / "wrong.nc")})
    with pytest.raises(InputError, match=r"wrong.nc: radar.pr has a value of 1e\+06"):
        driving.field(2)


def test_sources_that_cannot_be_used_are_named(files: dict[str, str], tmp_path: Path) -> None:
    radar = xr.open_dataset(files["radar"], engine="h5netcdf")
    short = save(radar.isel(time=slice(3)), tmp_path / "short.nc")
    small = save(radar.isel(lat=slice(0, 10)), tmp_path / "small.nc")
    for further, told in (
        (
            {"radar": FurtherPredictors(short, ["pr"])},
            "short.nc goes .* and lacks 5 times of .*model.nc, the first 2000-01-04",
        ),
        ({"radar": FurtherPredictors(small, ["pr"])}, "goes from 37.62. to 45.12. and does not cover"),
        ({"radar": FurtherPredictors(files["radar"], ["hus"])}, "no variable hus: it has pr"),
        ({"radar": FurtherPredictors("nowhere.nc", ["pr"])}, "no file nowhere.nc"),
        ({"radar": FurtherPredictors(files["radar"], [])}, "give names"),
    ):
        with pytest.raises(InputError, match=told):
            source(files, further=further).load("train")
    with pytest.raises(InputError, match=r"further.radar.coarsen is 0: give a number of at least 1"):
        source(files, further={"radar": FurtherPredictors(files["radar"], ["pr"], coarsen=0)})
    with pytest.raises(InputError, match="further and features go with predictors"):
        Climate(Variables(files["fine"], ["tas"]), Blocks(8, 2, (1,)), further=source(files).further).load("train")


def test_tiles_have_their_part_of_every_source(files: dict[str, str]) -> None:
    whole, tiles = source(files).load("train"), source(files, tiles=Tiles((8, 8))).load("train")
    place = tiles.place(4)
    expected = whole[place.number].cond["field"][:, place.row : place.row + 8, place.column : place.column + 8]
    np.testing.assert_allclose(tiles[4].cond["field"], expected, rtol=1e-6)


def options(files: dict[str, str]) -> list[str]:
    """Further predictors as the command line names them, from nothing."""
    return [
        "--data.further.radar.path", files["radar"], "--data.further.radar.names", "[pr]",
        "--data.further.radar.regrid", "Conservative", "--data.further.land.names=[lsm]",
        f"--data.further.land.path={files['mask']}",
    ]  # fmt: skip


def test_dotted_options_make_sources_and_change_them(files: dict[str, str]) -> None:
    words = [
        "--data",
        "Climate",
        "--data.division",
        "Years",
        "--data.division.valid",
        "[2001]",
        "--data.targets.path",
        "a.nc",
    ]
    words += ["--data.targets.names", "[tas]", "--data.predictors.path", "b.nc", "--data.predictors.names", "[ta]"]
    words += ["--data.static.path", "e.nc", "--data.static.names", "[orog]"]
    parser = data_parser()
    settings = parser.read([*words, *options(files), "--data.further.land.coarsen", "2"])
    further = build(parser, settings).data.further
    assert further == {
        "radar": FurtherPredictors(files["radar"], ["pr"], regrid=Conservative()),
        "land": FurtherPredictors(files["mask"], ["lsm"], coarsen=2),
    }
    again = parser.read_object(yaml.safe_load(parser.written(settings)), "a file")
    changed = parser.read(
        ["--data.further.radar.path", "c.nc", "--data.further", "{sea: {path: d.nc, names: [a]}}"], again
    )
    assert build(parser, again).data.further == further
    assert build(parser, changed).data.further == {"sea": FurtherPredictors("d.nc", ["a"])}
    changed = parser.read(
        ["--data.further.radar.path", "c.nc", "--data.before", "1"], again
    )  # and what may be null stays
    assert build(parser, parser.read_object(yaml.safe_load(parser.written(changed)), "")).data.static.path == "e.nc"
    assert build(parser, changed).data.further["radar"] == FurtherPredictors("c.nc", ["pr"], regrid=Conservative())
    with pytest.raises(InputError, match=r"data.further.radar.pth|no argument pth"):
        parser.read([*words, "--data.further.radar.pth", "c.nc"])


@pytest.mark.slow
def test_the_road_from_dotted_options_to_a_prediction(files: dict[str, str], tmp_path: Path, capsys) -> None:
    division = {
        "class_path": "scorefield.climate.Blocks",
        "init_args": {"days": 8, "cycle": 2, "valid": [1], "test": []},
    }
    content = recipe({
        "targets": {"path": files["fine"], "names": ["tas"]}, "division": division,
        "predictors": {"path": files["model"], "names": ["ta"], "levels": [850.0]},
        "static": {"path": files["orog"], "names": ["orog"]},
    })  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content["data"]))
    look = ["check-data", "--data", str(tmp_path / "data.yaml"), "--preview", str(tmp_path / "p.png")]
    assert main([*look, *options(files)]) == 0
    assert "predictor radar.pr: " in (out := capsys.readouterr().out) and "predictor land.lsm: 0 to 1" in out
    run, out = tmp_path / "run", tmp_path / "out.nc"
    assert main(["train", str(tmp_path / "run.yaml"), "--out", str(run), *options(files)]) == 0
    stored = yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["further"]
    assert stored["radar"]["path"] == files["radar"] and stored["land"]["names"] == ["lsm"]
    words = ["downscale", str(run), files["model"], "--members", "2", "--reach", "1e9", "--steps", "2", "--out"]
    assert main([*words, str(out)]) == 2
    assert (
        "trained on further predictors (radar), and radar are not given: add --further.radar FILE"
        in capsys.readouterr().err
    )
    assert main([*words, str(out), "--further.radar", files["radar"]]) == 0
    with xr.open_dataset(out, engine="h5netcdf") as found:
        assert found.tas.shape == (2, DAYS, 16, 24) and np.isfinite(found.tas).all()
    split = ["downscale", str(run), "valid", *words[3:]]
    assert main([*split, str(tmp_path / "valid.nc"), "--truth", str(tmp_path / "truth.nc")]) == 0
    with xr.open_dataset(tmp_path / "valid.nc") as valid, xr.open_dataset(out) as found:
        np.testing.assert_allclose(valid.tas, found.tas.isel(time=slice(8, 12)), atol=2e-2)
    assert main([*split, str(tmp_path / "b.nc"), "--further.radar", files["radar"]]) == 2
    folders = [tmp_path / "gcm", tmp_path / "radar"]
    for folder, name in zip(folders, ("model", "radar"), strict=True):
        folder.mkdir()
        data = xr.open_dataset(files[name], engine="h5netcdf")
        for part in range(2):
            save(data.isel(time=slice(6 * part, 6 * part + 6)), folder / f"{part}.nc")
    words[2] = str(folders[0])
    assert main([*words, str(tmp_path / "many"), "--further.radar", str(folders[1])]) == 0
    with xr.open_dataset(tmp_path / "many" / "1.nc") as part, xr.open_dataset(out) as found:
        np.testing.assert_allclose(part.tas, found.tas.isel(time=slice(6, 12)), atol=2e-2)
    (folders[1] / "1.nc").unlink()
    assert main([*words, str(tmp_path / "few"), "--further.radar", str(folders[1])]) == 2
    assert "has no further predictors radar:" in capsys.readouterr().err and not (tmp_path / "few").exists()


def test_baselines_and_the_check_of_driving_take_further_files(files: dict[str, str], tmp_path: Path, capsys) -> None:
    """A truth that is twice the second source: ridge regression finds it with that source, and not without."""
    radar = xr.open_dataset(files["radar"], engine="h5netcdf").load()
    coarse = radar.isel(lat=slice(0, 24), lon=slice(0, 40)).coarsen(lat=4, lon=4).mean()
    model = coarse.assign(tas=280 + 0 * coarse.pr + np.arange(DAYS)[:, None, None]).drop_vars("pr")
    model["tas"].attrs["units"] = "K"
    fine = radar.isel(lat=slice(0, 24), lon=slice(0, 40)).coarsen(lat=2, lon=2).mean()
    truth = fine.assign(tas=(280 + 2 * fine.pr).assign_attrs(units="K")).drop_vars("pr")
    paths = {"model": save(model, tmp_path / "model.nc"), "truth": save(truth, tmp_path / "truth.nc")}
    further = json.dumps({"radar": {"path": files["radar"], "names": ["pr"]}})
    words = ["baseline", "Ridge", paths["model"], "--train-predictors", paths["model"], "--train-truth", paths["truth"],
             "--target", "tas", "--members", "1", "--baseline.penalty", "1e-4", "--out"]  # fmt: skip
    more = ["--train-further", further, "--further.radar", files["radar"]]
    assert main([*words, str(tmp_path / "a.nc")]) == 0 and main([*words, str(tmp_path / "b.nc"), *more]) == 0
    errors = [
        float(np.abs(xr.open_dataset(tmp_path / f"{name}.nc").tas.isel(member=0).values - truth.tas.values).mean())
        for name in "ab"
    ]
    assert errors[1] < 0.7 * errors[0]
    assert main([*words, str(tmp_path / "b.nc"), *more]) == 0  # found, not made again
    assert main([*words, str(tmp_path / "c.nc"), *more[:2]]) == 2
    assert "--train-further has radar, and --further none: give radar to both" in capsys.readouterr().err
    short = save(radar.isel(time=slice(3)), tmp_path / "short.nc")
    assert main([*words, str(tmp_path / "c.nc"), *more[:3], short]) == 2
    assert "lacks 9 of 12 times, the first 2000-01-04" in capsys.readouterr().err
    look = ["verify", str(tmp_path / "b.nc"), paths["truth"], "--replicates", "0", "--out", str(tmp_path / "out")]
    assert main([*look, "--driving", paths["model"], "--further.other", paths["model"]]) == 0
    driving = json.loads((tmp_path / "out" / "verification.json").read_text())["driving"]
    assert driving["tas"] == driving["other.tas"] and set(driving) == {"tas", "other.tas"}
