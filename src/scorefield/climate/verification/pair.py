"""Predictions beside the truth: one grid, the same times, one set of names, whatever the files call them.

Inside, the dimensions are (member, time, y, x) of predictions and (time, y, x) of the truth. `time` is whatever numbers the
cases: days, hours, or tiles of one day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield.climate.units import is_precipitation, same_units
from scorefield.climate.verification.grid import ROLES, areas, named_axes, positions, same_grid
from scorefield.climate.verification.times import Dates, blocks_of, dates_of, same_cases, same_times
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

MEMBERS = ("member", "ensemble_member", "realization", "number", "ensemble", "sample")
TIMES = ("time", "valid_time", "t")


@dataclass(frozen=True)
class Pair:
    """What is compared.

    Args:
        pred: variables (member, time, y, x), read when needed.
        truth: variables of the same names (time, y, x).
        area: (y, x) relative areas of the boxes, 0 outside of a region.
        block: (time) number of the independent block that each time lies in.
        dates: what the times are.
    """

    pred: Dataset
    truth: Dataset
    area: np.ndarray
    block: np.ndarray
    dates: Dates

    @property
    def members(self) -> int:
        """How many there are."""
        return self.pred.sizes["member"]

    def at(self, name: str, **part: Any) -> tuple[np.ndarray, np.ndarray]:
        """The values of a variable in a part such as `time=slice(0, 8)`: members and truth, NaN where either is or no area is."""
        ours = self.pred[name].isel(**part).to_numpy().astype(np.float32)
        theirs = self.truth[name].isel(**part).to_numpy().astype(np.float32)
        area = self.area[part.get("y", slice(None)), part.get("x", slice(None))]
        unknown = np.isnan(theirs) | np.isnan(ours).any(0) | (area == 0)
        theirs[unknown] = np.nan
        ours[:, unknown] = np.nan
        return ours, theirs

    def within(self, latitude: tuple[float, float], longitude: tuple[float, float]) -> Pair:
        """The boxes of a region; longitudes may be told from 0 to 360 or from -180 to 180.

        Args:
            latitude: south and north end, in degrees.
            longitude: west and east end.
        """
        found = positions(self.truth)
        if found is None:
            raise InputError("Regions need the latitude and longitude of every box; the truth does not tell them.")
        lat, lon = found
        east = (lon - longitude[0]) % 360 <= (longitude[1] - longitude[0]) % 360
        inside = (lat >= latitude[0]) & (lat <= latitude[1]) & east
        if not inside.any():
            raise InputError(
                f"No box lies in {latitude[0]:g}:{latitude[1]:g},{longitude[0]:g}:{longitude[1]:g}: the grid reaches over "
                f"{lat.min():g}:{lat.max():g},{lon.min():g}:{lon.max():g}."
            )
        y, x = (slice(int(i.min()), int(i.max()) + 1) for i in inside.nonzero())
        area = np.where(inside, self.area, 0.0)[y, x]
        return replace(self, pred=self.pred.isel(y=y, x=x), truth=self.truth.isel(y=y, x=x), area=area)


def pair_up(
    pred: Dataset, truth: Dataset, variables: Mapping[str, str] | None = None, blocks: str | None = None
) -> Pair:
    """Bring predictions and truth onto common ground, or say what keeps them apart.

    Args:
        pred: predictions, with or without a dimension for members.
        truth: what happened, at least where predictions are.
        variables: name in the predictions to name in the truth; by default all fields of one name, a `pred_` taken away.
        blocks: what is independent of what else: `day`, `month`, `year`, a number of days such as `5D`, or the name of a
            coordinate along time, or along tiles, whose values tell blocks. By default days, or single cases without dates.

    Raises:
        InputError: variables, units, dates, calendars or grids differ.
    """
    names = dict(variables) if variables else common(pred, truth)
    for data, wanted, role in ((pred, names.keys(), "predictions"), (truth, names.values(), "truth")):
        if missing := [name for name in wanted if name not in data.data_vars]:
            raise InputError(f"The {role} have no variable {missing[0]}, only {', '.join(map(str, data.data_vars))}.")
    ours = canonical(pred[list(names)].rename({k: v for k, v in names.items() if k != v}), "predictions")
    theirs = canonical(truth[list(names.values())], "truth")
    if "member" in theirs.dims:
        raise InputError("The truth has several members: select one of them first.")
    if "member" not in ours.dims:
        ours = ours.expand_dims("member")
    check_units(ours[list(theirs.data_vars)], theirs)
    theirs = same_grid(ours, same_times(ours, theirs))
    same_cases(ours, theirs)
    ours, theirs = ours.transpose("member", "time", "y", "x", ...), theirs.transpose("time", "y", "x", ...)
    dates = dates_of(ours)
    return Pair(ours, theirs, areas(theirs), blocks_of(ours, theirs, dates, blocks), dates)


def common(pred: Dataset, truth: Dataset) -> dict[str, str]:
    """The fields that both have, by the name in the predictions."""
    names = {str(name): str(name).removeprefix("pred_") for name, value in pred.data_vars.items() if is_field(value)}
    found = {ours: theirs for ours, theirs in names.items() if theirs in truth.data_vars and is_field(truth[theirs])}
    if not found:
        raise InputError(
            f"Predictions ({', '.join(map(str, pred.data_vars))}) and truth ({', '.join(map(str, truth.data_vars))}) have no "
            'field of one name: pair them by --variables \'{"name in predictions": "name in truth"}\'.'
        )
    return found


def is_field(variable: DataArray) -> bool:
    """Whether it has values on a grid, and is not the bounds of a coordinate."""
    return variable.ndim >= 2 and variable.dtype.kind == "f" and not str(variable.name).endswith(("_bnds", "_bounds"))


def canonical(data: Dataset, role: str) -> Dataset:
    """Dimensions by our names: member if there is one, time, y, x."""
    if taken := {"member", "time", "y", "x"} & {str(name) for name in data.data_vars}:
        raise InputError(f"A variable of the {role} is called {min(taken)}, as an axis is: rename it.")
    dims = [str(name) for name in data[next(iter(data.data_vars))].dims]
    members = [name for name in dims if name in MEMBERS]
    times = [name for name in dims if name in TIMES]
    rest = [name for name in dims if name not in members + times]
    if not times and len(rest) == 3:
        times, rest = rest[:1], rest[1:]
    if len(rest) != 2 or len(times) > 1 or len(members) > 1:
        raise InputError(
            f"The {role} have the dimensions {', '.join(dims)}: needed are two of a grid, one of times, at most one of members."
        )
    renamed = dict(zip(members, ["member"], strict=False)) | dict(zip(times, ["time"], strict=False))
    data = beside(data, {new for old, new in renamed.items() if old != new})
    data = data.rename({old: new for old, new in renamed.items() if old != new})
    data = named_axes(data, dict(zip(rest, "yx", strict=True)))
    return data if "time" in data.dims else data.expand_dims("time")


def beside(data: Dataset, names: set[str]) -> Dataset:
    """Make way for axes of these names: dates along numbered cases, as tiles are, become `date`; what else has them goes.

    Args:
        data: fields.
        names: that dimensions are about to get.
    """
    taken = [name for name in names if name in data.coords and name not in data.dims]
    dates = [name for name in taken if name == "time" and data[name].ndim == 1 and "date" not in data.variables]
    return data.rename(dict.fromkeys(dates, "date")).drop_vars([name for name in taken if name not in dates])


def check_units(pred: Dataset, truth: Dataset, roles: tuple[str, str] = ROLES) -> None:
    """Refuse to compare millimetres with kilograms per second; `mm h-1` is `mm/h`, and units that are not told are not compared.

    Args:
        pred: variables.
        truth: one by one what they are compared with, whatever their names.
        roles: what the two are called in messages.
    """
    for name, mine in zip(truth.data_vars, pred.data_vars, strict=True):
        one, other = pred[mine].attrs.get("units"), truth[name].attrs.get("units")
        water = is_precipitation(pred[mine]) and is_precipitation(truth[name])
        if one is not None and other is not None and not same_units(one, other, water=water):
            raise InputError(
                f"{name} is in {one} in {roles[0]} and in {other} in {roles[1]}: convert one of them first."
            )
