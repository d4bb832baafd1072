"""Predictions as files: CF NetCDF or Zarr with the dimension `member`, coordinates and attributes taken from a template.

HDF5 files do not survive a crash while they are written: a file is made of what is drawn at the end, under a temporary name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scorefield.climate.axes import library
from scorefield.climate.predictors import EnsembleInput
from scorefield.climate.template import Template
from scorefield.climate.times import dates
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import ErrorsKept
from scorefield.run.runner import JOB

if TYPE_CHECKING:
    import xarray as xr

MEMBER = "member"
CONVENTIONS = "CF-1.8"
DRIVER = "driving_member"
DRIVEN = {"long_name": "number of the driving model's member that it was drawn for", "units": "1"}
REALISATION = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
KEPT = (
    "units",
    "long_name",
    "standard_name",
    "cell_methods",
    "comment",
)  # what of a target's attributes holds of predictions
Placed = tuple[tuple[int, ...], np.ndarray]  # where along the first dimensions, (variables, rows, columns)


@dataclass(frozen=True, eq=False)
class Frame:
    """A file before there are values in it.

    Attributes:
        dataset: coordinates, bounds, grid mapping, attributes.
        variables: attributes of each variable to write.
        dimensions: of every one of them.
        shape: sizes along these.
        dtype: of the values.
    """

    dataset: xr.Dataset
    variables: Mapping[str, Mapping[str, Any]]
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype = np.dtype(np.float32)

    @property
    def chunks(self) -> tuple[int, ...]:
        """One field."""
        return (1,) * (len(self.shape) - 2) + self.shape[-2:]


def frame_of(
    template: Template, given: EnsembleInput, members: int, attributes: Mapping[str, Any], *, raw: bool
) -> Frame:
    """The frame of a prediction.

    Args:
        template: of the training data.
        given: what is predicted from.
        members: how many; 0 for the truth, which has none.
        attributes: of the whole file.
        raw: whether values in model space are written, too, as `raw_` and the name.
    """
    dataset, rows_and_columns, shared = given.frame(template)
    cases, drivers = len(given) // given.drivers, given.drivers
    dimensions, shape = (given.dimension, *rows_and_columns), (cases, *given.shape)
    if members:
        numbers = np.arange(members * drivers, dtype=np.int32)
        dataset = dataset.assign_coords({MEMBER: (MEMBER, numbers, REALISATION)})
        if drivers > 1:
            dataset = dataset.assign_coords({DRIVER: (MEMBER, numbers // members, DRIVEN)})
            shared = shared | {"coordinates": f"{shared.get('coordinates', '')} {DRIVER}".strip()}
        dimensions, shape = (MEMBER, *dimensions), (members * drivers, *shape)
    variables: dict[str, Any] = {}
    for channel in template.variables:
        name = channel.replace("@", "_")
        own = {"long_name": name} | template.facts["attributes"][channel.split("@")[0]]
        variables[name] = {k: v for k, v in own.items() if k in KEPT} | shared
        if raw:
            variables[f"raw_{name}"] = {
                "long_name": f"{own['long_name']} in the units of the model",
                "units": "1",
            } | shared
    dataset.attrs = {**dataset.attrs, **attributes, "Conventions": CONVENTIONS}
    return Frame(dataset, variables, dimensions, shape)


class Format(ABC):
    """A kind of file.

    Attributes:
        folder: whether it is a folder.
        reader: how xarray opens it.
    """

    folder: ClassVar[bool]
    reader: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def write(self, path: Path, frame: Frame, fields: Iterable[Placed]) -> None:
        """Make a file of a frame and of fields."""

    def open(self, path: Path, **options: Any) -> xr.Dataset:
        """The file, its values read when they are needed."""
        return library().open_dataset(path, **self.reader, **options)

    def made_by(self, path: Path) -> str | None:
        """The digest of the job that made a file, or None."""
        try:
            with self.open(path, decode_times=False) as dataset:
                return dataset.attrs.get(JOB)
        except Exception:  # whatever another file raises, it is none of ours
            return None


class NetCDF(Format):
    """NetCDF-4, compressed, one field a chunk."""

    folder, reader = False, {"engine": "h5netcdf"}

    def write(self, path: Path, frame: Frame, fields: Iterable[Placed]) -> None:
        import h5netcdf

        empty = frame.dataset.to_netcdf(engine="h5netcdf", encoding=_encoding(frame.dataset))
        path.write_bytes(empty)
        with ErrorsKept(path, "r+b") as opened, h5netcdf.File(opened, "r+") as file:
            for name, attributes in frame.variables.items():
                variable = file.create_variable(
                    name,
                    frame.dimensions,
                    frame.dtype,
                    fillvalue=frame.dtype.type(np.nan),
                    chunks=frame.chunks,
                    compression="gzip",
                    compression_opts=4,
                    shuffle=True,
                )
                variable.attrs.update(attributes)
            for where, values in fields:
                for name, field in zip(frame.variables, values, strict=True):
                    file.variables[name][where] = field


class Zarr(Format):
    """A Zarr store, compressed, one field a chunk."""

    folder, reader = True, {"engine": "zarr", "consolidated": False}

    def write(self, path: Path, frame: Frame, fields: Iterable[Placed]) -> None:
        import dask.array
        import zarr

        dataset = frame.dataset.copy()
        for name, attributes in frame.variables.items():
            empty = dask.array.zeros(frame.shape, frame.dtype, chunks=frame.chunks)
            dataset[name] = (frame.dimensions, empty, dict(attributes))
        encoding = _encoding(frame.dataset) | {
            name: {"_FillValue": frame.dtype.type(np.nan)} for name in frame.variables
        }
        dataset.to_zarr(path, mode="w", compute=False, consolidated=False, encoding=encoding)
        arrays = [zarr.open_array(path, path=name, mode="r+") for name in frame.variables]
        for where, values in fields:
            for array, field in zip(arrays, values, strict=True):
                array[where] = field


def format_of(path: Path) -> Format:
    """By the ending of the name: .nc or .zarr."""
    if path.suffix == ".nc":
        return NetCDF()
    if path.suffix == ".zarr":
        return Zarr()
    raise InputError(f"{path} is neither .nc nor .zarr: give --out a name that ends in one of them.")


def _encoding(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Coordinates have no fill value, which CF forbids, and times the units that they came in."""
    found = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "fMO":
            own = {k: v for k, v in variable.encoding.items() if k in ("units", "calendar", "dtype")}
            found[str(name)] = (own if variable.dtype.kind in "MO" else {}) | {"_FillValue": None}
    return found


def limits_of(template: Template, reach: float) -> list[tuple[float, float]]:
    """From where on values of each variable are beyond: `reach` training ranges outside of the training's."""
    ranges = template.facts["ranges"]
    return [
        (low - reach * (high - low), high + reach * (high - low)) if reach < np.inf else (-np.inf, np.inf)
        for low, high in ranges
    ]


def beyond(fields: Iterable[np.ndarray], template: Template, reach: float) -> list[str]:
    """What is said of values that lie beyond the limits of their variable, a line for each that has any.

    Args:
        fields: (n, variables, rows, columns) each.
        template: of the training data.
        reach: as of `limits_of`.
    """
    limits, ranges = limits_of(template, reach), template.facts["ranges"]
    found = np.array([[0, 0, np.inf, -np.inf]] * len(limits))
    for part in fields:
        for row, x, (low, high) in zip(found, np.moveaxis(part, 1, 0), limits, strict=True):
            known = x[~np.isnan(x)]
            row += [len(known), ((known < low) | (known > high)).sum(), 0, 0]
            row[2:] = min(row[2], known.min(initial=np.inf)), max(row[3], known.max(initial=-np.inf))
    return [
        f"{name}: {int(count)} of {int(total)} values are beyond {reach:g} training ranges; all go from {least:.5g} to "
        f"{most:.5g}, in training from {low:.5g} to {high:.5g}"
        for name, (total, count, least, most), (low, high) in zip(template.variables, found, ranges, strict=True)
        if count
    ]


def validate(found: xr.Dataset, template: Template, given: EnsembleInput, frame: Frame) -> None:
    """Refuse a prediction, read back, that is not what it should be.

    Args:
        found: the prediction.
        template: of the training data.
        given: what it was predicted from.
        frame: what its variables should be.

    Raises:
        InputError: values that are unknown where they should be known; other dates, sizes or units.
    """
    expected_dates = [given.name(i) for i in range(len(given) // given.drivers)]
    if [str(time) for time in dates(np.asarray(found["time"].values))] != expected_dates:
        raise InputError("The file has other dates than the predictors: their encoding of time may not hold them.")
    for name, attributes in frame.variables.items():
        expected = (frame.dimensions, frame.shape, attributes.get("units"))
        if name not in found or (found[name].dims, found[name].shape, found[name].attrs.get("units")) != expected:
            raise InputError(f"{name} is not read back as {frame.dimensions} of {frame.shape} in {expected[2]}.")
    known = given.known(template)
    for channel in template.variables:
        for number, date in enumerate(expected_dates):
            field = found[channel.replace("@", "_")].isel({given.dimension: number}).values
            if np.isnan(field[..., known]).any() or not np.isnan(field[..., ~known]).all():
                raise InputError(
                    f"{channel} at {date} is unknown where it should be known, or known where training data never are."
                )
