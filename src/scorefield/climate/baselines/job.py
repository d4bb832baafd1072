"""`scorefield baseline`: fit a baseline to pairs of files and write what it draws for others."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jsonargparse import Namespace

from scorefield.climate.alignment import MEMBERS, TIMES, canonical, check_units, coarse_boxes, same_grid, same_times
from scorefield.climate.baselines.baseline import Baseline, When
from scorefield.climate.files import open_dataset
from scorefield.climate.times import dates_of
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing
from scorefield.run.configuration import Parser

if TYPE_CHECKING:
    from xarray import Dataset


def add_arguments(parser: Parser) -> None:
    """Which baseline, learnt from what, for what."""
    parser.add_subclass_arguments(Baseline, "baseline", required=True, help="such as DressedBilinear or BCSD")
    parser.add_argument("predictors", type=Path, help="coarse fields to draw fine ones for: NetCDF or Zarr")
    parser.add_argument("--train-predictors", type=Path, required=True, help="coarse fields to learn from")
    parser.add_argument("--train-truth", type=Path, required=True, help="fine fields that belong to them")
    parser.add_argument("--predictor", type=str | None, default=None, help="name of the coarse variable, if another")
    parser.add_argument("--target", type=str, required=True, help="name of the fine variable")
    parser.add_argument("--members", type=int, default=10, help="how many fine fields for each time")
    parser.add_argument("--seed", type=int, default=0, help="of their chance")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .nc")


def run(baseline: Baseline, settings: Namespace) -> None:
    """Fit, draw and write.

    Args:
        baseline: not yet fitted.
        settings: of `add_arguments`.
    """
    check_out(settings.out)
    if settings.members < 1:
        raise InputError(f"--members {settings.members}: at least 1 is needed.")
    predictor = settings.predictor or settings.target
    fine = read(settings.train_truth, settings.target)
    coarse = same_times(fine, read(settings.train_predictors, predictor))
    given = read(settings.predictors, predictor)
    roles = str(settings.train_predictors), str(settings.train_truth)
    if baseline.same_quantity:
        check_units(coarse, fine, roles)
    check_units(given, coarse, (str(settings.predictors), roles[0]))
    coarse = coarse_boxes(coarse, fine, roles)
    given = same_grid(coarse, given, (roles[0], str(settings.predictors)))
    baseline.fit(values(coarse, predictor), values(fine, settings.target), when(fine))
    drawn = baseline.draw(values(given, predictor), settings.members, settings.seed, when(given))
    title = f"{settings.target} by {settings.baseline.class_path}"
    history = f"scorefield baseline, seed {settings.seed}"
    write(settings.out, settings.target, drawn, given, fine, title=title, history=history)


def check_out(path: Path) -> None:
    """Refuse a name that cannot be written."""
    if path.suffix != ".nc":
        raise InputError(f"--out {path} is no NetCDF file: give it the ending .nc.")
    if path.exists():
        raise InputError(f"{path} exists: give another --out.")


def read(path: Path, name: str, *, members: bool = False) -> Dataset:
    """One variable of a file, dimensions (time, y, x), or with `members` (member, time, y, x)."""
    data = open_dataset(path)
    if name not in data.data_vars:
        raise InputError(f"{path} has no variable {name}, only {', '.join(map(str, data.data_vars))}.")
    others = [c for c in data.coords if not set(data[c].dims) <= set(data[name].dims)]
    found = canonical(data[[name]].drop_vars(others), str(path))
    found.attrs["axes"] = [d for d in data[name].dims if d not in (*MEMBERS, *TIMES)][-2:]
    if members:
        found = found if "member" in found.dims else found.expand_dims("member")
        return found.transpose("member", "time", "y", "x", ...)
    if "member" in found.dims:
        raise InputError(f"{path} has several members: select one of them first.")
    return found.transpose("time", "y", "x", ...)


def values(data: Dataset, name: str) -> np.ndarray:
    """All of a variable; baselines know no gaps."""
    found = data[name].to_numpy().astype(np.float32)
    if gaps := int(np.isnan(found).sum()):
        raise InputError(f"{name} has {gaps} NaN, and a baseline needs complete fields: select a region without.")
    return found


def when(data: Dataset) -> When:
    """What baselines are told of time."""
    dates = dates_of(data)
    return When(dates.hour.astype(int), dates.day)


def write(out: Path, name: str, drawn: np.ndarray, given: Dataset, fine: Dataset, *, title: str, history: str) -> None:
    """A CF file with the times of what was given on the grid of the truth.

    Args:
        out: the file.
        name: of the variable.
        drawn: (members, time, y, x).
        given: for whose times they were drawn.
        fine: the truth of training, with its grid and the variable's attributes.
        title: of the file.
        history: how it came about; the date is added.

    Raises:
        InputError: a value is not finite.
    """
    import xarray

    if broken := int((~np.isfinite(drawn)).sum()):
        raise InputError(f"{broken} of the {drawn.size} values drawn of {name} are not finite: nothing is written.")
    grid = {axis: value for axis, value in fine.coords.items() if "time" not in value.dims and value.dims}
    coords = grid | {axis: value for axis, value in given.coords.items() if value.dims == ("time",)}
    kept = ("units", "long_name", "standard_name")
    attrs = {key: value for key, value in fine[name].attrs.items() if key in kept}
    data = xarray.Dataset({name: (("member", "time", "y", "x"), drawn, attrs)}, coords)
    data = data.assign_coords(member=("member", np.arange(len(drawn)), {"standard_name": "realization", "units": "1"}))
    data = data.rename(dict(zip("yx", fine.attrs["axes"], strict=True)))
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    data.attrs = {"Conventions": "CF-1.8", "title": title, "history": f"{stamp} {history}"}
    with replacing(out) as temporary:
        data.to_netcdf(temporary, engine="h5netcdf", encoding={name: {"zlib": True, "complevel": 4}})
