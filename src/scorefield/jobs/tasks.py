"""What `scorefield restore --task` calls by a plain name: operators that need no import path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scorefield.data.single import read_alpha, read_array
from scorefield.foundation.errors import InputError
from scorefield.operators import Blur, Boundary, Coarsen, Grey, Hole, Identity, LinearOperator, Mask

OPAQUE = 128  # of 255, from which a pixel of a mask counts as known


def inpaint(
    known: Path | None = None, start: tuple[int, ...] | None = None, size: tuple[int, ...] | None = None
) -> LinearOperator:
    """Fill in what is hidden.

    Args:
        known: an image or .npy of the grid's shape that is white, or 1, where the image is known; or an image that is transparent
            where it is to be filled in, whatever its colours.
        start: instead of it, the first hidden pixel of a box along each axis; negative ones count from the end.
        size: pixels of the box along each axis.
    """
    if known is not None and start is None and size is None:
        alpha = read_alpha(known)
        mask = _bright(known) if alpha is None else alpha >= OPAQUE
        if mask.all():
            raise InputError(f"{known} hides nothing: make black, 0 or transparent what is to be filled in.")
        if not mask.any():
            raise InputError(f"{known} hides everything: make white, 1 or opaque what is known.")
        return Mask(torch.from_numpy(mask))
    if known is None and start is not None and size is not None:
        return Hole(start, size)
    raise InputError("inpaint needs either --task.known FILE or --task.start and --task.size of a box.")


def colourise(weights: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)) -> LinearOperator:
    """Find the colours of a grey image.

    Args:
        weights: of each channel in the grey value.
    """
    return Grey(weights)


def superres(factor: int | tuple[int, ...] = 4) -> LinearOperator:
    """Find the fine structure of a coarse image.

    Args:
        factor: pixels that a coarse one is the mean of, along every axis, or along each.
    """
    return Coarsen(factor)


def deblur(std: float | tuple[float, ...] = 2.0, boundary: Boundary = "reflect") -> LinearOperator:
    """Sharpen an image that was blurred by a Gaussian.

    Args:
        std: its standard deviation in pixels, for every axis or for each.
        boundary: what lay beyond the image: periodic, zero or reflect.
    """
    return Blur(std, boundary)


def denoise() -> LinearOperator:
    """Take the noise away: the image was measured as it is."""
    return Identity()


TASKS = (inpaint, colourise, superres, deblur, denoise)


def _bright(path: Path) -> np.ndarray:
    """Where a mask is at least half as bright as its brightest pixel: white may be 1, 255 or 65535 of any type."""
    array = read_array(path)
    if array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8:
        array = array.min(-1)  # white, not merely coloured
    return array >= max(float(array.max(initial=0)) / 2, np.finfo(np.float32).tiny)
