"""Simulations of partial differential equations in the HDF5 files of The Well and of PDEBench, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.precision import fits_float32, needed
from scorefield.data.source import Source, Split, check_split, hold_out
from scorefield.data.stored import HDF5, HDF5Array
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.lazy import require
from scorefield.foundation.limits import check_memory

TENSORS = ("t0_fields", "t1_fields", "t2_fields")  # of The Well: numbers, vectors and matrices at every point
COMPONENTS = 3  # at most as many entries of a last axis are components: no grid has so few points
SPLITS = {"train": ("train",), "valid": ("valid", "val", "test"), "test": ("test",)}


@dataclass(frozen=True)
class Simulations(Source):
    """Frames of simulations (channels, *grid), or whole simulations with their frames as channels, for `Windows`.

    Read are files of The Well (Ohana et al. 2024), t{0,1,2}_fields/NAME of (simulations, frames, *grid, components), and of
    PDEBench (Takamoto et al. 2022): NAME of (simulations, frames, *grid), with up to 3 components in a further axis, or a group
    for each simulation with `data` of (frames, *grid, channels). Which of these, their own attributes say. Whole simulations are
    held out, never frames of one.

    Args:
        path: a file, or a folder of files, all of them read; one with folders train and valid or test has these as splits.
        fields: names of the fields that become channels, in this order, all components of each; by default all that vary.
        whole: give a simulation at a time, its frames as channels, of one field.
        every: take the first frame, and then each so many.
        valid: how many simulations are held out (integer) or which fraction (float), where there are no folders of splits.
        seed: draws which ones.
    """

    path: Path
    fields: tuple[str, ...] = ()
    whole: bool = False
    every: int = 1
    valid: int | float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"Simulations need every >= 1, not {self.every}.")

    def load(self, split: Split) -> FieldDataset:
        check_split(split)
        path = Path(self.path)
        own = next((path / name for name in SPLITS[split] if (path / name).is_dir()), None)
        if own is None and any((path / name).is_dir() for names in SPLITS.values() for name in names):
            raise AbsentDataError(f"{path} has no folder for {split}: give one, called {' or '.join(SPLITS[split])}.")
        parts = [opened(file, self.fields) for file in files_in(own or path)]
        shapes = {(part.channels, part.frames, part.grid) for part in parts}
        if len(shapes) > 1:
            first, second = sorted(shapes)[:2]
            raise InputError(f"{path} holds simulations of several shapes, {first} and {second}: give a file of one.")
        if self.whole and parts[0].channels > 1:
            raise InputError("Whole simulations are of one field of one component: name it by fields.")
        found = Frames(parts, self.every, self.whole)
        if own is not None:
            return found
        count = 1 if self.whole else found.kept
        chosen = hold_out(len(found) // count, self.valid, self.seed, split)
        return Subset(found, (chosen[:, None] * count + torch.arange(count)).flatten())

    def files_read(self) -> list[Path]:
        return files_in(Path(self.path))


def files_in(path: Path) -> list[Path]:
    """The HDF5 files of a folder, those in its folders too, in order; or the file itself."""
    files = sorted(p for p in path.rglob("*") if p.suffix in HDF5) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise AbsentDataError(f"There is no HDF5 file {'in ' if path.is_dir() else ''}{path}: correct the path.")
    return files


@dataclass(frozen=True, eq=False)
class Part:
    """The simulations of one file.

    Attributes:
        arrays: one per field, of which [simulations, frames] are (n, k, *grid, components); or one per simulation.
        ranks: how many axes of components each has, at the end.
        apart: the arrays are of one simulation each, of which [frames] are (k, *grid, channels).
        shape: (simulations, frames, *grid).
        channels: in all.
        periodic: opposite edges meet, as The Well says.
    """

    arrays: tuple[HDF5Array, ...]
    ranks: tuple[int, ...]
    apart: bool
    shape: tuple[int, ...]
    channels: int
    periodic: bool

    @property
    def frames(self) -> int:
        return self.shape[1]

    @property
    def grid(self) -> tuple[int, ...]:
        return self.shape[2:]

    def frame(self, simulation: int, frames: slice) -> np.ndarray:
        """Some frames of a simulation, (k, channels, *grid)."""
        if self.apart:
            return np.moveaxis(np.asarray(self.arrays[simulation][frames]), -1, 1)
        found = []
        for array, rank in zip(self.arrays, self.ranks, strict=True):
            rows = np.asarray(array[simulation, frames])
            flat = rows.reshape(*rows.shape[: rows.ndim - rank], -1)
            found.append(np.moveaxis(flat, -1, 1))
        return np.concatenate(found, axis=1)


def opened(path: Path, fields: Sequence[str]) -> Part:
    """What a file holds. InputError where it is of neither layout, or lacks one of the fields."""
    h5py = require("h5py", f"{path} is HDF5", "functions")
    try:
        with h5py.File(path, "r") as file:
            return _well(file, path, fields) if TENSORS[0] in file else _pdebench(file, path, fields)
    except OSError as error:
        raise InputError(f"{path} is no whole HDF5 file ({brief(error)}): save it again.") from error


def _well(file: Any, path: Path, fields: Sequence[str]) -> Part:
    """t{0,1,2}_fields; those that are the same for all simulations or times are left out unless all are."""
    there = {name: rank for rank, group in enumerate(TENSORS) if group in file for name in file[group]}
    varying = [
        name
        for name, rank in there.items()
        if all(bool(file[TENSORS[rank]][name].attrs.get(f"{what}_varying", True)) for what in ("sample", "time"))
    ]
    names = list(fields) or varying
    if wrong := [name for name in names if name not in varying]:
        raise InputError(f"{path} has no field {wrong[0]} that varies, but {', '.join(varying)}: correct fields.")
    places = [f"{TENSORS[there[name]]}/{name}" for name in names]
    conditions = [
        file[f"boundary_conditions/{name}"].attrs.get("bc_type") for name in file.get("boundary_conditions", ())
    ]
    periodic = bool(conditions) and all(str(_text(kind)).upper() == "PERIODIC" for kind in conditions)
    return _joined(file, path, places, [there[name] for name in names], periodic)


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _pdebench(file: Any, path: Path, fields: Sequence[str]) -> Part:
    """Fields beside their coordinates; or a group for each simulation."""
    h5py = require("h5py", f"{path} is HDF5", "functions")
    groups = sorted(name for name in file if isinstance(file[name], h5py.Group) and "data" in file[name])
    if groups:
        if fields:
            raise InputError(f"{path} holds all channels of a simulation in one array: leave fields out.")
        arrays = tuple(HDF5Array(path, f"{name}/data") for name in groups)
        if len({array.shape for array in arrays}) > 1 or len(arrays[0].shape) < 3:
            raise InputError(f"{path} holds simulations of several shapes, or without (frames, *grid, channels).")
        frames, *grid, channels = arrays[0].shape
        return Part(arrays, (), True, (len(groups), frames, *grid), channels, False)
    there = [name for name in file if isinstance(file[name], h5py.Dataset) and file[name].ndim > 2]
    names = list(fields) or there
    if wrong := [name for name in names if name not in there]:
        raise InputError(f"{path} has no field {wrong[0]} but {', '.join(there) or 'none'}: correct fields.")
    if not names:
        raise InputError(f"{path} holds no simulations as The Well or PDEBench have them: take Functions, with key.")
    ranks = [int(file[name].ndim > 3 and file[name].shape[-1] <= COMPONENTS) for name in names]
    return _joined(file, path, names, ranks, False)


def _joined(file: Any, path: Path, places: Sequence[str], ranks: Sequence[int], periodic: bool) -> Part:
    arrays = tuple(HDF5Array(path, place) for place in places)
    shapes = {array.shape[: len(array.shape) - rank] for array, rank in zip(arrays, ranks, strict=True)}
    shape = next(iter(shapes))
    if len(shapes) > 1 or not 3 <= len(shape) <= 5:
        given = ", ".join(f"{place} {array.shape}" for place, array in zip(places, arrays, strict=True))
        raise InputError(
            f"{path}: {given} are no fields (simulations, frames, *grid) on one grid: name those by fields."
        )
    channels = sum(math.prod(array.shape[len(shape) :]) for array in arrays)
    return Part(arrays, tuple(ranks), False, shape, channels, periodic)


class Frames(FieldDataset):
    """The frames of all parts, or their simulations."""

    def __init__(self, parts: Sequence[Part], every: int, whole: bool) -> None:
        for array in (array for part in parts for array in part.arrays):
            if np.dtype(array.dtype).kind not in "fiub":
                raise InputError(
                    f"{array.name} of {array.path} is {array.dtype}: save real numbers, each part as a field."
                )
        self.parts, self.every, self.whole = parts, every, whole
        self.kept = -(-parts[0].frames // every)
        self.counts = [part.shape[0] for part in parts]
        self.periodic = all(part.periodic for part in parts)
        self.dtype = str(parts[0].arrays[0].dtype)
        self.precision = np.dtype(np.float32)
        if not fits_float32(parts[0].arrays[0].dtype):
            rows = parts[0].frame(0, slice(0, 1))
            self.precision = np.dtype(str(needed(rows, "the first frame")).removeprefix("torch."))
        if whole:
            check_memory(4 * self.kept * math.prod(parts[0].grid), f"a simulation of {self.kept} frames")

    def __len__(self) -> int:
        return sum(self.counts) * (1 if self.whole else self.kept)

    def gather(self, indices: Tensor) -> Batch:
        return Batch(torch.from_numpy(np.stack([self._one(int(index)) for index in indices])))

    def _one(self, index: int) -> np.ndarray:
        simulation, frame = (index, 0) if self.whole else divmod(index, self.kept)
        for part, count in zip(self.parts, self.counts, strict=True):
            if simulation < count:
                first = frame * self.every
                frames = slice(0, None, self.every) if self.whole else slice(first, first + 1)
                rows = part.frame(simulation, frames).astype(self.precision)
                if not np.isfinite(rows).all():
                    raise InputError(
                        f"{part.arrays[0].path}: simulation {simulation} is not finite from frame {first} on: leave it out."
                    )
                return rows[:, 0] if self.whole else rows[0]
            simulation -= count
        raise IndexError(index)
