"""Arrays of k-space or maps in files that hold several by their names: .npz, and MATLAB's .mat up to 7.3."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from scorefield.data.arrays import ArrayFile
from scorefield.data.matlab import Reader, matlab_arrays
from scorefield.foundation.errors import AbsentDataError, InputError, brief

CONTAINERS = (".npz", ".mat")
OTHERS = ("maps", "mask", "trajectory", "matrix")  # what lies beside k-space by names of its own


def read_named(path: Path, name: str) -> np.ndarray:
    """The array of a name; or, where there is none of it, the only one of complex numbers with three axes or more.

    MATLAB's arrays have the axes that `size` says there, also those of version 7.3, whose files hold them the other way round.

    Args:
        path: .npz or .mat.
        name: such as `kspace`.

    Raises:
        InputError: no such array, or several.
    """
    if not path.is_file():
        raise AbsentDataError(f"There is no file {path}: correct the path.")
    found = _npz(path) if path.suffix == ".npz" else matlab_arrays(path)
    if name in found:
        return found[name]()
    arrays = {key: read() for key, read in found.items() if key not in OTHERS}
    likely = [key for key, array in arrays.items() if array.dtype.kind == "c" and array.ndim >= 3]
    if len(likely) != 1:
        rest = ", ".join(found) or "no array of numbers at its top level, such as in a structure"
        what = f"several: {', '.join(likely)}" if likely else f"none, but {rest}"
        raise InputError(f"{path} is to hold one array of {name}, and holds {brief(what)}: call it {name}.")
    return arrays[likely[0]]


def names_in(path: Path) -> list[str]:
    """The names of the arrays in a .npz or .mat."""
    if not path.is_file():
        raise AbsentDataError(f"There is no file {path}: correct the path.")
    return list(_npz(path) if path.suffix == ".npz" else matlab_arrays(path))


def _npz(path: Path) -> Mapping[str, Reader]:
    file = ArrayFile(path)
    if file.plain:
        raise InputError(f"{path} is a .npy: give it this ending.")
    return {key: partial(file.read, key, "the path") for key in file.names}
