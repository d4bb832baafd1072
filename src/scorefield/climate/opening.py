"""Gridded files opened lazily as one data set: NetCDF-3, NetCDF-4 and Zarr, what is odd in them put right or refused.

Several files are joined along time, and what has no time is taken once. Models that write in their own way are read as CF: dates
as characters, months since a date, latitudes that are repeated at every time, a circle of longitudes that is cut at any place.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield.climate.axes import NAMES, POINTS, bounds_name, library
from scorefield.foundation.errors import AbsentDataError, InputError, brief

if TYPE_CHECKING:
    import xarray as xr

log = logging.getLogger("scorefield")
HDF5, NETCDF3, CDF5 = b"\x89HDF\r\n\x1a\n", b"CDF", b"CDF\x05"
ROLLED = "scorefield_rolled"  # in a data set's encoding: which dimension was rolled, and its order
MERGED = "scorefield_merged"  # likewise: that the final and the preliminary half of ERA5 were merged
SINCE = re.compile(r"\s*(month|year)s?\s+since\s+(.*)", re.IGNORECASE)
DAY_NUMBER = re.compile(r"day as %Y%m%d|^\s*$")
SLACK = 1e-6  # of a coordinate's values: files round


@lru_cache(maxsize=1024)
def tell(message: str) -> None:
    """Say something once in a process."""
    log.warning("%s", message)


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
    if first[:4] == CDF5:
        try:
            import netCDF4  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"{path} is a CDF-5 file: pip install 'scorefield[cdf5]' reads it, or convert it by nccopy -k nc4."
            ) from error
        return "netcdf4"
    if first[:3] == NETCDF3:
        return "scipy"
    raise InputError(f"{path} is no NetCDF file and no Zarr store: convert it, with cdo or xarray.")


def open_dataset(path: str | Path | Sequence[str], *, halves: bool = False) -> xr.Dataset:
    """The files of a path as one dataset, lazily; several are joined along time, and what has no time is taken from the first.

    Args:
        path: of them.
        halves: leave the final and the preliminary half of ERA5 apart, along `expver`, of which one is to be selected.
    """
    xarray, files = library(), files_of(path)
    parts = [_opened(name, lazily=len(files) > 1) for name in files]
    parts = parts if halves else [_merged(part, name) for part, name in zip(parts, files, strict=True)]
    if len(parts) == 1:
        return _around_the_circle(_with_true_bounds(parts[0], files[0]))
    try:
        joined = xarray.combine_by_coords(
            [_with_dimension_of_time(part) for part in parts],
            data_vars="minimal",
            coords="minimal",
            compat="override",
            combine_attrs="override",
            join="exact",
        )
    except ValueError as error:
        why = "they hold the same times" if "order the Dataset objects" in str(error) else brief(error)
        raise InputError(
            f"{files[0]} and {len(files) - 1} more files do not join: {why}. Files follow one another in time; members need a "
            "dimension of their own."
        ) from error
    return _around_the_circle(_with_true_bounds(joined, files[0]))


def _opened(name: str, *, lazily: bool) -> xr.Dataset:
    """One file. Several files are joined lazily by dask; one is read field by field, which is faster."""
    xarray = library()
    try:
        engine = engine_of(name)
        options: dict[str, Any] = {"engine": engine, "decode_timedelta": False, "chunks": {} if lazily else None}
        options |= {"consolidated": False} if engine == "zarr" else {}
        try:
            dataset = xarray.open_dataset(name, **options)
            # Zarr itself fills with zeros where nobody says otherwise: they are values, such as no rain.
            zeros = [n for n, v in dataset.data_vars.items() if engine == "zarr" and v.encoding.get("_FillValue") == 0]
            if zeros:
                plain = xarray.open_dataset(name, **options, decode_cf=False)[zeros]
                plain = plain.drop_vars(list(plain.coords))  # of times that are not decoded
                for n in zeros:
                    plain[n].attrs.pop("_FillValue", None)
                dataset = dataset.assign(xarray.decode_cf(plain, decode_times=False, decode_coords=False).data_vars)
        except ValueError:  # times that it cannot decode
            raw = xarray.open_dataset(name, decode_times=False, **options)
            if not any(SINCE.match(str(variable.attrs.get("units", ""))) for variable in raw.variables.values()):
                raise
            kept = {"mask_and_scale": False, "decode_coords": False, "concat_characters": False}
            dataset = xarray.decode_cf(_months_dated(raw), decode_timedelta=False, **kept)
        return _with_lines(_without_times(_numbers_dated(_characters_dated(dataset))))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} cannot be read as a gridded file: {brief(error)}.") from error


def _merged(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """ERA5 that is final (1) and preliminary (5), along `expver`, as one: where one half is unknown, the other is taken."""
    if dataset.sizes.get("expver", 0) != 2:
        return dataset

    def merge(values: np.ndarray, *, name: str) -> np.ndarray:
        final, early = values[..., 0], values[..., 1]
        both = np.isfinite(final) & np.isfinite(early) & (final != early)
        if both.any():
            first = [float(half[both][0]) for half in (final, early)]
            raise InputError(
                f"{origin}: {name} has two values at {int(both.sum())} points, first {first[0]:.6g} and {first[1]:.6g}, for the "
                f"expver {' and '.join(labels)}: pick one by select: {{expver: {labels[0]}}} beside names."
            )
        return np.where(np.isnan(final), early, final)

    labels = [str(label) for label in (dataset["expver"].values if "expver" in dataset.coords else (0, 1))]
    fields = [str(n) for n, v in dataset.data_vars.items() if "expver" in v.dims]
    apart = {name: dataset[name].dims[0] for name in fields}
    merged = {
        name: library().apply_ufunc(
            merge,
            dataset[name].chunk({apart[name]: 1} if apart[name] != "expver" else {}).chunk({"expver": -1}),
            input_core_dims=[["expver"]],
            kwargs={"name": name},
            dask="parallelized",
            output_dtypes=[dataset[name].dtype],
            keep_attrs=True,
        )
        for name in fields
    }
    tell(f"{origin}: the halves {' and '.join(labels)} of expver are merged: where one is unknown, the other is taken")
    found = dataset.drop_vars([*fields, *(["expver"] if "expver" in dataset.coords else [])]).assign(merged)
    found.encoding = {**dataset.encoding, MERGED: True}
    return found


def _months_dated(dataset: xr.Dataset) -> xr.Dataset:
    """Times in months or years since a date as dates: whole ones of the calendar, and their share of the month that follows."""
    import cftime

    for name in list(dataset.variables):
        variable = dataset[name].variable
        if not (match := SINCE.match(str(variable.attrs.get("units", "")))):
            continue
        calendar = str(variable.attrs.get("calendar", "standard"))
        start = cftime.num2date(0, f"days since {match[2]}", calendar=calendar)
        months = np.asarray(variable.values, float) * (12 if match[1].lower() == "year" else 1)
        found = []
        for count in months.ravel():
            ends = [_moved(start, int(np.floor(count)) + step) for step in (0, 1)]
            found.append(ends[0] + (ends[1] - ends[0]) * float(count % 1))
        values = np.array(found, object).reshape(months.shape)
        if calendar in ("standard", "gregorian", "proleptic_gregorian"):
            values = np.array([date.isoformat() for date in found], "datetime64[us]").reshape(months.shape)
        attributes = {k: v for k, v in variable.attrs.items() if k not in ("units", "calendar", "bounds")}
        dataset = dataset.assign_coords({name: (variable.dims, values, attributes)})
    return dataset


def _moved(date: Any, months: int) -> Any:
    """A date some months later, on the last day of a month that is shorter."""
    year, month = divmod(date.year * 12 + date.month - 1 + months, 12)
    for day in range(date.day, 0, -1):
        try:
            return date.replace(year=year, month=month + 1, day=day)
        except ValueError:
            continue
    return date


def _numbers_dated(dataset: xr.Dataset) -> xr.Dataset:
    """Times such as 20000131.5, of which the units say so or that have none, as dates."""
    for name in map(str, dataset.coords):
        values, units = dataset[name], str(dataset[name].attrs.get("units", ""))
        if name.lower() not in NAMES["time"] or values.dtype.kind not in "iuf" or not DAY_NUMBER.search(units):
            continue
        days = np.atleast_1d(np.asarray(values.values, np.float64))
        if not days.size or not ((days >= 1e7) & (days < 1e8)).all():
            continue
        try:
            text = [f"{d // 10000:04d}-{d // 100 % 100:02d}-{d % 100:02d}" for d in days.astype(int)]
            dated = np.array(text, "datetime64[us]") + (days % 1 * 86400e6).round().astype("timedelta64[us]")
        except ValueError:  # no dates
            continue
        attributes = {k: v for k, v in values.attrs.items() if k not in ("units", "calendar", "bounds")}
        dataset = dataset.assign_coords({name: (values.dims, dated.reshape(values.shape), attributes)})
    return dataset


def _characters_dated(dataset: xr.Dataset) -> xr.Dataset:
    """The dates of WRF, characters such as 2000-01-31_12:00:00 in `Times`, as a coordinate along their dimension."""
    if "Times" not in dataset.variables or dataset["Times"].dtype.kind not in "SUO":
        return dataset
    words = dataset["Times"].values
    rows = words if words.ndim == 2 else np.atleast_1d(words)[:, None]
    text = ["".join(c.decode() if isinstance(c, bytes) else str(c) for c in row) for row in rows]
    dimension = str(dataset["Times"].dims[0]) if dataset["Times"].dims else "Time"
    if dimension in dataset.coords and dataset[dimension].dtype.kind in "MO":
        return dataset
    try:
        dated = np.array([word.strip("\0 ").replace("_", "T") for word in text], "datetime64[us]")
    except ValueError:
        return dataset
    return dataset.drop_vars("Times").assign_coords({dimension: (dimension, dated, {"standard_name": "time"})})


def _with_lines(dataset: xr.Dataset) -> xr.Dataset:
    """Latitudes along `y` and longitudes along `x`, which have no coordinates of their own, as the dimensions of the grid."""
    lines: dict[str, list[str]] = {}
    for name in map(str, dataset.variables):
        known = any(name.lower() in names for names in POINTS.values())
        if known and dataset[name].ndim == 1 and name not in dataset.dims:
            lines.setdefault(str(dataset[name].dims[0]), []).append(name)
    alone = {
        dimension: names[0] for dimension, names in lines.items() if len(names) == 1 and dimension not in dataset.coords
    }
    return dataset.set_coords(list(alone.values())).swap_dims(alone)


def _without_times(dataset: xr.Dataset) -> xr.Dataset:
    """Latitudes and longitudes of points without the dimension of time along which they are repeated."""
    for name in map(str, dataset.variables):
        variable = dataset[name]
        named = any(name.lower() in names for names in POINTS.values()) or str(variable.attrs.get("units", "")).lower() in (
            "degree_north", "degrees_north", "degree_east", "degrees_east",
        )  # fmt: skip
        along = [d for d in variable.dims if str(d).lower() in NAMES["time"]]
        if variable.ndim != 3 or not named or len(along) != 1:
            continue
        first, last = (variable.isel({along[0]: i}, drop=True).load() for i in (0, -1))
        if not bool((first == last).all()):
            raise InputError(f"{name} changes with time: regrid the fields to one grid.")
        dataset = dataset.drop_vars(name).assign_coords({name: first.reset_coords(drop=True)})
    return dataset


def _with_dimension_of_time(dataset: xr.Dataset) -> xr.Dataset:
    """One field with its date as a field along time, so that it can be joined to others."""
    scalar = [n for n in dataset.coords if str(n).lower() in NAMES["time"] and dataset[n].dtype.kind in "MO"]
    if len(scalar) != 1 or dataset[scalar[0]].dims:
        return dataset
    fields = [n for n, v in dataset.data_vars.items() if v.ndim >= 2 and not str(n).endswith(("_bnds", "_bounds"))]
    return dataset.assign({n: dataset[n].expand_dims(scalar[0]) for n in fields})


def _with_true_bounds(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Bounds that do not contain their points are left out."""
    for name in map(str, dataset.coords):
        bounds, points = bounds_name(dataset, name), dataset[name]
        if not bounds or points.ndim != 1 or points.dtype.kind not in "iuf" or dataset[bounds].ndim != 2:
            continue
        positions, pairs = np.asarray(points.values, np.float64), np.asarray(dataset[bounds].values, np.float64)
        if str(points.attrs.get("units", "")).startswith("degree"):
            pairs = np.unwrap(pairs, period=360, axis=1)
            pairs = pairs + 360 * np.round((positions - pairs.mean(1)) / 360)[:, None]
        slack = SLACK * max(1.0, float(np.abs(pairs).max(initial=0)))
        if ((positions < pairs.min(1) - slack) | (positions > pairs.max(1) + slack)).any():
            tell(f"{origin}: the bounds {bounds} do not contain the points of {name}: they are left out.")
            dataset = dataset.drop_vars(bounds)
            for place in (dataset[name].attrs, dataset[name].encoding):
                place.pop("bounds", None)
    return dataset


def _around_the_circle(dataset: xr.Dataset) -> xr.Dataset:
    """Longitudes that rise around the circle from some place on: 0 to 4 and 356 to 359 go on from 356 to 364."""
    for name in map(str, dataset.dims):
        if name not in dataset.coords or not _is_longitude(dataset[name]):
            continue
        order = circle_order(np.asarray(dataset[name].values, np.float64))
        if order is not None:
            dataset = dataset.isel({name: order})
            dataset.encoding = {**dataset.encoding, ROLLED: (name, order)}
    return dataset


def _is_longitude(coordinate: xr.DataArray) -> bool:
    units, name = (
        str(coordinate.attrs.get("units", "")).lower(),
        str(coordinate.attrs.get("standard_name", coordinate.name)),
    )
    east = units in ("degrees_east", "degree_east", "degreee", "degreese", "degree_e", "degrees_e")
    return coordinate.dtype.kind in "iuf" and (east or name.lower() in ("lon", "rlon", "longitude", "grid_longitude"))


def circle_order(positions: np.ndarray) -> np.ndarray | None:
    """The order in which longitudes (n) go around the circle without a hole; None where they do, or where none makes them."""
    along = np.unwrap(positions, period=360)
    steps = np.diff(along)
    if len(steps) > 2 and abs(abs(along[-1] - along[0]) - 360) < SLACK * 360 and _even(steps):
        return np.arange(len(positions) - 1)  # the first point comes again at the end
    if len(steps) < 2 or (np.abs(along[-1] - along[0]) < 360 and _even(steps)):
        return None
    turned = np.sort(positions % 360)
    if (np.diff(turned) < SLACK).any():
        return None
    gaps = np.append(np.diff(turned), turned[0] + 360 - turned[-1])
    start = (int(gaps.argmax()) + 1) % len(turned)
    if not _even(np.delete(gaps, gaps.argmax())):
        return None
    return np.roll(np.argsort(positions % 360), -start)


def _even(steps: np.ndarray) -> bool:
    """Whether steps have one sign, and none is far larger than the others."""
    sizes = np.abs(steps)
    return bool(((steps > 0).all() or (steps < 0).all()) and sizes.max() < 3 * np.median(sizes))
