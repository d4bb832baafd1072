"""Coil sensitivities from the calibration region of k-space, by ESPIRiT (Uecker et al. 2014)."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing

KERNEL = 6  # points of ESPIRiT's kernel along an axis, fewer where the calibration region is small
LEAST = 6  # points of a calibration region along an axis, below which it holds no sensitivities
# points that are used of a calibration region, along its longer and its shorter axis: more add nothing
REGION = (48, 24)
# by which singular values of the noise of overlapping patches may exceed those of independent entries
OVERLAP = 1.4
# of the largest singular value, below which the others are taken for noise where its strength is not known
SHARE = 0.02
ROWS = 16  # of the image that are computed at once


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
    kspace: np.ndarray,
    mask: np.ndarray,
    *,
    noise: float | None = None,
    width: int | None = None,
    crop: float = 0.8,
    cache: Path | None = None,
) -> np.ndarray:
    """Sensitivities (coils, height, width) of k-space of the same shape, Σ|S|² = 1 in the object, 0 where there is none.

    Args:
        kspace: sampled where the mask is true; nothing else is read.
        mask: (height, width).
        noise: its standard deviation per real component; None to take 2 % of the largest singular value for noise.
        width: most points of the calibration region along an axis; by default 48 and 24 for the longer and the shorter one.
        crop: eigenvalue below which a pixel is outside of the object.
        cache: a folder in which maps are kept, by what they were made of.
    """
    if len(kspace) == 1:  # it sees the image as it is, and needs no calibration
        return np.ones_like(kspace)
    box = calibration_box(mask)
    limits = (width, width) if width else REGION if box[0] >= box[1] else REGION[::-1]
    if min(box) < (width or LEAST):
        raise InputError(
            f"The fully sampled middle of k-space is {box[0]}×{box[1]}, too small to estimate coil maps of {width or LEAST} "
            "points: give maps, or a calibration scan."
        )
    size = min(box[0], limits[0]), min(box[1], limits[1])
    region = np.ascontiguousarray(kspace[(slice(None), *_box(mask.shape, size))], dtype=np.complex64)
    key = hashlib.sha256(region.tobytes() + repr((kspace.shape, size, crop, KERNEL, noise, 2)).encode()).hexdigest()
    path = None if cache is None else cache / f"maps-{key[:32]}.npy"
    if path is not None and path.is_file():
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            path.unlink(missing_ok=True)
    maps = _espirit(region, kspace.shape[1:], noise, crop)
    if path is not None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, maps)
    return maps


def _espirit(region: np.ndarray, grid: tuple[int, ...], noise: float | None, crop: float) -> np.ndarray:
    """At each pixel, the eigenvector of what the signal space of all small patches of the region allows for the coils.

    Singular values that noise alone would give are no signal: white noise of a matrix a × b has them up to √a + √b times its
    standard deviation, and those of overlapping patches reach a little further.
    """
    kernel = min(KERNEL, max(3, min(region.shape[1:]) // 2))
    patches = np.lib.stride_tricks.sliding_window_view(region, (kernel, kernel), axis=(1, 2)).transpose(1, 2, 0, 3, 4)
    matrix = patches.reshape(-1, len(region) * kernel**2)
    _, strengths, vectors = np.linalg.svd(matrix, full_matrices=False)
    least = SHARE * strengths[0]
    if noise is not None:
        least = OVERLAP * math.sqrt(2) * noise * (math.sqrt(matrix.shape[0]) + math.sqrt(matrix.shape[1]))
    kernels = vectors[strengths > least].reshape(-1, len(region), kernel, kernel)
    if not len(kernels):
        raise InputError("The middle of k-space holds nothing but noise: is it centred, and (coils, height, width)?")
    maps, inside = _strongest(torch.from_numpy(kernels), grid, crop)
    if not bool(inside.any()):
        raise InputError("ESPIRiT found no coil maps: is k-space centred, and (coils, height, width)?")
    return maps.numpy()


def _strongest(kernels: Tensor, grid: tuple[int, ...], crop: float) -> tuple[Tensor, Tensor]:
    """The first eigenvectors (coils, height, width), 0 where their values are not above `crop`; and where they are.

    The coils' matrix of a pixel is G G*, G the transform of the kernels (kernels, coils, k, k), which is found row by row: as a
    whole it would take gigabytes.
    """
    k = kernels.shape[-1]
    waves = [
        torch.exp(2j * math.pi / n * torch.outer(torch.arange(n) - n // 2, torch.arange(k) - k // 2)).to(kernels)
        for n in grid
    ]
    across = torch.einsum("ncij,xj->icnx", kernels, waves[1]) / k
    maps, inside = [], []
    for rows in waves[0].split(ROWS):
        seen = torch.einsum("yi,icnx->yxcn", rows, across)
        values, found = torch.linalg.eigh(seen @ seen.mH)
        inside.append(values[..., -1] > crop)
        aligned = found[..., -1] * torch.exp(-1j * found[..., :1, -1].angle())
        maps.append(torch.where(inside[-1][..., None], aligned, 0))
    return torch.cat(maps).permute(2, 0, 1).contiguous(), torch.cat(inside)
