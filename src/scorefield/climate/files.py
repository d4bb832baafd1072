"""Variables of gridded files as channels of numbered fields, read in blocks, in the units that are wanted."""

from __future__ import annotations

import json
import os
from collections import deque
from copy import copy
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scorefield.climate.accumulation import accumulation, rain_rate, with_time
from scorefield.climate.axes import NAMES, Layout, axes_of, bounds_name, layout_of, library, mapping_name, selected
from scorefield.climate.opening import MERGED, ROLLED, engine_of, files_of, is_store, open_dataset, tell
from scorefield.climate.times import dates
from scorefield.climate.units import conversion, is_precipitation, same_units
from scorefield.data.precision import fits_float32, needed
from scorefield.foundation.errors import InputError
from scorefield.run.verb import Verb

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "NAMES", "Cube", "Layout", "Variables", "axes_of", "bounds_name", "digest_of", "engine_of", "files_of", "identity_of",
    "is_store", "layout_of", "library", "mapping_name", "open_dataset",
]  # fmt: skip
PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned")
READ_AHEAD = 2**25  # bytes of fields that follow one another, read together
BLOCK = 2**29  # bytes of fields that one chunk of a file holds, which are unpacked together or not at all
LOOKED_AT = 4  # fields, for their number type
CHUNKS = 2**26  # bytes of unpacked chunks that HDF5 keeps
FILLS = (-99.0, -99.9, -999.0, -999.9, -9999.0, -9999.9, -99999.0, -32767.0, -32768.0, 9999.0, 99999.0, 999999.0)
HUGE = 1e19  # beyond what any variable of a climate file reaches: what is larger stands for unknown


@dataclass(frozen=True)
class Variables:
    """Some variables of gridded files. Packed integers are unpacked and fill values are NaN.

    Args:
        path: a NetCDF file, a Zarr store, a pattern such as `pr_*.nc`, or a list of them, which follow one another in time.
            Environment variables in it are filled in.
        names: of the variables, in the order of the channels.
        units: to which values are converted, of all variables or of each by its name; InputError where they cannot be. Those of
            a file that says none are taken to be in them.
        levels: which values of the vertical axis to take, or all; each is a channel. An axis of several needs to be told.
        select: the value to take along other dimensions, by their names, such as {expver: 1}.
        fill: a number that stands for unknown values, where the files do not say so.
    """

    path: str | list[str]
    names: list[str]
    units: str | dict[str, str] = field(default_factory=dict)
    levels: list[float] | Literal["all"] | None = None
    select: dict[str, float | str] = field(default_factory=dict)
    fill: float | None = None

    def files(self) -> list[str]:
        """The files. Raises AbsentDataError where there are none."""
        return files_of(self.path)


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
        self.order: tuple[np.ndarray, np.ndarray] | None = None
        dataset = self.dataset
        self.layouts = [layout_of(dataset, name, self.origin) for name in variables.names]
        self._changes = self._conversions(dataset)
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
        dtype = np.dtype(str(found).removeprefix("torch."))
        self._runs = deque(((first, fields.astype(dtype)) for first, fields in self._runs), maxlen=2)
        return dtype

    @property
    def dataset(self) -> xr.Dataset:
        """The open files."""
        return self._open()[1]

    def _open(self) -> tuple[int, xr.Dataset, dict[str, Any]]:
        """Number of the process, its dataset, and its handles of variables of a single HDF5 file; None for others."""
        if self._opened is None or self._opened[0] != os.getpid():
            select = self.variables.select
            dataset = selected(open_dataset(self.files, halves="expver" in select), select, self.origin)
            self._opened = (os.getpid(), dataset, {})
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

    def units(self, name: str) -> str:
        """Of a variable's values as they are read; "none" where the files do not say."""
        return self._wanted(name) or str(self.dataset[name].attrs.get("units", "none"))

    def attributes(self, name: str) -> dict[str, Any]:
        """Of a variable as it is read."""
        return {**self.dataset[name].attrs} | ({"units": wanted} if (wanted := self._wanted(name)) else {})

    @property
    def quantities(self) -> tuple[tuple[str, str], ...]:
        """Name and units of every channel."""
        return tuple(zip(self.names, (self.units(name) for name, _ in self.channels), strict=True))

    def placed(self, rows: np.ndarray, columns: np.ndarray) -> Cube:
        """The same fields at some of the rows and columns, by their numbers, in this order."""
        found = copy(self)
        found._runs = deque(maxlen=2)
        before = (np.arange(n) for n in self.shape) if self.order is None else self.order
        along = tuple(own[part] for own, part in zip(before, (rows, columns), strict=True))
        found.order, found.shape = (along[0], along[1]), (len(rows), len(columns))
        return found

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
        found = dates(self.times)
        for before, after in pairwise(found):
            if not before < after:
                raise InputError(f"{self.origin}: {after} comes after {before}: sort the times and drop repeated ones.")

    def read(self, number: int) -> np.ndarray:
        """The field of a number, (channels, y, x) of `dtype`, NaN where it is not known; not to be written to.

        A member that is small is read at once, and what lies in one chunk of the file together; where fields are read in turn,
        those that follow are read with them, twice as many each time.
        """
        for first, fields in self._runs:
            if first <= number < first + len(fields):
                return fields[number - first]
        member, time = divmod(number, len(self.times))
        start, count = self._block(number, time)
        parts = [
            self._values(*pair, member, start, count) for pair in zip(self.variables.names, self.layouts, strict=True)
        ]
        fields = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        if self._runs and self._runs[0][1].nbytes + fields.nbytes > BLOCK:
            self._runs.clear()
        first = member * len(self.times) + start
        self._runs.appendleft((first, fields))
        return fields[number - first]

    def _block(self, number: int, time: int) -> tuple[int, int]:
        """The first time and the number of times to read for a field."""
        times = len(self.times)
        size = self.dtype.itemsize * len(self.channels) * int(np.prod(self._whole))
        if times * size <= READ_AHEAD:
            return 0, times
        first, fields = self._runs[0] if self._runs else (-1, ())
        ahead = 2 * len(fields) if number == first + len(fields) else 1
        chunk = self._chunk()
        if chunk * size <= BLOCK and chunk > min(ahead, READ_AHEAD // size):
            return time - time % chunk, min(chunk, times - time + time % chunk)
        return time, max(1, min(ahead, READ_AHEAD // size, times - time))

    def _chunk(self) -> int:
        """How many times lie in one chunk of the files, at most."""
        chunks = (self.dataset[name].encoding.get("preferred_chunks", {}) for name in self.variables.names)
        return max(int(c.get(layout.time, 1)) for c, layout in zip(chunks, self.layouts, strict=True))

    @property
    def _whole(self) -> tuple[int, int]:
        """Rows and columns in the files."""
        return self.dataset.sizes[self.layouts[0].y], self.dataset.sizes[self.layouts[0].x]

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
            packing = {k: v for k, v in variable.encoding.items() if k in PACKING and not _is_nan(v)}
            dims = [d for d in variable.dims if not isinstance(where.get(str(d)), int)]
            part = library().Variable(dims, raw)
            if packing:
                part = library().Dataset({name: (dims, raw, packing)})
                part = library().decode_cf(part, decode_times=False)[name].variable
        part = part.transpose(*(d for d in (layout.time, layout.level, layout.y, layout.x) if d))
        values = self._plain(name, np.asarray(part.values))
        if self.order is not None:
            values = values[..., self.order[0], :][..., self.order[1]]
        values = values if layout.level else np.expand_dims(values, -3)
        values = values if wanted is None else np.take(values, np.unique(wanted, return_inverse=True)[1], axis=-3)
        return values if layout.time else np.broadcast_to(values, (count, *values.shape))

    def _plain(self, name: str, values: np.ndarray) -> np.ndarray:
        """Values as they are wanted: unknown ones NaN, in the units of the variables. Refuses fill values that no file names."""
        fill, change = self.variables.fill, self._changes.get(name)
        if fill is not None:
            values = np.where(np.isclose(values, fill, rtol=1e-6, atol=0), np.nan, values)
        check_filled(
            values,
            f"{self.origin}: {name}",
            packing_of(self.dataset[name]),
            "give fill: {} beside names, or correct the file",
        )
        if change is not None:
            values = values.astype(np.float64) * change[0] + change[1]
        return np.asarray(values, self.dtype)

    def _handle(self, name: str) -> Any:
        """A variable of a single HDF5 file, to be read without looking up names; None where xarray has to read it."""
        _, dataset, handles = self._open()
        if name not in handles:
            handles[name] = None
            moved = self.variables.select or {ROLLED, MERGED} & set(dataset.encoding)
            if len(self.files) == 1 and not moved and engine_of(self.files[0]) == "h5netcdf":
                import h5py

                found: Any = h5py.File(self.files[0], "r", rdcc_nbytes=CHUNKS)[name]
                # Along an unlimited dimension a variable may end early, and xarray fills it up.
                handles[name] = found if found.shape == dataset[name].shape and found.dtype.kind in "iuf" else None
        return handles[name]

    def _level_numbers(self, name: str, layout: Layout) -> np.ndarray | None:
        """Where the levels are that were named; None for all."""
        if not layout.level or not isinstance(self.variables.levels, list):
            return None
        known = np.asarray(self._known_levels(layout), float)
        return np.array([int(np.abs(known - level).argmin()) for level in self.variables.levels])

    def _known_levels(self, layout: Layout) -> np.ndarray:
        dataset, name = self.dataset, layout.level
        return dataset[name].values if name in dataset.coords else np.arange(dataset.sizes[name])

    def _levels(self, name: str, layout: Layout) -> list[tuple[str, float | None]]:
        wanted = self.variables.levels
        if not layout.level:
            return [(name, None)]
        known = np.asarray(self._known_levels(layout))
        shown = ", ".join(f"{k:g}" for k in known[:6]) + (", ..." if len(known) > 6 else "")
        if wanted is None:
            if len(known) > 1:
                raise InputError(
                    f"{self.origin}: {name} has the values {shown} of {layout.level}: name those to take by levels: "
                    f"[{known[0]:g}] beside names, or all, each of which becomes a channel."
                )
            return [(name, None)]
        wanted = known.tolist() if wanted == "all" else wanted
        if absent := [level for level in wanted if not np.isclose(known, level, rtol=1e-6).any()]:
            raise InputError(f"{self.origin}: {name} has no level {absent[0]:g} but {shown}.")
        return [(name, float(level)) for level in wanted]

    def _wanted(self, name: str) -> str:
        """The units in which a variable is wanted; "" for those of the files."""
        wanted = self.variables.units
        return wanted if isinstance(wanted, str) else wanted.get(name, "")

    def _conversions(self, dataset: xr.Dataset) -> dict[str, tuple[float, float]]:
        """Factor and offset of every variable that is wanted in other units."""
        if not isinstance(self.variables.units, str) and (
            other := set(self.variables.units) - set(self.variables.names)
        ):
            raise InputError(f"Units are given for {min(other)}, which is none of {', '.join(self.variables.names)}.")
        found = {}
        for name in self.variables.names:
            wanted, own = self._wanted(name), dataset[name].attrs.get("units", "none")
            if not wanted or same_units(own, wanted):
                continue
            if own == "none":
                tell(f"{self.origin}: {name} has no units and is taken to be in {wanted}")
                continue
            water = is_precipitation(dataset[name])
            change = conversion(own, wanted, water=water)
            if (
                change is None
                and water
                and (change := rain_rate(str(own), wanted, hours := self._hours(name, dataset)))
            ):
                tell(
                    f"{self.origin}: {name} in {own} is taken for what falls in {hours:g} h, and converted to {wanted}"
                )
            if change is None:
                raise InputError(
                    f"{self.origin}: {name} is in {own}, and {wanted} is expected: convert it, or give units."
                )
            found[name] = change
        return found

    def _hours(self, name: str, dataset: xr.Dataset) -> float:
        """Over which each value is a sum or a mean; NaN where nobody knows."""
        time = next(
            (layout.time for one, layout in zip(self.variables.names, self.layouts, strict=True) if one == name), ""
        )
        return accumulation(with_time(dataset, name, time)) if time else float("nan")

    def _scalar_time(self, dataset: xr.Dataset) -> np.ndarray:
        return np.atleast_1d(dataset["time"].values) if "time" in dataset.variables else np.zeros(1, "datetime64[ns]")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def packing_of(variable: xr.DataArray) -> tuple[float, float]:
    """Scale and offset by which the values of a file were stored."""
    packing = variable.encoding
    return float(packing.get("scale_factor", 1.0)), float(packing.get("add_offset", 0.0))


def check_filled(
    values: np.ndarray, what: str, packing: tuple[float, float] = (1.0, 0.0), advice: str = "correct the file"
) -> None:
    """Refuse fill values that no file names.

    Args:
        values: as they are read.
        what: the file and the variable.
        packing: scale and offset by which they were stored.
        advice: what is to be done, with a place for the value.
    """
    scale, offset = packing
    stored = values if packing == (1.0, 0.0) else (values - offset) / scale
    if (number := unnamed_fill(stored)) is not None:
        found, count = number * scale + offset, int(np.isclose(stored, number, rtol=1e-6).sum())
        raise InputError(
            f"{what} is {found:.9g} at {count} points, which can only stand for unknown, and no _FillValue says so: "
            f"{advice.format(f'{found:.9g}')}."
        )


def unnamed_fill(values: np.ndarray) -> float | None:
    """A number among values that can only stand for unknown: beyond all that is measured, or a usual one far from all others."""
    if values.dtype.kind not in "fiu" or not values.size:
        return None
    for end in (float(np.fmax.reduce(values, axis=None)), float(np.fmin.reduce(values, axis=None))):
        if not np.isfinite(end):
            continue
        if abs(end) > HUGE:
            return end
        if not np.isclose(end, FILLS, rtol=1e-6, atol=0).any():
            continue
        rest = values[np.isfinite(values) & ~np.isclose(values, end, rtol=1e-6, atol=0)]
        if not rest.size or np.abs(rest - end).min() > 2 * (float(rest.max()) - float(rest.min())):
            return end
    return None
