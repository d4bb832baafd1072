"""MR images and k-space: files, units, coils, masks, and what training on them takes."""

from scorefield.foundation.lazy import lazily
from scorefield.mri.augment import RandomCrop, RandomGain, RandomPhase
from scorefield.mri.simulated import Undersampled
from scorefield.mri.sources import Combined, Scanned
from scorefield.mri.volumes import Volumes

# What the room does, as dataclasses; the command line has them by their names.
__getattr__, __dir__, VERBS = lazily(
    __name__,
    {
        "reconstruction": "Reconstruct",
    },
)
__all__ = [  # noqa: PLE0604
    "Combined",
    "RandomCrop",
    "RandomGain",
    "RandomPhase",
    "Scanned",
    "Undersampled",
    "Volumes",
    *VERBS,
]  # pyright: ignore[reportUnsupportedDunderAll]
