"""Every recipe for gridded data learns from files of its kind and predicts from the command line, at reduced size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from scorefield.cli import main
from scorefield.climate import Conservative, Cube, Variables
from scorefield.climate.source import grid_of_cube
from scorefield.run.configuration import find_recipe, read_recipe, recipes
from weather import dataset, save, times

NAMES = [
    name
    for name, path in recipes().items()
    if read_recipe(path).get("data", {}).get("class_path") == "scorefield.climate.Climate"
]
SMALL = {"channels": 8, "multipliers": [1, 2], "blocks": 1}
SHORT = {"steps": 2, "batch_size": 4, "validate_on": 4, "accelerator": "cpu", "preview_every": 2, "checkpoint_every": 2}


def shrunk(net: dict) -> dict:
    arguments = net.get("init_args", {})
    inner = arguments.get("net")
    if inner:
        return {"init_args": {"net": shrunk(inner)}}
    return {"init_args": SMALL | ({"attention": []} if "attention" in arguments else {})}


def own_files(data: dict, folder: Path) -> dict:
    """Files with the variables that a recipe asks for, and what in it has to be another then."""
    wanted = data["init_args"]
    names = wanted["targets"]["names"]
    units = wanted["targets"].get("units", {})
    units = dict.fromkeys(names, units) if isinstance(units, str) else units
    fine = dataset(60, names=tuple(names)).assign_coords(time=times(60, "360_day", "6h"))
    for name in names:
        fine[name].attrs["units"] = units.get(name, "K")
        fine[name].values[:] = np.maximum(fine[name].values - 280, 0)
    changed: dict = {"targets": {"path": save(fine, folder / "fine.nc")}}
    if wanted.get("coarsen", 1) > 1:
        changed["coarsen"] = 4
    if "predictors" in wanted:
        coarse = dataset(60, 4, 6, names=tuple(wanted["predictors"]["names"]))
        coarse = coarse.assign_coords(time=fine.time, lat=41.5 + 4 * np.arange(4), lon=351.5 + 4 * np.arange(6))
        changed["predictors"] = {"path": save(coarse, folder / "coarse.nc")}
    if "static" in wanted:
        orog = fine[[names[0]]].isel(time=0, drop=True).rename({names[0]: "orog"})
        changed["static"] = {"path": save(orog, folder / "orog.nc")}
    if "tiles" in wanted:
        changed["tiles"] = {"size": [8, 8], "least_wet": 0.0}
    if wanted["division"]["class_path"].endswith(("Years", "Periods")):
        blocks = {"days": 2, "cycle": 3, "valid": [2], "test": []}
        changed["division"] = {"class_path": "scorefield.climate.Blocks", "init_args": blocks}
    else:
        changed["division"] = {"init_args": {"count": 3, "valid": [1], "test": [2], "guard": 0}}
    return {"init_args": changed}


def predictors(changed: dict, names: list[str], folder: Path) -> str:
    if "predictors" in changed:
        return changed["predictors"]["path"]
    cube = Cube(Variables(changed["targets"]["path"], names))
    grid = grid_of_cube(cube)
    regrid = Conservative().between(grid, grid.coarsened(4))
    values = regrid(np.stack([cube.read(i) for i in range(4)]))
    fine, driving = cube.dataset, grid.coarsened(4)
    coords = {"time": fine.time[:4], "lat": driving.y, "lon": driving.x}
    fields = {n: (("time", "lat", "lon"), values[:, i], dict(fine[n].attrs)) for i, n in enumerate(names)}
    return save(xr.Dataset(fields, coords), folder / "given.nc")


def trained(name: str, folder: Path, *more: str) -> tuple[Path, dict, list[str]]:
    recipe = read_recipe(find_recipe(name))
    data = own_files(recipe["data"], folder)
    content = {"base": name, "model": {"net": shrunk(recipe["model"]["net"])}, "data": data, "train": SHORT}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["train", str(path), "--out", str(folder / name), *more]) == 0
    return folder / name, data["init_args"], recipe["data"]["init_args"]["targets"]["names"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "t2m-edm" else pytest.mark.slow) for name in NAMES]
)
def test_a_recipe_learns_and_predicts(name: str, tmp_path: Path) -> None:
    more = []
    if name == "precip-edm-residual":
        mean, _, _ = trained("precip-regression", tmp_path)
        more, folder = ["--mean", str(mean)], tmp_path / "rest"
        folder.mkdir()
        run, data, names = trained(name, folder, *more)
    else:
        run, data, names = trained(name, tmp_path)
    given, out = predictors(data, names, tmp_path), tmp_path / "out.nc"
    once = read_recipe(find_recipe(name))["model"]["sampler"].get("steps") == 1
    steps = [] if once else ["--steps", "2"]
    command = ["downscale", str(run), given, "--members", "2", "--reach", ".inf", "--chunk", "8", "--out", str(out)]
    assert main([*command, *steps]) == 0
    with xr.open_dataset(out, engine="h5netcdf") as found:
        for variable in names:
            values = found[variable].values
            assert values.shape[0] == 2 and values.shape[2:] == (16, 24) and not np.isnan(values).any()
            assert np.array_equal(values[0], values[1]) == (name == "precip-regression")
