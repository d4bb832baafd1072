"""What several receiver coils measure as one image: sensitivity maps, combinations of coils with white noise, combined images.

Maps S are (coils, height, width), complex, Σ|S|² = 1 of the coils as the file has them: the image is their root sum of squares.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing
from scorefield.foundation.fourier import centred, centred_box, fit_matrix
from scorefield.mri.kspace import KSpace, remove_oversampling
from scorefield.mri.masks import calibration_box
from scorefield.mri.noise import level, predicted_noise

UNSEEN = 1e-3  # of the largest sensitivity, below which no coil sees a pixel
SMOOTH = 24  # frequencies of a coil's image that are taken for its sensitivity
KERNEL = 6  # points of ESPIRiT's kernel along an axis, fewer where the calibration region is small
LEAST_CALIBRATION = 6  # points of a calibration region along an axis, below which it holds no sensitivities
# points that are used of a calibration region, along its longer and its shorter axis: more add nothing
REGION = (48, 24)
# by which singular values of the noise of overlapping patches may exceed those of independent entries
OVERLAP = 1.4
# of the largest singular value, below which the others are taken for noise where its strength is not known
SHARE = 0.02
ROWS = 16  # of the image that are computed at once


@dataclass(frozen=True, eq=False)
class Mixing:
    """Combinations of coils with white noise, and the way back: the image stays that of the coils as they are.

    Attributes:
        forward: V W, (combinations, coils), where W whitens and V compresses.
        back: W⁻¹ Vᴴ, (coils, combinations), which undoes it but for what compression left out.
    """

    forward: np.ndarray
    back: np.ndarray

    @classmethod
    def of(
        cls, kspace: np.ndarray, mask: np.ndarray, whitening: np.ndarray, coils: int | None = None
    ) -> tuple[Mixing, np.ndarray]:
        """The combinations of k-space, all or the strongest ones, and k-space in them.

        Args:
            kspace: (coils, height, width).
            mask: (height, width), the points that decide which combinations are strong.
            whitening: W, (coils, coils).
            coils: how many combinations; None for all.
        """
        white, back = mix_coils(whitening, kspace), np.linalg.inv(whitening)
        if coils is None:
            return cls(whitening, back), white
        strong = compression(np.where(mask, white, 0), coils)
        return cls(strong @ whitening, back @ strong.conj().T), mix_coils(strong, white)

    def calibration(self, scan: KSpace, number: int, height: int, noise: float) -> tuple[np.ndarray, np.ndarray] | None:
        """The k-space of a slice that is for maps alone, in these combinations, and where it is; None where a scan has none.

        Calibrations have a gain and bandwidth of their own. Where their noise is the stronger one, by what neighbouring points do
        not predict, they are divided by as much: maps do not change with that, but noise would be taken for signal.

        Args:
            scan: the scan.
            number: of the slice.
            height: of the image without readout oversampling.
            noise: of the scan in these combinations.
        """
        if scan.calibration is None:
            return None
        kspace = scan.calibration(number)
        mask = np.any(kspace != 0, axis=0)
        if not mask.any():
            return None
        kspace, mask = remove_oversampling(kspace, mask, height)
        mixed = mix_coils(self.forward, kspace)
        covariance = predicted_noise(mixed, mask)
        louder = 1.0 if covariance is None else max(level(covariance) / noise, 1.0)
        return (mixed / louder).astype(np.complex64), mask

    def maps(
        self, given: np.ndarray | None, kspace: np.ndarray, mask: np.ndarray, noise: float, cache: Path | None
    ) -> np.ndarray:
        """Maps S of the combinations, (combinations, height, width), with Σ|S|² = 1 of the coils as they are.

        Estimated maps are known but for a factor at each pixel. Without a way back to the coils whitening would shade the image:
        where Σ|W S|² = 1, it is x √Σ|W S|² instead of x, x the root sum of squares.

        Args:
            given: of the coils as they are, in any units; None to estimate them.
            kspace: in these combinations.
            mask: what of it is used, (height, width).
            noise: the standard deviation of its noise per real component.
            cache: see `estimate_maps`.
        """
        if given is None:
            given = mix_coils(self.back, estimate_maps(kspace, mask, noise=noise, cache=cache))
        return mix_coils(self.forward, normalised(given))


def mix_coils(mixing: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Combinations of coils: W y of y (coils, height, width), be it k-space or maps.

    Args:
        mixing: W, (combinations, coils).
        values: y.
    """
    if mixing.shape[1] != len(values):
        raise InputError(
            f"The noise is of {mixing.shape[1]} coils, and k-space of {len(values)}: give a noise scan of the same coils."
        )
    return np.tensordot(mixing, values, 1).astype(np.complex64)


def compression(kspace: np.ndarray, coils: int) -> np.ndarray:
    """V (coils, all coils), with orthonormal rows: the strongest combinations of coils, by the singular vectors of k-space.

    White noise of y is white in V y, and Vᴴ V y is as near to y as so many combinations can be.
    """
    if not 1 <= coils <= len(kspace):
        raise InputError(f"{len(kspace)} coils cannot be compressed to {coils}: give 1 to {len(kspace)}.")
    flat = kspace.reshape(len(kspace), -1)
    _, vectors = np.linalg.eigh(flat @ flat.conj().T)
    return vectors[:, ::-1][:, :coils].conj().T


def normalised(maps: np.ndarray) -> np.ndarray:
    """Maps (coils, height, width) divided by √Σ|S|² over the coils, which frees them of
    units: the image is what all coils see together.

    Raises:
        InputError: maps that are 0 everywhere, or not finite.
    """
    strength = np.sqrt((np.abs(maps) ** 2).sum(0))
    if not (np.isfinite(strength).all() and strength.any()):
        raise InputError("The maps hold NaN or infinite values, or nothing but zeros: no coil sees anything by them.")
    inside = strength > UNSEEN * strength.max()
    return np.where(inside, maps / np.where(inside, strength, 1), 0)


def strongest(maps: np.ndarray) -> float:
    """The largest √Σ|S|² of all pixels of maps (coils, height, width).

    Maps, k-space and noise divided by it are of the same image, and Σ|S|² <= 1.
    """
    return float(np.sqrt((np.abs(maps) ** 2).sum(0)).max())


def combine_by_maps(kspace: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Σ_c s̄_c F⁻¹y_c/Σ|s_c|², (..., height, width), of k-space (..., coils, height, width), 0 where no coil sees.

    k-space is 0 where it was not sampled. Of all of it, with white noise, this is the best estimate of x.
    """
    weight = (np.abs(maps) ** 2).sum(-3)
    return (maps.conj() * centred(kspace, inverse=True)).sum(-3) / np.where(weight > 0, weight, 1)


def combine_by_images(kspace: np.ndarray, matrix: tuple[int, int] | None = None) -> np.ndarray:
    """One complex image (height, width), complex64, of k-space (coils, height, width), in its units, by the coils' own
    smooth images; of a single coil its image.

    Args:
        kspace: of a slice.
        matrix: the middle of the image that is wanted; the rest of the readout is left out before the second transform.
    """
    size = tuple(min(sizes) for sizes in zip(matrix or kspace.shape[1:], kspace.shape[1:], strict=True))
    rows, columns = centred_box(kspace.shape[1:], size)
    images = centred(np.asarray(kspace, dtype=np.complex64), (-2,), inverse=True)[:, rows]
    images = centred(images, (-1,), inverse=True)[..., columns]
    if len(kspace) > 1:
        smooth = _smooth(kspace, size)
        strength = np.sqrt(np.einsum("cyx,cyx->yx", smooth, smooth.conj(), optimize=False).real)
        images = np.einsum("cyx,cyx->yx", smooth.conj(), images) / np.maximum(strength, 1e-6 * strength.max())
    else:
        images = images[0]
    return images if matrix is None else fit_matrix(images, matrix)


def _smooth(kspace: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The coils' images of the lowest frequencies under a Hann window, of the middle points of the image, (coils, *size)."""
    waves, counts = [], [min(SMOOTH, whole) for whole in kspace.shape[1:]]
    for whole, count, points in zip(kspace.shape[1:], counts, size, strict=True):
        places, along = np.arange(count) - count // 2, np.arange(points) - points // 2
        window = 0.5 + 0.5 * np.cos(2 * np.pi * places / count)
        wave = np.exp(2j * np.pi / whole * np.outer(along, places)) * (window / np.sqrt(whole))
        waves.append(wave.astype(np.complex64))
    low = kspace[(slice(None), *centred_box(kspace.shape[1:], counts))].astype(np.complex64)
    return waves[0] @ low @ waves[1].T


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
    if min(box) < (width or LEAST_CALIBRATION):
        raise InputError(
            f"The fully sampled middle of k-space is {box[0]}×{box[1]}, too small to estimate coil maps of "
            f"{width or LEAST_CALIBRATION} points: give maps, or a calibration scan."
        )
    size = min(box[0], limits[0]), min(box[1], limits[1])
    region = np.ascontiguousarray(kspace[(slice(None), *centred_box(mask.shape, size))], dtype=np.complex64)
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


def as_tensor(array: np.ndarray) -> Tensor:
    """An array of any shape as a complex64 or boolean tensor of its own."""
    return torch.from_numpy(np.ascontiguousarray(array if array.dtype == bool else array.astype(np.complex64)))
