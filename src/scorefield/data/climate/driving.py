"""Predictors to predict from: checked against what a model was trained on, and carried to the targets' grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data.climate.fields import Predictors
from scorefield.data.climate.files import Cube, Variables, same_units
from scorefield.data.climate.grid import Grid
from scorefield.data.climate.regrid import Conservative, Regridder
from scorefield.data.climate.source import Climate, grid_of_cube
from scorefield.data.climate.split import dates
from scorefield.data.climate.template import Template, calendar_of
from scorefield.errors import InputError

ALIKE = 1e-3  # of a step, by which positions of one grid may differ: files round
MINUTES_OF_DAY = 1440


@dataclass(frozen=True, eq=False)
class Driving:
    """Predictors on the way to a prediction.

    Attributes:
        predictors: checked.
        rows: the part of the template's domain that they cover.
        columns: likewise.
        grid: of that part.
        numbers: of the times to predict, each of them with all times of its window.
        to_coarse: area means of predictions over the cells of the predictors' grid; None where the grids do not allow it.
        gaps: whether predictors may be unknown somewhere.
    """

    predictors: Predictors
    rows: slice
    columns: slice
    grid: Grid
    numbers: np.ndarray
    to_coarse: Regridder | None
    gaps: bool

    def times(self) -> list[Any]:
        """The dates to predict."""
        return dates(self.predictors.cube.times[self.numbers])

    def field(self, position: int) -> Tensor:
        """cond["field"] of a time, (channels, rows, columns), in data units."""
        number = int(self.numbers[position])
        window = self.predictors.window(number)
        self._check(number, window)
        return torch.from_numpy(self.predictors.at(number, window, slice(None), slice(None)))

    def coarse(self, position: int) -> np.ndarray:
        """The predictors of a time as they are given."""
        return self.predictors.coarse(int(self.numbers[position]))

    def _check(self, number: int, window: list[np.ndarray]) -> None:
        for field in window:
            for name, channel in zip(self.predictors.cube.names, field, strict=True):
                if not self.gaps and np.isnan(channel).any():
                    date = dates(self.predictors.cube.times)[number]
                    raise InputError(
                        f"{self.predictors.cube.origin}: {name} has {int(np.isnan(channel).sum())} unknown values at {date}, and "
                        "had none in training: fill them."
                    )


def drive(source: Climate, template: Template, path: str) -> Driving:
    """Open and check predictors.

    Args:
        source: the training data's description; its files are not touched.
        template: what it left in the checkpoint.
        path: of the predictors.

    Raises:
        InputError: a variable is missing, in other units, on another grid, of another calendar, or with dates out of order.
    """
    wanted = source.targets if source.predictors is None else source.predictors
    cube = Cube(Variables(path, wanted.names, levels=wanted.levels))
    required = template.facts["predictors"]
    for name in wanted.names:
        found = cube.dataset[name].attrs.get("units", "none")
        if required["units"].get(name) and not same_units(found, required["units"][name]):
            raise InputError(
                f"{cube.origin}: {name} is in {found}, and the model was trained on {required['units'][name]}: convert it."
            )
    check_times(cube, template.facts["calendar"])
    given, domain = grid_of_cube(cube), template.grid
    rows, columns = parts_covered(given, template, cube.origin)
    static = template.static
    part = domain.crop(rows, columns)
    predictors = source.assembled(cube, None, given, part, (static[0], static[1][:, rows, columns]))
    numbers = np.flatnonzero(predictors.complete(np.arange(len(cube.times))))
    if cube.members > 1:
        raise InputError(f"{cube.origin} has {cube.members} members of the driving model: predict from one at a time.")
    if not len(numbers):
        raise InputError(
            f"{cube.origin} has {len(cube.times)} times, too few for the window of times that is asked for."
        )
    return Driving(predictors, rows, columns, part, numbers, _to_coarse(part, given), required["gaps"])


def _to_coarse(part: Grid, given: Grid) -> Regridder | None:
    try:
        return Conservative().between(part, given)
    except InputError:  # of another mapping, or cut by the domain's edge
        return None


def check_times(cube: Cube, calendar: str) -> None:
    """Refuse dates that do not rise, and another calendar than that of the training data."""
    found = dates(cube.times)
    for before, after in zip(found, found[1:], strict=False):
        if not before < after:
            raise InputError(f"{cube.origin}: {after} comes after {before}: sort the times and drop repeated ones.")
    own = calendar_of(cube.dataset[cube.layout.time]) if cube.layout.time else ""
    if own and calendar and own != calendar:
        raise InputError(f"{cube.origin} has the calendar {own}, and the model was trained on {calendar}: convert it.")


def parts_covered(given: Grid, template: Template, origin: str) -> tuple[slice, slice]:
    """The part of the domain under some predictors: all of it, unless the model was trained on tiles, which know no places."""
    trained = template.driving
    for axis, own, theirs in (("y", trained.y, given.y), ("x", trained.x, given.x)):
        step, other = _step(own), _step(theirs)
        offset = float(
            (theirs[0] - own[0] + 180) % 360 - 180 if trained.spherical and axis == "x" else theirs[0] - own[0]
        )
        beside = abs(offset / step - round(offset / step)) if step else 0.0
        same = len(own) == len(theirs) and abs(offset) < ALIKE * abs(step)
        fits = beside < 10 * ALIKE and (same or not template.facts["whole"])
        if not given.shares_lines_with(trained) or abs(step - other) > ALIKE * abs(step) or not fits:
            what = f"{len(theirs)} from {theirs[0]:.5g} to {theirs[-1]:.5g}, not {len(own)} from {own[0]:.5g} to {own[-1]:.5g}"
            raise InputError(
                f"{origin} is on another grid than the predictors of training: along {axis} {what}. Regrid it, or cut it to that."
            )
    if template.facts["whole"]:
        return slice(0, template.grid.shape[0]), slice(0, template.grid.shape[1])
    return tuple(
        _within(*pair, axis)
        for pair, axis in (  # type: ignore[return-value]
            ((template.grid.y, given.y_edges), "y"),
            ((template.grid.x, given.x_edges), "x"),
        )
    )


def _within(positions: np.ndarray, edges: np.ndarray, axis: str) -> slice:
    low, high = edges.min(), edges.max()
    wrapped = (positions - low) % 360 + low if axis == "x" else positions
    inside = np.flatnonzero((wrapped > low) & (wrapped < high))
    if not len(inside):
        raise InputError("The predictors lie outside the domain of the training data.")
    return slice(int(inside[0]), int(inside[-1]) + 1)


def _step(positions: np.ndarray) -> float:
    return float(positions[-1] - positions[0]) / (len(positions) - 1) if len(positions) > 1 else 1.0


def minutes(date: Any) -> int:
    """Minutes from the year 1 to a date of any calendar: a number for it that no file's order changes. Never negative."""
    day = getattr(date, "toordinal", None)
    if type(date).__module__ == "datetime" and day is not None:
        whole = day()
    else:
        import cftime

        whole = int(cftime.date2num(date, "days since 0001-01-01", calendar=date.calendar))
    return max(whole, 0) * MINUTES_OF_DAY + date.hour * 60 + date.minute
