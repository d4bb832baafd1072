"""What radial, spiral and other k-space off the grid needs before a reconstruction: the middle of it on the grid for coil maps,
its noise, which of its readouts make an even part of it, and whether it is whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, centred_box, fit_matrix, to_channels, to_complex
from scorefield.mri.masks import calibration_box
from scorefield.mri.noise import RINGS, covariance_of, distance_of, outer_noise
from scorefield.operators import NonUniformSense, cg_sense

LARGEST = 48  # frequencies along an axis that are gridded for coil maps
SMOOTHING = 12  # iterations by which they are
OVERSAMPLED = 0.8  # cycles per field of view between samples, below which a readout has frequencies without any image
FEW_SAMPLES = 32  # of these for each coil
OUTERMOST = (
    "the noise was taken from the outermost samples of k-space, as their readouts are not oversampled: the image may reach "
    "there, and the noise be less. Give --noise, or a noise scan."
)


def by_angle(places: np.ndarray) -> np.ndarray:
    """The order of readouts by the angle of their farthest samples, of which every R-th makes an even selection."""
    last = places[np.linalg.norm(places, axis=-1).argmax(0), np.arange(places.shape[1])]
    angle = np.arctan2(last[:, 1], last[:, 0])
    through = np.linalg.norm(places, axis=-1).argmin(0)
    half = ((through > len(places) // 4) & (through < 3 * len(places) // 4)).mean() > 0.5  # spokes through the centre
    return np.argsort(np.mod(angle, math.pi if half else 2 * math.pi), kind="stable")


def cells(places: np.ndarray, matrix: tuple[int, int]) -> np.ndarray:
    """Which cells of the grid of k-space, (height, width), hold a sample of places (..., 2)."""
    found = np.zeros(matrix, bool)
    index = [np.rint(places[..., axis]).astype(int).ravel() + n // 2 for axis, n in enumerate(matrix)]
    inside = np.all([(i >= 0) & (i < n) for i, n in zip(index, matrix, strict=True)], axis=0)
    found[index[0][inside], index[1][inside]] = True
    return found


def share_of_cells(places: np.ndarray, matrix: tuple[int, int]) -> float:
    """The share of the cells within the ellipse that fills k-space that hold a sample."""
    inside = distance_of(matrix) < 0.95
    return float(cells(places, matrix)[inside].mean())


def gridded_centre(kspace: np.ndarray, places: np.ndarray, matrix: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The densely sampled middle of k-space on the grid, (coils, *matrix), and where that is, (*matrix).

    By least squares of small images of the whole field of view, coil by coil.

    Args:
        kspace: (coils, n).
        places: (n, 2).
        matrix: of the image.
    """
    box = [min(n, LARGEST) for n in calibration_box(cells(places, matrix))]
    mask = np.zeros(matrix, bool)
    if min(box) < 2:
        return np.zeros((len(kspace), *matrix), np.complex64), mask
    wide = [min(n + 4 + n % 2, m) for n, m in zip(box, matrix, strict=True)]  # what lies beside it bends its edges
    near = np.all(np.abs(places) <= np.array(wide) / 2, axis=1)
    sense = NonUniformSense(
        torch.ones(1, *wide, dtype=torch.complex64), torch.from_numpy(places[near]), torch.ones(int(near.sum())) > 0
    )
    values = torch.from_numpy(np.ascontiguousarray(kspace[:, near], dtype=np.complex64))
    images = to_complex(cg_sense(sense, to_channels(values[:, None]), iterations=SMOOTHING))[:, 0].numpy()
    middle = (slice(None), *centred_box(wide, box))
    mask[centred_box(matrix, box)] = True
    return fit_matrix(centred(images)[middle], matrix), mask


def readout_noise(slices: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, str]:
    """C over the coils of a scan, (coils, coils), and a warning or "".

    Where samples along the readouts are closer than 1/field of view, their fastest changes hold noise alone; elsewhere the
    outermost samples are taken for noise, where an image may reach.

    Args:
        slices: k-space (coils, samples, readouts) and its places (samples, readouts, 2) of several slices.

    Raises:
        InputError: too few samples for so many coils.
    """
    fast, far = [], []
    for kspace, places in slices:
        coils, samples, _ = kspace.shape
        step = float(np.linalg.norm(np.diff(places, axis=0), axis=-1).max()) if samples > 1 else math.inf
        if step < OVERSAMPLED:
            window = np.hanning(samples + 2)[1:-1, None]
            spectrum = np.fft.fft(kspace * (window / np.sqrt((window**2).mean())), axis=1, norm="ortho")
            # An image changes by step/2 cycles per sample; half way from there to the 1/2 that is the most
            beyond = np.abs(np.fft.fftfreq(samples)) > (1 + step) / 4 + 2 / samples
            fast.append(spectrum[:, beyond].reshape(coils, -1))
        distance = np.linalg.norm(places, axis=-1)
        distance = distance / distance.max()
        far.append((kspace[:, distance > RINGS[-1]], distance[distance > RINGS[-1]]))
    samples = np.concatenate(fast, axis=1) if fast else np.zeros((1, 0))
    if samples.shape[1] >= FEW_SAMPLES * len(samples):
        return covariance_of(samples), ""
    samples, distance = (np.concatenate(parts, axis=-1) for parts in zip(*far, strict=True))
    if samples.shape[1] < FEW_SAMPLES * len(samples):
        raise InputError(
            f"Only {samples.shape[1]} samples lie beyond {RINGS[-1]:g} k_max, too few to estimate the noise of {len(samples)} "
            "coils: give --noise, or a noise scan."
        )
    return outer_noise(samples, distance)[0], OUTERMOST
