"""Arrays of k-space or maps in files that hold several by their names: .npz, and MATLAB's .mat up to 7.3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from scorefield.data.arrays import ArrayFile
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.lazy import require
from scorefield.foundation.limits import check_memory

CONTAINERS = (".npz", ".mat")
NUMBERS = ("double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
Reader = Callable[[], np.ndarray]


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
    found = _npz(path) if path.suffix == ".npz" else _matlab(path)
    if name in found:
        return found[name]()
    arrays = {key: read() for key, read in found.items()}
    likely = [key for key, array in arrays.items() if array.dtype.kind == "c" and array.ndim >= 3]
    if len(likely) != 1:
        what = f"several: {', '.join(likely)}" if likely else f"none, but {', '.join(arrays) or 'nothing'}"
        raise InputError(f"{path} is to hold one array of {name}, and holds {brief(what)}: call it {name}.")
    return arrays[likely[0]]


def names_in(path: Path) -> list[str]:
    """The names of the arrays in a .npz or .mat."""
    if not path.is_file():
        raise AbsentDataError(f"There is no file {path}: correct the path.")
    return list(_npz(path) if path.suffix == ".npz" else _matlab(path))


def _npz(path: Path) -> Mapping[str, Reader]:
    file = ArrayFile(path)
    if file.plain:
        raise InputError(f"{path} is a .npy: give it this ending.")
    return {key: partial(file.read, key, "the path") for key in file.names}


def _matlab(path: Path) -> Mapping[str, Reader]:
    """Arrays of numbers; version 7.3 is HDF5, with complex numbers as pairs, and axes the other way round."""
    from scipy.io import loadmat, whosmat

    def read(name: str, size: int) -> np.ndarray:
        check_memory(16 * size, f"{name} of {path}")
        with _whole(path):
            return np.asarray(loadmat(path, variable_names=[name])[name])

    with _whole(path):
        try:
            known = whosmat(path)
        except NotImplementedError:
            return _matlab73(path)
    numbers = [(name, int(np.prod(shape))) for name, shape, kind in known if kind in NUMBERS]
    return {name: partial(read, name, size) for name, size in numbers}


def _matlab73(path: Path) -> Mapping[str, Reader]:
    h5py = require("h5py", "MATLAB's files of version 7.3", "mri")

    def read(name: str) -> np.ndarray:
        with _whole(path), h5py.File(path, "r") as file:
            check_memory(file[name].size * file[name].dtype.itemsize, f"{name} of {path}")
            values = np.asarray(file[name])
        if values.dtype.names == ("real", "imag"):
            values = values["real"] + 1j * values["imag"]
        return values.T

    with h5py.File(path, "r") as file:
        numbers = [name for name in file if hasattr(file[name], "dtype") and file[name].dtype.kind in "fcViu"]
    return {name: partial(read, name) for name in numbers}


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """InputError where a file is damaged, which raises almost any error."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read as .mat ({brief(error)}): is it complete?") from error
