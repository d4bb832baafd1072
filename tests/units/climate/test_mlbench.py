"""CORDEX ML-Bench by its own names: what its folders should hold, the road through them, and what a submission must not be."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

import mlbench
from scorefield.cli import main
from scorefield.climate.mlbench.job import MLBenchValidate, recipe_for
from scorefield.climate.mlbench.layout import domains_in
from scorefield.climate.mlbench.verdicts import check_prediction
from scorefield.foundation.errors import InputError
from scorefield.run.configuration import fold_bases, read_recipe
from weather import NET

NAME = "Predictions_pr_tasmax_ACCESS-CM2_1981-2000.nc"
PLACE = Path("NZ_Domain", "ESD_pseudo_reality", "historical", "perfect", NAME)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mlbench.make(tmp_path_factory.mktemp("bench"), n=2, size=6, coarse=4, periods=("historical",))


@pytest.fixture(scope="module")
def submission(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a program that follows the benchmark's page writes it: the target's fields over and over."""
    folder = tmp_path_factory.mktemp("made") / "own-model-v1"
    (domain,) = domains_in(root)
    fine = xr.open_dataset(domain.training("ESD_pseudo_reality").target).isel(time=[0, 1, 2, 3])
    for experiment in ("ESD_pseudo_reality", "Emulator_hist_future"):
        for test in domain.tests():
            data = fine.assign_coords(time=xr.open_dataset(test.path).time).expand_dims(member=10)
            mlbench.save(data, folder / test.prediction("NZ", experiment))
    return folder


def test_the_files_of_the_benchmark_are_found_by_its_names(root: Path, tmp_path: Path) -> None:
    (domain,) = domains_in(root)
    assert domain == domains_in(root / "NZ")[0] == domains_in(domain.folder)[0]
    files = domain.training("Emulator_hist_future")
    assert files.target.name == "pr_tasmax_ACCESS-CM2_1961-1980_2080-2099.nc" and files.static.name == "static.nc"
    assert files.predictors.name == "ACCESS-CM2_1961-1980_2080-2099.nc"
    assert len(domain.tests()) == 4 and domain.tests()[0].prediction("NZ", "ESD_pseudo_reality") == PLACE
    recipe = fold_bases(recipe_for(domain, "ESD_pseudo_reality", "cordex-mlbench-edm", orography=False), "a recipe")
    data = recipe["data"]["init_args"]
    assert data["targets"]["names"] == ["pr", "tasmax"] and len(data["predictors"]["names"]) == 15
    assert data["static"] is None and data["division"]["init_args"]["valid"] == [1980]
    with pytest.raises(InputError, match=r"has no SA_domain with train and test: it has NZ"):
        domains_in(root, ("SA",))
    with pytest.raises(InputError, match="no folder ALPS_domain, NZ_domain or SA_domain"):
        domains_in(tmp_path)


def test_recipes_are_written_where_all_files_are_accepted(root: Path, tmp_path: Path, capsys) -> None:
    words = ["mlbench", "prepare", str(root), "--out", str(tmp_path / "recipes"), "--orography"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.count("accept ") == 10 and out.endswith("10 of 10 files are accepted\n")
    assert sorted(p.name for p in (tmp_path / "recipes").iterdir()) == [
        "NZ-ESD_pseudo_reality.yaml", "NZ-Emulator_hist_future.yaml",
    ]  # fmt: skip
    found = read_recipe(tmp_path / "recipes" / "NZ-Emulator_hist_future.yaml")["data"]["init_args"]
    assert found["static"]["names"] == ["orog"] and found["division"]["init_args"]["valid"] == [1980, 2099]


def test_what_is_wrong_with_files_is_said_in_one_line_each(root: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "bench"
    shutil.copytree(root, other)
    folder = other / "NZ" / "NZ_domain"
    test = folder / "test" / "historical" / "predictors" / "imperfect"
    one, two = sorted(test.glob("*.nc"))
    data = xr.open_dataset(one).load()
    mlbench.save(data.drop_vars("q_850"), one)
    mlbench.save(data.assign_coords(lat=data.lat + 1), two)
    target = next((folder / "train" / "ESD_pseudo_reality" / "target").glob("*.nc"))
    fine = xr.open_dataset(target).load()
    mlbench.save(fine.assign_coords(time=fine.time + np.timedelta64(400, "D")), target)
    (folder / "train" / "Emulator_hist_future" / "predictors" / "static.nc").unlink()
    assert main(["mlbench", "prepare", str(other), "--out", str(tmp_path / "r"), "--orography"]) == 2
    said = capsys.readouterr()
    lines = [line for line in said.out.splitlines() if line.startswith("refuse ")]
    assert len(lines) == 4 and "error: 4 of 10 files are refused" in said.err and not (tmp_path / "r").exists()
    assert "4 of its 4 days are not among those of ACCESS-CM2_1961-1980.nc" in lines[0]
    assert "static.nc: it is not there" in lines[1] and "no variable q_850" in lines[2]
    assert "another grid than the predictors of training: along y 4 from -39 to -33, not 4 from -40 to -34" in lines[3]
    assert main(["mlbench", "prepare", str(other), "--orography", "--experiment", "Emulator_hist_future"]) == 2
    said = capsys.readouterr().out
    assert "3 of 7 files" not in said and "ESD_pseudo_reality" not in said and "4 of 7 files are accepted" in said


def test_a_submission_is_accepted_and_packed(root: Path, submission: Path, tmp_path: Path, capsys) -> None:
    words = ["mlbench", "validate", str(submission), str(root), "--pack", str(tmp_path / "own.zip")]
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("8 of 8 files are accepted\n")
    with zipfile.ZipFile(tmp_path / "own.zip") as archive:
        assert len(archive.namelist()) == 8 and f"own-model-v1/{PLACE}" in archive.namelist()


WRONG = {
    "it has no variable tasmax but pr": lambda d: d.drop_vars("tasmax"),
    "pr has the dimensions realization, time, lat, lon, not member, time, lat, lon": lambda d: d.rename(
        member="realization"
    ),
    "pr: member has 9, not 10": lambda d: d.isel(member=slice(9)),
    "pr: time has 3, not 4": lambda d: d.isel(time=slice(3)),
    "pr holds int16": lambda d: d.assign(pr=d.pr.astype("i2")),
    "tasmax is in degC, and the target in K": lambda d: d.assign(tasmax=(d.tasmax - 273.15).assign_attrs(units="degC")),
    "lat is -33.9": lambda d: d.assign_coords(lat=d.lat + 0.1),
    "time 0 is 1981-03-02 12:00, and the predictors' is 1981-03-01 12:00": lambda d: d.assign_coords(
        time=d.time + np.timedelta64(1, "D")
    ),
    "its calendar is noleap, and the predictors' is standard": lambda d: d.convert_calendar("noleap", use_cftime=True),
    "tasmax has 10 values that are no numbers": lambda d: d.assign(
        tasmax=d.tasmax.where(d.tasmax != d.tasmax[0, 1, 2, 3])
    ),
    "pr goes from -0.5": lambda d: d.assign(pr=d.pr - 0.5),
    "the dimensions time, member, lon, lat": lambda d: d.transpose("time", "member", "lon", "lat"),
}


def test_what_a_submission_must_not_be(root: Path, submission: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(submission, folder)
    data = xr.open_dataset(folder / PLACE).load()
    (domain,) = domains_in(root)
    test, fine = domain.tests()[0], xr.open_dataset(domain.training("ESD_pseudo_reality").target)
    for told, change in WRONG.items():
        mlbench.save(change(data), folder / PLACE)
        with pytest.raises(InputError) as error:
            check_prediction(folder / PLACE, test, fine, 10)
        assert told in str(error.value)
    mlbench.save(data.isel(member=0, drop=True), folder / PLACE)
    check_prediction(folder / PLACE, test, fine, 0)
    (folder / PLACE).write_text("pr,tasmax")
    (folder / "NZ_Domain" / "notes.txt").write_text("x")
    (folder / PLACE).with_name("Predictions_pr_tasmax_EC-Earth3_1981-2000.nc").unlink()
    problems = [
        one.problem
        for one in MLBenchValidate(submission=folder, root=root, experiment=("ESD_pseudo_reality",)).run()
        if one.problem
    ]
    assert ["no NetCDF file" in problems[0], "not there" in problems[1], "no such file" in problems[2]] == [True] * 3


@pytest.mark.slow
def test_the_whole_road(tmp_path: Path, capsys) -> None:
    """From the archives to a submission that is accepted, on a projection, and with a calendar that training never saw."""
    root = mlbench.make(tmp_path / "bench", ("ALPS", "SA"), n=5, size=8, coarse=16, periods=("end_century",))
    small = {**NET, "channels": 8}
    changes = [f"--model.net.{name}={value}" for name, value in small.items()]
    changes += ["--train.steps=2", "--train.batch_size=4", "--train.accelerator=cpu", "--train.validate_on=2"]
    runs, out = tmp_path / "runs", tmp_path / "own-model-v1"
    train = ["mlbench", "train", str(root), "--out", str(runs), "--orography", *changes]
    assert main(train) == 0
    assert sorted(str(p.relative_to(runs)) for p in runs.glob("*/*")) == [
        f"{d}/{e}" for d in ("ALPS", "SA") for e in ("ESD_pseudo_reality", "Emulator_hist_future")
    ]
    assert main(train) == 0  # nothing is left to do
    predict = ["mlbench", "predict", str(runs), str(root), "--out", str(out), "--steps", "2", "--reach", "0"]
    assert main(predict) == 0 and main(predict) == 0
    validate = ["mlbench", "validate", str(out), str(root)]
    code = main(validate)
    said = capsys.readouterr()
    assert code == 0, said.out
    assert said.out.endswith("16 of 16 files are accepted\n")
    place = out / "SA_Domain/Emulator_hist_future/end_century/imperfect/Predictions_pr_tasmax_NorESM2-MM_2080-2099.nc"
    with xr.open_dataset(place) as data:
        assert data.sizes == {"member": 10, "time": 10, "lat": 8, "lon": 8} and data.time.dt.calendar == "noleap"
        assert data.pr.attrs["units"] == "mm/day" and data.tasmax.dtype == np.float32
    stored = yaml.safe_load((runs / "SA" / "ESD_pseudo_reality" / "config.yaml").read_text())["data"]["init_args"]
    assert stored["static"] is not None
