"""Predictors to predict from: checked against what a model was trained on, and carried to the targets' grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scorefield.climate.carried import Carried, Predictors
from scorefield.climate.files import Cube, Variables
from scorefield.climate.grid import Grid
from scorefield.climate.opening import open_dataset
from scorefield.climate.regrid import Conservative, Regridder, spreading
from scorefield.climate.source import Climate
from scorefield.climate.template import Template
from scorefield.climate.times import calendar_of, dates, usual_step
from scorefield.climate.trained_lines import common_part, on_trained_lines, parts_covered
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

FAR = 5.0  # ranges of training by which predictors may go beyond them: other units go further
NEGATIVE = (
    0.005  # of the largest value in training: by rounding, quantities that are never negative may be so far below 0
)
MINUTES_OF_DAY = 1440
LARGEST = 10.0  # ratio by which `rescaled` multiplies: a trace in a dry cell must not become a downpour at one point


class EnsembleInput(ABC):
    """What an ensemble is drawn from, field by field, and how its file is laid out.

    Attributes:
        dimension: along which the fields are numbered in a file.
        left_out: how many times have no prediction, as those before or after them are not in the files.
        drivers: members of the driving model: the fields are those of the first, then of the next.
    """

    dimension: str
    left_out: int = 0
    drivers: int = 1

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a field."""

    @property
    @abstractmethod
    def quantities(self) -> tuple[tuple[str, str], ...]:
        """Name and units of every predictor of the field's own time."""

    @abstractmethod
    def __len__(self) -> int:
        """How many fields there are to predict."""

    @abstractmethod
    def field(self, position: int) -> Tensor:
        """cond["field"] of one, (channels, rows, columns), in data units. Unknown values where training had none raise."""

    @abstractmethod
    def key(self, position: int) -> tuple[int, ...]:
        """Numbers that no other field has, independent of its place in a file."""

    @abstractmethod
    def digest(self) -> str:
        """What decides the predictions of all fields, dates and values, as a SHA-256; wherever the files lie."""

    @abstractmethod
    def date(self, position: int) -> Any:
        """Its date, of any calendar."""

    def name(self, position: int) -> str:
        """Its date, for messages and for comparison with the file."""
        return str(self.date(position))

    @abstractmethod
    def known(self, template: Template) -> np.ndarray:
        """Where there is anything to predict, (rows, columns) bool."""

    @abstractmethod
    def frame(self, template: Template) -> tuple[xr.Dataset, tuple[str, str], dict[str, str]]:
        """Coordinates, names of the rows' and the columns' dimensions, and attributes that every variable needs."""

    @abstractmethod
    def conserved(self, position: int, x: np.ndarray, *, multiply: bool) -> np.ndarray:
        """Fields (variables, rows, columns) with the area means of the predictors, see `rescaled`."""


@dataclass(frozen=True, eq=False)
class Driving(EnsembleInput):
    """Predictors of a whole region.

    Attributes:
        predictors: checked.
        rows: the part of the template's domain that they cover.
        columns: likewise.
        grid: of that part.
        numbers: of the times to predict, each of them with all times of its window.
        to_coarse: area means of predictions over the cells of the predictors' grid; None where the grids do not allow it.
        spread: from the cells of that grid to the points in them; likewise.
        gaps: whether predictors may be unknown somewhere.
        ranges: lowest and highest value of every predictor in training, by its name.
        left_out: how many times of the files are not among the numbers.
        drivers: members of the driving model, each with the same times.
    """

    predictors: Predictors
    rows: slice
    columns: slice
    grid: Grid
    numbers: np.ndarray
    to_coarse: Regridder | None
    spread: Regridder | None
    gaps: bool
    ranges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    left_out: int = 0
    drivers: int = 1
    dimension: str = "time"

    @property
    def shape(self) -> tuple[int, int]:
        return self.grid.shape

    @property
    def quantities(self) -> tuple[tuple[str, str], ...]:
        return self.predictors.cube.quantities

    def __len__(self) -> int:
        return len(self.numbers)

    def key(self, position: int) -> tuple[int, ...]:
        member = int(self.numbers[position]) // len(self.predictors.cube.times)
        return (minutes(self.date(position)), *([member] if self.drivers > 1 and member else []))

    def digest(self) -> str:
        return self.predictors.digest(self.numbers[:, None])

    def field(self, position: int) -> Tensor:
        number = int(self.numbers[position])
        window = self.predictors.window(number)
        for fields in window:
            for source, used, values in zip(self.predictors.sources, self._used, fields, strict=True):
                for name, channel in zip(source.names, values, strict=True):
                    self._check(name, channel[used], position)
        found = self.predictors.at(number, window, slice(None), slice(None))
        if not self.gaps:
            names = self.predictors.own_names * len(window)  # they come first, time features and the like last
            for name, channel in zip(names, found, strict=False):
                self._check_known(name, np.isnan(channel), "unknown", position)
        return torch.from_numpy(found)

    @cached_property
    def _used(self) -> list[np.ndarray]:
        """Which values of each source's grid reach the domain, (y, x) bool: others may be as they are."""
        return [source.regrid.used() for source in self.predictors.sources]

    def _origin(self, name: str) -> str:
        """The files of a channel."""
        return next(s.cube.origin for s in self.predictors.sources if name in s.names)

    def _check_known(self, name: str, unknown: np.ndarray, what: str, position: int) -> None:
        if unknown.any():
            raise InputError(
                f"{self._origin(name)}: {name} has {int(unknown.sum())} {what} values around "
                f"{self.date(position)}, and had none in training: fill them, or cut them off."
            )

    def _check(self, name: str, values: np.ndarray, position: int) -> None:
        """Refuse values that are infinite, or of another order than those of training."""
        self._check_known(name, np.isinf(values), "infinite", position)
        low, high = self.ranges.get(name, (-np.inf, np.inf))
        slack = FAR * ((high - low) or max(abs(high), 1.0))
        known = values[np.isfinite(values)]
        if low == 0 and len(known) and known.min() < -NEGATIVE * high:  # as of rain
            raise InputError(
                f"{self._origin(name)}: {name} has a value of {known.min():.5g} around {self.date(position)}, and had "
                "none below 0 in training: check it."
            )
        far = known[(known < low - slack) | (known > high + slack)]
        if len(far):
            raise InputError(
                f"{self._origin(name)}: {name} has a value of {far[np.abs(far).argmax()]:.5g} around {self.date(position)}, and "
                f"had {low:.5g} to {high:.5g} in training: check its units."
            )

    def known(self, template: Template) -> np.ndarray:
        return template.known[self.rows, self.columns]

    def frame(self, template: Template) -> tuple[xr.Dataset, tuple[str, str], dict[str, str]]:
        y, x = template.facts["y"], template.facts["x"]
        dataset = template.coordinates(self.rows, self.columns)
        time, bounds = self._times()
        dataset = dataset.assign_coords(time=time)
        if bounds is not None:
            dataset["time_bnds"] = bounds
        mapping = template.facts["mapping"]
        shared = {"grid_mapping": mapping} if mapping else {}
        flat = sorted(
            str(name)
            for name in dataset.variables
            if set(dataset[name].dims) == {y, x} or (name in dataset.coords and not dataset[name].dims)
        )
        return dataset, (y, x), shared | ({"coordinates": " ".join(flat)} if flat else {})

    def conserved(self, position: int, x: np.ndarray, *, multiply: bool) -> np.ndarray:
        if self.to_coarse is None or self.spread is None:
            raise InputError("The grids do not allow means over the predictors' cells: leave out --conserve.")
        coarse = self.predictors.coarse(int(self.numbers[position]))[: len(x)].astype(np.float64)
        return rescaled(x, coarse, self.to_coarse, self.spread, multiply=multiply)

    def date(self, position: int) -> Any:
        number = self.numbers[position] % len(self.predictors.cube.times)
        return dates(self.predictors.cube.times[number : number + 1])[0]

    def _times(self) -> tuple[xr.DataArray, xr.DataArray | None]:
        """The time coordinate of the predictors with its calendar, and its bounds where they have any."""
        cube = self.predictors.cube
        dataset, name = cube.dataset, cube.layout.time
        if not name:
            raise InputError(f"{cube.origin} has no time: give it one, as a dimension.")
        numbers = self.numbers[: len(self) // self.drivers]
        found = dataset[name].isel({name: numbers}).load()
        bounds = str(dataset[name].attrs.get("bounds", dataset[name].encoding.get("bounds", "")))
        time = found.rename({name: "time"}).reset_coords(drop=True)
        time.attrs = {"standard_name": "time", "long_name": "time", "axis": "T"}
        time.encoding = {k: v for k, v in found.encoding.items() if k in ("units", "calendar")} | {"dtype": "float64"}
        if bounds not in dataset.variables:
            return time, None
        time.attrs["bounds"] = "time_bnds"
        pairs = dataset[bounds].isel({name: numbers}).load().rename({name: "time"}).reset_coords(drop=True)
        pairs.attrs, pairs.encoding = {}, {"dtype": "float64"}
        return time, pairs


def rescaled(
    x: np.ndarray, coarse: np.ndarray, to_coarse: Regridder, spread: Regridder, *, multiply: bool
) -> np.ndarray:
    """Fields whose means over coarse cells are those given: every value of a cell gets what its mean lacks, or its ratio.

    A ratio is at most `LARGEST`; what is still lacking, as where a cell is dry and should be wet, its points get evenly.

    Args:
        x: (variables, rows, columns).
        coarse: the means wanted, (variables, y, x).
        to_coarse: area means.
        spread: each cell's value to all of its points.
        multiply: whether to multiply; else to add.
    """
    means = to_coarse(x).astype(np.float64)
    if not multiply:
        return x + spread(coarse - means)
    empty = means <= 0
    ratio = np.where(empty, 0.0, np.minimum(coarse / np.where(empty, 1.0, means), LARGEST))
    return x * spread(ratio) + spread(coarse - ratio * means)


def drive(
    source: Climate,
    template: Template,
    path: str,
    further: Mapping[str, str] | None = None,
    *,
    any_calendar: bool = False,
) -> Driving:
    """Open and check predictors.

    Args:
        source: the training data's description; its files are not touched.
        template: what it left in the checkpoint.
        path: of the predictors.
        further: paths of further predictors, by the name of their source.
        any_calendar: whether they may have another calendar than those of training.

    Raises:
        InputError: a variable is missing, in other units, on another grid, of another calendar, or with dates out of order; a
            source is missing, or lacks times.
    """
    required, further = template.facts["predictors"], further or {}
    check_sources(template, further)
    ranges = required.get("ranges", {})  # runs of before have none
    cube = first_of(source, template, path)
    check_times(cube, "" if any_calendar else template.facts["calendar"])
    step = usual_step(cube.times)
    if len(cube.times) > 1 and (trained := required.get("step")) and not 0.5 < step / trained < 1.5:
        raise InputError(
            f"{cube.origin} has steps of {step:g} days, and the model was trained on {trained:g}: select times."
        )
    ways = [
        (*on_trained_lines(cube, template.driving, source.coarsen, whole=template.facts["whole"]), source.regrid, "")
    ]
    for name, (trained, units) in template.further.items():
        variables = (source.further or {})[name]
        more = opened(variables, further[name], units)
        placed = on_trained_lines(more, trained, variables.coarsen, whole=template.facts["whole"])
        ways.append((*placed, variables.regrid or source.regrid, name))
    parts = [parts_covered(given, template) for _, _, given, _, _ in ways]
    rows, columns = (common_part([part[axis] for part in parts]) for axis in (0, 1))
    part = template.grid.crop(rows, columns)
    sources = [
        Carried(one, given, regrid.between(given, part), means, name) for one, means, given, regrid, name in ways
    ]
    sources = [sources[0], *(one.beside(sources[0].cube) for one in sources[1:])]
    static = template.static
    predictors = source.assembled(sources, (static[0], static[1][:, rows, columns]))
    numbers = np.flatnonzero(predictors.complete(np.arange(len(cube))))
    if not len(numbers):
        raise InputError(
            f"{cube.origin} has {len(cube.times)} times, and none of them with the {source.before} before and the "
            f"{source.after} after it that the model was trained on."
        )
    predictors.check_sources(numbers)
    back, left_out = to_cells_and_back(part, predictors.grid), len(cube.times) - len(numbers) // cube.members
    return Driving(
        predictors, rows, columns, part, numbers, *back, required["gaps"], ranges, left_out, drivers=cube.members
    )  # fmt: skip


def first_of(source: Climate, template: Template, path: str) -> Cube:
    """The first predictors, or targets where these are made of them, in the units of training."""
    required = template.facts["predictors"]
    wanted = source.targets if source.predictors is None else source.predictors
    return opened(with_levels(wanted, required.get("ranges", {})), path, required["units"])


def check_sources(template: Template, further: Mapping[str, str]) -> None:
    """Refuse sources that a model does not know, and their absence."""
    trained = ", ".join(template.further)
    if unknown := [name for name in further if name not in template.further]:
        known = f"it knows {trained}" if trained else "it has the first predictors alone"
        raise InputError(f"The model has no further predictors {unknown[0]}: {known}.")
    if lacking := [name for name in template.further if name not in further]:
        raise InputError(
            f"The model was trained on further predictors ({trained}), and {', '.join(lacking)} are not given: add "
            f"--further.{lacking[0]} FILE."
        )


def opened(variables: Variables, path: str, units: Mapping[str, str]) -> Cube:
    """Variables of other files, in the units of training."""
    present = open_dataset(path, halves=True).dims if variables.select else ()
    select = {name: value for name, value in variables.select.items() if name in present}
    known = {name: text for name, text in units.items() if text}
    return Cube(replace(variables, path=path, units=known, select=select))


def with_levels(variables: Variables, names: Iterable[str]) -> Variables:
    """Variables with the levels that channels of these names had, where none were named: runs of before took all."""
    took_all = variables.levels is None and any("@" in name for name in names)
    return replace(variables, levels="all") if took_all else variables


def to_cells_and_back(part: Grid, given: Grid) -> tuple[Regridder | None, Regridder | None]:
    """Means of fields on the targets' grid over the cells of the predictors', and the way back; None where grids do not fit."""
    try:
        return Conservative().between(part, given), spreading(given, part)
    except InputError:  # of another mapping, or cut by the domain's edge
        return None, None


def check_times(cube: Cube, calendar: str) -> None:
    """Refuse what is no date, dates that do not rise, and another calendar than that of the training data."""
    cube.check_dates()
    own = calendar_of(cube.dataset[cube.layout.time]) if cube.layout.time else ""
    if own and calendar and own != calendar:
        raise InputError(
            f"{cube.origin} has the calendar {own}, and the model was trained on {calendar}: convert it, or give --any-calendar."
        )


def minutes(date: Any) -> int:
    """Minutes from the year 1 to a date of any calendar: a number for it that no file's order changes. Never negative."""
    day = getattr(date, "toordinal", None)
    if type(date).__module__ == "datetime" and day is not None:
        whole = day()
    else:
        import cftime

        whole = int(cftime.date2num(date, "days since 0001-01-01", calendar=date.calendar))
    return max(whole, 0) * MINUTES_OF_DAY + date.hour * 60 + date.minute
