"""The grid: where its boxes are, how large they are, and whether two grids are one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scorefield.climate.baselines.baseline import factor_between
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

DEGREES = ("degrees", "degree", "degrees_north", "degree_north", "degrees_east", "degree_east")
NAMES = {"lat": "latitude", "lon": "longitude", "rlat": "grid_latitude", "rlon": "grid_longitude"}
ROLES = ("the predictions", "the truth")  # of two data sets, as messages call them
TOLERANCE = 1e-3  # of the spacing: coordinates are often kept in single precision


def named_axes(data: Dataset, axes: dict[str, str]) -> Dataset:
    """Rename the dimensions of the grid to y and x; what they were goes into their `standard_name` if that is not there.

    Args:
        data: fields.
        axes: y and x by their old names.
    """
    data = data.rename({old: new for old, new in axes.items() if old != new})
    for old, new in axes.items():
        if new in data.coords and "standard_name" not in data[new].attrs:
            attrs = {**data[new].attrs, "standard_name": NAMES.get(old.lower(), old.lower())}
            data = data.assign_coords({new: (new, data[new].to_numpy(), attrs)})
    return data


def same_grid(pred: Dataset, truth: Dataset, roles: tuple[str, str] = ROLES) -> Dataset:
    """The truth in the boxes of the predictions, in their order.

    Args:
        pred: on the grid wanted.
        truth: on a grid that has these boxes.
        roles: what the two are called in messages.

    Raises:
        InputError: it has no such box, or without coordinates another number of them.
    """
    for axis in "yx":
        if axis in pred.indexes and axis in truth.indexes:
            ours, theirs = (np.asarray(data[axis], float) for data in (pred, truth))
            turning = axis == "x" and is_angle(pred[axis]) and is_angle(truth[axis])
            truth = truth.isel({axis: nearest(ours, theirs, axis, turning=turning, roles=roles)})
        elif pred.sizes[axis] != truth.sizes[axis]:
            shapes = [f"{data.sizes['y']}×{data.sizes['x']}" for data in (pred, truth)]
            raise InputError(f"The grids differ: {roles[0]} have {shapes[0]} boxes, {roles[1]} {shapes[1]}.")
    return truth


def is_angle(coordinate: DataArray) -> bool:
    """Whether a coordinate is in degrees, by its units, or where it has none by its name."""
    told = coordinate.attrs.get("units")
    if told is not None:
        return str(told) in DEGREES
    return coordinate.attrs.get("standard_name") in NAMES.values()


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
    spacing = np.abs(np.diff(theirs)).min() if len(theirs) > 1 else 1.0
    away = ours[:, None] - theirs[None]
    distance = np.abs(away)
    if turning and distance.min(1).max() > TOLERANCE * spacing:
        distance = np.abs((away + 180) % 360 - 180)
    place, least = distance.argmin(1), distance.min(1)
    if least.max() > TOLERANCE * spacing:
        worst = int(least.argmax())
        raise InputError(
            f"The grids differ along {axis}: {roles[0]} have boxes at {ours[worst]:g}, the nearest of {roles[1]} are at "
            f"{theirs[place[worst]]:g}. Bring them onto one grid first."
        )
    return place


def over(coarse: Dataset, fine: Dataset, roles: tuple[str, str]) -> Dataset:
    """Coarse fields whose boxes are those that as many fine ones each make up, in the order of the fine ones.

    Args:
        coarse: fields on a grid whose boxes hold the same number of fine ones, along each axis.
        fine: on their grid.
        roles: what the two are called in messages.

    Raises:
        InputError: the boxes are not evenly divided, or lie elsewhere: half a fine box is the most that they may be off.
    """
    factor_between((coarse.sizes["y"], coarse.sizes["x"]), (fine.sizes["y"], fine.sizes["x"]))
    for axis in "yx":
        if axis not in coarse.indexes or axis not in fine.indexes:
            continue
        theirs, ours = (np.asarray(data[axis], float) for data in (coarse, fine))
        if len(theirs) > 1 and (theirs[-1] - theirs[0]) * (ours[-1] - ours[0]) < 0:
            coarse, theirs = coarse.isel({axis: slice(None, None, -1)}), theirs[::-1]
        centres = ours.reshape(len(theirs), -1).mean(1)
        away = theirs - centres
        if axis == "x" and is_angle(coarse[axis]) and is_angle(fine[axis]):
            away = (away + 180) % 360 - 180
        spacing = np.abs(np.diff(ours)).min() if len(ours) > 1 else np.inf
        if np.abs(away).max() > (0.5 + TOLERANCE) * spacing:
            worst = int(np.abs(away).argmax())
            raise InputError(
                f"The grids differ along {axis}: {roles[0]} have a box at {theirs[worst]:g}, and the boxes of {roles[1]} that "
                f"should make it up lie around {centres[worst]:g}. Crop or regrid one of them."
            )
    return coarse


def positions(data: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Latitude and longitude of each box in degrees, each (y, x), or None where they are not told."""
    found = []
    for name, short in (("latitude", "lat"), ("longitude", "lon")):
        fits = [c for c in data.coords.values() if is_position(c, name, short)]
        if not fits:
            return None
        full = fits[0].broadcast_like(data[next(iter(data.data_vars))].isel(time=0, drop=True))
        found.append(full.transpose("y", "x").to_numpy().astype(float))
    return found[0], found[1]


def is_position(coordinate: DataArray, name: str, short: str) -> bool:
    """Whether a coordinate tells true latitudes or longitudes of boxes."""
    told = coordinate.attrs.get("standard_name", str(coordinate.name).lower())
    return told in (name, short) and bool(coordinate.dims) and set(coordinate.dims) <= {"y", "x"}


def areas(data: Dataset) -> np.ndarray:
    """Relative areas of the boxes, (y, x): the cosine of latitude, true or rotated; equal where the grid is in metres or unknown.

    On a grid that is regular in latitude and longitude, rotated or not, a box is as large as the cosine of its own latitude. Any
    other grid is taken for one of equal boxes.
    """
    shape = (data.sizes["y"], data.sizes["x"])
    rows = data.coords.get("y")
    if rows is None or rows.attrs.get("units", "degrees") not in DEGREES:
        return np.ones(shape)
    if rows.attrs.get("standard_name") not in ("latitude", "grid_latitude"):
        return np.ones(shape)
    return np.broadcast_to(np.cos(np.deg2rad(rows.to_numpy().astype(float)))[:, None], shape).copy()
