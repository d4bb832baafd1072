"""What the dimensions and the variables of a gridded file are: axes, coordinates, bounds, grid mappings; by CF, else by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.foundation.lazy import require

if TYPE_CHECKING:
    import xarray as xr

CF = {
    "X": "x", "longitude": "x", "Y": "y", "latitude": "y", "T": "time", "time": "time", "Z": "level", "vertical": "level",
}  # fmt: skip
# fmt: off
NAMES = {  # of dimensions that no attribute explains
    "x": ("lon", "longitude", "x", "grid_longitude", "rlon", "projection_x_coordinate", "xc", "i", "ni", "nlon", "nx",
          "west_east", "xi_rho", "xi_u", "xi_v", "xh", "xt_ocean"),
    "y": ("lat", "latitude", "y", "grid_latitude", "rlat", "projection_y_coordinate", "yc", "j", "nj", "nlat", "ny",
          "south_north", "eta_rho", "eta_u", "eta_v", "yh", "yt_ocean"),
    "time": ("time", "t", "valid_time", "date", "ocean_time", "time_counter"),
    "member": ("ensemble_member", "member", "realization", "realisation", "ensemble", "ens", "number", "sample",
               "member_id", "ensemble_number", "mem",
               "variant_label"),
    "level": ("level", "lev", "plev", "pressure", "pressure_level", "isobaricinhpa", "height", "depth", "altitude", "z"),
}
# fmt: on
POINTS = {  # of every point, where no attribute says what they are
    "latitude": ("lat", "latitude", "nav_lat", "xlat", "tlat", "lat_rho", "geolat", "geolat_t", "gphit", "plat"),
    "longitude": ("lon", "longitude", "nav_lon", "xlong", "tlong", "lon_rho", "geolon", "geolon_t", "glamt", "plon"),
}


def library() -> Any:
    """xarray, which reads CF attributes by cf-xarray, or InputError where the extra is missing."""
    require("cf_xarray", "Gridded files", "climate")
    return require("xarray", "Gridded files", "climate")


@dataclass(frozen=True)
class Layout:
    """The dimensions of a variable by what they are; empty where it has none of a kind.

    Attributes:
        x: along rows.
        y: along columns.
        time: along time.
        member: of an ensemble.
        level: along the vertical.
        single: others, of length 1.
    """

    x: str
    y: str
    time: str = ""
    member: str = ""
    level: str = ""
    single: tuple[str, ...] = ()


def axes_of(dataset: xr.Dataset, name: str) -> dict[str, str]:
    """What each dimension of a variable is - x, y, time, member, level - by CF attributes, else by its name; "" where unknown."""
    library()
    known = {
        coordinate: CF[kind]
        for kinds in (dataset.cf.coordinates, dataset.cf.axes)
        for kind, coordinates in kinds.items()
        for coordinate in coordinates
    }
    found = {}
    for dimension in map(str, dataset[name].dims):
        axis = known.get(dimension) or next((a for a, names in NAMES.items() if dimension.lower() in names), "")
        if dimension in dataset.coords:
            if dataset[dimension].attrs.get("standard_name") == "realization":
                axis = "member"
            axis = axis or ("time" if dataset[dimension].dtype.kind in "MO" else "")
        found[dimension] = axis
    if {"x", "y"} - set(found.values()) and (points := points_of(dataset, name, tuple(found))):
        # Two dimensions that nothing names, but points with a latitude and a longitude: the last one runs along rows.
        found |= dict(zip(map(str, dataset[points[0]].dims), ("y", "x"), strict=True))
    return found


def layout_of(dataset: xr.Dataset, name: str, origin: str) -> Layout:
    """Find the axes of a variable. Raises InputError where it is absent or no field."""
    if name not in dataset.variables:
        raise InputError(f"{origin} has no variable {name}: it has {', '.join(map(str, dataset.data_vars))}.")
    axes: dict[str, str] = {}
    single: list[str] = []
    # Of two dimensions of one kind, such as two times, the one of length 1 is left out.
    for dimension, axis in sorted(axes_of(dataset, name).items(), key=lambda pair: dataset.sizes[pair[0]] == 1):
        if dataset.sizes[dimension] == 1 and (not axis or axis in axes):
            single.append(dimension)
        elif axis in axes:
            raise InputError(
                f"{origin}: {name} has the dimensions {axes[axis]} and {dimension}: {advice(dataset, dimension)}."
            )
        elif axis:
            axes[axis] = dimension
        else:
            raise InputError(
                f"{origin}: {name} has the dimension {dimension}, which is no axis of a grid, of time, of members or of levels: "
                f"{advice(dataset, dimension)}."
            )
    if "x" not in axes or "y" not in axes:
        raise InputError(f"{origin}: {name} has the dimensions {', '.join(map(str, dataset[name].dims))}, not a grid.")
    return Layout(**axes, single=tuple(single))


def advice(dataset: xr.Dataset, dimension: str) -> str:
    """How to pick one value of a dimension."""
    values = dataset[dimension].values if dimension in dataset.coords else np.arange(dataset.sizes[dimension])
    shown = ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")
    return f"pick one of {shown} by select: {{{dimension}: {values[0]}}} beside names"


def selected(dataset: xr.Dataset, wanted: Mapping[str, float | str], origin: str) -> xr.Dataset:
    """A data set at some values of some dimensions, or at their numbers where a dimension has no values."""
    for dimension, value in wanted.items():
        if dimension not in dataset.dims:
            raise InputError(
                f"{origin} has no dimension {dimension}, which select names: it has {', '.join(map(str, dataset.dims))}."
            )
        values = dataset[dimension].values if dimension in dataset.coords else np.arange(dataset.sizes[dimension])
        places = [i for i, found in enumerate(values) if _same(found, value)]
        if not places:
            raise InputError(f"{origin} has no {dimension} {value}: {advice(dataset, dimension)}.")
        dataset = dataset.isel({dimension: places[0]}, drop=True)
    return dataset


def _same(found: Any, wanted: float | str) -> bool:
    """Whether two spellings are of one value: 5, 5.0, "0005"."""
    found = found.decode() if isinstance(found, bytes) else found
    try:
        return bool(np.isclose(float(found), float(wanted), rtol=1e-6, atol=0))
    except (TypeError, ValueError):
        return str(found) == str(wanted)


def mapping_name(dataset: xr.Dataset, name: str) -> str:
    """The variable with a variable's grid mapping, its coordinates, where it lists them, left out; "" where there is none."""
    variable = dataset[name]
    text = str(variable.attrs.get("grid_mapping", variable.encoding.get("grid_mapping", "")))
    found = text.partition(":")[0].strip()
    return found if found in dataset.variables else ""


def bounds_name(dataset: xr.Dataset, name: str) -> str:
    """The variable with a coordinate's bounds; "" where it has none."""
    attributes = {**dataset[name].encoding, **dataset[name].attrs} if name in dataset.coords else {}
    found = str(attributes.get("bounds", ""))
    return found if found in dataset.variables else ""


def points_of(dataset: xr.Dataset, name: str, dimensions: tuple[str, ...]) -> tuple[str, str] | None:
    """The variables with latitude and longitude of every point of a variable, over two of some dimensions; None without them.

    Named by the variable's `coordinates`, by their own attributes, or by what they are called.
    """
    flat = [
        str(n) for n, v in dataset.variables.items() if v.ndim == 2 and set(v.dims) <= set(dimensions) and n != name
    ]  # fmt: skip
    known = dataset[flat].set_coords(flat).cf.coordinates if flat else {}
    variable = dataset[name]
    first = str(variable.attrs.get("coordinates", variable.encoding.get("coordinates", ""))).split()
    found = []
    for kind, names in POINTS.items():
        fits = [n for n in flat if n in known.get(kind, ())] or [n for n in flat if n.lower() in names]
        if not fits:
            return None
        found.append(min(fits, key=lambda n: (n not in first, n.lower() not in names)))
    return (found[0], found[1]) if set(dataset[found[0]].dims) == set(dataset[found[1]].dims) else None
