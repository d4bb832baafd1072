"""Fields of two files in one order: the same names of axes, the same times, the same units, the same grid.

Inside, the dimensions are (member, time, y, x) of ensembles and (time, y, x) of the truth. `time` numbers the cases: days,
hours, or tiles of one day.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from scorefield.climate.accumulation import accumulation, rain_rate
from scorefield.climate.axes import POINTS
from scorefield.climate.carried import numbers_at
from scorefield.climate.files import (
    NAMES,
    Layout,
    axes_of,
    bounds_name,
    check_filled,
    library,
    mapping_name,
    packing_of,
)
from scorefield.climate.grid import (
    CURVILINEAR,
    GEOGRAPHIC,
    ROTATED,
    Grid,
    factor_between,
    grid_of,
    is_angle,
    orientation_to,
    spacing,
    unit_vectors,
)
from scorefield.climate.times import DAY, is_date, span_of
from scorefield.climate.units import conversion, is_precipitation, same_units
from scorefield.foundation.errors import InputError
from scorefield.run.verb import log

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

MEMBERS, TIMES = NAMES["member"], NAMES["time"]
STANDARD = {"lat": "latitude", "lon": "longitude", "rlat": "grid_latitude", "rlon": "grid_longitude"}
ROLES = ("the predictions", "the truth")  # of two data sets, as messages call them
ANGULAR = {f"degree{s}{_}{end}" for s in ("", "s") for _ in ("_", "") for end in ("north", "n", "east", "e")}
TOLERANCE = 1e-3  # of the spacing: coordinates are often kept in single precision


def fields_of(data: Dataset) -> list[str]:
    """The variables with values on a grid: no bounds or corners, no latitudes and longitudes of points, and beside fields that
    change with time nothing that does not, such as orography.
    """
    attributes = ({**v.encoding, **v.attrs} for v in data.variables.values())
    about = {str(value) for found in attributes for key in ("bounds", "grid_mapping") if (value := found.get(key))}
    angles = {name for names in POINTS.values() for name in names}
    found = {
        str(name): v.dims
        for name, v in data.data_vars.items()
        if v.ndim >= 2
        and v.dtype.kind in "fiu"
        and name not in about
        and not str(name).endswith(("_bnds", "_bounds", "_vertices"))
        and not (str(name).lower() in angles or str(v.attrs.get("units", "")).lower() in ANGULAR)
    }
    changing = [name for name, dims in found.items() if {str(dim).lower() for dim in dims} & set(TIMES)]
    return changing or list(found)


def with_grid(data: Dataset, names: Iterable[str]) -> Dataset:
    """Some variables with all that says where they are: coordinates, their bounds, the grid mapping."""
    names = list(names)
    dims = {str(d) for name in names for d in data[name].dims}
    about = [bounds_name(data, d) for d in dims] + [mapping_name(data, name) for name in names]
    about += [
        str(n) for n, v in data.variables.items() if v.ndim == 2 and set(v.dims) <= dims and is_angle(data[str(n)])
    ]
    about = [name for name in dict.fromkeys(about) if name and name not in names]
    return data[[*names, *about]].set_coords(about)


def canonical(data: Dataset, role: str) -> Dataset:
    """Dimensions by our names: member if there is one, time, y, x.

    Args:
        data: variables of one grid.
        role: what they are called in messages.
    """
    if taken := {"member", "time", "y", "x"} & {str(name) for name in data.data_vars}:
        raise InputError(f"A variable of the {role} is called {min(taken)}, as an axis is: rename it.")
    axes = axes_of(data, str(next(iter(data.data_vars))))
    members, times = ([d for d, axis in axes.items() if axis == wanted] for wanted in ("member", "time"))
    rest = [d for d in axes if d not in members + times]
    single = [d for d in rest if axes[d] in ("", "level") and data.sizes[d] == 1][: max(len(rest) - 2 - (not times), 0)]
    data, rest = data.isel(dict.fromkeys(single, 0), drop=True), [d for d in rest if d not in single]
    if not times and len(rest) == 3:
        times, rest = rest[:1], rest[1:]
    if len(rest) != 2 or len(times) > 1 or len(members) > 1:
        raise InputError(
            f"The {role} have the dimensions {', '.join(axes)}: needed are two of a grid, one of times, at most one of members."
        )
    rest = rest[::-1] if [axes[d] for d in rest] == ["x", "y"] else rest
    renamed = dict.fromkeys(members[:1], "member") | dict.fromkeys(times[:1], "time")
    data = _without(data, {new for old, new in renamed.items() if old != new})
    data = data.rename({old: new for old, new in renamed.items() if old != new})
    data = data.rename({old: new for old, new in zip(rest, "yx", strict=True) if old != new})
    for old, new in zip(rest, "yx", strict=True):
        if new in data.coords and "standard_name" not in data[new].attrs:
            attrs = {**data[new].attrs, "standard_name": STANDARD.get(old.lower(), old.lower())}
            data = data.assign_coords({new: (new, data[new].to_numpy(), attrs)})
    return data if "time" in data.dims else data.expand_dims("time")


def single_member(data: Dataset, role: str) -> Dataset:
    """Fields without a dimension of members, which may be one of length 1. InputError for several."""
    if data.sizes.get("member", 1) > 1:
        raise InputError(f"{role} has {data.sizes['member']} members: select one of them first, as .isel(member=0).")
    return data.isel(member=0, drop=True) if "member" in data.dims else data


def _without(data: Dataset, names: set[str]) -> Dataset:
    """Make way for axes of these names: dates along numbered cases, as tiles are, become `date`; what else has them goes."""
    taken = [name for name in names if name in data.coords and name not in data.dims]
    dates = [name for name in taken if name == "time" and data[name].ndim == 1 and "date" not in data.variables]
    return data.rename(dict.fromkeys(dates, "date")).drop_vars([name for name in taken if name not in dates])


def in_units_of(pred: Dataset, truth: Dataset, roles: tuple[str, str] = ROLES) -> Dataset:
    """Variables in the units of others, K for degC; those without units are taken as they are.

    Args:
        pred: variables.
        truth: one by one what they are compared with, under any name.
        roles: what the two are called in messages.

    Millimetres that fell from one time to the next are millimetres a day where it is known how far these are apart.

    Raises:
        InputError: units of different quantities, or values that can only stand for unknown.
    """
    for name, mine in zip(truth.data_vars, pred.data_vars, strict=True):
        one, other = pred[mine].attrs.get("units"), truth[name].attrs.get("units")
        water = is_precipitation(pred[mine]) and is_precipitation(truth[name])
        if one is None or other is None or same_units(one, other, water=water):
            continue
        found = conversion(one, other, water=water) or (
            water and rain_rate(str(one), str(other), accumulation(pred, truth))
        )
        if not found:
            raise InputError(
                f"{name} is in {one} in {roles[0]} and in {other} in {roles[1]}: convert one of them first."
            )
        log.info("%s of %s is converted from %s to %s", mine, roles[0], one, other)
        values = converted(pred[mine], found, f"{roles[0]}: {mine}")
        pred = pred.assign({str(mine): values.assign_attrs({**pred[mine].attrs, "units": other})})
    return pred


def converted(variable: DataArray, change: tuple[float, float], what: str) -> DataArray:
    """factor · x + summand in float64, lazily where x is in chunks. What can only stand for unknown is refused before."""
    packing = packing_of(variable)

    def convert(values: np.ndarray) -> np.ndarray:
        check_filled(values, what, packing)
        return values.astype(np.float64) * change[0] + change[1]

    return library().apply_ufunc(convert, variable, dask="parallelized", output_dtypes=[np.float64])


def grid_in(data: Dataset) -> Grid:
    """The grid of canonical fields."""
    return grid_of(data, str(next(iter(data.data_vars))), Layout("x", "y"))


def same_grid(pred: Dataset, truth: Dataset, roles: tuple[str, str] = ROLES) -> Dataset:
    """The truth in the cells of the predictions, in their order.

    Along lines of one kind cells are found line by line, else by the latitude and longitude of every point. Where one of the two
    has no coordinates, cells are taken by their position, and the log says so.

    Args:
        pred: on the grid wanted.
        truth: on a grid that has these cells.
        roles: what the two are called in messages.

    Raises:
        InputError: it has no such cell, or without coordinates another number of them.
    """
    ours, theirs = grid_in(pred), grid_in(truth)
    if by_points(ours, theirs):
        return _placed(truth, ours.points(), theirs.points(), roles)
    for axis in "yx":
        if axis in pred.indexes and axis in truth.indexes and CURVILINEAR not in (ours.kind, theirs.kind):
            turning = axis == "x" and ours.spherical and theirs.spherical
            places = nearest(getattr(ours, axis), getattr(theirs, axis), axis, turning=turning, roles=roles)
            truth = truth.isel({axis: places})
        elif pred.sizes[axis] != truth.sizes[axis]:
            shapes = [f"{data.sizes['y']}×{data.sizes['x']}" for data in (pred, truth)]
            raise InputError(f"The grids differ: {roles[0]} have {shapes[0]} boxes, {roles[1]} {shapes[1]}.")
        elif (axis in pred.indexes) != (axis in truth.indexes) or ours.kind != theirs.kind:
            log.warning("%s and %s are compared by position along %s: one of them has no coordinates", *roles, axis)
    return truth


def by_points(ours: Grid, theirs: Grid) -> bool:
    """Whether cells have to be compared by latitude and longitude: lines are numbers, or not of one kind, and both know them."""
    known = all(
        one.latitude is not None or one.kind == GEOGRAPHIC or (one.kind == ROTATED and one.pole)
        for one in (ours, theirs)
    )
    lines = ours.kind == theirs.kind != CURVILINEAR and (
        ours.shares_lines_with(theirs) or not (ours.pole and theirs.pole)
    )
    return known and not lines


def coarse_boxes(coarse: Dataset, fine: Dataset, roles: tuple[str, str]) -> Dataset:
    """Coarse fields whose cells are made up by as many fine ones each, in the order of the fine ones.

    Args:
        coarse: fields on a grid whose cells hold the same number of fine ones, along each axis.
        fine: on their grid.
        roles: what the two are called in messages.

    Raises:
        InputError: the cells are not evenly divided, or lie elsewhere: half a fine cell is the most that they may be off.
    """
    given, wanted = grid_in(coarse), grid_in(fine)
    factor = factor_between(given.shape, wanted.shape)
    if by_points(wanted, given):
        if factor[0] != factor[1]:
            raise InputError(
                f"Cells of {factor[0]}×{factor[1]} points on curved lines are not known: make them square."
            )
        return _placed(coarse, wanted.coarsened(factor[0]).points(), given.points(), (roles[1], roles[0]))
    for axis in "yx":
        if axis not in coarse.indexes or axis not in fine.indexes or CURVILINEAR in (given.kind, wanted.kind):
            if axis in coarse.indexes or axis in fine.indexes:
                log.warning("%s and %s are compared by position along %s: one of them has no coordinates", *roles, axis)
            continue
        theirs, ours = getattr(given, axis), getattr(wanted, axis)
        if len(theirs) > 1 and (theirs[-1] - theirs[0]) * (ours[-1] - ours[0]) < 0:
            coarse, theirs = coarse.isel({axis: slice(None, None, -1)}), theirs[::-1]
        centres = ours.reshape(len(theirs), -1).mean(1)
        away = theirs - centres
        if axis == "x" and given.spherical and wanted.spherical:
            away = (away + 180) % 360 - 180
        step = np.abs(np.diff(ours)).min() if len(ours) > 1 else np.inf
        if np.abs(away).max() > (0.5 + TOLERANCE) * step:
            worst = int(np.abs(away).argmax())
            raise InputError(
                f"The grids differ along {axis}: {roles[0]} have a box at {theirs[worst]:g}, and the boxes of {roles[1]} that "
                f"should make it up lie around {centres[worst]:g}. Crop or regrid one of them."
            )
    return coarse


def _placed(
    data: Dataset, wanted: tuple[np.ndarray, np.ndarray], given: tuple[np.ndarray, np.ndarray], roles: tuple[str, str]
) -> Dataset:
    """Fields in the order in which their points, by latitude and longitude (rows, columns), are those that are wanted."""
    from scipy.spatial import KDTree

    if (order := orientation_to(wanted, given)) is not None:
        return data.isel(y=order[0], x=order[1])
    ours, theirs = (unit_vectors(*points).reshape(-1, 3) for points in (wanted, given))
    if np.isnan(ours).any() or np.isnan(theirs).any():
        raise InputError(
            f"The grids of {roles[0]} and {roles[1]} differ, or points without latitude hide that they do not."
        )
    distance, place = map(np.asarray, KDTree(theirs).query(ours))
    worst = int(distance.argmax())
    if distance[worst] > 1e-2 * np.radians(spacing(*given)):
        at = [f"{p[0].flat[i]:.5g},{p[1].flat[i]:.5g}" for p, i in ((wanted, worst), (given, place[worst]))]
        raise InputError(
            f"The grids differ: {roles[0]} have a point with the latitude and longitude {at[0]}, the nearest of {roles[1]} is at "
            f"{at[1]}. Bring them onto one grid first."
        )
    rows, columns = (part.reshape(wanted[0].shape) for part in np.divmod(place, given[0].shape[1]))
    if (rows == rows[:1]).all() and (columns == columns[:, :1]).all() and len(rows[0]) > 1:  # what is y there is x here
        data = data.rename(y="x", x="y")
        rows, columns = columns, rows
    if not ((rows == rows[:, :1]).all() and (columns == columns[:1]).all()):
        raise InputError(
            f"The points of {roles[0]} lie in no rows and columns of {roles[1]}: bring them onto one grid first."
        )
    return data.isel(y=rows[:, 0], x=columns[0])


def nearest(
    ours: np.ndarray, theirs: np.ndarray, axis: str, *, turning: bool, roles: tuple[str, str] = ROLES
) -> np.ndarray:
    """For each of our coordinates the place of the same one among theirs.

    Args:
        ours: coordinates wanted.
        theirs: those that there are.
        axis: y or x, for messages.
        turning: whether 360 more are the same: longitudes from 0 to 360 or from -180 to 180, where they do not fit as they are.
        roles: of the two, for messages.
    """
    step = np.abs(np.diff(theirs)).min() if len(theirs) > 1 else 1.0
    away = ours[:, None] - theirs[None]
    distance = np.abs(away)
    if turning and distance.min(1).max() > TOLERANCE * step:
        distance = np.abs((away + 180) % 360 - 180)
    place, least = distance.argmin(1), distance.min(1)
    if least.max() > TOLERANCE * step:
        worst = int(least.argmax())
        raise InputError(
            f"The grids differ along {axis}: {roles[0]} have boxes at {ours[worst]:g}, the nearest of {roles[1]} are at "
            f"{theirs[place[worst]]:g}. Bring them onto one grid first."
        )
    return place


def same_times(pred: Dataset, truth: Dataset) -> Dataset:
    """The truth at the times of the predictions; days and months belong together whatever the hour or the day of their stamp.

    Raises:
        InputError: it does not have all of them, or another calendar.
    """
    if "time" not in pred.coords or "time" not in truth.coords:
        counts = pred.sizes["time"], truth.sizes["time"]
        if counts[0] != counts[1]:
            raise InputError(f"Predictions have {counts[0]} times and the truth {counts[1]}, and not both have dates.")
        return truth
    calendars = [data["time"].dt.calendar if is_date(data["time"]) else "none" for data in (pred, truth)]
    if calendars[0] != calendars[1]:
        raise InputError(
            f"Predictions have the calendar {calendars[0]}, the truth {calendars[1]}: convert one of them first."
        )
    ours, theirs = pred.indexes["time"], truth.indexes["time"]
    for index, role in ((ours, "predictions"), (theirs, "truth")):
        if index.has_duplicates:
            raise InputError(f"The {role} have the time {index[index.duplicated()][0]} more than once.")
    stamped = np.asarray(theirs), np.asarray(ours)
    apart = is_date(pred["time"]) and _months_and_days(*stamped)
    if not (known := ours.isin(theirs)).all():
        if is_date(pred["time"]) and not apart and ((found := numbers_at(*stamped)) >= 0).all():
            log.info("times are matched by their day or month: %s is that of %s", ours[0], theirs[found[0]])
            return truth.isel(time=found).assign_coords(time=pred["time"])
        raise InputError(
            f"The truth lacks {int((~known).sum())} of the {len(ours)} times of the predictions, the first of them "
            f"{ours[~known][0]}; it reaches from {theirs[0]} to {theirs[-1]}."
        )
    if apart:
        log.warning("some files are of days and others of months or years: fields of one time are matched, not means")
    return truth.sel(time=pred["time"])


def _months_and_days(*times: np.ndarray) -> bool:
    """Whether some are of days and others of months or years, such as their means, whose stamp is that of one day."""
    spans = [span_of(found) for found in times if len(found) > 1]
    return DAY in spans and min(spans) < DAY


def same_cases(pred: Dataset, truth: Dataset) -> None:
    """Refuse cases of one number whose dates or places are not the same.

    Raises:
        InputError: `date` or `place` differ.
    """
    for name, what in (("date", "time"), ("place", "place")):
        if all(name in data.coords and data[name].dims == ("time",) for data in (pred, truth)):
            ours, theirs = (data[name].to_numpy() for data in (pred, truth))
            if (differ := ours != theirs).any():
                first = int(differ.argmax())
                raise InputError(
                    f"The {what} of {int(differ.sum())} of the {len(ours)} predictions is another than the truth's, the first "
                    f"{ours[first]}, not {theirs[first]}: the files are of different fields."
                )
