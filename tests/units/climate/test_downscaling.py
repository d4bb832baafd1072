"""Downscaling from the command line: train on files, predict from files, and what others will open is what it should be."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import launched
import scorefield
from often import seldom
from scorefield.cli import main
from scorefield.climate import Conservative, Cube, Variables, downscaling
from scorefield.climate.downscaling import Downscale
from scorefield.climate.ensembles import Ensemble
from scorefield.climate.source import grid_of_cube
from scorefield.run import runner
from scorefield.run.runner import Pieces, parts_of
from weather import dataset, described, recipe, save

STEPS = ["--steps", "3", "--chunk", "4"]


def call(run: Path, given: str | Path, out: Path, *more: str, members: int = 3, reach: str = "50") -> list[str]:
    """A command line; two steps of training leave the range of the data, which is no matter here."""
    words = ["downscale", str(run), str(given), "--out", str(out), "--members", str(members), "--reach", reach]
    return [*words, *STEPS, *more]


def opened(path: Path) -> xr.Dataset:
    if path.suffix == ".nc":
        return xr.open_dataset(path, engine="h5netcdf")
    return xr.open_dataset(path, engine="zarr", consolidated=False)


def left(out: Path) -> list[str]:
    """What lies beside a result that begins with its name, hidden or not."""
    return [path.name for path in out.parent.iterdir() if out.name in path.name]


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
    assert main(call(run, given, out, "--seed", "5")) == 0
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
    assert main(call(run, given, out, "--seed", "5", members=4)) == 0
    with xr.open_dataset(out, engine="h5netcdf") as later, xr.open_dataset(prediction, engine="h5netcdf") as first:
        np.testing.assert_allclose(later.tas.values[:3, :2], first.tas.values[:, 2:], rtol=1e-5)
        assert not np.allclose(later.tas.values[0, 0], later.tas.values[1, 0], equal_nan=True)


def test_zarr_raw_values_and_conservation(folder, fine, run) -> None:
    given, out = coarse_file(fine, folder / "c.nc", slice(2)), folder / "p.zarr"
    assert main(call(run, given, out, "--raw", "--conserve", "add", members=2)) == 0
    found = opened(out)
    assert set(found.data_vars) >= {"tas", "raw_tas"} and found.raw_tas.attrs["units"] == "1"
    cube = Cube(Variables(fine, ["tas"]))
    grid = grid_of_cube(cube)
    means = Conservative().between(grid, grid.coarsened(4))(found.tas.values)
    expected = xr.open_dataset(given, engine="h5netcdf").tas.values
    whole = np.isfinite(found.tas.values[0, 0]).reshape(4, 4, 6, 4).all((1, 3))
    np.testing.assert_allclose(means[..., whole], np.broadcast_to(expected, means.shape)[..., whole], atol=2e-3)


def start(arguments: list[str], before: Callable[[], object] = lambda: None) -> BaseProcess:
    """The command line in a process of its own."""

    def work() -> None:
        before()
        sys.exit(main(arguments))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


@pytest.mark.parametrize("each", [launched.ranks(2), seldom(launched.array(3))], ids=["ranks", "array"])
def test_processes_with_numbers_write_what_one_does(each, run, folder, prediction, tmp_path) -> None:
    out = tmp_path / "out.nc"
    arguments = call(run, folder / "coarse.nc", out, "--seed", "5")
    assert launched.together(arguments, each, tmp_path / "said") == [0, 1, 2]
    assert out.read_bytes() == prediction.read_bytes() and left(out) == ["out.nc"]


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_a_piece() -> None:
    """In the middle of writing the second."""
    save, calls = np.savez, []

    def half(file: BinaryIO, **arrays: np.ndarray) -> None:
        calls.append(1)
        if len(calls) == 2:
            file.write(b"x" * 100)
            file.flush()
            die()
        save(file, **arrays)

    np.savez = half


def die_before_the_name() -> None:
    downscaling.validate = die  # the file is written, under another name


def die_after_the_name() -> None:
    runner.shutil = SimpleNamespace(rmtree=die)  # the parts are still there


@pytest.mark.parametrize(
    ("suffix", "place"),
    [
        (".nc", die_in_a_piece),
        seldom(".nc", die_before_the_name),
        seldom(".nc", die_after_the_name),
        seldom(".zarr", die_before_the_name),
        (".zarr", die_after_the_name),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_killed_at_any_place_and_called_again_the_result_is_the_same(
    folder: Path, run: Path, prediction: Path, suffix: str, place: Callable[[], object]
) -> None:
    """Parts and file are whole or not there, what was drawn is not drawn again, and nothing else stays."""
    out = folder / f"{place.__name__}{suffix}"
    arguments = call(run, folder / "coarse.nc", out, "--seed", "5")
    process = start(arguments, place)
    process.join()
    assert process.exitcode == -signal.SIGKILL and out.exists() == (place is die_after_the_name)
    assert len(list(parts_of(out).glob("piece-*"))) == (1 if place is die_in_a_piece else 3)
    assert main(arguments) == 0
    assert left(out) == [out.name]
    with opened(out) as found, opened(prediction) as whole:
        np.testing.assert_array_equal(found.tas.values, whole.tas.values)
    if suffix == ".nc":
        assert out.read_bytes() == prediction.read_bytes()


@pytest.mark.parametrize("suffix", [".nc", seldom(".zarr")])
@pytest.mark.usefixtures("unchecked")
def test_equal_calls_at_once_share_the_work_and_all_succeed(
    folder: Path, run: Path, prediction: Path, suffix: str
) -> None:
    out = folder / f"shared{suffix}"
    three = [start(call(run, folder / "coarse.nc", out, "--seed", "5")) for _ in range(3)]
    for process in three:
        process.join()
    assert [process.exitcode for process in three] == [0, 0, 0] and left(out) == [out.name]
    with opened(out) as found, opened(prediction) as whole:
        np.testing.assert_array_equal(found.tas.values, whole.tas.values)
        np.testing.assert_array_equal(found.time.values, whole.time.values)


def test_a_job_is_continued_from_the_same_fields_wherever_they_lie(folder, fine, run, prediction, monkeypatch, capsys):
    """Interrupted; then with other fields at the same path; then with the same ones at another."""
    draw, given, out = Ensemble.draw, folder / "moved.nc", folder / "moved_out.nc"
    coarse_file(fine, given)
    monkeypatch.setattr(Ensemble, "draw", lambda self, start: draw(self, start) if start == 0 else _interrupt())
    assert main(call(run, given, out, "--seed", "5")) == 130
    monkeypatch.setattr(Ensemble, "draw", draw)
    given.unlink()
    coarse_file(fine, given, x=lambda d: d.assign(tas=(d.tas + 1).assign_attrs(units="K")))
    assert main(call(run, given, out, "--seed", "5")) == 2
    assert "parts of another job, with predictors = " in capsys.readouterr().err
    assert main(call(run, coarse_file(fine, folder / "elsewhere.nc"), out, "--seed", "5")) == 0
    assert out.read_bytes() == prediction.read_bytes()


def test_python_and_the_command_line_do_the_same(folder, run, prediction) -> None:
    verb = Downscale(
        run=run,
        predictors=str(folder / "coarse.nc"),
        members=3,
        seed=5,
        reach=50.0,
        steps=3,
        chunk=4,
        out=folder / "py.nc",
    )
    assert verb.run().read_bytes() == prediction.read_bytes()


def test_each_member_of_a_driver_has_draws_of_its_own(folder, fine, run, prediction) -> None:
    """The first member's draws are those of a file of it alone; the second's are beside them, for its own predictors."""
    members = {"x": lambda d: xr.concat([d, (d + 9).assign(tas=(d.tas + 9).assign_attrs(units="K"))], "number")}
    given, out = coarse_file(fine, folder / "members.nc", **members), folder / "members_out.nc"
    assert main(call(run, given, out, "--seed", "5")) == 0
    with xr.open_dataset(out, engine="h5netcdf") as both, xr.open_dataset(prediction, engine="h5netcdf") as one:
        assert both.driving_member.values.tolist() == [0, 0, 0, 1, 1, 1] and both.sizes["time"] == one.sizes["time"]
        np.testing.assert_allclose(both.tas[:3], one.tas, rtol=1e-5)
        assert not np.allclose(both.tas[3:], one.tas, rtol=1e-3)
    check_conventions(out)


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_bad_predictors_are_named_with_what_is_expected(folder, fine, run, prediction, capsys) -> None:
    cases = {
        "variable": ({"x": lambda d: d.rename(tas="temp")}, "no variable tas: it has temp"),
        "units": ({"units": "mm"}, "tas is in mm, and K is expected"),
        "grid": ({"x": lambda d: d.isel(lon=slice(5))}, "another grid than the predictors of training: along x 5 from"),
        "nan": ({"x": lambda d: d.where(d.lat > 43)}, "tas has 96 unknown values around 2000-01-01"),
        "dates": ({"x": lambda d: d.isel(time=[0, 2, 1])}, "sort the times"),
        "calendar": ({"x": lambda d: d.assign_coords(time=np.arange("2000-01-01", "2000-01-05", dtype="M8[D]").astype("M8[ns]"))},
                     "has the calendar standard, and the model was trained on 360_day"),
    }  # fmt: skip
    for name, (changes, message) in cases.items():
        given = coarse_file(fine, folder / f"bad_{name}.nc", **changes)
        out = folder / f"bad_{name}_out.nc"
        assert main(call(run, given, out, members=1)) == 2, name
        said = capsys.readouterr().err
        assert message in said, said
        assert not left(out)
    assert main(call(run, folder / "coarse.nc", folder / "x.txt")) == 2
    assert "neither .nc nor .zarr" in capsys.readouterr().err


def test_a_prediction_out_of_range_never_has_its_name_and_is_not_drawn_again(
    folder, run, prediction, capsys, monkeypatch
) -> None:
    """An untrained network leaves the range of the training data."""
    out = folder / "wild.nc"
    arguments = call(run, folder / "coarse.nc", out, "--seed", "5", reach="0")
    assert main([*arguments, "--beyond", "refuse"]) == 2
    assert "in training from" in capsys.readouterr().err
    assert not out.exists() and len(list(parts_of(out).glob("piece-*"))) == 3
    assert not list(parts_of(out).glob("*.partial"))
    monkeypatch.setattr(Ensemble, "draw", lambda self, start: _interrupt())
    assert main([*arguments, "--reach", "50"]) == 0
    assert out.read_bytes() == prediction.read_bytes() and left(out) == [out.name]
    assert main([*arguments, "--reach", "50"]) == 0  # it is there
    assert main([*arguments, "--seed", "7"]) == 2
    assert "is the result of another job" in capsys.readouterr().err


def test_values_beyond_are_cut_off_and_told_or_kept(folder, run, prediction, capsys) -> None:
    kept, cut = (folder / f"{name}.nc" for name in ("kept", "cut"))
    arguments = [call(run, folder / "coarse.nc", out, "--seed", "5", reach="0") for out in (kept, cut)]
    assert main([*arguments[0], "--beyond", "keep"]) == main(arguments[1]) == 0
    told = capsys.readouterr().err
    assert "they are kept" in told and "they are cut off there" in told
    drawn, clipped = (xr.open_dataset(out) for out in (kept, cut))
    xr.testing.assert_equal(drawn, xr.open_dataset(prediction))
    ((low, high),) = downscaling.Template.read(scorefield.load(run).template.cpu()).facts["ranges"]
    expected = drawn["tas"].values.clip(low, high)
    np.testing.assert_allclose(clipped["tas"], expected, rtol=1e-6)
    assert (expected != drawn["tas"].values).any()
    assert main(arguments[1]) == 0 and main([*arguments[1], "--beyond", "keep"]) == 2  # another file


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--most", "0"], "--most is 0: give a whole number of at least 1"),
        (["--most", "3"], "--most goes with train, valid or test"),
        (["--truth", "truth.nc"], "--truth goes with train, valid or test"),
        (["--margin", "-1"], "--margin is -1"),
        (["--margin", "2"], "--margin is for tiles, and the domain is drawn whole"),
        (["--margin", "2", "--tile", "0"], "--margin is for tiles"),
        (["--margin", "4", "--tile", "8"], "leave nothing"),
        (["--tile", "-4"], "--tile is -4"),
        (["--members", "0"], "--members is 0"),
        (["--chunk", "0"], "--chunk is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--reach", "-1"], "--reach is -1"),
        (["--reach", ".nan"], "--reach is nan"),
        (["--device", "nope"], "The device 'nope' cannot be used"),
        (["--match", "{folder}/coarse.nc"], "moments of every point are needed"),
        (["--steps", "0"], "--steps is 0"),
    ],
)
def test_what_has_no_effect_or_sense_is_refused_and_leaves_nothing(
    folder: Path, run: Path, prediction: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    before = sorted(folder.rglob("*"))
    out = folder / "refused" / "out.nc"
    capsys.readouterr()
    assert main([*call(run, folder / "coarse.nc", out), *(word.format(folder=folder) for word in options)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and words in said[0] and len(said[0]) <= 300, said
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("suffix", [".nc", seldom(".zarr")])
def test_a_full_disk_is_one_line_and_the_job_goes_on_afterwards(
    folder: Path,
    run: Path,
    prediction: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    suffix: str,
) -> None:
    resource = pytest.importorskip("resource")
    out = folder / f"full{suffix}"
    arguments = call(run, folder / "coarse.nc", out, "--seed", "5")
    write, limits = Pieces.write, resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(self: Pieces, number: int, piece: dict) -> None:
        write(self, number, piece)
        if number == 2:  # all is drawn: from here on no file is longer than this
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))

    monkeypatch.setattr(Pieces, "write", full)
    try:
        assert main(arguments) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert len(said) == 1 and "free some space" in said[0] and not out.exists(), said
    assert main(arguments) == 0 and left(out) == [out.name]


def test_a_folder_of_predictors_is_mirrored(folder, fine, run, capsys) -> None:
    """Only what is missing is drawn by a second call, and files of another job are left alone."""
    for name, times in (("test/a/x.nc", slice(1)), ("test/b/y.nc", slice(2))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse_file(fine, folder / name, times)
    command = call(run, folder / "test", folder / "o", members=2)
    assert main(command) == 0
    made = sorted((folder / "o").rglob("*"))
    assert [str(path.relative_to(folder / "o")) for path in made] == ["a", "a/x.nc", "b", "b/y.nc"]
    with opened(made[3]) as found:
        assert found.tas.shape == (2, 2, 16, 24)
    drawn, kept = made[3].read_bytes(), made[1].stat().st_mtime_ns
    made[3].unlink()
    assert main(command) == 0
    assert made[1].stat().st_mtime_ns == kept and made[3].read_bytes() == drawn
    assert main([*command, "--seed", "7"]) == 2
    assert "a/x.nc exists" in capsys.readouterr().err
    (folder / "test/a/x.nc").unlink()  # another field at the same path is another job
    coarse_file(fine, folder / "test/a/x.nc", slice(1), x=lambda d: d.assign(tas=(d.tas + 1).assign_attrs(units="K")))
    assert main(command) == 2
    assert "a/x.nc exists" in capsys.readouterr().err
    (folder / "empty").mkdir()
    assert main(call(run, folder / "empty", folder / "o3")) == 2
    assert "a folder without NetCDF files" in capsys.readouterr().err


def test_the_files_of_a_folder_that_fail_are_named_and_the_others_go_on(folder, fine, run, capsys) -> None:
    """Each is a line, and is done by the next call once it is put right."""
    given, out = folder / "mixed", folder / "mixed-out"
    given.mkdir()
    coarse_file(fine, given / "1.nc", slice(2), units="mm")
    coarse_file(fine, given / "2.nc", slice(2))
    coarse_file(fine, given / "3.nc", slice(2), x=lambda d: d.where(d.lat > 43))
    (given / "4.nc").write_text("no NetCDF")
    capsys.readouterr()
    assert main(call(run, given, out, members=1)) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("scorefield: ")]
    for name, cause in (("1.nc", "is in mm"), ("3.nc", "unknown values"), ("4.nc", "4.nc")):
        assert sum(str(given / name) in line and "warning" in line and cause in line for line in said) == 1, said
    assert said[-1].startswith("scorefield: error: 3 of 4 files") and "1.nc, 3.nc, 4.nc" in said[-1]
    assert [path.name for path in out.iterdir()] == ["2.nc"]
    kept = (out / "2.nc").stat().st_mtime_ns
    (given / "4.nc").unlink()
    for name in ("1.nc", "3.nc"):
        (given / name).unlink()
        coarse_file(fine, given / name, slice(2))
    assert main(call(run, given, out, members=1)) == 0
    assert sorted(path.name for path in out.iterdir()) == ["1.nc", "2.nc", "3.nc"]
    assert (out / "2.nc").stat().st_mtime_ns == kept


def test_a_model_that_knows_places_predicts_no_other_region(folder, fine, run, capsys) -> None:
    given = coarse_file(fine, folder / "there.nc", change=lambda found: found.assign_coords(lon=found.lon + 10))
    for words, said in ((["--elsewhere"], "this one has whole fields"), ([], "Regrid it, or cut it to that.")):
        assert main(call(run, given, folder / "there_out.nc", *words)) == 2
        assert said in capsys.readouterr().err
    assert main(call(run, "valid", folder / "there_out.nc", "--elsewhere")) == 2
    assert "of the run's own region" in capsys.readouterr().err


@pytest.mark.slow
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
    options = ["--conserve", "add"]
    assert main(call(model, "test", pred, "--raw", *options, "--truth", str(truth), members=2)) == 0
    kept = truth.stat().st_mtime_ns
    assert main(call(model, "test", pred, "--raw", *options, "--truth", str(truth), members=2)) == 0
    assert truth.stat().st_mtime_ns == kept and left(pred) == [pred.name]
    with xr.open_dataset(pred, engine="h5netcdf") as found, xr.open_dataset(truth, engine="h5netcdf") as known:
        assert found.tas.dims == ("member", "tile", "y", "x") and known.tas.dims == ("tile", "y", "x")
        last = known.isel(tile=-1)
        np.testing.assert_array_equal(last.tas, data.tas.sel(time=last.time, lat=last.lat.values, lon=last.lon.values))
        assert len(set(known.place.values)) * 24 == known.sizes["tile"]  # one place at 24 times
    scores = folder / "scores"
    assert main(["verify", str(pred), str(truth), "--blocks", "place", "--replicates", "5", "--out", str(scores)]) == 0
    facts = json.loads((scores / "verification.json").read_text())["facts"]
    assert facts["blocks"] == 2 and facts["times"] == 48
    check_conventions(pred)
    few = folder / "few.nc"
    assert main(call(model, "test", few, *options, "--most", "3", members=2)) == 0
    with xr.open_dataset(few, engine="h5netcdf") as some, xr.open_dataset(pred, engine="h5netcdf") as every:
        rows = np.linspace(0, every.sizes["tile"] - 1, 3).round().astype(int)
        np.testing.assert_allclose(
            some.tas, every.tas.isel(tile=rows), rtol=1e-5
        )  # a tile depends on seed and place alone
    region = coarse_file(path, folder / "region.nc", slice(1))
    part = save(xr.open_dataset(region, engine="h5netcdf").isel(lon=slice(2, 10)), folder / "part.nc")
    out = folder / "region_out.nc"
    assert main(call(model, part, out, members=1)) == 0
    with xr.open_dataset(out, engine="h5netcdf") as found:
        assert found.tas.shape == (1, 1, 32, 32)
        np.testing.assert_array_equal(found.lon, data.lon.values[8:40])
    with xr.open_dataset(part, engine="h5netcdf") as near:
        far = near.assign_coords(lon=near.lon + 31.7).isel(lat=slice(None, None, -1))
        wide = near.assign_coords(lon=2 * near.lon)
        bent = near.assign_coords(lon=near.lon + 0.3 * np.diff(near.lon)[0] * np.sin(np.arange(8)))
    moved, other = save(far, folder / "moved.nc"), folder / "moved_out.nc"
    capsys.readouterr()
    assert main(call(model, moved, other, members=1)) == 2
    assert "--elsewhere" in capsys.readouterr().err
    assert main(call(model, moved, other, "--elsewhere", members=1)) == 0
    with xr.open_dataset(out, engine="h5netcdf") as here, xr.open_dataset(other, engine="h5netcdf") as there:
        np.testing.assert_allclose(there.tas, here.tas, rtol=1e-5)  # as training's, whatever the direction of its rows
        np.testing.assert_allclose(there.lon, here.lon.values + 31.7, atol=1e-6)
        np.testing.assert_allclose(there.lat, here.lat, atol=1e-6)
        assert "institution" not in there.attrs and there.attrs["source"].startswith("a model of another region")
    check_conventions(other)
    assert (
        main(call(model, save(wide, folder / "wide_steps.nc"), folder / "wide_out.nc", "--elsewhere", members=1)) == 2
    )
    assert "apart along x" in capsys.readouterr().err
    assert main(call(model, save(bent, folder / "bent.nc"), folder / "bent_out.nc", "--elsewhere", members=1)) == 2
    assert "apart along x" in capsys.readouterr().err


@pytest.mark.usefixtures("unchecked")
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
        words = ["--match", given, "--steps", "2", "--chunk", "40"]
        assert main([*call(model, given, outs[-1], members=1), *words]) == 0
    a, b = (xr.open_dataset(out, engine="h5netcdf").tas.values for out in outs)
    np.testing.assert_allclose(a, b, atol=2e-2)


def test_the_checkpoint_alone_is_enough(folder, run, prediction, tmp_path) -> None:
    """The training data may be gone."""
    template = scorefield.load(run).template
    assert template.dtype == torch.uint8 and 5_000 < len(template) < 100_000


def test_a_single_draw_has_no_members_and_a_driver_may_have_another_calendar(folder, fine, run, prediction) -> None:
    standard = np.arange("2000-01-01", "2000-01-05", dtype="M8[D]").astype("M8[ns]")
    given = coarse_file(fine, folder / "standard.nc", x=lambda d: d.assign_coords(time=standard))
    assert main(call(run, given, folder / "one.nc", "--single", "--any-calendar", "--seed", "5")) == 0
    with opened(folder / "one.nc") as found, opened(prediction) as drawn:
        assert found.tas.dims == ("time", "lat", "lon") and found.time.dt.calendar == "proleptic_gregorian"
        assert found.tas.shape == drawn.tas.shape[1:] and np.isfinite(found.tas.values[:, 4:]).all()
