"""MR images and k-space: files, units, coils, masks, and what training on them takes."""

from scorefield.mri.augment import RandomCrop, RandomGain, RandomPhase
from scorefield.mri.coil_combined import Combined
from scorefield.mri.raw_kspace import Scanned
from scorefield.mri.undersampled import Undersampled
from scorefield.mri.volumes import Volumes

__all__ = ["Combined", "RandomCrop", "RandomGain", "RandomPhase", "Scanned", "Undersampled", "Volumes"]
