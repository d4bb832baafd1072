"""From a file of k-space to scans that can be reconstructed: one strength of noise, coil maps, the points that are used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.mri import prepare
from scorefield.data.mri.kspace import KSpace, read_cfl
from scorefield.data.mri.maps import estimate_maps
from scorefield.data.mri.masks import Everything, RandomLines, Sampling
from scorefield.errors import InputError
from scorefield.operators import to_channels, to_complex, zero_filled
from scorefield.scan import Baselines, Scan, as_tensor

UNSEEN = 1e-3  # of the largest sensitivity, below which no coil sees a pixel


@dataclass(frozen=True, eq=False)
class Scans:
    """Scans from a file, prepared one by one.

    Args:
        kspace: the file.
        sampling: which of the points that were acquired are used.
        maps: coil maps (coils, height, width), or for each slice; by default the file's own, or estimated.
        cache: a folder for estimated maps.
        noise: standard deviation per real component in all coils; by default they are prewhitened by what is measured of it.
        coils: how many they are compressed to.
        height: of the image, where the readout is oversampled.
        baselines: how these are regularised.
    """

    kspace: KSpace
    sampling: Sampling = Everything()
    maps: np.ndarray | None = None
    cache: Path | None = None
    noise: float | None = None
    coils: int | None = None
    height: int | None = None
    baselines: Baselines = Baselines()

    def __post_init__(self) -> None:
        if self.maps is not None and (self.coils is not None or self.height is not None):
            raise InputError("Given maps are of the coils and sizes of the file: leave out --coils and --height.")

    def scan(self, number: int) -> tuple[Scan, Tensor | None, list[str]]:
        """A slice, its complex reference where k-space is sampled as a whole, and what is to be said about it."""
        kspace, acquired = self.kspace.slice(number)
        notes = [note] if (note := prepare.partial_fourier(acquired)) else []
        if self.height is not None:
            kspace, acquired = prepare.remove_oversampling(kspace, acquired, self.height)
        kspace, noise = self._whitened(kspace, acquired)
        if self.coils is not None:
            kspace = prepare.compress_coils(kspace, self.coils)
        mask = acquired & self.sampling(kspace.shape[1:], number)
        maps = self._maps(kspace, mask, number, noise)
        scan = Scan(as_tensor(kspace), torch.from_numpy(mask), as_tensor(maps), noise, self.baselines)
        reference = None
        if acquired.mean() > 0.99 and not mask.all():
            full = Scan(scan.kspace, torch.ones_like(scan.mask), scan.maps, noise)
            reference = to_complex(zero_filled(full.operator, to_channels(scan.kspace[None])))[0, 0]
        return scan, reference, notes

    def _whitened(self, kspace: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
        """k-space with white noise, and its standard deviation."""
        if self.noise is not None:
            return kspace, self.noise
        scan = self.kspace.noise_scan
        if self.maps is not None or self.kspace.maps is not None:  # maps are of the coils as they are
            return kspace, prepare.noise_level(kspace, mask)
        samples = prepare.outer_noise(kspace, mask) if scan is None else scan
        return prepare.prewhiten(kspace, prepare.covariance_of(samples)), 1.0

    def _maps(self, kspace: np.ndarray, mask: np.ndarray, number: int, noise: float) -> np.ndarray:
        if self.maps is not None:
            maps = self.maps if self.maps.ndim == 3 else self.maps[number]
        elif self.kspace.maps is not None and self.coils is None and self.height is None:
            maps = self.kspace.maps(number)
        else:
            return estimate_maps(kspace, mask, noise=noise, cache=self.cache)
        if maps.shape != kspace.shape:
            raise InputError(
                f"The maps are {maps.shape} and k-space is {kspace.shape} (coils, height, width): give the maps of this scan, "
                "or none, and they are estimated."
            )
        return normalised(maps)


def normalised(maps: np.ndarray) -> np.ndarray:
    """Maps divided by √Σ|S|² over the coils, in whatever units they came: the image is what all coils see together.

    Raises:
        InputError: maps that are 0 everywhere, or not finite.
    """
    strength = np.sqrt((np.abs(maps) ** 2).sum(0))
    if not (np.isfinite(strength).all() and strength.any()):
        raise InputError("The maps hold NaN or infinite values, or nothing but zeros: no coil sees anything by them.")
    inside = strength > UNSEEN * strength.max()
    return np.where(inside, maps / np.where(inside, strength, 1), 0)


def read_maps(path: Path) -> np.ndarray:
    """Coil maps (coils, height, width), or (slices, ...), from .npy, .cfl or the `maps` of .h5."""
    if path.suffix in (".h5", ".hdf5"):
        import h5py

        try:
            with h5py.File(path, "r") as file:
                if "maps" not in file:
                    raise InputError(f"{path} holds no maps but {', '.join(list(file)[:8])}.")
                return np.asarray(file["maps"], dtype=np.complex64)
        except OSError as error:
            raise InputError(f"{path} cannot be read as HDF5: is it there, and complete?") from error
    opened = np.load(path, allow_pickle=False) if path.suffix == ".npy" and path.is_file() else None
    maps = read_cfl(path.with_suffix("")) if path.suffix in (".cfl", ".hdr") else opened
    if maps is None:
        raise InputError(f"There are no maps in {path}: give .npy, .h5 or .cfl.")
    if maps.dtype.kind != "c" or maps.ndim not in (3, 4):
        raise InputError(
            f"The maps in {path} are {maps.dtype} {maps.shape}: complex, (coils, height, width) are needed."
        )
    return maps[0] if maps.ndim == 4 and len(maps) == 1 else maps


def sampling_of(mask: Sampling | None, acceleration: float | None) -> Sampling:
    """The sampling that `--mask` or `--acceleration` asks for; all that was acquired by default."""
    if mask is not None and acceleration is not None:
        raise InputError("--mask and --acceleration both say what is used of k-space: give one of them.")
    if acceleration is not None:
        return RandomLines(acceleration)
    return mask or Everything()
