"""One field from one file: an image, or an array in a .npy."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from scorefield.data.arrays import ArrayFile
from scorefield.data.decode import Conversion
from scorefield.data.fields import ArrayFields, ChannelAxis, Stored
from scorefield.data.images import Files
from scorefield.data.listing import SUFFIXES
from scorefield.data.stored import StoredFile, along_axis, open_arrays
from scorefield.foundation.errors import InputError

log = logging.getLogger("scorefield")


def read_array(path: Path) -> np.ndarray:
    """The values of an image, (height, width) or (height, width, 3) with its pages first, or of a .npy file, as stored."""
    if not path.is_file():
        raise InputError(f"There is no file {path}: correct the path.")
    if path.suffix.lower() in SUFFIXES:
        if read_alpha(path) is not None:
            log.warning("%s is transparent in part, which is dropped", path)
        return open_image(path).first
    file = ArrayFile(path)
    if not file.plain:
        raise InputError(f"{path} holds several arrays: save the one that is meant as .npy.")
    return file.read("", "the path")


def stored_as(path: Path) -> str:
    """The number type of an image or a .npy file; nothing of any other file."""
    return str(read_array(path).dtype) if path.suffix.lower() in (*SUFFIXES, ".npy") else ""


def open_image(path: Path) -> Files:
    """The reader of a single image, all of whose pages are read where there are several."""
    image = Files(path.parent, [path.name], Conversion())
    return image if image.pages(0) == 1 else Files(path.parent, [path.name], Conversion(pages="volume"))


def read_alpha(path: Path) -> np.ndarray | None:
    """How opaque each pixel of an image is, (height, width) from 0 to 255; None where all are, and for other files."""
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return None
    alpha = Files(path.parent, [path.name], Conversion()).alpha(0)
    return None if alpha is None or alpha.min() == 255 else alpha


def read_field(path: Path, shape: Sequence[int]) -> Tensor:
    """A field (1, channels, *grid) in data units, float32, where a file holds one of that shape, channels first, last or without.

    Args:
        path: an image or a .npy file.
        shape: (channels, *grid). Complex values are pairs of channels.
    """
    array, (_, *grid) = read_array(path), shape
    axis: ChannelAxis = "last"
    if array.ndim == len(grid):
        axis = "none"
    elif list(array.shape[1:]) == grid:
        axis = "first"
    needed = "×".join(map(str, shape))
    found = "×".join(map(str, array.shape))
    if array.ndim not in (len(grid), len(grid) + 1):
        raise InputError(f"{path} is {found}, where a field of {needed} is needed (channels × grid).")
    x = ArrayFields(array[None], axis, origin=str(path)).gather(torch.zeros(1, dtype=torch.int64)).x
    if list(x.shape[1:]) != list(shape):
        raise InputError(f"{path} is {found}, where a field of {needed} is needed (channels × grid).")
    return x


def read_fields(
    path: Path, shape: Sequence[int], name: str | None = None, order: Sequence[str] = (), units: str = ""
) -> ArrayFields:
    """The field, or the fields, that a file holds, of any grid with the channels and the rank of a shape.

    Args:
        path: an image, or arrays as `open_arrays` reads them: (*grid), one channel axis first or last, and before these an axis
            of fields or none.
        shape: (channels, *grid), of which the sizes of the grid do not matter.
        name: which array, of a file of several; by default the only one that fits.
        order: names of axes, which are brought into this order where the file names its own.
        units: that they should be in; of others in the file the result has a note.

    Raises:
        InputError: nothing fits, or several arrays do and none has the name.
    """
    if path.suffix.lower() in SUFFIXES or path.suffix == ".npy" or not path.exists():
        return _fitting(read_array(path), shape, str(path))
    file = open_arrays(path)
    if (name is not None and name in file.names) or len(file.names) == 1:
        chosen = file.names[0] if len(file.names) == 1 or name is None else name
        return _named(file, chosen, shape, order, units, path)
    arrays = {other: array for other, array in _readable(file).items() if array.dtype.kind in "biufc"}
    found = [other for other, array in arrays.items() if _kind(array.shape, array.dtype, shape) is not None]
    found = found or [
        other for other, one in arrays.items() if _kind(_shortened(one.shape), one.dtype, shape) is not None
    ]
    if len(found) == 1:
        return _named(file, found[0], shape, order, units, path)
    kind = f"fields of {shape[0]} channels on grids of {len(shape) - 1} axes"
    if found:
        raise InputError(f"{path} has several arrays of {kind}, {', '.join(found)}: save the one that is meant alone.")
    there = ", ".join(file.names) or "none"
    raise InputError(f"{path} has no array of {kind}, but {there}: save them as (fields, channels, *grid).")


def _named(
    file: StoredFile, name: str, shape: Sequence[int], order: Sequence[str], units: str, path: Path
) -> ArrayFields:
    """The array of a name as fields."""
    origin = f"{name or 'the array'} of {path}"
    fields, said = _fitting(_ordered(file, name, order), shape, origin), file.units(name)
    if units and said and said != units:
        fields.notes += (f"{origin} is in {said}, and in training it was in {units}: it is taken as it is",)
    return fields


def _ordered(file: StoredFile, name: str, order: Sequence[str]) -> np.ndarray:
    """An array whose axes are in the order of these names, those of others where they were."""
    array, axes = np.asarray(file.read(name, "the name")[:]), file.axes(name)
    wanted = [axes.index(axis) for axis in dict.fromkeys(along_axis(file, each) for each in order) if axis in axes]
    source = iter(wanted)
    return array.transpose([next(source) if axis in wanted else axis for axis in range(len(axes))]) if axes else array


def read_axes(path: Path, grid: Sequence[int], names: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The coordinates that a file holds beside fields: arrays of one axis that rise or fall, as long as an axis of their grid;
    and those of some names, whatever they are.
    """
    if path.suffix.lower() in SUFFIXES or path.suffix == ".npy":
        return {}
    found = {}
    for name, array in _readable(open_arrays(path)).items():
        sizes = [n for n in array.shape if n > 1]  # MATLAB's arrays have two axes at least
        if len(sizes) != 1 or array.dtype.kind not in "iuf":
            continue
        if name in names:
            found[name] = np.asarray(array[:]).reshape(-1)
        elif sizes[0] in grid:
            values = np.asarray(array[:]).reshape(-1)
            steps = np.diff(values.astype(np.float64))
            if bool((steps > 0).all() or (steps < 0).all()):
                found[name] = values
    return found


def _readable(file: StoredFile) -> dict[str, Stored]:
    """The arrays of a file by name, without those that are none: single numbers, and what is no plain numbers."""
    found = {}
    for name in file.names:
        with suppress(InputError):
            found[name] = file.read(name, "the name")
    return found


def _shortened(sizes: Sequence[int]) -> tuple[int, ...]:
    """Without axes of a single entry, as files have them for a time or a level."""
    return tuple(size for size in sizes if size != 1)


def _kind(sizes: Sequence[int], dtype: np.dtype, shape: Sequence[int]) -> tuple[bool, ChannelAxis] | None:
    """Whether an array is a single field, and where its channels are; None where it is no fields of that kind."""
    if dtype.kind not in "biufc" or (dtype.kind == "c" and shape[0] % 2):
        return None
    rank, ndim = len(shape) - 1, len(sizes)
    channels = shape[0] // 2 if dtype.kind == "c" else shape[0]
    single = {"none": channels == 1 and ndim == rank}
    several = {"none": channels == 1 and ndim == rank + 1}
    for axis, place in (("first", 0), ("last", -1)):
        single[axis] = ndim == rank + 1 and sizes[place] == channels
        several[axis] = ndim == rank + 2 and sizes[place or 1] == channels
    for one, kinds in ((True, single), (False, several)):
        for axis in get_args(ChannelAxis):
            if kinds.get(axis):
                return one, axis
    return None


def _fitting(array: np.ndarray, shape: Sequence[int], origin: str) -> ArrayFields:
    """An array as fields."""
    if (kind := _kind(array.shape, array.dtype, shape)) is None:
        sizes = _shortened(array.shape)
        if len(sizes) < array.ndim and _kind(sizes, array.dtype, shape) is not None:
            return _fitting(array.reshape(sizes), shape, origin)
        raise InputError(
            f"{origin} is {array.dtype} {'×'.join(map(str, array.shape))}, where fields of {shape[0]} channels on grids of "
            f"{len(shape) - 1} axes are needed: save it as (fields, channels, *grid)."
        )
    one, axis = kind
    return ArrayFields(array[None] if one else array, axis, origin=origin)


def peak_of(array: np.ndarray) -> float:
    """What PSNR is relative to: 255 for 8-bit values, 1 for booleans; for anything else the range of what is finite, as 16-bit
    images rarely use more than a part of theirs.
    """
    if array.dtype in (np.bool_, np.uint8):
        return 1.0 if array.dtype == np.bool_ else 255.0
    values = np.abs(array) if array.dtype.kind == "c" else array
    values = values[np.isfinite(values)]
    return float(np.ptp(values)) if values.size else 0.0
