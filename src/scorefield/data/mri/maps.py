"""Coil sensitivities from the calibration region of k-space, by ESPIRiT (Uecker et al. 2014)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from scorefield.data.mri.masks import import_sigpy
from scorefield.errors import InputError
from scorefield.files import replacing

KERNEL = 6  # points of ESPIRiT's kernel along an axis, fewer where the calibration region is small
LEAST = 6  # points of a calibration region along an axis, below which it holds no sensitivities


def calibration_box(mask: np.ndarray) -> tuple[int, int]:
    """Height and width of a fully sampled box around the centre of k-space: the one of the largest shorter side.

    Args:
        mask: where k-space (height, width) is sampled, its centre at n // 2.
    """
    size = [0, 0]
    growing = [True, True]
    while any(growing):
        for axis in (0, 1):
            if not growing[axis]:
                continue
            larger = list(size)
            larger[axis] += 1
            larger = [max(n, 1) for n in larger]
            growing[axis] = larger[axis] <= mask.shape[axis] and bool(mask[_box(mask.shape, larger)].all())
            size = larger if growing[axis] else size
    return size[0], size[1]


def _box(grid: tuple[int, ...], size: list[int] | tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(n // 2 - s // 2, n // 2 - s // 2 + s) for n, s in zip(grid, size, strict=True))


def estimate_maps(
    kspace: np.ndarray, mask: np.ndarray, *, width: int | None = None, crop: float = 0.8, cache: Path | None = None
) -> np.ndarray:
    """Sensitivities (coils, height, width) of k-space of the same shape, Σ|S|² = 1 in the object, 0 where there is none.

    Args:
        kspace: sampled where the mask is true; nothing else is read.
        mask: (height, width).
        width: of the calibration box, along both axes; by default as large as the sampling allows, at most 24.
        crop: eigenvalue below which a pixel is outside of the object.
        cache: a folder in which maps are kept, by what they were made of.
    """
    box = calibration_box(mask)
    width = width or min(*box, 24)
    if min(box) < width or width < LEAST:
        raise InputError(
            f"The fully sampled middle of k-space is {box[0]}×{box[1]}, too small to estimate coil maps of {max(width, LEAST)} "
            "points: give maps, or a calibration scan."
        )
    region = np.ascontiguousarray(kspace[(slice(None), *_box(mask.shape, (width, width)))], dtype=np.complex64)
    if len(kspace) == 1:
        return np.ones_like(kspace)
    key = hashlib.sha256(region.tobytes() + repr((kspace.shape, width, crop, KERNEL, 1)).encode()).hexdigest()
    path = None if cache is None else cache / f"maps-{key[:32]}.npy"
    if path is not None and path.is_file():
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            path.unlink(missing_ok=True)
    maps = _espirit(kspace * mask, width, crop)
    if path is not None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, maps)
    return maps


def _espirit(kspace: np.ndarray, width: int, crop: float) -> np.ndarray:
    sigpy = import_sigpy("Coil maps")
    scaled = (kspace / np.abs(kspace).max()).astype(np.complex64)
    kernel = min(KERNEL, max(3, width // 2))
    app = sigpy.mri.app.EspiritCalib(
        scaled, calib_width=width, kernel_width=kernel, crop=crop, max_iter=30, show_pbar=False
    )
    maps = np.asarray(app.run(), dtype=np.complex64)
    if not np.isfinite(maps).all() or not maps.any():
        raise InputError("ESPIRiT found no coil maps: is k-space centred, and (coils, height, width)?")
    return maps
