"""Downscaling from the command line: train on files, predict from files, and what others will open is what it should be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import scorefield
from scorefield.cli import main
from scorefield.climate import Conservative, Cube, Variables
from scorefield.climate.ensembles import Job
from scorefield.climate.source import grid_of_cube
from weather import dataset, described, recipe, save

STEPS = ["--steps", "3", "--chunk", "4"]


def train(folder: Path, name: str, content: dict) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["train", str(path), "--out", str(folder / name)]) == 0
    return folder / name


def coarse_file(fine: str, path: Path, times: slice = slice(4), **changes) -> str:
    """What a coarse model would show of the fields of a file, with changes."""
    cube = Cube(Variables(fine, ["tas"]))
    grid = grid_of_cube(cube)
    driving = grid.coarsened(4)
    regrid = Conservative().between(grid, driving)
    data = xr.open_dataset(fine, engine="h5netcdf").isel(time=times)
    values = np.stack([regrid(field) for field in data.tas.values])
    coords = {"time": data.time, "lat": driving.y, "lon": driving.x}
    found = xr.Dataset({"tas": (("time", "lat", "lon"), values, {"units": "K"})}, coords)
    for name, change in changes.items():
        found = change(found) if name != "units" else found.assign(tas=found.tas.assign_attrs(units=change))
    return save(found, path)


def check_conventions(path: Path) -> None:
    """What the CF checker says of a file with the table of names that it brings: nothing, and no excuse but that it is absent."""
    pytest.importorskip("compliance_checker", exc_type=ModuleNotFoundError)
    from compliance_checker.runner import CheckSuite, ComplianceChecker

    CheckSuite.load_all_available_checkers()
    report = path.with_suffix(".txt")
    passed, errors = ComplianceChecker.run_checker(
        str(path), ["cf:1.8"], 0, "normal", output_filename=str(report), output_format="text"
    )
    assert passed and not errors, report.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downscaling")


@pytest.fixture(scope="module")
def fine(folder) -> str:
    data = dataset(40)
    data["tas"][:, :3, :2] = np.nan  # never known: a sea
    return save(data, folder / "fine.nc")


@pytest.fixture(scope="module")
def run(folder, fine) -> Path:
    return train(folder, "run", recipe(described(fine)))


@pytest.fixture(scope="module")
def prediction(folder, fine, run) -> Path:
    given, out = coarse_file(fine, folder / "coarse.nc"), folder / "prediction.nc"
    assert (
        main(
            ["downscale", str(run), given, "--members", "3", "--seed", "5", "--reach", "50", "--out", str(out), *STEPS]
        )
        == 0
    )
    return out


def test_the_file_has_members_units_coordinates_and_dates(prediction, fine) -> None:
    with xr.open_dataset(prediction, engine="h5netcdf") as found, xr.open_dataset(fine, engine="h5netcdf") as truth:
        assert found.tas.dims == ("member", "time", "lat", "lon") and found.tas.shape == (3, 4, 16, 24)
        assert found.tas.attrs["units"] == "K" and found.tas.attrs["long_name"] == "field tas"
        assert found.time.dt.calendar == "360_day" and list(found.time.values) == list(truth.time.values[:4])
        np.testing.assert_array_equal(found.lat, truth.lat)
        assert found.lat.attrs["units"] == "degrees_north" and found.attrs["title"] == "a test"
        unknown = np.isnan(truth.tas.values[0])
        assert (np.isnan(found.tas.values) == unknown).all()
        assert found.tas.encoding["complevel"] == 4 or found.tas.encoding["zlib"]
    assert not list(prediction.parent.glob(".prediction*"))


def test_the_cf_checker_finds_nothing(prediction) -> None:
    check_conventions(prediction)


def test_a_member_at_a_time_depends_on_seed_member_and_date_alone(folder, fine, run, prediction) -> None:
    """Other times around it, in another order of chunks: the same values."""
    given = coarse_file(fine, folder / "later.nc", slice(2, 6))
    out = folder / "later_prediction.nc"
    assert (
        main(
            ["downscale", str(run), given, "--members", "4", "--seed", "5", "--reach", "50", "--out", str(out), *STEPS]
        )
        == 0
    )
    with xr.open_dataset(out, engine="h5netcdf") as later, xr.open_dataset(prediction, engine="h5netcdf") as first:
        np.testing.assert_allclose(later.tas.values[:3, :2], first.tas.values[:, 2:], rtol=1e-5)
        assert not np.allclose(later.tas.values[0, 0], later.tas.values[1, 0], equal_nan=True)


def test_zarr_raw_values_and_conservation(folder, fine, run) -> None:
    given, out = coarse_file(fine, folder / "c.nc", slice(2)), folder / "p.zarr"
    command = [
        "downscale",
        str(run),
        given,
        "--members",
        "2",
        "--reach",
        "50",
        "--raw",
        "--conserve",
        "add",
        "--out",
        str(out),
    ]
    assert main([*command, *STEPS]) == 0
    found = xr.open_dataset(out, engine="zarr", consolidated=False)
    assert set(found.data_vars) >= {"tas", "raw_tas"} and found.raw_tas.attrs["units"] == "1"
    cube = Cube(Variables(fine, ["tas"]))
    grid = grid_of_cube(cube)
    means = Conservative().between(grid, grid.coarsened(4))(found.tas.values)
    expected = xr.open_dataset(given, engine="h5netcdf").tas.values
    whole = np.isfinite(found.tas.values[0, 0]).reshape(4, 4, 6, 4).all((1, 3))
    np.testing.assert_allclose(means[..., whole], np.broadcast_to(expected, means.shape)[..., whole], atol=2e-3)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_killed_at_any_place_and_called_again_the_result_is_the_same(
    folder, fine, run, prediction, suffix, monkeypatch
) -> None:
    """Killed in the middle of a write: parts and file are whole or not there."""
    out = folder / f"killed{suffix}"
    given = folder / "coarse.nc"
    command = [
        "downscale",
        str(run),
        str(given),
        "--members",
        "3",
        "--seed",
        "5",
        "--reach",
        "50",
        "--out",
        str(out),
        *STEPS,
    ]
    code = (
        "import sys, os, signal, numpy as np\n"
        "from scorefield.climate import downscaling\n"
        "save = np.save\n"
        "calls = []\n"
        "def half(file, values):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2:\n"
        "        file.write(b'x' * 100); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(file, values)\n"
        "np.save = half\n"
        "from scorefield.cli import main\n"
        f"main({command!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    died = subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not out.exists()
    partial = folder / f".killed{suffix}.parts" / "part-000000000.npy"
    drawn = partial.stat().st_mtime_ns
    time.sleep(0.01)
    assert main(command) == 0
    assert drawn and not partial.exists()
    options = {"engine": "h5netcdf"} if suffix == ".nc" else {"engine": "zarr", "consolidated": False}
    with xr.open_dataset(out, **options) as found, xr.open_dataset(prediction, engine="h5netcdf") as whole:
        np.testing.assert_array_equal(found.tas.values, whole.tas.values)


def test_a_job_is_continued_from_the_same_fields_wherever_they_lie(folder, fine, run, prediction, monkeypatch, capsys):
    """Interrupted; then with other fields at the same path; then with the same ones at another."""
    draw, given, out = Job.draw, folder / "moved.nc", folder / "moved_out.nc"
    coarse_file(fine, given)
    command = ["--members", "3", "--seed", "5", "--reach", "50", "--out", str(out), *STEPS]
    monkeypatch.setattr(Job, "draw", lambda job, start: draw(job, start) if start == 0 else _interrupt())
    assert main(["downscale", str(run), str(given), *command]) == 130
    monkeypatch.setattr(Job, "draw", draw)
    given.unlink()
    coarse_file(fine, given, x=lambda d: d.assign(tas=(d.tas + 1).assign_attrs(units="K")))
    assert main(["downscale", str(run), str(given), *command]) == 2
    assert "the parts of another job" in capsys.readouterr().err
    assert main(["downscale", str(run), coarse_file(fine, folder / "elsewhere.nc"), *command]) == 0
    with xr.open_dataset(out, engine="h5netcdf") as found, xr.open_dataset(prediction, engine="h5netcdf") as whole:
        np.testing.assert_array_equal(found.tas.values, whole.tas.values)


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_bad_predictors_are_named_with_what_is_expected(folder, fine, run, prediction, capsys) -> None:
    cases = {
        "variable": ({"x": lambda d: d.rename(tas="temp")}, "no variable tas: it has temp"),
        "units": ({"units": "degC"}, "tas is in degC, and the model was trained on K"),
        "grid": ({"x": lambda d: d.isel(lon=slice(5))}, "another grid than the predictors of training: along x 5 from"),
        "nan": ({"x": lambda d: d.where(d.lat > 43)}, "tas has 6 unknown values around 2000-01-01"),
        "dates": ({"x": lambda d: d.isel(time=[0, 2, 1])}, "sort the times"),
        "calendar": ({"x": lambda d: d.assign_coords(time=np.arange("2000-01-01", "2000-01-05", dtype="M8[D]").astype("M8[ns]"))},
                     "has the calendar standard, and the model was trained on 360_day"),
    }  # fmt: skip
    for name, (changes, message) in cases.items():
        given = coarse_file(fine, folder / f"bad_{name}.nc", **changes)
        out = folder / f"bad_{name}_out.nc"
        assert main(["downscale", str(run), given, "--members", "1", "--out", str(out), *STEPS]) == 2, name
        said = capsys.readouterr().err
        assert message in said, said
        assert not out.exists()
    assert main(["downscale", str(run), str(folder / "coarse.nc"), "--out", str(folder / "x.txt"), *STEPS]) == 2
    assert "neither .nc nor .zarr" in capsys.readouterr().err


def test_the_validator_fails_the_command(folder, run, prediction, capsys) -> None:
    """An untrained network leaves the range of the training data, and the file stays to be looked at."""
    out = folder / "wild.nc"
    command = [
        "downscale",
        str(run),
        str(folder / "coarse.nc"),
        "--members",
        "3",
        "--seed",
        "5",
        "--out",
        str(out),
        *STEPS,
    ]
    assert main([*command, "--reach", "-0.49"]) == 2
    assert "in training from" in capsys.readouterr().err
    written = out.stat().st_mtime_ns
    assert main([*command, "--reach", "50"]) == 0  # checked again, not drawn again
    assert out.stat().st_mtime_ns == written and not list(folder.glob(".wild*"))


def test_a_folder_of_predictors_is_mirrored(folder, fine, run, capsys) -> None:
    """Only what is missing is drawn by a second call, and files of another job are left alone."""
    for name, times in (("test/a/x.nc", slice(1)), ("test/b/y.nc", slice(2))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse_file(fine, folder / name, times)
    command = [
        "downscale",
        str(run),
        str(folder / "test"),
        "--members",
        "2",
        "--reach",
        "50",
        "--out",
        str(folder / "o"),
    ]
    assert main([*command, *STEPS]) == 0
    made = sorted((folder / "o").rglob("*"))
    assert [str(path.relative_to(folder / "o")) for path in made] == ["a", "a/x.nc", "b", "b/y.nc"]
    with xr.open_dataset(made[3], engine="h5netcdf") as found:
        assert found.tas.shape == (2, 2, 16, 24)
        drawn = found.tas.values
    kept = made[1].stat().st_mtime_ns
    made[3].unlink()
    assert main([*command, *STEPS]) == 0
    assert made[1].stat().st_mtime_ns == kept
    with xr.open_dataset(made[3], engine="h5netcdf") as found:
        np.testing.assert_array_equal(found.tas.values, drawn)
    assert main([*command, *STEPS, "--seed", "7"]) == 2
    assert "a/x.nc exists" in capsys.readouterr().err
    (folder / "test/a/x.nc").unlink()  # another field at the same path is another job
    coarse_file(fine, folder / "test/a/x.nc", slice(1), x=lambda d: d.assign(tas=(d.tas + 1).assign_attrs(units="K")))
    assert main([*command, *STEPS]) == 2
    assert "a/x.nc exists" in capsys.readouterr().err
    (folder / "empty").mkdir()
    assert main(["downscale", str(run), str(folder / "empty"), "--out", str(folder / "o3"), *STEPS]) == 2
    assert "a folder without NetCDF files" in capsys.readouterr().err


def test_tiles_their_truth_and_a_region_that_is_larger(folder, capsys) -> None:
    """A model of tiles predicts held-out tiles beside their truth, and any region of its raster in one piece."""
    data = dataset(24, 32, 48)
    path = save(data, folder / "wide.nc")
    bands = {
        "class_path": "scorefield.climate.Bands",
        "init_args": {"count": 3, "valid": [1], "test": [2], "guard": 0},
    }
    given = {**described(path), "division": bands, "tiles": {"size": [16, 16]}}
    model = train(folder, "tiled", recipe(given))
    pred, truth = folder / "tiles.nc", folder / "tiles_truth.nc"
    command = ["downscale", str(model), "test", "--members", "2", "--reach", "50", "--conserve", "add"]
    assert main([*command, "--raw", "--out", str(pred), "--truth", str(truth), *STEPS]) == 0
    with xr.open_dataset(pred, engine="h5netcdf") as found, xr.open_dataset(truth, engine="h5netcdf") as known:
        assert found.tas.dims == ("member", "tile", "y", "x") and known.tas.dims == ("tile", "y", "x")
        last = known.isel(tile=-1)
        np.testing.assert_array_equal(last.tas, data.tas.sel(time=last.time, lat=last.lat.values, lon=last.lon.values))
        assert len(set(known.place.values)) * 24 == known.sizes["tile"]  # one place at 24 times
    scores = folder / "scores"
    command_of_scores = [
        "verify",
        str(pred),
        str(truth),
        "--blocks",
        "place",
        "--replicates",
        "5",
        "--out",
        str(scores),
    ]
    assert main(command_of_scores) == 0
    facts = json.loads((scores / "verification.json").read_text())["facts"]
    assert facts["blocks"] == 2 and facts["times"] == 48
    check_conventions(pred)
    few = folder / "few.nc"
    assert main([*command, "--most", "3", "--out", str(few), *STEPS]) == 0
    with xr.open_dataset(few, engine="h5netcdf") as some, xr.open_dataset(pred, engine="h5netcdf") as every:
        rows = np.linspace(0, every.sizes["tile"] - 1, 3).round().astype(int)
        np.testing.assert_allclose(
            some.tas, every.tas.isel(tile=rows), rtol=1e-5
        )  # a tile depends on seed and place alone
    region = coarse_file(path, folder / "region.nc", slice(1))
    part = save(xr.open_dataset(region, engine="h5netcdf").isel(lon=slice(2, 10)), folder / "part.nc")
    out = folder / "region_out.nc"
    assert main(["downscale", str(model), part, "--members", "1", "--reach", "50", "--out", str(out), *STEPS]) == 0
    with xr.open_dataset(out, engine="h5netcdf") as found:
        assert found.tas.shape == (1, 1, 32, 32)
        np.testing.assert_array_equal(found.lon, data.lon.values[8:40])


def test_other_models_predictors_are_corrected_by_their_moments(folder, fine) -> None:
    """A driving model that is 3 K warmer gives, matched, what the one trained on gives."""
    matched = {"class_path": "scorefield.data.moments.MatchMoments"}
    plain = save(dataset(40), folder / "land.nc")
    model = train(folder, "matched", recipe(described(plain), predictors=matched))
    history = coarse_file(plain, folder / "history.nc", slice(40))
    warm = coarse_file(
        plain, folder / "warm.nc", slice(40), x=lambda d: d.assign(tas=(d.tas + 3).assign_attrs(units="K"))
    )
    outs = []
    for name, given in (("a", history), ("b", warm)):
        outs.append(folder / f"matched_{name}.nc")
        command = [
            "downscale",
            str(model),
            given,
            "--match",
            given,
            "--members",
            "1",
            "--reach",
            "50",
            "--out",
            str(outs[-1]),
        ]
        assert main([*command, "--steps", "2", "--chunk", "40"]) == 0
    a, b = (xr.open_dataset(out, engine="h5netcdf").tas.values for out in outs)
    np.testing.assert_allclose(a, b, atol=2e-2)


def test_the_checkpoint_alone_is_enough(folder, run, prediction, tmp_path) -> None:
    """The training data may be gone."""
    template = scorefield.load(run).template
    assert template.dtype == torch.uint8 and 5_000 < len(template) < 100_000
