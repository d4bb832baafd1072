"""Trajectories through k-space: radial, spiral or any other readouts, in cycles per field of view, (samples, readouts, 2).

Files name neither the unit nor the axes. Units are 6 times and more apart, so that the reach of k-space, n/2 at most and seldom
less than half of that, tells which it is; along a readout samples are closer than from one readout to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scorefield.foundation.errors import InputError

REACH = (0.42, 1.06)  # of n/2, how far a trajectory goes
LEAST_REACH = 8  # cycles per field of view, below which it is in another unit
MOST_COILS = 256  # of any scanner


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where the samples of a scan are.

    Attributes:
        places: k in cycles per field of view, (samples, readouts, 2), or one of these for each slice.
        matrix: (height, width) of the image in that field of view.
        note: what was concluded from the numbers.
    """

    places: np.ndarray
    matrix: tuple[int, int]
    note: str = ""

    def of(self, number: int) -> np.ndarray:
        """That of a slice."""
        return self.places if self.places.ndim == 3 else self.places[number]

    def on(self, height: int) -> Trajectory:
        """The same for another field of view, of so many of the same pixels along the height."""
        matrix = height, max(round(self.matrix[1] * height / self.matrix[0]), 1)
        return Trajectory(self.places * (np.array(matrix) / np.array(self.matrix)), matrix, self.note)


def in_cycles(k: np.ndarray, matrix: tuple[int, int] | None, origin: str) -> Trajectory:
    """A trajectory (..., samples, readouts, 2) in cycles per pixel, radians per pixel or cycles per field of view.

    Args:
        k: the numbers.
        matrix: of the image, if it is known; else the reach of k-space tells it, or the distance of samples.
        origin: of the file.
    """
    if not np.isfinite(k).all():
        raise InputError(f"The trajectory of {origin} holds NaN or infinite values: correct it.")
    most = float(np.abs(k).max())
    if matrix is not None:
        size = np.array(matrix)
        factors = {
            "cycles per pixel": size,
            "radians per pixel": size / (2 * math.pi),
            "cycles per field of view": size * 0 + 1.0,
        }
        found = [name for name, f in factors.items() if REACH[0] < (np.abs(k) * f / (size / 2)).max() < REACH[1]]
        if len(found) != 1:
            raise InputError(
                f"The trajectory of {origin} reaches {most:.4g}: of {matrix[0]}×{matrix[1]} pixels it is to reach 0.5 cycles per "
                f"pixel, π radians per pixel or {max(matrix) / 2:g} cycles per field of view. Scale it."
            )
        return Trajectory(k * factors[found[0]], matrix, f"the trajectory is taken to be in {found[0]}")
    if 0.5 * REACH[0] < most < 0.5 * REACH[1] or math.pi * REACH[0] < most < math.pi * REACH[1]:
        turned = k if most < 1 else k / (2 * math.pi)
        step = float(np.linalg.norm(np.diff(turned, axis=-3), axis=-1).max())
        n = max(round(1 / step), 1)
        unit = "cycles" if most < 1 else "radians"
        note = (
            f"the trajectory is taken to be in {unit} per pixel, and the image to have {n}×{n} of them, as the distance of "
            f"samples has it: where the readout is oversampled twice, give --height {n // 2}"
        )
        return Trajectory(turned * n, (n, n), note)
    if most < LEAST_REACH:
        raise InputError(
            f"The trajectory of {origin} reaches {most:.4g}, in no unit that is known: 0.5 (cycles per pixel), π (radians per "
            "pixel) or half of the pixels (cycles per field of view)."
        )
    sizes = [2 * math.ceil(float(np.abs(k[..., axis]).max()) - 1e-3) for axis in (0, 1)]
    n = max(sizes)  # of a square: a turned square reaches as far
    return Trajectory(
        k, (n, n), f"the trajectory is taken to be in cycles per field of view, and the image to have {n}×{n} pixels"
    )


def arranged(kspace: np.ndarray, k: np.ndarray, origin: str) -> tuple[np.ndarray, np.ndarray]:
    """k-space (slices, coils, samples, readouts) and its trajectory (samples, readouts, 2), or (slices, samples, readouts, 2).

    Args:
        kspace: (slices, coils, ...) or (coils, ...) or (...), where ... is one axis of samples, or two of which one is the
            readout; or these first and coils last, as MATLAB's.
        k: of the same ..., with an axis of 2 (or 3, of which the third is 0) last or first; or complex, x + iy.
        origin: of the file.
    """
    if kspace.dtype.kind != "c":
        raise InputError(f"{origin} holds {kspace.dtype}, where k-space is complex.")
    k = _in_a_plane(k, origin)
    points = k.shape[:-1]
    each = len(points) == 3  # one for each slice
    inner, shape = points[1:] if each else points, kspace.shape
    for candidate in (inner, inner[::-1]):
        if candidate != inner:
            k = k.swapaxes(-2, -3)
        if shape[-len(inner) :] == candidate:
            break
        if shape[: len(inner)] == candidate:
            kspace = np.moveaxis(kspace, range(len(inner)), range(-len(inner), 0))
            break
    else:
        raise InputError(
            f"The trajectory of {origin} is of {points} samples, where k-space is {shape}: give that of this scan."
        )
    if len(inner) == 1:
        kspace, k = kspace[..., None, :], k[..., None, :, :]
    outer = kspace.shape[:-2]
    if len(outer) > 2 or (outer and outer[-1] > MOST_COILS) or (each and (len(outer) < 2 or outer[0] != points[0])):
        raise InputError(
            f"{origin} has shape {shape}: k-space off the grid is (slices, coils, samples, readouts), or without slices."
        )
    kspace = kspace.reshape((1,) * (2 - len(outer)) + kspace.shape)
    steps = [
        float(np.linalg.norm(np.diff(k, axis=axis), axis=-1).mean()) if k.shape[axis] > 1 else math.inf
        for axis in (-3, -2)
    ]
    if len(inner) == 2 and steps[1] < steps[0]:  # the readout is the last axis
        kspace, k = kspace.swapaxes(-1, -2), k.swapaxes(-2, -3)
    return np.ascontiguousarray(kspace, dtype=np.complex64), np.ascontiguousarray(k, dtype=np.float64)


def _in_a_plane(k: np.ndarray, origin: str) -> np.ndarray:
    """Places as (..., 2)."""
    if k.dtype.kind == "c" and not np.imag(k).any():  # as BART has all numbers
        k = np.real(k)
    if k.dtype.kind == "c":
        k = np.stack((np.real(k), np.imag(k)), axis=-1)
    k = np.squeeze(k) if k.ndim > 4 else k
    shape = k.shape
    if shape[-1] not in (2, 3):
        k = np.moveaxis(k, 0, -1) if shape[:1] in ((2,), (3,)) else k
    if k.ndim not in (2, 3, 4) or k.shape[-1] not in (2, 3):
        raise InputError(f"The trajectory of {origin} is {shape}: (samples, readouts, 2) is needed.")
    if k.shape[-1] == 3:
        if np.abs(k[..., 2]).max() > 1e-6 * np.abs(k).max():
            raise InputError(f"{origin} has a trajectory in three dimensions: only those in a plane are read.")
        k = k[..., :2]
    return k
