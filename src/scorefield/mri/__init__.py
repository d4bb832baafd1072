"""MR images and k-space: files, units, coils, masks, and what training on them takes."""

from scorefield.mri.augment import RandomCrop, RandomGain, RandomPhase
from scorefield.mri.simulated import Undersampled
from scorefield.mri.sources import Combined, Scanned
from scorefield.mri.volumes import Volumes

__all__ = ["Combined", "RandomCrop", "RandomGain", "RandomPhase", "Scanned", "Undersampled", "Volumes"]
