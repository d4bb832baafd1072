"""Whether the files of the benchmark, and those of a submission, are what they should be: one line for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scorefield.climate.carried import matched, units_of
from scorefield.climate.files import Cube, Variables
from scorefield.climate.mlbench.layout import EXPERIMENTS, MEMBERS, PREDICTORS, TARGETS, Domain, Test, Training
from scorefield.climate.opening import open_dataset
from scorefield.climate.predictors import opened
from scorefield.climate.source import grid_of_cube
from scorefield.climate.times import calendar_of, stamps
from scorefield.climate.trained_lines import on_trained_lines
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    from xarray import Dataset

PLAUSIBLE = {"pr": (0.0, 2000.0), "tasmax": (150.0, 360.0)}  # mm/day and K: what lies beyond is no weather
READ = 2**26  # bytes at once
CLOSE = 1e-4  # of a coordinate's values


class Verdict(NamedTuple):
    """Of one file.

    Args:
        path: as it is called.
        problem: why it is refused; "" where it is accepted.
    """

    path: str
    problem: str = ""

    def __str__(self) -> str:
        return f"refuse {self.path}: {self.problem}" if self.problem else f"accept {self.path}"


def verdict(path: Path | str, check: Callable[[], object]) -> Verdict:
    """Of a check that raises InputError where a file cannot be used."""
    try:
        check()
    except InputError as error:
        return Verdict(str(path), " ".join(str(error).removeprefix(f"{path}: ").split()))
    return Verdict(str(path))


def of_benchmark(domain: Domain, experiments: Iterable[str] = tuple(EXPERIMENTS), *, orography: bool) -> list[Verdict]:
    """Of all files of a domain, those of training first.

    Args:
        domain: where they lie.
        experiments: whose files of training are wanted.
        orography: whether the static file is needed.
    """
    found: list[Verdict] = []
    trained: list[Cube] = []
    for experiment in experiments:
        try:
            files = domain.training(experiment)
        except InputError as error:
            found.append(Verdict(str(domain.folder / "train" / experiment), str(error)))
            continue
        given: list[Cube] = []
        found.append(verdict(files.predictors, lambda of=files, to=given: to.append(predictors_of(of.predictors))))
        found.append(verdict(files.target, partial(check_target, files, given)))
        trained += given
        if orography or files.static is not None:
            found.append(verdict(files.static or files.predictors.parent / "static.nc", partial(check_static, files)))
    try:
        tests = domain.tests()
    except InputError as error:
        return [*found, Verdict(str(domain.folder / "test"), str(error))]
    return found + [verdict(test.path, partial(as_trained, test.path, trained[0])) for test in tests if trained]


def predictors_of(path: Path) -> Cube:
    """Those of training. InputError where a variable is missing, or dates do not rise."""
    cube = Cube(Variables(str(path), list(PREDICTORS)))
    cube.check_dates()
    return cube


def check_target(files: Training, given: Sequence[Cube]) -> None:
    """Refuse a target that lacks a variable, or that has days without predictors, where these are given."""
    fine = Cube(Variables(str(files.target), list(TARGETS)))
    fine.check_dates()
    for cube in given:
        if lacking := int((matched(fine, cube) < 0).sum()):
            raise InputError(f"{lacking} of its {len(fine)} days are not among those of {files.predictors.name}.")


def check_static(files: Training) -> None:
    """Refuse an orography that is not on the grid of the target."""
    if files.static is None:
        raise InputError("it is not there.")
    ours, fine = Cube(Variables(str(files.static), ["orog"])), Cube(Variables(str(files.target), list(TARGETS)))
    if ours.shape != fine.shape:
        raise InputError(
            f"orog has {ours.shape[0]}×{ours.shape[1]} points, the target {fine.shape[0]}×{fine.shape[1]}."
        )


def as_trained(path: Path, trained: Cube) -> None:
    """Refuse predictors that are not on the grid and in the units of those of training."""
    cube = opened(trained.variables, str(path), units_of(trained))
    cube.check_dates()
    on_trained_lines(cube, grid_of_cube(trained), 1, whole=True)


def of_submission(submission: Path, pairs: Iterable[tuple[Domain, str]], members: int = MEMBERS) -> list[Verdict]:
    """Of every file that a submission should have, and of those that it should not.

    Args:
        submission: folder with ALPS_Domain, NZ_Domain and SA_Domain.
        pairs: domains of the benchmark and experiments that it is for.
        members: of an ensemble; 0 for none.
    """
    found: list[Verdict] = []
    for domain, experiment in pairs:
        target = open_dataset(domain.training(experiment).target)
        for test in domain.tests():
            path = test.prediction(domain.name, experiment)
            found.append(verdict(path, partial(check_prediction, submission / path, test, target, members)))
    wanted = {one.path for one in found}
    folders = {tuple(Path(path).parts[:2]) for path in wanted}
    for path in sorted(path.relative_to(submission) for path in submission.rglob("*") if path.is_file()):
        if str(path) not in wanted and (path.parts[:2] in folders or len(path.parts) < 3):
            found.append(Verdict(str(path), "the benchmark has no such file: take it away."))
    return found


def check_prediction(path: Path, test: Test, target: Dataset, members: int) -> None:
    """Refuse a prediction that is not as the benchmark asks for it.

    Args:
        path: of the file.
        test: what it is predicted from.
        target: the fields of training, whose grid, units and names it has.
        members: of the ensemble; 0 for none.

    Raises:
        InputError: it is absent or no NetCDF; other variables, dimensions, sizes, number types, coordinates, units or dates; a
            value that is unknown where the target is known, or no weather.
    """
    if not path.is_file():
        raise InputError("it is not there.")
    data, rows = open_dataset(path), target["pr"].dims[-2:]
    expected = {"member": members} if members else {}
    expected |= {"time": open_dataset(test.path).sizes["time"]} | {str(d): target.sizes[d] for d in rows}
    for name in TARGETS:
        if name not in data.data_vars:
            raise InputError(f"it has no variable {name} but {', '.join(map(str, data.data_vars)) or 'none'}.")
        variable = data[name]
        if set(variable.dims) != set(expected) or variable.dims[-2:] != rows:
            raise InputError(
                f"{name} has the dimensions {', '.join(map(str, variable.dims))}, not {', '.join(expected)}."
            )
        if sizes := [f"{d} has {variable.sizes[d]}, not {n}" for d, n in expected.items() if variable.sizes[d] != n]:
            raise InputError(f"{name}: {'; '.join(sizes)}.")
        if variable.dtype not in (np.float32, np.float64):
            raise InputError(f"{name} holds {variable.dtype}, not float32 or float64.")
        units, own = (str(d[name].attrs.get("units", "")) for d in (data, target))
        if units != own:
            raise InputError(f"{name} is in {units or 'no units'}, and the target in {own or 'no units'}.")
    check_coordinates(data, target, [str(d) for d in rows])
    check_dates(data, open_dataset(test.path))
    known = np.isfinite(target["tasmax"].isel(time=0).values)
    for name in TARGETS:
        check_values(data, name, known)


def check_coordinates(data: Dataset, target: Dataset, rows: list[str]) -> None:
    """Refuse other places than the target's."""
    for name in (*rows, "lat", "lon"):
        if name not in target.coords:
            continue
        if name not in data.coords or data[name].dims != target[name].dims:
            raise InputError(f"it has no coordinate {name} along {', '.join(map(str, target[name].dims))}.")
        ours, theirs = (np.asarray(d[name].values, float) for d in (data, target))
        if not np.allclose(ours, theirs, rtol=0, atol=CLOSE * max(1.0, float(np.abs(theirs).max()))):
            worst = int(np.abs(ours - theirs).argmax())
            raise InputError(f"{name} is {ours.flat[worst]:.6g} where the target has {theirs.flat[worst]:.6g}.")


def check_dates(data: Dataset, given: Dataset) -> None:
    """Refuse other dates, or another calendar, than the predictors'."""
    for one, what in ((data, "its time"), (given, "the predictors' time")):
        if "time" not in one.coords or one["time"].dtype.kind not in "MO":
            raise InputError(f"{what} is no date.")
    ours, theirs = (stamps(d["time"].values) for d in (data, given))
    if ours != theirs:
        first = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        both = ["{:04d}-{:02d}-{:02d} {:02d}:{:02d}".format(*dates[first][:5]) for dates in (ours, theirs)]
        raise InputError(f"time {first} is {both[0]}, and the predictors' is {both[1]}.")
    if (calendars := [calendar_of(d["time"]) for d in (data, given)])[0] != calendars[1]:
        raise InputError(f"its calendar is {calendars[0]}, and the predictors' is {calendars[1]}.")


def check_values(data: Dataset, name: str, known: np.ndarray) -> None:
    """Refuse unknown and impossible values where the target is known, (rows, columns) bool."""
    variable = data[name]
    low, high = PLAUSIBLE[name]
    size = variable.dtype.itemsize * variable.size // variable.sizes["time"]
    step = max(1, READ // size)
    for first in range(0, variable.sizes["time"], step):
        values = variable.isel(time=slice(first, first + step)).values[..., known]
        if broken := int((~np.isfinite(values)).sum()):
            raise InputError(f"{name} has {broken} values that are no numbers in times {first} to {first + step - 1}.")
        ends = float(values.min()), float(values.max())
        if ends[0] < low or ends[1] > high:
            raise InputError(f"{name} goes from {ends[0]:.5g} to {ends[1]:.5g}, beyond {low:g} to {high:g}.")
