"""Files of k-space and of coil maps: fastMRI's HDF5, NumPy, and by modules of their own BART and ISMRMRD."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.data.arrays import ArrayFile
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.lazy import require
from scorefield.mri.bart import open_cfl, read_cfl, read_whole_cfl
from scorefield.mri.containers import CONTAINERS, names_in, read_named
from scorefield.mri.ismrmrd import image_size, read_ismrmrd
from scorefield.mri.kspace import KSpace, check_layout, check_maps, in_ordinary_units
from scorefield.mri.masks import sampled_by
from scorefield.mri.trajectory import arranged, in_cycles
from scorefield.mri.twix import read_twix

KINDS = (".h5", ".hdf5", ".mrd", ".npy", *CONTAINERS, ".cfl", ".dat")
HDF5 = (".h5", ".hdf5", ".mrd")


def files_of(path: Path) -> list[Path]:
    """The files of k-space in a folder, by name, or the one that is given."""
    path = Path(path)
    if path.suffix in KINDS:
        return [path]
    if not path.is_dir():
        raise AbsentDataError(f"There is no folder {path} of k-space: correct data.path.")
    files = sorted(file for file in path.iterdir() if file.suffix in KINDS)
    if not files:
        raise AbsentDataError(f"{path} holds no k-space ({', '.join(KINDS)}): correct data.path.")
    return files


def open_kspace(path: Path, trajectory: Path | None = None) -> KSpace:
    """The k-space in a file: .h5 (fastMRI or ISMRMRD), .npy, .npz or .mat (`kspace`), .cfl with its .hdr, or .dat (twix).

    Args:
        path: the file.
        trajectory: of k-space off the grid, if the file holds none (`trajectory`): .npy, .npz, .mat, .h5 or .cfl, see `arranged`.
    """
    path = Path(path)
    return in_ordinary_units(_open(path) if trajectory is None else _with_trajectory(path, Path(trajectory)))


def _with_trajectory(path: Path, trajectory: Path) -> KSpace:
    """Arrays of k-space and of its places."""
    matrix = _matrix_in(path) or _matrix_in(trajectory)
    return off_grid(_named(path, "kspace"), _named(trajectory, "trajectory"), matrix, str(path))


def _matrix_in(path: Path) -> tuple[int, int] | None:
    """The `matrix` of a file that holds several arrays, (height, width), or None."""
    if path.suffix in CONTAINERS:
        return _pair(read_named(path, "matrix"), path) if "matrix" in names_in(path) else None
    if path.suffix not in HDF5:
        return None
    with _open_hdf5(path) as file:
        return _pair(np.asarray(file["matrix"]), path) if "matrix" in file else None


def _pair(numbers: np.ndarray, path: Path) -> tuple[int, int]:
    """Height and width, of which one number is both."""
    found = np.ravel(numbers)
    if found.dtype.kind not in "iuf" or found.size not in (1, 2) or not (found >= 1).all() or (found % 1).any():
        raise InputError(f"The matrix of {path} is {brief(found.tolist())}: give height and width in pixels.")
    return int(found[0]), int(found[-1])


def _named(path: Path, name: str) -> np.ndarray:
    """The array of a name in a file that holds several, or that of a file that holds one."""
    if path.suffix in (".cfl", ".hdr"):
        return np.squeeze(read_whole_cfl(path.with_suffix("")).T)
    if path.suffix == ".npy":
        return np.asarray(ArrayFile(path).read("", "the path"))
    if path.suffix in CONTAINERS:
        return read_named(path, name)
    if path.suffix not in HDF5:
        raise InputError(f"{path} is of no known kind of {name}: give .npy, .npz, .mat, .h5 or .cfl.")
    with _open_hdf5(path) as file:
        if name not in file or not hasattr(file[name], "dtype"):
            raise InputError(f"{path} holds no array {name} but {', '.join(list(file)[:8]) or 'nothing'}.")
        return np.asarray(file[name])


def off_grid(kspace: np.ndarray, places: np.ndarray, matrix: tuple[int, int] | None, origin: str) -> KSpace:
    """k-space at places off the grid, of an image of that matrix or as large as the places say."""
    values, k = arranged(kspace, places, origin)
    found = in_cycles(k, matrix, origin)
    slices, coils, samples, readouts = values.shape
    shape = (slices, coils, samples, readouts)
    note = f"{origin}: {found.note}."
    return KSpace(
        origin, shape, lambda number: values[number], size=found.matrix, note=note, labelled=True, trajectory=found
    )


def _open(path: Path) -> KSpace:
    if path.suffix in (".cfl", ".hdr"):
        return open_cfl(path.with_suffix(""), str(path))
    if not path.is_file():
        raise AbsentDataError(f"There is no file {path}: correct the path.")
    if path.suffix == ".npy":
        return _array(ArrayFile(path).read("", "the path"), str(path))
    if path.suffix in HDF5:
        return _hdf5(path)
    if path.suffix == ".dat":
        return read_twix(path)
    if path.suffix in CONTAINERS:
        names, kspace = names_in(path), read_named(path, "kspace")
        mask, maps = (read_named(path, name) if name in names else None for name in ("mask", "maps"))
        found = (
            off_grid(kspace, read_named(path, "trajectory"), _matrix_in(path), str(path))
            if "trajectory" in names
            else _array(kspace, str(path))
        )
        return _beside(found, None if mask is None else np.squeeze(mask), maps)
    raise InputError(
        f"{path} is of no known kind of k-space: give .h5 (fastMRI, ISMRMRD), .npy, .npz, .mat, .cfl or .dat."
    )


def _array(array: np.ndarray, origin: str) -> KSpace:
    """k-space (coils, height, width) or (slices, coils, height, width)."""
    guessed = array.ndim == 3
    array = array[None] if guessed else array
    shape = check_layout(array.shape, array.dtype, origin)
    return KSpace(origin, shape, lambda number: array[number], guessed=guessed)


def _beside(found: KSpace, mask: np.ndarray | None, maps: Any) -> KSpace:
    """k-space with the mask and the maps that lie beside it in its file.

    Args:
        found: k-space.
        mask: where it was sampled: of columns, points, or either of each slice; off the grid columns are readouts.
        maps: (coils, height, width) of the image, or for each slice: an array, or a data set of HDF5.
    """
    slices, coils, *grid = found.shape
    if mask is not None:
        found = replace(found, mask=_mask(mask, found.shape, found.origin))
    if maps is None:
        return found
    check_maps(maps.shape, maps.dtype, found.origin)
    size = grid if found.trajectory is None else found.trajectory.matrix
    each = len(maps.shape) == 4 and len(maps) > 1
    if tuple(maps.shape) not in ((coils, *size), (1, coils, *size), (slices, coils, *size)):
        expected = (slices, coils, *size)
        raise InputError(f"The maps of {found.origin} are {tuple(maps.shape)}, where k-space is of {expected}.")

    def of_slice(number: int) -> np.ndarray:
        whole = len(maps.shape) == 3
        return np.asarray(maps if whole else maps[number if each else 0], dtype=np.complex64)

    return replace(found, maps=of_slice)


def _mask(values: np.ndarray, shape: tuple[int, ...], origin: str) -> np.ndarray:
    """Where k-space of a shape was sampled: of columns, points, or either of each slice."""
    mask = sampled_by(values, f"The mask of {origin}")
    if mask.shape == (shape[0], shape[3]) and mask.shape != shape[2:]:
        return mask[:, None]  # lines of each slice
    if mask.shape not in ((shape[3],), (1, shape[3]), shape[2:], (shape[0], *shape[2:])):
        raise InputError(f"The mask of {origin} is {mask.shape}, where k-space is {shape[2:]}: it is of another scan.")
    return mask


def _hdf5(path: Path) -> KSpace:
    file = _open_hdf5(path)
    if "kspace" in file and "trajectory" in file:
        found = off_grid(np.asarray(file["kspace"]), np.asarray(file["trajectory"]), _matrix_in(path), str(path))
        return _beside(found, np.asarray(file["mask"]) if "mask" in file else None, file.get("maps"))
    if "kspace" in file:
        return _fastmri(file, str(path))
    if "dataset/data" in file:
        return read_ismrmrd(file, str(path))
    names = ", ".join(list(file)[:8]) or "nothing"
    raise InputError(f"{path} holds {names}, but no kspace (fastMRI) and no dataset/data (ISMRMRD): is it k-space?")


def _fastmri(file: Any, origin: str) -> KSpace:
    """fastMRI's layout: kspace (slices, coils, height, width), of a single coil without that axis, perhaps a mask and maps."""
    for name in ("kspace", "maps", "mask"):
        if name in file and not hasattr(file[name], "dtype"):
            raise InputError(
                f"The {name} of {origin} is a group of {', '.join(file[name]) or 'nothing'}, not an array."
            )
    data = file["kspace"]
    single = data.ndim == 3
    full = (data.shape[0], 1, *data.shape[1:]) if single else data.shape
    shape = check_layout(full, data.dtype, origin)
    note = (
        f"{origin} has no axis of coils: taken as single-coil: {shape[0]} slices. If these are the coils of one slice, give "
        f"(1, {shape[0]}, {shape[2]}, {shape[3]})."
    )
    size = image_size(file["ismrmrd_header"]) if "ismrmrd_header" in file else None
    target, called = None, ""
    names = ("reconstruction_rss", "reconstruction_esc")
    for name in names if shape[1] == 1 else names[::-1]:  # the last is the best
        if name not in file or getattr(file[name], "ndim", 0) < 2 or file[name].dtype.kind != "f":
            continue
        size = tuple(file[name].shape[-2:])
        if file[name].ndim == 3 and len(file[name]) == shape[0]:
            target, called = (lambda number, name=name: np.asarray(file[name][number], dtype=np.float32)), name
    read = (lambda number: data[number][None]) if single else (lambda number: data[number])
    found = KSpace(
        origin,
        shape,
        read,
        size=size,
        note=note if single else "",
        guessed=single,
        target=target,
        target_name=called,
    )
    return _beside(found, np.asarray(file["mask"]) if "mask" in file else None, file.get("maps"))


def read_maps(path: Path) -> np.ndarray:
    """Coil maps (coils, height, width), or (slices, ...), from .npy or .cfl, or `maps` of .h5, .npz or .mat; of one slice they
    hold for all.
    """
    if path.suffix not in (".h5", ".hdf5", ".npy", *CONTAINERS, ".cfl", ".hdr"):
        raise InputError(f"{path} is of no known kind of maps: give .npy, .npz, .mat, .h5 or .cfl.")
    if path.suffix in (".cfl", ".hdr"):
        maps = read_cfl(path.with_suffix(""))
    elif path.suffix == ".npy":
        maps = ArrayFile(path).read("", "--maps")
    elif path.suffix in CONTAINERS:
        maps = read_named(path, "maps")
    else:
        maps = _maps_of(path)
    check_maps(maps.shape, maps.dtype, str(path))
    return maps[0] if maps.ndim == 4 and len(maps) == 1 else maps


def _maps_of(path: Path) -> np.ndarray:
    """The `maps` of an HDF5 file, as they are."""
    with _open_hdf5(path) as file:
        if "maps" not in file:
            raise InputError(f"{path} holds no maps but {', '.join(list(file)[:8])}.")
        try:
            return np.asarray(file["maps"])
        except OSError as error:
            raise InputError(f"The maps of {path} cannot be read ({brief(error)}): is it complete?") from error


def _open_hdf5(path: Path) -> Any:
    """An HDF5 file, open for reading."""
    h5py = require("h5py", "HDF5 files", "mri")
    if not path.is_file():
        raise AbsentDataError(f"There is no file {path}: correct the path.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} cannot be opened as HDF5 ({brief(error)}): is it complete?") from error
