"""Predictions as files: CF NetCDF or Zarr with the dimension `member`, coordinates and attributes taken from a template.

HDF5 files do not survive a crash while they are written. What is drawn lies in parts; the file is made of them at the end, under
another name, and takes its own when it is whole.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield.climate.files import open_dataset
from scorefield.climate.predictors import EnsembleInput
from scorefield.climate.template import Template
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing

if TYPE_CHECKING:
    import xarray as xr

MEMBER = "member"
CONVENTIONS = "CF-1.8"
REALISATION = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
# What of a target's attributes holds of predictions:
KEPT = ("units", "long_name", "standard_name", "cell_methods", "comment")
Piece = tuple[tuple[int, ...], np.ndarray]  # where along the first dimensions, (variables, rows, columns)


@dataclass(frozen=True, eq=False)
class Frame:
    """A file before there are values in it.

    Attributes:
        dataset: coordinates, bounds, grid mapping, attributes.
        variables: attributes of each variable to write.
        dimensions: of every one of them.
        shape: sizes along these.
    """

    dataset: xr.Dataset
    variables: Mapping[str, Mapping[str, Any]]
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]

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
    dimensions, shape = (given.dimension, *rows_and_columns), (len(given), *given.shape)
    if members:
        dataset = dataset.assign_coords({MEMBER: (MEMBER, np.arange(members, dtype=np.int32), REALISATION)})
        dimensions, shape = (MEMBER, *dimensions), (members, *shape)
    variables: dict[str, Any] = {}
    for channel in template.variables:
        name = channel.replace("@", "_")
        own = {"long_name": name} | template.facts["attributes"][channel.split("@")[0]]
        variables[name] = {k: v for k, v in own.items() if k in KEPT} | shared
        if raw:
            long_name = f"{own['long_name']} in the units of the model"
            variables[f"raw_{name}"] = {"long_name": long_name, "units": "1"} | shared
    dataset.attrs = {**dataset.attrs, **attributes, "Conventions": CONVENTIONS}
    return Frame(dataset, variables, dimensions, shape)


class Writer(ABC):
    """Makes a file of a frame and of pieces, whole or not at all."""

    @abstractmethod
    def write(self, path: Path, frame: Frame, pieces: Iterable[Piece]) -> None: ...


class NetCDF(Writer):
    """NetCDF-4, compressed, one field a chunk."""

    def write(self, path: Path, frame: Frame, pieces: Iterable[Piece]) -> None:
        import h5netcdf

        with replacing(path) as temporary:
            frame.dataset.to_netcdf(temporary, engine="h5netcdf", encoding=_encoding(frame.dataset))
            with h5netcdf.File(temporary, "a") as file:
                for name, attributes in frame.variables.items():
                    storage: dict[str, Any] = {"chunks": frame.chunks, "fillvalue": np.float32(np.nan)}
                    storage |= {"compression": "gzip", "compression_opts": 4, "shuffle": True}
                    variable = file.create_variable(name, frame.dimensions, np.float32, **storage)
                    variable.attrs.update(attributes)
                for where, values in pieces:
                    for name, field in zip(frame.variables, values, strict=True):
                        file.variables[name][where] = field


class Zarr(Writer):
    """A Zarr store, compressed, one field a chunk."""

    def write(self, path: Path, frame: Frame, pieces: Iterable[Piece]) -> None:
        import dask.array
        import zarr

        temporary = path.with_name(f".{path.name}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        dataset = frame.dataset.copy()
        for name, attributes in frame.variables.items():
            empty = dask.array.zeros(frame.shape, np.float32, chunks=frame.chunks)
            dataset[name] = (frame.dimensions, empty, dict(attributes))
        encoding = _encoding(frame.dataset) | {name: {"_FillValue": np.float32(np.nan)} for name in frame.variables}
        dataset.to_zarr(temporary, mode="w", compute=False, consolidated=False, encoding=encoding)
        arrays = [zarr.open_array(temporary, path=name, mode="r+") for name in frame.variables]
        for where, values in pieces:
            for array, field in zip(arrays, values, strict=True):
                array[where] = field
        temporary.replace(path)


def writer_of(path: Path) -> Writer:
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


def attribute_of(path: Path, name: str) -> str:
    """An attribute of a prediction's file; empty where it has none."""
    with open_dataset(path) as dataset:
        return str(dataset.attrs.get(name, ""))


def validate(path: Path, template: Template, given: EnsembleInput, frame: Frame, *, reach: float) -> None:
    """Read a prediction back and refuse one that is not what it should be.

    Args:
        path: the file.
        template: of the training data.
        given: what it was predicted from.
        frame: what its variables should be.
        reach: by how many times the range of the training values they may go beyond it.

    Raises:
        InputError: values that are unknown where they should be known, or out of range; other dates, sizes or units.
    """
    with open_dataset(path) as dataset:
        for name, attributes in frame.variables.items():
            if name not in dataset or dataset[name].dims != frame.dimensions or dataset[name].shape != frame.shape:
                raise InputError(
                    f"{path}: {name} is not {frame.dimensions} of {frame.shape}: delete the file and start again."
                )
            if dataset[name].attrs.get("units") != attributes.get("units"):
                raise InputError(
                    f"{path}: {name} is not in {attributes.get('units')}: delete the file and start again."
                )
        expected = [given.name(i) for i in range(len(given))]
        if [str(time) for time in dataset["time"].values] != expected:
            raise InputError(f"{path} has other dates than the predictors: delete the file and start again.")
        known = given.known(template)
        for channel, (low, high) in zip(template.variables, template.facts["ranges"], strict=True):
            for number, date in enumerate(expected):
                field = dataset[channel.replace("@", "_")].isel({given.dimension: number}).values
                _check_values(f"{path}: {channel} at {date}", field, known, low, high, reach * (high - low))


def _check_values(what: str, field: np.ndarray, known: np.ndarray, low: float, high: float, slack: float) -> None:
    inside = field[..., known]
    if np.isnan(inside).any() or not np.isnan(field[..., ~known]).all():
        raise InputError(f"{what} is unknown where it should be known, or known where training data never are.")
    if inside.size and (inside.min() < low - slack or inside.max() > high + slack):
        raise InputError(
            f"{what} goes from {inside.min():.5g} to {inside.max():.5g}, and in training from {low:.5g} to {high:.5g}: "
            "the model does not hold here; or allow it by --reach."
        )
