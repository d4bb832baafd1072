"""Named arrays in a file of any of the usual kinds, read as far as they are needed: NumPy, HDF5, Zarr."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from scorefield.data.arrays import ArrayFile
from scorefield.data.fields import HALVES, Stored
from scorefield.data.matlab import matlab_arrays
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.lazy import require
from scorefield.foundation.limits import check_unpacked
from scorefield.foundation.pickles import check_pickle

HDF5 = (".h5", ".hdf5", ".hdf")
TORCH = (".pt", ".pth")


@runtime_checkable
class StoredFile(Protocol):
    """A file with arrays of some names."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def read(self, name: str, argument: str) -> Stored:
        """One array by name; `argument` is what the user would correct."""
        ...

    def axes(self, name: str) -> tuple[str, ...]:
        """The names of the axes of an array, in order; none where the file does not name them all."""
        ...

    def units(self, name: str) -> str:
        """The units that an array says it is in; nothing where it does not."""
        ...


def open_arrays(path: Path) -> StoredFile:
    """The arrays of a .npy, .npz, HDF5 (.h5, .hdf5), NetCDF (.nc), PyTorch (.pt, .pth), MATLAB (.mat) or Zarr file (.zarr,
    .zarr.zip).
    """
    if path.suffix == ".nc":
        return NetCDFFile(path)
    if path.suffix in HDF5:
        return HDF5File(path)
    if path.suffix in TORCH:
        return TorchFile(path)
    if path.suffix == ".mat":
        return MatlabFile(path)
    if path.suffix == ".zarr" or path.name.endswith(".zarr.zip"):
        return ZarrFile(path)
    return ArrayFile(path)


def along_axis(file: StoredFile, name: str) -> str:
    """The name of the axis that coordinates of some name are along, which in files that do not say so is theirs."""
    axes = file.axes(name) if name in file.names else ()
    return axes[0] if len(axes) == 1 else name


class HDF5File:
    """The datasets of an HDF5 file, those in groups by their paths, `group/name`."""

    def __init__(self, path: Path) -> None:
        h5py = require("h5py", f"{path} is HDF5", "functions")
        if not path.is_file():
            raise AbsentDataError(f"There is no file {path}: correct the path.")
        self.path, found = path, []
        try:
            with h5py.File(path) as file:
                file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        except OSError as error:
            raise InputError(f"{path} is no whole HDF5 file ({brief(error)}): save it again.") from error
        self.names = tuple(found)

    def read(self, name: str, argument: str) -> Stored:
        check_name(name, self.names, self.path, argument)
        return HDF5Array(self.path, name)

    def axes(self, name: str) -> tuple[str, ...]:
        import h5py

        with h5py.File(self.path) as file:
            content: Any = file[name]
            scales = [str(axis[0].name).rsplit("/", 1)[-1] if len(axis) else axis.label for axis in content.dims]
            own = content.is_scale and len(scales) == 1
        return (name.rsplit("/", 1)[-1],) if own else named(scales)

    def units(self, name: str) -> str:
        import h5py

        with h5py.File(self.path) as file:
            return as_text(file[name].attrs.get("units"))


class HDF5Array:
    """A dataset of an HDF5 file, which each process opens for itself when it first reads."""

    def __init__(self, path: Path, name: str) -> None:
        import h5py

        self.path, self.name = path, name
        self._content: Any = None
        self._process = 0
        with h5py.File(path) as file:
            content: Any = file[name]
            self.shape, self.dtype = tuple(content.shape), content.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> Any:
        if self._content is None or self._process != os.getpid():
            import h5py

            self._content, self._process = h5py.File(self.path)[self.name], os.getpid()
        if not isinstance(rows, np.ndarray):
            return self._content[rows]
        rising, back = np.unique(rows, return_inverse=True)  # the only order that h5py takes
        return self._content[rising][back]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_content": None}  # an open file does not travel to another process


class NetCDFFile:
    """The variables and coordinates of a NetCDF file as they are meant: unpacked, NaN for what is missing."""

    def __init__(self, path: Path) -> None:
        xarray = require("xarray", f"{path} is NetCDF", "climate")
        if not path.is_file():
            raise AbsentDataError(f"There is no file {path}: correct the path.")
        self.path = path
        try:
            self._content = xarray.open_dataset(path, decode_times=False)
        except Exception as error:  # its engines raise errors of many kinds
            raise InputError(f"{path} is no whole NetCDF file ({brief(error)}): save it again.") from error
        self.names = tuple(str(name) for name in self._content.variables)

    def read(self, name: str, argument: str) -> Stored:
        check_name(name, self.names, self.path, argument)
        return self._content[name].values

    def axes(self, name: str) -> tuple[str, ...]:
        return named(self._content[name].dims)

    def units(self, name: str) -> str:
        return as_text(self._content[name].attrs.get("units"))


class TorchFile:
    """The tensors of a dictionary, or the only tensor, of no name, in a file of `torch.save`; no code in it is run."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise AbsentDataError(f"There is no file {path}: correct the path.")
        self.path = path
        try:
            check_torch(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # whatever a damaged file raises
            raise InputError(
                f"{path} is no file of tensors alone ({brief(error)}): save them by torch.save({{'x': x, 'y': y}}, path)."
            ) from error
        named = content if isinstance(content, Mapping) else {"": content}
        tensors = {str(name): value for name, value in named.items() if isinstance(value, torch.Tensor)}
        self._tensors = {name: x for name, x in tensors.items() if x.layout == torch.strided and not x.is_quantized}
        if not self._tensors:
            raise InputError(f"{path} holds no dense tensors: save them by torch.save({{'x': x, 'y': y}}, path).")
        self.names = tuple(self._tensors)

    def read(self, name: str, argument: str) -> Stored:
        check_name(name, self.names, self.path, argument)
        found = self._tensors[name].detach()
        return (found.float() if found.dtype in HALVES else found).resolve_conj().resolve_neg().numpy()

    def axes(self, name: str) -> tuple[str, ...]:
        return ()

    def units(self, name: str) -> str:
        return ""


class MatlabFile:
    """The arrays of numbers in a .mat file, with the axes that MATLAB shows."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise AbsentDataError(f"There is no file {path}: correct the path.")
        self.path, self._arrays = path, matlab_arrays(path)
        self.names = tuple(self._arrays)

    def read(self, name: str, argument: str) -> Stored:
        check_name(name, self.names, self.path, argument)
        return self._arrays[name]()

    def axes(self, name: str) -> tuple[str, ...]:
        return ()

    def units(self, name: str) -> str:
        return ""


def check_torch(path: Path) -> None:
    """Refuse a file of `torch.save` that claims more than it holds, or whose pickle is nested too deeply."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            return  # as torch wrote before 1.6: read by weights_only alone
        with zipfile.ZipFile(file) as archive:
            check_unpacked(archive.infolist(), path.stat().st_size, "it", most=4)  # torch does not deflate
            for member in archive.infolist():
                if member.filename.endswith("data.pkl"):
                    check_pickle(io.BytesIO(archive.read(member)))


class ZarrFile:
    """The arrays of a Zarr group, those in groups by their paths, or a single array, of no name."""

    def __init__(self, path: Path) -> None:
        zarr = require("zarr", f"{path} is Zarr", "climate")
        if not path.exists():
            raise AbsentDataError(f"There is no {path}: correct the path.")
        self.path = path
        try:
            self._content: Any = zarr.open(str(path), mode="r")
        except Exception as error:  # its stores raise errors of many kinds
            raise InputError(f"{path} is no whole Zarr group or array ({brief(error)}): save it again.") from error
        self._single = isinstance(self._content, zarr.Array)
        self.names = ("",) if self._single else tuple(arrays_below(self._content))

    def read(self, name: str, argument: str) -> Stored:
        if self._single:
            return ZarrArray(self._content)
        check_name(name, self.names, self.path, argument)
        return ZarrArray(self._content[name])

    def axes(self, name: str) -> tuple[str, ...]:
        array = self._content if self._single else self._content[name]
        names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS", ())
        return named(names)

    def units(self, name: str) -> str:
        return as_text((self._content if self._single else self._content[name]).attrs.get("units"))


def arrays_below(group: Any, prefix: str = "") -> list[str]:
    """The paths of all arrays of a Zarr group."""
    below = [name for inner, part in group.groups() for name in arrays_below(part, f"{prefix}{inner}/")]
    return [prefix + name for name, _ in group.arrays()] + below


class ZarrArray:
    """An array of Zarr, of which rows in any order are read."""

    def __init__(self, content: Any) -> None:
        self.content, self.shape, self.dtype = content, tuple(content.shape), np.dtype(content.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> Any:
        return self.content.oindex[rows]


def named(names: Iterable[Any]) -> tuple[str, ...]:
    """The names of axes, if all have one and no two the same."""
    found = tuple(str(name or "") for name in names)
    return found if all(found) and len({*found}) == len(found) else ()


def as_text(value: Any) -> str:
    """A word that is kept beside an array, as text or as bytes; nothing for anything else."""
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return value.strip() if isinstance(value, str) else ""


def check_name(name: str, names: tuple[str, ...], path: Path, argument: str) -> None:
    """Refuse the name of an array that a file lacks."""
    if name not in names:
        raise InputError(f"{path} holds no {name!r} but {', '.join(names) or 'no arrays'}: correct {argument}.")
