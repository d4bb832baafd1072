"""Gridded files: NetCDF-3, NetCDF-4 and Zarr, opened lazily, their axes found, their variables told apart as channels."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield.climate.units import same_units
from scorefield.foundation.errors import AbsentDataError, InputError, brief

if TYPE_CHECKING:
    import xarray as xr

HDF5, NETCDF3 = b"\x89HDF\r\n\x1a\n", b"CDF"
NAMES = {  # of coordinates, where no attribute tells what they are
    "x": ("lon", "longitude", "x", "grid_longitude", "rlon", "projection_x_coordinate", "xc", "i"),
    "y": ("lat", "latitude", "y", "grid_latitude", "rlat", "projection_y_coordinate", "yc", "j"),
    "time": ("time", "t", "valid_time", "date"),
    "member": ("ensemble_member", "member", "realization", "realisation", "ensemble", "number"),
}
STANDARD = {  # standard names of coordinates
    **dict.fromkeys(("longitude", "grid_longitude", "projection_x_coordinate"), "x"),
    **dict.fromkeys(("latitude", "grid_latitude", "projection_y_coordinate"), "y"),
    **{"time": "time", "realization": "member"},
}


@dataclass(frozen=True)
class Variables:
    """Some variables of gridded files. Packed integers are unpacked and fill values are NaN.

    Args:
        path: a NetCDF file, a Zarr store, a pattern such as `pr_*.nc`, or a list of them, which follow one another in time.
            Environment variables in it are filled in.
        names: of the variables, in the order of the channels.
        units: what they must be, of all variables or of each by its name; others raise InputError.
        levels: which values of the vertical axis to take, for variables that have one; all by default. Each is a channel.
    """

    path: str | list[str]
    names: list[str]
    units: str | dict[str, str] = field(default_factory=dict)
    levels: list[float] | None = None

    def files(self) -> list[str]:
        """The files. Raises AbsentDataError where there are none."""
        given = [self.path] if isinstance(self.path, str) else list(self.path)
        found: list[str] = []
        for entry in map(os.path.expandvars, given):
            matches = sorted(glob.glob(entry)) if glob.has_magic(entry) else [entry] * os.path.exists(entry)  # noqa: PTH110, PTH207
            if not matches:
                raise AbsentDataError(f"There is no file {entry}: give the path of NetCDF files or of a Zarr store.")
            found += matches
        return found


def library() -> Any:
    """xarray, or InputError where the extra is missing."""
    try:
        import xarray
    except ImportError as error:
        raise InputError("Gridded files need more libraries: pip install 'scorefield[climate]'.") from error
    return xarray


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store, of either format."""
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def engine_of(path: str) -> str:
    """What reads a file, by its first bytes: names of files tell nothing."""
    if Path(path).is_dir():
        return "zarr"
    with Path(path).open("rb") as file:
        first = file.read(8)
    if first == HDF5:
        return "h5netcdf"
    if first[:3] == NETCDF3:
        return "scipy"
    raise InputError(f"{path} is no NetCDF file and no Zarr store: convert it, with cdo or xarray.")


def open_dataset(files: Sequence[str]) -> xr.Dataset:
    """Files as one dataset, lazily; several are joined in the order of their times."""
    xarray = library()
    parts = []
    for path in files:
        try:
            # Several files are joined lazily by dask; one is read as it is asked for, which is faster.
            chunks: Any = {} if len(files) > 1 else None
            parts.append(xarray.open_dataset(path, engine=engine_of(path), decode_timedelta=False, chunks=chunks))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} cannot be read as a gridded file: {brief(error)}.") from error
    if len(parts) == 1:
        return parts[0]
    try:
        return xarray.combine_by_coords(parts, combine_attrs="override", join="exact")
    except ValueError as error:
        raise InputError(f"{files[0]} and {len(files) - 1} more files do not join: {brief(error)}.") from error


def axis_of(dataset: xr.Dataset, name: str) -> str:
    """What a dimension is: x, y, time, member, or else level."""
    attributes: Mapping[str, Any] = dataset[name].attrs if name in dataset.coords else {}
    if (standard := attributes.get("standard_name")) in STANDARD:
        return STANDARD[standard]
    if (axis := str(attributes.get("axis", "")).lower()) in ("x", "y"):
        return axis
    found = next((axis for axis, names in NAMES.items() if name.lower() in names), "")
    if found:
        return found
    kind = dataset[name].dtype.kind if name in dataset.coords else ""
    return "time" if kind in "MO" and name in dataset.coords else "level"


@dataclass(frozen=True)
class Layout:
    """The dimensions of a variable by what they are; empty where it has none of a kind."""

    x: str
    y: str
    time: str = ""
    member: str = ""
    level: str = ""


def layout_of(dataset: xr.Dataset, name: str, origin: str) -> Layout:
    """Find the axes of a variable. Raises InputError where it is absent or no field."""
    if name not in dataset.variables:
        raise InputError(f"{origin} has no variable {name}: it has {', '.join(map(str, dataset.data_vars))}.")
    axes: dict[str, str] = {}
    for dimension in map(str, dataset[name].dims):
        axis = axis_of(dataset, dimension)
        if axis in axes:
            raise InputError(f"{origin}: {name} has the dimensions {axes[axis]} and {dimension}: select one of them.")
        axes[axis] = dimension
    if "x" not in axes or "y" not in axes:
        raise InputError(f"{origin}: {name} has the dimensions {', '.join(map(str, dataset[name].dims))}, not a grid.")
    return Layout(**axes)


class Cube:
    """Variables on one grid as channels of fields that are numbered: member by member, and in each by time.

    The files are opened by the process that reads them, on its first reading: a forked worker must not share their handles.

    Args:
        variables: which.
    """

    def __init__(self, variables: Variables) -> None:
        if not variables.names:
            raise InputError(f"No variables of {variables.path} are named: give names.")
        self.variables, self.files = variables, variables.files()
        self.origin = self.files[0] + (f" and {len(self.files) - 1} more" if len(self.files) > 1 else "")
        self._opened: tuple[int, xr.Dataset] | None = None
        self._last: tuple[int, np.ndarray] | None = None  # of large fields, all tiles are taken in turn
        dataset = self.dataset
        self.layouts = [layout_of(dataset, name, self.origin) for name in variables.names]
        self._check_units(dataset)
        first = self.layouts[0]
        for name, layout in zip(variables.names, self.layouts, strict=True):
            if (layout.y, layout.x) != (first.y, first.x):
                raise InputError(f"{self.origin}: {name} is on another grid than {variables.names[0]}: give it apart.")
        self.layout = next((layout for layout in self.layouts if layout.time), first)
        self.members = dataset.sizes[self.layout.member] if self.layout.member else 1
        self.times = np.asarray(dataset[self.layout.time].values) if self.layout.time else self._scalar_time(dataset)
        self.channels = [
            channel for pair in zip(variables.names, self.layouts, strict=True) for channel in self._levels(*pair)
        ]
        self.shape = (dataset.sizes[first.y], dataset.sizes[first.x])

    @property
    def dataset(self) -> xr.Dataset:
        """The open files."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_dataset(self.files))
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_last": None}

    def __len__(self) -> int:
        return self.members * len(self.times)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the channels: of the variable, with the level where it has several."""
        return tuple(name if level is None else f"{name}@{level:g}" for name, level in self.channels)

    @property
    def quantities(self) -> tuple[tuple[str, str], ...]:
        """Name and units of every channel."""
        units = (str(self.dataset[name].attrs.get("units", "none")) for name, _ in self.channels)
        return tuple(zip(self.names, units, strict=True))

    def check_dates(self) -> None:
        """Raises InputError where times are no dates."""
        name = self.layout.time or "time"
        if self.times.dtype.kind not in "MO":
            raise InputError(
                f"{self.origin}: {name} has no dates but {self.times[:1].tolist()}...: give it a coordinate of CF units, such "
                "as hours since 2000-01-01."
            )
        if self.times.dtype.kind == "M" and (unknown := np.flatnonzero(np.isnat(self.times))).size:
            raise InputError(
                f"{self.origin}: {name} is no date (NaT) at position {unknown[0]}: give every field a date, or drop it."
            )

    def read(self, number: int) -> np.ndarray:
        """The field of a number, (channels, y, x) float32, NaN where it is not known; not to be written to."""
        if self._last is None or self._last[0] != number:
            self._last = (number, self._read(number))
        return self._last[1]

    def _read(self, number: int) -> np.ndarray:
        member, time = divmod(number, len(self.times))
        parts = []
        for name, layout in zip(self.variables.names, self.layouts, strict=True):
            array = self.dataset[name]
            where: dict[str, Any] = {}
            where |= {layout.member: member} if layout.member else {}
            where |= {layout.time: time} if layout.time else {}
            array = array.isel(where)
            if layout.level and self.variables.levels is not None:
                array = array.sel({layout.level: list(self.variables.levels)})
            ordered = array.transpose(*([layout.level] if layout.level else []), layout.y, layout.x)
            values = np.asarray(ordered.values, np.float32)
            parts.append(values if layout.level else values[None])
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _levels(self, name: str, layout: Layout) -> list[tuple[str, float | None]]:
        if not layout.level:
            return [(name, None)]
        dataset = self.dataset
        known = (
            dataset[layout.level].values if layout.level in dataset.coords else np.arange(dataset.sizes[layout.level])
        )
        wanted = known.tolist() if self.variables.levels is None else self.variables.levels
        if absent := [level for level in wanted if level not in known]:
            raise InputError(
                f"{self.origin}: {name} has no level {absent[0]:g} but {', '.join(f'{k:g}' for k in known)}."
            )
        return [(name, float(level)) for level in wanted]

    def _check_units(self, dataset: xr.Dataset) -> None:
        wanted = self.variables.units
        for name, expected in (
            dict.fromkeys(self.variables.names, wanted) if isinstance(wanted, str) else wanted
        ).items():
            if name not in self.variables.names:
                raise InputError(f"Units are given for {name}, which is none of {', '.join(self.variables.names)}.")
            found = dataset[name].attrs.get("units", "none")
            if not same_units(found, expected):
                raise InputError(
                    f"{self.origin}: {name} is in {found}, and {expected} is expected: convert it, or give units."
                )

    def _scalar_time(self, dataset: xr.Dataset) -> np.ndarray:
        return np.atleast_1d(dataset["time"].values) if "time" in dataset.variables else np.zeros(1, "datetime64[ns]")

