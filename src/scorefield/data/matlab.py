"""Arrays of numbers in MATLAB's .mat files, up to version 7.3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.lazy import require
from scorefield.foundation.limits import check_memory

NUMBERS = ("double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
Reader = Callable[[], np.ndarray]


def matlab_arrays(path: Path) -> Mapping[str, Reader]:
    """Arrays of numbers by their names; version 7.3 is HDF5, with complex numbers as pairs, and axes the other way round."""
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
    h5py = require("h5py", "MATLAB's files of version 7.3", "functions")

    def read(name: str) -> np.ndarray:
        with _whole(path), h5py.File(path, "r") as file:
            check_memory(file[name].size * file[name].dtype.itemsize, f"{name} of {path}")
            values = np.asarray(file[name])
        if values.dtype.names == ("real", "imag"):
            values = values["real"] + 1j * values["imag"]
        return values.T

    with h5py.File(path, "r") as file:
        numbers = [name for name in file if isinstance(file[name], h5py.Dataset) and file[name].dtype.kind in "fcViu"]
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
