"""Predictions beside the truth: one grid, the same times, one set of names, under any names in the files.

Inside, the dimensions are (member, time, y, x) of predictions and (time, y, x) of the truth. `time` numbers the
cases: days, hours, or tiles of one day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scorefield.climate.accumulation import accumulation
from scorefield.climate.alignment import (
    canonical,
    fields_of,
    grid_in,
    in_units_of,
    same_cases,
    same_grid,
    same_times,
    single_member,
    with_grid,
)
from scorefield.climate.files import check_filled, packing_of
from scorefield.climate.times import Dates, dates_of
from scorefield.data.precision import needed
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    from xarray import Dataset

VALUES = 2**22  # of a chunk


@dataclass(frozen=True)
class Pair:
    """What is compared.

    Args:
        pred: variables (member, time, y, x), read when needed.
        truth: variables of the same names (time, y, x).
        area: (y, x) areas of the boxes, 0 outside of a region.
        block: (time) number of the independent block that each time lies in.
        dates: what the times are; their step is the smallest.
        hours: over which each value is a sum or a mean; NaN where it is unknown.
    """

    pred: Dataset
    truth: Dataset
    area: np.ndarray
    block: np.ndarray
    dates: Dates
    hours: float

    @property
    def members(self) -> int:
        """How many there are."""
        return self.pred.sizes["member"]

    def at(self, name: str, **part: Any) -> tuple[np.ndarray, np.ndarray]:
        """The values of a variable in a part such as `time=slice(0, 8)`: members and truth, NaN where either is or no area is."""
        ours, theirs = (data[name].isel(**part).to_numpy() for data in (self.pred, self.truth))
        check_filled(ours, f"the predictions: {name}", packing_of(self.pred[name]))
        check_filled(theirs, f"the truth: {name}", packing_of(self.truth[name]))
        for values, role in ((ours, "the predictions"), (theirs, "the truth")):
            if infinite := int(np.isinf(values).sum()):
                raise InputError(
                    f"{role}: {name} is infinite at {infinite} points: make them NaN, for unknown, or correct the file."
                )
        # Errors of a small spread about a large offset would be lost in float32.
        wide = any(needed(x.reshape(-1, 1, x.shape[-1]), name) == torch.float64 for x in (ours, theirs))
        ours, theirs = (x.astype(np.float64 if wide else np.float32) for x in (ours, theirs))
        area = self.area[part.get("y", slice(None)), part.get("x", slice(None))]
        unknown = np.isnan(theirs) | np.isnan(ours).any(0) | (area == 0)
        theirs[unknown] = np.nan
        ours[:, unknown] = np.nan
        return ours, theirs

    def within(self, latitude: tuple[float, float], longitude: tuple[float, float]) -> Pair:
        """The boxes of a region; longitudes may be given from 0 to 360 or from -180 to 180.

        Args:
            latitude: south and north end, in degrees.
            longitude: west and east end.
        """
        lat, lon = grid_in(self.truth).points()
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
            coordinate along time, or along tiles, whose values are the blocks. By default days, or single cases without dates.

    Raises:
        InputError: variables, units, dates, calendars or grids differ.
    """
    names = dict(variables) if variables else common(pred, truth)
    for data, wanted, role in ((pred, names.keys(), "predictions"), (truth, names.values(), "truth")):
        if missing := [name for name in wanted if name not in data.data_vars]:
            raise InputError(f"The {role} have no variable {missing[0]}, only {', '.join(map(str, data.data_vars))}.")
    ours = with_grid(pred, names).rename({k: v for k, v in names.items() if k != v})
    ours, theirs = canonical(ours, "predictions"), canonical(with_grid(truth, names.values()), "truth")
    theirs = single_member(theirs, "The truth")
    for data, role in ((ours, "predictions"), (theirs, "truth")):
        for name, value in data.data_vars.items():
            if lacking := {"time", "y", "x"} - set(value.dims):
                raise InputError(
                    f"{name} of the {role} has no {min(lacking)}, which other variables have: leave it out by --variables."
                )
    if "member" not in ours.dims:
        fields = max(1, VALUES // (ours.sizes["y"] * ours.sizes["x"]))
        ours = ours.chunk({"time": fields}).expand_dims("member")  # which would read what is not in chunks
    ours = in_units_of(ours[list(theirs.data_vars)], theirs)
    hours = accumulation(theirs, ours)  # of all times: predictions may be some of them
    theirs = same_grid(ours, same_times(ours, theirs))
    same_cases(ours, theirs)
    ours, theirs = ours.transpose("member", "time", "y", "x", ...), theirs.transpose("time", "y", "x", ...)
    dates = dates_of(ours)
    return Pair(ours, theirs, grid_in(theirs).areas(), blocks_of(ours, theirs, dates, blocks), dates, hours)


def common(pred: Dataset, truth: Dataset) -> dict[str, str]:
    """The fields that both have, by the name in the predictions."""
    names, there = {name: name.removeprefix("pred_") for name in fields_of(pred)}, fields_of(truth)
    found = {ours: theirs for ours, theirs in names.items() if theirs in there}
    if not found:
        raise InputError(
            f"Predictions ({', '.join(map(str, pred.data_vars))}) and truth ({', '.join(map(str, truth.data_vars))}) have no "
            'field of one name: pair them by --variables \'{"name in predictions": "name in truth"}\'.'
        )
    return found


def blocks_of(pred: Dataset, truth: Dataset, dates: Dates, blocks: str | None) -> np.ndarray:
    """The number of the block of each time, (time) int; see `pair_up`."""
    for data in (pred, truth):
        if blocks in data.coords and data[blocks].dims == ("time",):
            return np.unique(data[blocks].to_numpy(), return_inverse=True)[1]
    if not dates.dated:
        if blocks is None:
            return dates.day
        if "date" not in pred.coords:
            raise InputError(f"There is no coordinate {blocks} along time, and time is no date: name one by --blocks.")
        dates = dates_of(pred, "date")
    if blocks in ("month", "year"):
        return np.unique(dates.year * 12 + (dates.month if blocks == "month" else 0), return_inverse=True)[1]
    days = 1 if blocks in (None, "day") else days_in(str(blocks))
    return np.unique(dates.day // days, return_inverse=True)[1]


def days_in(blocks: str) -> int:
    """`5D` as 5."""
    number = blocks.removesuffix("D")
    if not (blocks.endswith("D") and number.isdigit() and int(number) > 0):
        raise InputError(
            f"--blocks {blocks} is no coordinate along time: give day, month, year, or days in a block such as 5D."
        )
    return int(number)
