"""Files as they lie about in the world: each kind is read as what it is, through training to a prediction, or refused."""

from __future__ import annotations

import json
import logging
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from awkward import KINDS, Kind, plane
from often import each
from scorefield.cli import main
from scorefield.climate import Blocks, Climate, Cube, Variables
from scorefield.climate.alignment import grid_in
from scorefield.climate.opening import open_dataset
from scorefield.climate.predictors import drive
from scorefield.climate.template import Template
from scorefield.climate.verification.pair import Pair, pair_up
from scorefield.foundation.errors import InputError
from weather import recipe

WHOLE = Blocks(1000, 2, (1,), ())


def climate(found: Kind) -> Climate:
    files = {n: Variables(**v) for n, v in found.data.items() if isinstance(v, dict)}
    return Climate(**{**found.data, **files, "division": WHOLE})


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("awkward")


@cache
def files_of(name: str, folder: Path) -> Kind:
    """Written once: whoever has them open keeps them."""
    place = folder / str(list(KINDS).index(name))
    place.mkdir()
    return KINDS[name](place)


def days(times: np.ndarray) -> np.ndarray:
    """Whole days since the first of January 2000, or months where a step is one."""
    if times.dtype.kind == "M":
        return (times - np.datetime64("2000-01-01")) // np.timedelta64(1, "D")
    return np.array([(t - type(t)(2000, 1, 1, calendar=t.calendar)).days for t in times])


@pytest.mark.parametrize("name", KINDS)
def test_what_is_read_is_what_the_file_holds(name: str, shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = files_of(name, shared)
    with caplog.at_level(logging.INFO, "scorefield"):
        if found.refused:
            with pytest.raises(InputError, match=found.refused) as error:
                climate(found).load("train")
            assert len(str(error.value)) <= 300
            return
        source = climate(found)
        fields = source.load("train")
    assert found.says in caplog.text
    numbers = np.arange(12) if "months" in name else days(np.asarray([fields.time(i) for i in range(len(fields))]))
    numbers = numbers * found.more.get("days", 1)
    assert len(fields) >= 12
    batch, points = fields.gather(torch.arange(len(fields))), fields.domain.points()
    tolerance = {"rtol": 1e-5, "atol": found.more.get("atol", 2e-4)}
    expected = plane(numbers, *points)
    np.testing.assert_allclose(batch.x[:, 0], expected + found.shift, **tolerance)
    assert batch.mask is None or bool(batch.mask.all())
    assert points[0].min() > 40 and points[0].max() < 60 and len(fields.variables) == 1
    given = batch.cond["field"]
    assert given.shape[1] == 1
    if "predictors" in found.data:
        np.testing.assert_allclose(given[:, 0], expected, **tolerance)
    template = Template.read(fields.template)
    assert template.coordinates(slice(None), slice(None)).sizes[template.facts["y"]] == fields.domain.shape[0]
    # The file that it was trained on, and a driver of another make, drive the model alike.
    driving = drive(source, template, found.driving or found.data.get("predictors", found.data["targets"])["path"])
    if "predictors" not in found.data:
        np.testing.assert_allclose(driving.field(2), given[2], rtol=1e-6)
        return
    first = int(days(np.asarray([driving.predictors.cube.times[driving.numbers[0]]]))[0])
    np.testing.assert_allclose(driving.field(0)[0], plane([first], *points)[0], **tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_road_from_a_look_to_a_prediction(name: str, shared: Path, tmp_path: Path) -> None:
    found = files_of(name, shared)
    division = {
        "class_path": "scorefield.climate.Blocks",
        "init_args": {"days": 4 if found.more.get("days", 1) else 1, "cycle": 3, "valid": [2], "test": []},
    }
    content = recipe(found.data | {"division": division})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content["data"]))
    look = ["check-data", "--data", str(tmp_path / "data.yaml"), "--preview", str(tmp_path / "p.png")]
    if found.refused:
        assert main(look) == 2 and main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]) == 2
        return
    assert main(look) == 0 and main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]) == 0
    given = found.driving or str(found.data.get("predictors", found.data["targets"])["path"])
    words = [
        "downscale",
        str(tmp_path / "run"),
        given,
        "--out",
        str(tmp_path / "out.nc"),
        "--members",
        "2",
        "--reach",
        "1e9",
    ]
    assert main([*words, "--steps", "2"]) == 0
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as out:
        variable = next(v for v in out.data_vars.values() if "member" in v.dims)
        assert "member" in variable.dims and np.isfinite(variable).all() and variable.sizes["time"] >= 8
    if name in UNSELECTED or name in (
        "six_hourly_predictors",
        "more_times_than_needed",
    ):  # more of them than the truth has
        return
    truth = found.data["targets"]["path"]
    assert (
        main(["verify", str(tmp_path / "out.nc"), truth, "--replicates", "0", "--out", str(tmp_path / "scores")]) == 0
    )
    (record,) = json.loads((tmp_path / "scores" / "verification.json").read_text())["variables"].values()
    pair = pair_up(open_dataset(tmp_path / "out.nc"), open_dataset(truth))
    error = pair.pred[variable.name].values.mean(0) - pair.truth[variable.name].values  # right, by the test below
    expected = float(np.average(error.mean(0), weights=pair.area))
    assert record["all"]["bias"]["value"] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def in_place(found: Kind, name: str, pair: Pair) -> np.ndarray:
    """What the formula gives at the places and times of a pair, (time, y, x)."""
    numbers = np.arange(12) if "months" in name else days(pair.truth["time"].values) * found.more.get("days", 1)
    return plane(numbers, *grid_in(pair.truth).points())


UNSELECTED = {  # of several values of a dimension `Climate` is told which to take, and `verify` is given a file of one
    "roms": "needed are two of a grid",
    "era5_one_version_by_name": "two values at",
}


@pytest.mark.parametrize("name", each(KINDS, 4))
def test_verify_compares_what_the_file_holds(name: str, shared: Path) -> None:
    """The only variable that is a field, in the file's own units, at its places and times; or a line that says why not."""
    found = files_of(name, shared)
    wanted = found.data["targets"]
    own = found.refused if "predictors" not in found.data else ""  # what is wrong with predictors, verify does not see
    try:
        pair = pair_up(open_dataset(wanted["path"]), open_dataset(wanted["path"]))
        (variable,) = pair.truth.data_vars
        theirs = pair.at(str(variable))[1]
    except InputError as error:
        assert own or re.search(UNSELECTED.get(name, "^$"), str(error)), str(error)
        assert len(str(error)) < 300
        return
    assert (not own or name == "times_that_fall") and variable == wanted["names"][0]
    expected = in_place(found, name, pair) + found.shift
    factor, offset = {"celsius °C": (1, 273.15), "rain kg m-2 s-1": (86400, 0), "rain mm hr-1": (24, 0)}.get(
        name, (1, 0)
    )
    np.testing.assert_allclose(theirs * factor + offset, expected, rtol=1e-5, atol=found.more.get("atol", 1e-3))


def test_a_cdf5_file_without_its_reader_is_one_line(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shared / "five.nc").write_bytes(b"CDF\x05" + bytes(60))
    monkeypatch.setitem(sys.modules, "netCDF4", None)
    with pytest.raises(InputError, match=r"five.nc is a CDF-5 file: pip install 'scorefield\[cdf5\]'"):
        Cube(Variables(str(shared / "five.nc"), ["tas"]))
