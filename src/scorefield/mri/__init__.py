"""MR images and k-space: files, units, coils, masks, and what training on them takes."""

from scorefield.foundation.lazy import lazily
from scorefield.mri.augment import RandomCrop, RandomGain, RandomPhase
from scorefield.mri.moving import Moving
from scorefield.mri.simulated import Undersampled
from scorefield.mri.sources import Combined, Scanned
from scorefield.mri.volumes import Volumes

__getattr__, __dir__, LAZY = lazily(
    __name__,
    {
        "masks": "EquispacedLines Everything MaskFile PoissonDisc Radial RandomLines Sampling",
        "reconstruction": "Reconstruct",
        "predictive_check": "PredictiveCheck predictive_check",
        "posterior": "Posterior",
        "scan": "Baselines Scan",
    },
)
__all__ = [  # noqa: PLE0604
    "Combined", "Moving", "RandomCrop", "RandomGain", "RandomPhase", "Scanned", "Undersampled", "Volumes", *LAZY,
]  # pyright: ignore[reportUnsupportedDunderAll]  # fmt: skip
