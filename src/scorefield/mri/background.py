"""What a scanner measures where there is nothing: the corners of an image, or its edges along the readout, hold noise alone."""

from __future__ import annotations

import numpy as np

from scorefield.mri.partial_fourier import WHOLE, share_of
from scorefield.mri.prepare import distance_of
from scorefield.mri.simulate import centred

EDGE = 1 / 16  # of the image, at either end of the readout
OBJECT = 4.0  # times the median energy, that of noise is 1.4 at most in the mean, and of the edge of a head 15 and more


def air_samples(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Samples (coils, points) in units of k-space, of which half or more hold noise alone where there is air about the object.

    Of k-space that is sampled as a whole the pixels beyond the ellipse that fills the image; of whole lines along the readout,
    which is the height, what each of them has at both ends of it, whither other lines cannot alias; else, or where an object lies
    at these ends, None.

    Args:
        kspace: (coils, height, width).
        mask: where it is used, (height, width).
    """
    if share_of(mask) >= WHOLE:
        images = centred(np.where(mask, kspace, 0), inverse=True)
        return images[:, distance_of(mask.shape) > 1] / np.sqrt(mask.mean(), dtype=np.float32)  # zeros have no noise
    lines = mask.any(0)
    if not lines.any() or not (mask == lines).all():
        return None
    along = centred(kspace[..., lines], inverse=True, axes=(-2,))
    edge = max(round(EDGE * along.shape[1]), 1)
    samples = np.concatenate((along[:, :edge], along[:, -edge:]), axis=1).reshape(len(kspace), -1)
    energy = (np.abs(samples) ** 2).sum(0)
    return samples if energy.mean() < OBJECT * np.median(energy) else None
