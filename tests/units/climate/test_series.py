"""Windows of several days: what is read, and members whose days are drawn jointly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from scorefield.cli import main
from scorefield.climate import Blocks, Climate, Tiles, Variables
from scorefield.foundation.errors import InputError
from weather import dataset, recipe, save, times

DIVISION = Blocks(20, 2, (1,), ())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variables of 40 days, coarse and fine; days 26 and 27 are missing in `holes`."""
    folder = tmp_path_factory.mktemp("series")
    fine = dataset(40, 8, 12, names=("tas", "pr"), calendar="standard").assign_coords(time=times(40))
    coarse = fine.coarsen(lat=4, lon=4).mean()
    parts = {"fine": fine, "coarse": coarse, "holes": coarse.isel(time=[*range(26), *range(28, 40)])}
    for name, data in parts.items():
        for variable in data.data_vars.values():
            variable.attrs["units"] = "K"
        save(data, folder / f"{name}.nc")
    return folder


def climate(files: Path, predictors: str = "coarse", **more) -> Climate:
    targets, given = (Variables(str(files / f"{name}.nc"), ["tas", "pr"]) for name in ("fine", predictors))
    return Climate(targets, more.pop("division", DIVISION), given, window=3, **more)


def test_a_window_has_the_fields_and_the_predictors_of_its_days(files: Path) -> None:
    fields = climate(files, before=1).load("train")
    fine = xr.open_dataset(files / "fine.nc")
    assert len(fields) == 20 - 2 - 1 and fields.variables == ("tas", "pr", "tas+1", "pr+1", "tas+2", "pr+2")
    batch = fields.gather(torch.tensor([4]))
    first = 1 + 4
    for step in range(3):
        for number, name in enumerate(("tas", "pr")):
            np.testing.assert_allclose(batch.x[0, 2 * step + number], fine[name][first + step], rtol=1e-6)
    names = fields.conditions
    assert names == tuple(f"{n}{s}" for s in ("-1", "", "+1", "+2") for n in ("tas", "pr"))
    assert str(fields.time(4))[:10] == str(fine.time.values[first])[:10]
    assert len(climate(files).load("valid")) == 18  # none reaches from one part into the next


def test_a_window_has_no_hole_in_it(files: Path) -> None:
    whole = climate(files, "coarse", division=Blocks(1000, 2, (1,), ())).load("train")
    with pytest.raises(InputError, match="lacks 2 times of the targets"):
        climate(files, "holes", division=Blocks(1000, 2, (1,), ())).load("train")
    fine = xr.open_dataset(files / "fine.nc").isel(time=[*range(26), *range(28, 40)])
    other = Variables(save(fine.load(), files / "short.nc"), ["tas", "pr"])
    part = Climate(other, Blocks(1000, 2, (1,), ()), Variables(str(files / "coarse.nc"), ["tas", "pr"]), window=3).load(
        "train"
    )
    assert len(whole) == 38 and len(part) == 24 + 10
    days = [int((part.time(i) - part.time(0)) / np.timedelta64(1, "D")) for i in range(len(part))]
    assert days == [*range(24), *range(28, 38)]
    with pytest.raises(InputError, match="without tiles"):
        climate(files, tiles=Tiles((4, 4)))
    with pytest.raises(InputError, match="window >= 1"):
        Climate(other, DIVISION, window=0)


def test_members_are_drawn_as_series(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {
        "targets": {"path": str(files / "fine.nc"), "names": ["tas", "pr"]},
        "predictors": {"path": str(files / "coarse.nc"), "names": ["tas", "pr"]},
        "division": {
            "class_path": "scorefield.climate.Blocks",
            "init_args": {"days": 20, "cycle": 2, "valid": [1], "test": []},
        },
        "window": 3,
    }
    noise = {
        "class_path": "scorefield.AlongTime",
        "init_args": {
            "space": {"class_path": "scorefield.White"},
            "time": {"class_path": "scorefield.Matern", "init_args": {"length": 3.0, "smoothness": 0.5}},
            "times": 3,
        },
    }
    sde = {"schedule": {"class_path": "scorefield.EDM"}, "noise": noise}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(recipe(data, sde=sde)))
    run, out = tmp_path / "run", tmp_path / "out.nc"
    assert main(["train", str(tmp_path / "run.yaml"), "--out", str(run)]) == 0
    words = [
        "downscale",
        str(run),
        str(files / "holes.nc"),
        "--members",
        "2",
        "--steps",
        "2",
        "--reach",
        ".inf",
        "--out",
    ]
    assert main([*words, str(out)]) == 0 and main([*words, str(out)]) == 0
    with xr.open_dataset(out) as found, xr.open_dataset(files / "holes.nc") as given:
        assert found.tas.dims == ("member", "time", "lat", "lon") and found.sizes["member"] == 2
        np.testing.assert_array_equal(found.time, given.time)  # all days, on both sides of the hole
        assert bool(np.isfinite(found.tas).all()) and bool(np.isfinite(found.pr).all())
        first = found.tas.values
    words[words.index("--members") + 1] = "3"
    assert main([*words, str(tmp_path / "more.nc"), "--chunk", "5"]) == 0
    with xr.open_dataset(tmp_path / "more.nc") as found:
        np.testing.assert_allclose(found.tas[:2], first, atol=0.05)
        assert float(abs(found.tas[2] - found.tas[1]).mean()) > 1e-3
    capsys.readouterr()
    assert main([*words, str(tmp_path / "no.nc"), "--persistence", "0.5"]) == 2
    assert "draws 3 times jointly, which does not go with --persistence" in capsys.readouterr().err
    data = xr.open_dataset(files / "coarse.nc").isel(time=slice(2)).load()
    words[2] = save(data, tmp_path / "two.nc")
    assert main([*words, str(tmp_path / "no.nc")]) == 2 and "has 2 times" in capsys.readouterr().err
