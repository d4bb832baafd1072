"""Functions: fields with the coordinates of their points, and what they are functions of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.arrays import LABELS
from scorefield.data.batch import Batch
from scorefield.data.fields import ArrayFields, ChannelAxis, FieldDataset, Subset
from scorefield.data.precision import spread_rows
from scorefield.data.source import Source, Split, check_split, hold_out
from scorefield.data.stored import StoredFile, along_axis, open_arrays
from scorefield.foundation.errors import InputError

LOOKED_AT = 2**27  # values that are looked through for NaN when a file is opened; of a larger one, a sample of its rows
IRREGULAR = 1e-2  # of a spacing, by which spacings may differ: coordinates are often stored in float32


@dataclass(frozen=True)
class Functions(Source):
    """Functions on a regular grid, in a .npy, .npz, HDF5 (.h5, .hdf5), NetCDF (.nc), PyTorch (.pt), MATLAB (.mat) or Zarr
    (.zarr) file.

    A grid of n points of spacing h covers a domain of length n h: each point stands for a cell, so that a coarser and a finer
    grid of the same domain agree. Without coordinates, positions are (i + ½)/n. NaN is where functions are not known.

    Args:
        path: the file.
        key: the name of the functions.
        coordinates: names of the coordinates of the points along each axis, or of none.
        domain: lengths of the domain along each axis that the coordinates have to span, or none to accept any.
        append: whether the network is given the coordinates, as `cond["coords"]` of (axes, *grid).
        given: the name of other fields on the same grid, which the functions are conditioned on, as `cond["field"]`.
        channel_axis: none for (N, *grid), first for (N, channels, *grid), last for (N, *grid, channels).
        held_out: a file with the held-out functions; without, some of those in `path` are held out.
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones.
        gaps: whether some functions are not known everywhere, for a file so large that only a part of it is looked through.
    """

    path: Path
    key: str = "x"
    coordinates: tuple[str, ...] = ()
    domain: tuple[float, ...] = ()
    append: bool = False
    given: str | None = None
    channel_axis: ChannelAxis = "auto"
    held_out: Path | None = None
    valid: int | float = 0.1
    seed: int = 0
    gaps: bool = False

    def load(self, split: Split) -> FieldDataset:
        check_split(split)
        if self.held_out is not None:
            return self._read(Path(self.path if split == "train" else self.held_out))
        fields = self._read(Path(self.path))
        return Subset(fields, hold_out(len(fields), self.valid, self.seed, split))

    def axes(self) -> dict[str, np.ndarray]:
        return self._axes(open_arrays(Path(self.path))) if self.coordinates else {}

    def order(self) -> tuple[str, ...]:
        file = open_arrays(Path(self.path))
        return (file.axes(self.given) if self.given in file.names else ()) or self.coordinates

    def units(self) -> str:
        file = open_arrays(Path(self.path))
        return file.units(self.given) if self.given in file.names else ""

    def _axes(self, file: StoredFile) -> dict[str, np.ndarray]:
        return {name: np.asarray(file.read(name, "coordinates")[:]) for name in self.coordinates}

    def _read(self, path: Path) -> FieldDataset:
        file = open_arrays(path)
        name = self._name(file)
        fields = ArrayFields(file.read(name, "key"), self.channel_axis, origin=f"{name or 'the array'} of {path}")
        grid = tuple(fields[0].x.shape[1:])
        points = self._points(file, grid, path)
        gaps = unknown(fields)
        found = GivenFields(
            fields, self._conditions(file, fields, grid, path), points if self.append else None, self.gaps or gaps > 0
        )
        found.notes = tuple(
            f"{label} of {path} is not used: give it as `key` or `given` where it is fields; functions have no classes."
            for label in LABELS
            if label in file.names and label not in (name, self.given, *self.coordinates)
        )
        if gaps:
            found.notes += (
                f"{100 * gaps:.2g} % of {name or 'the array'} of {path} is not known (NaN). To train on it: where that is the "
                "same part of all, with a MaskedField for the noise (scorefield suggest --region); where it is another part of "
                "each, with --train.loss.interpolate true.",
            )
        return found

    def _name(self, file: StoredFile) -> str:
        return file.names[0] if self.key == "x" and len(file.names) == 1 else self.key

    def _points(self, file: StoredFile, grid: tuple[int, ...], path: Path) -> Tensor:
        """The coordinates of the points, (axes, *grid). Refuses those of no regular grid, or of another domain."""
        if self.domain and not self.coordinates:
            raise InputError(f"domain={self.domain} cannot be checked without coordinates: name those of each axis.")
        for names, what in ((self.coordinates, "coordinates"), (self.domain, "domain")):
            if names and len(names) != len(grid):
                raise InputError(f"{what}={names} does not fit the grid {grid}: give one for each axis.")
        if not self.coordinates:
            return positions(grid)
        named = file.axes(self._name(file))
        along = [along_axis(file, name) for name in self.coordinates]
        if {*along} <= {*named} and along != [name for name in named if name in along]:
            raise InputError(
                f"The axes of {self._name(file)} of {path} are {', '.join(named)}, and coordinates={self.coordinates} are of "
                f"{', '.join(along)}: give them in the order of the axes."
            )
        arrays = list(self._axes(file).values())
        for i, (array, name, points) in enumerate(zip(arrays, self.coordinates, grid, strict=True)):
            length = span(array, points, f"{name} of {path}")
            if self.domain and abs(length - self.domain[i]) > 1e-3 * self.domain[i]:
                raise InputError(
                    f"{name} of {path} spans {length:g}, not {self.domain[i]:g}: a model knows functions on one domain; cut "
                    "out that part of it, or train another model."
                )
        axes = [torch.from_numpy(array.astype(np.float32)) for array in arrays]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def _conditions(
        self, file: StoredFile, fields: FieldDataset, grid: tuple[int, ...], path: Path
    ) -> FieldDataset | None:
        if self.given is None:
            return None
        origin = f"{self.given} of {path}"
        found = ArrayFields(file.read(self.given, "given"), self.channel_axis, origin=origin)
        if len(found) != len(fields) or tuple(found[0].x.shape[1:]) != grid:
            shape = (len(found), *found[0].x.shape[1:])
            raise InputError(
                f"{origin} are {shape}, not {len(fields)} fields on the grid {grid}: give those that belong."
            )
        axes, others = file.axes(self.given), file.axes(self._name(file))
        if [name for name in axes if name in others] != [name for name in others if name in axes]:
            raise InputError(
                f"The axes of {origin} are {', '.join(axes)}, and those of {self._name(file)} {', '.join(others)}: save both in "
                "one order."
            )
        return found


def unknown(fields: ArrayFields) -> float:
    """The share of values that are NaN: of all where they can be looked through at once, else of a sample of the fields."""
    each = math.prod(fields.array.shape[1:])
    whole = len(fields) * each <= LOOKED_AT
    rows = torch.arange(len(fields)) if whole else torch.from_numpy(spread_rows(len(fields), each))
    counts = [int(fields.gather(part).x.isnan().sum()) for part in rows.split(max(1, 2**22 // each))]
    return sum(counts) / max(1, len(rows) * each)


class GivenFields(FieldDataset):
    """Fields with what they are conditioned on: other fields, the positions of their points; `gaps` where some are NaN.

    One with NaN among fields without gaps raises InputError.
    """

    def __init__(
        self,
        fields: FieldDataset,
        given: FieldDataset | None = None,
        coordinates: Tensor | None = None,
        gaps: bool = False,
    ) -> None:
        self.fields, self.given, self.coordinates, self.gaps = fields, given, coordinates, gaps
        self.quantum, self.dtype, self.classes = fields.quantum, fields.dtype, fields.classes

    def __len__(self) -> int:
        return len(self.fields)

    def gather(self, indices: Tensor) -> Batch:
        batch = self.fields.gather(indices)
        cond = dict(batch.cond)
        if not self.gaps and bool((holes := batch.x.isnan().flatten(1).any(1)).any()):
            raise InputError(
                f"Field {int(indices[holes][0])} has points that are not known (NaN), which a sample of the fields did not show: "
                "add --data.gaps true."
            )
        if self.given is not None:
            cond["field"] = self.given.gather(indices).x
        if self.coordinates is not None:
            cond["coords"] = self.coordinates.expand(len(indices), *self.coordinates.shape)
        return replace(batch, cond=cond, mask=~batch.x.isnan() if self.gaps else None)


def positions(grid: Sequence[int]) -> Tensor:
    """The positions (i + ½)/n of the points of a grid in its domain, (axes, *grid)."""
    axes = [(torch.arange(points) + 0.5) / points for points in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def on_grid(coordinates: Tensor, grid: Sequence[int]) -> Tensor:
    """The coordinates (batch, axes, *points) of a regular grid for other points (batch, axes, *grid) of its domain."""
    found = []
    for axis, (points, n) in enumerate(zip(coordinates.shape[2:], grid, strict=True)):
        line = coordinates[(slice(None), axis, *(slice(None) if i == axis else 0 for i in range(len(grid))))]
        at = (torch.arange(n) + 0.5) * points / n - 0.5  # in steps from the first of the given points
        step = (line[:, -1:] - line[:, :1]) / max(points - 1, 1)
        shape = [len(line), *(n if i == axis else 1 for i in range(len(grid)))]
        found.append((line[:, :1] + step * at).reshape(shape).expand(-1, *grid))
    return torch.stack(found, 1)


def span(coordinates: np.ndarray, points: int, origin: str) -> float:
    """The length n h of the domain that regular coordinates (n), of step h, cover, in their units. Others raise InputError."""
    if coordinates.ndim != 1 or len(coordinates) != points or coordinates.dtype.kind not in "iuf":
        raise InputError(
            f"{origin} is {coordinates.dtype} {coordinates.shape}, not {points} numbers along one axis: functions need a "
            "regular grid; interpolate scattered or curvilinear points to one."
        )
    steps = np.diff(coordinates.astype(np.float64))
    if len(steps) == 0:
        raise InputError(f"{origin} is a single point: a grid needs at least two along each axis.")
    spacing = steps.mean()
    worst = np.abs(steps - spacing).max()
    if not worst <= IRREGULAR * abs(spacing):
        raise InputError(
            f"{origin} is irregular: steps from {steps.min():g} to {steps.max():g}. Interpolate the functions to a regular grid."
        )
    return float(points * abs(spacing))
