"""Gridded files: NetCDF-3, NetCDF-4 and Zarr, opened lazily, their axes found, their variables as channels."""

from __future__ import annotations

import glob
import json
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield.climate.units import same_units
from scorefield.data.precision import fits_float32, needed
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.lazy import require
from scorefield.run.verb import Verb

if TYPE_CHECKING:
    import xarray as xr

HDF5, NETCDF3 = b"\x89HDF\r\n\x1a\n", b"CDF"
CF = {
    "X": "x", "longitude": "x", "Y": "y", "latitude": "y", "T": "time", "time": "time", "Z": "level", "vertical": "level",
}  # fmt: skip
# fmt: off
NAMES = {  # of dimensions that no attribute explains
    "x": ("lon", "longitude", "x", "grid_longitude", "rlon", "projection_x_coordinate", "xc", "i", "ni", "nlon", "nx",
          "west_east", "xi_rho"),
    "y": ("lat", "latitude", "y", "grid_latitude", "rlat", "projection_y_coordinate", "yc", "j", "nj", "nlat", "ny",
          "south_north", "eta_rho"),
    "time": ("time", "t", "valid_time", "date"),
    "member": ("ensemble_member", "member", "realization", "realisation", "ensemble", "ens", "number", "sample"),
    "level": ("level", "lev", "plev", "pressure", "pressure_level", "isobaricinhpa", "height", "depth", "altitude", "z"),
}
# fmt: on
PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned")
READ_AHEAD = 2**25  # bytes of fields that follow one another, read together
LOOKED_AT = 4  # fields, for their number type
CHUNKS = 2**26  # bytes of unpacked chunks that HDF5 keeps


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
        return files_of(self.path)


def files_of(path: str | Path | Sequence[str]) -> list[str]:
    """The files that a path means: a file, a Zarr store, a pattern, a folder of NetCDF files, or a list of them."""
    found: list[str] = []
    for entry in map(os.path.expandvars, [str(path)] if isinstance(path, str | Path) else path):
        # A name may hold brackets, which a pattern has too: what is there is meant as it is written.
        there = os.path.exists(entry)  # noqa: PTH110
        matches = [entry] if there else sorted(glob.glob(entry)) if glob.has_magic(entry) else []  # noqa: PTH207
        if not matches:
            raise AbsentDataError(f"There is no file {entry}: give the path of NetCDF files or of a Zarr store.")
        for match in map(Path, matches):
            parts = sorted(match.glob("*.nc")) if match.is_dir() and not is_store(match) else []
            found += map(str, parts or [match])
    return found


def digest_of(path: Path) -> str:
    """SHA-256 of what lies in files, as `files_of` finds them; wherever they lie."""
    found = sha256()
    for root in map(Path, files_of(path)):
        for part in sorted(part for part in root.rglob("*") if part.is_file()) if root.is_dir() else [root]:
            with part.open("rb") as file:
                found.update(f"{part.relative_to(root)} {file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()


def identity_of(verb: Verb) -> dict[str, Any]:
    """What decides the result of a verb on files: all of its arguments but `out`, files by what lies in them."""
    given = {name: getattr(verb, name) for name in verb.__dataclass_fields__ if name != "out"}
    plain = json.dumps(given, default=lambda value: digest_of(value) if isinstance(value, Path) else repr(value))
    return {"verb": type(verb).__name__} | json.loads(plain)


def library() -> Any:
    """xarray, which reads CF attributes by cf-xarray, or InputError where the extra is missing."""
    require("cf_xarray", "Gridded files", "climate")
    return require("xarray", "Gridded files", "climate")


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store, of either format."""
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def engine_of(path: str) -> str:
    """What reads a file, by its first bytes: names of files say nothing of it."""
    if Path(path).is_dir():
        return "zarr"
    with Path(path).open("rb") as file:
        first = file.read(8)
    if first == HDF5:
        return "h5netcdf"
    if first[:3] == NETCDF3:
        return "scipy"
    raise InputError(f"{path} is no NetCDF file and no Zarr store: convert it, with cdo or xarray.")


def open_dataset(path: str | Path | Sequence[str]) -> xr.Dataset:
    """The files of a path as one dataset, lazily; several are joined along time, and what has no time is taken from the first."""
    xarray, files, parts = library(), files_of(path), []
    for name in files:
        try:
            engine = engine_of(name)
            # Several files are joined lazily by dask; one is read field by field, which is faster.
            options: dict[str, Any] = {"chunks": {} if len(files) > 1 else None}
            options |= {"consolidated": False} if engine == "zarr" else {}
            parts.append(xarray.open_dataset(name, engine=engine, decode_timedelta=False, **options))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{name} cannot be read as a gridded file: {brief(error)}.") from error
    if len(parts) == 1:
        return parts[0]
    try:
        return xarray.combine_by_coords(
            parts, data_vars="minimal", coords="minimal", compat="override", combine_attrs="override", join="exact"
        )
    except ValueError as error:
        raise InputError(f"{files[0]} and {len(files) - 1} more files do not join: {brief(error)}.") from error


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
    return found


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


def layout_of(dataset: xr.Dataset, name: str, origin: str) -> Layout:
    """Find the axes of a variable. Raises InputError where it is absent or no field."""
    if name not in dataset.variables:
        raise InputError(f"{origin} has no variable {name}: it has {', '.join(map(str, dataset.data_vars))}.")
    axes: dict[str, str] = {}
    single: list[str] = []
    for dimension, axis in axes_of(dataset, name).items():
        if axis in axes:
            raise InputError(f"{origin}: {name} has the dimensions {axes[axis]} and {dimension}: select one of them.")
        if axis:
            axes[axis] = dimension
        elif dataset.sizes[dimension] == 1:
            single.append(dimension)
        else:
            raise InputError(
                f"{origin}: {name} has the dimension {dimension}, which is no axis of a grid, of time, of members or of levels: "
                f"select one of it, with xarray .isel({dimension}=0)."
            )
    if "x" not in axes or "y" not in axes:
        raise InputError(f"{origin}: {name} has the dimensions {', '.join(map(str, dataset[name].dims))}, not a grid.")
    return Layout(**axes, single=tuple(single))


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
        self._opened: tuple[int, xr.Dataset, dict[str, Any]] | None = None
        self._runs: deque[tuple[int, np.ndarray]] = deque(maxlen=2)  # first number, fields; the newest first
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
        self.dtype = np.dtype(np.float32)
        self.dtype = self._dtype()

    def _dtype(self) -> np.dtype:
        """float64 where float32 would round off what tells fields apart, by a look at some of them; else float32."""
        if all(fits_float32(self.dataset[name].dtype) for name in self.variables.names) or not len(self):
            return np.dtype(np.float32)
        self.dtype = np.dtype(np.float64)
        numbers = np.unique(np.linspace(0, len(self) - 1, min(len(self), LOOKED_AT)).round().astype(int)).tolist()
        found = needed(np.stack([self.read(number) for number in numbers]), self.origin)
        self._runs.clear()
        return np.dtype(str(found).removeprefix("torch."))

    @property
    def dataset(self) -> xr.Dataset:
        """The open files."""
        return self._open()[1]

    def _open(self) -> tuple[int, xr.Dataset, dict[str, Any]]:
        """Number of the process, its dataset, and its handles of variables of a single HDF5 file; None for others."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_dataset(self.files), {})
            self._runs.clear()
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_runs": deque(maxlen=2)}

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
        """The field of a number, (channels, y, x) of `dtype`, NaN where it is not known; not to be written to.

        Where fields are read in turn, those that follow are read with them, twice as many each time.
        """
        for first, fields in self._runs:
            if first <= number < first + len(fields):
                return fields[number - first]
        member, time = divmod(number, len(self.times))
        first, fields = self._runs[0] if self._runs else (-1, ())
        count = 2 * len(fields) if number == first + len(fields) else 1
        size = self.dtype.itemsize * len(self.channels) * self.shape[0] * self.shape[1]
        count = max(1, min(count, READ_AHEAD // size, len(self.times) - time))
        parts = [
            self._values(*pair, member, time, count) for pair in zip(self.variables.names, self.layouts, strict=True)
        ]
        self._runs.appendleft((number, np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]))
        return self._runs[0][1][0]

    def _values(self, name: str, layout: Layout, member: int, time: int, count: int) -> np.ndarray:
        """A variable at times that follow one another, (count, levels, y, x); one without time is the same at all of them."""
        where: dict[str, Any] = dict.fromkeys(layout.single, 0)
        where |= {layout.member: member} if layout.member else {}
        where |= {layout.time: slice(time, time + count)} if layout.time else {}
        wanted = self._level_numbers(name, layout)
        where |= {} if wanted is None else {layout.level: np.unique(wanted)}
        variable = self.dataset[name].variable
        if (handle := self._handle(name)) is None:
            part = variable.isel(where)
        else:
            raw = handle[tuple(where.get(str(d), slice(None)) for d in variable.dims)]
            packing = {k: v for k, v in variable.encoding.items() if k in PACKING}
            dims = [d for d in variable.dims if not isinstance(where.get(str(d)), int)]
            part = (
                library().decode_cf(library().Dataset({name: (dims, raw, packing)}), decode_times=False)[name].variable
            )
        part = part.transpose(*(d for d in (layout.time, layout.level, layout.y, layout.x) if d))
        values = np.asarray(part.values, self.dtype)
        values = values if layout.level else np.expand_dims(values, -3)
        values = values if wanted is None else np.take(values, np.unique(wanted, return_inverse=True)[1], axis=-3)
        return values if layout.time else np.broadcast_to(values, (count, *values.shape))

    def _handle(self, name: str) -> Any:
        """A variable of a single HDF5 file, to be read without looking up names; None where xarray has to read it."""
        _, dataset, handles = self._open()
        if name not in handles:
            handles[name] = None
            if len(self.files) == 1 and engine_of(self.files[0]) == "h5netcdf":
                import h5py

                found: Any = h5py.File(self.files[0], "r", rdcc_nbytes=CHUNKS)[name]
                # Along an unlimited dimension a variable may end early, and xarray fills it up.
                handles[name] = found if found.shape == dataset[name].shape and found.dtype.kind in "iuf" else None
        return handles[name]

    def _level_numbers(self, name: str, layout: Layout) -> np.ndarray | None:
        """Where the levels are that were named; None for all."""
        if not layout.level or self.variables.levels is None:
            return None
        known = self._known_levels(layout).tolist()
        return np.array([known.index(level) for level in self.variables.levels])

    def _known_levels(self, layout: Layout) -> np.ndarray:
        dataset, name = self.dataset, layout.level
        return dataset[name].values if name in dataset.coords else np.arange(dataset.sizes[name])

    def _levels(self, name: str, layout: Layout) -> list[tuple[str, float | None]]:
        if not layout.level:
            return [(name, None)]
        known = self._known_levels(layout)
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
