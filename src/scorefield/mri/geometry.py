"""Where the pixels of reconstructed slices are in the patient, in mm to the left, posterior and superior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scorefield.foundation.errors import InputError

EVEN = 0.05  # of the distance of slices, by which it may vary in a volume


@dataclass(frozen=True, eq=False)
class Slice:
    """The plane of an image.

    Attributes:
        centre: of pixel (height // 2, width // 2), in mm.
        axes: directions of growing rows, columns and slices, (3, 3), unit vectors.
        spacing: of rows, columns and slices, in mm.
    """

    centre: np.ndarray
    axes: np.ndarray
    spacing: tuple[float, float, float]

    def affine(self, shape: tuple[int, int]) -> np.ndarray:
        """(4, 4), from (row, column, slice) of an image of that shape."""
        found = np.eye(4)
        found[:3, :3] = self.axes.T * np.array(self.spacing)
        found[:3, 3] = self.centre - found[:3, :2] @ (np.array(shape) // 2)
        return found


def volume_affine(slices: Sequence[Slice], shape: tuple[int, int]) -> np.ndarray:
    """The affine of slices as one volume, in the order that is given.

    Raises:
        InputError: they are not parallel, or their distances vary.
    """
    first = slices[0].affine(shape)
    if len(slices) == 1:
        return first
    steps = np.diff([one.affine(shape)[:3, 3] for one in slices], axis=0)
    alike = all(np.allclose(one.axes, slices[0].axes, atol=1e-3) for one in slices)
    length = float(np.linalg.norm(steps, axis=1).mean())
    straight = np.linalg.norm(np.cross(steps, slices[0].axes[2]), axis=1).max() < EVEN * length
    if not (alike and straight and length > 0 and np.abs(steps - steps.mean(0)).max() < EVEN * length):
        raise InputError(
            "The chosen slices are no volume: they are not parallel, or their distances vary. Take --format dicom."
        )
    first[:3, 2] = steps.mean(0)
    return first
