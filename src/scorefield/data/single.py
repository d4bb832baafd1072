"""One field from one file: an image, or an array in a .npy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from scorefield.data.arrays import ArrayFile
from scorefield.data.decode import Conversion
from scorefield.data.fields import ArrayFields, ChannelAxis
from scorefield.data.images import Files
from scorefield.data.listing import SUFFIXES
from scorefield.foundation.errors import InputError


def read_array(path: Path) -> np.ndarray:
    """The values of an image, (height, width) or (height, width, 3), or of a .npy file, as they are stored."""
    if not path.is_file():
        raise InputError(f"There is no file {path}: correct the path.")
    if path.suffix.lower() in SUFFIXES:
        return Files(path.parent, [path.name], Conversion()).first
    file = ArrayFile(path)
    if not file.plain:
        raise InputError(f"{path} holds several arrays: save the one that is meant as .npy.")
    return file.read("", "the path")


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


def read_fields(path: Path, shape: Sequence[int]) -> ArrayFields:
    """The field, or the fields, that an image or a .npy file holds, of any grid with the channels and the rank of a shape.

    Args:
        path: an image or a .npy file: (*grid), one channel axis first or last, and before these an axis of fields or none.
        shape: (channels, *grid), of which the sizes of the grid do not matter.
    """
    array, rank = read_array(path), len(shape) - 1
    channels = shape[0] // 2 if array.dtype.kind == "c" and shape[0] % 2 == 0 else shape[0]
    single = {"none": channels == 1 and array.ndim == rank}
    several = {"none": channels == 1 and array.ndim == rank + 1}
    for axis, place in (("first", 0), ("last", -1)):
        single[axis] = array.ndim == rank + 1 and array.shape[place] == channels
        several[axis] = array.ndim == rank + 2 and array.shape[place or 1] == channels
    for whole, kinds in ((array[None], single), (array, several)):
        axis = next((axis for axis in get_args(ChannelAxis) if kinds.get(axis)), None)
        if axis is not None:
            return ArrayFields(whole, axis, origin=str(path))
    found = "×".join(map(str, array.shape))
    raise InputError(
        f"{path} is {array.dtype} {found}, where fields of {shape[0]} channels on grids of {rank} axes are needed: save it as "
        f"(fields, channels, *grid)."
    )


def peak_of(array: np.ndarray) -> float:
    """The largest value that numbers of an array's type can have, such as 255; for real numbers the range of finite ones."""
    if array.dtype.kind == "b":
        return 1.0
    if array.dtype.kind in "iu":
        return float(np.iinfo(array.dtype).max)
    values = np.abs(array) if array.dtype.kind == "c" else array
    values = values[np.isfinite(values)]
    return float(np.ptp(values)) if values.size else 0.0
