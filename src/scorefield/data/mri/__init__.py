"""MR images and k-space: files, units, coils, masks, and what training on them takes."""

from scorefield.data.mri.augment import RandomCrop, RandomGain, RandomPhase
from scorefield.data.mri.combined import Combined
from scorefield.data.mri.scanned import Scanned
from scorefield.data.mri.undersampled import Undersampled
from scorefield.data.mri.volumes import Volumes

__all__ = ["Combined", "RandomCrop", "RandomGain", "RandomPhase", "Scanned", "Undersampled", "Volumes"]
