"""NIfTI volumes as slices to denoise, and the denoised slices as volumes again."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing
from scorefield.mri.scaling import foreground, scale_of
from scorefield.mri.volumes import LEAST_FOREGROUND, load_nifti, read_nifti, read_volumes


@dataclass(frozen=True, eq=False)
class Volume:
    """Axial slices of a volume, each divided by the 99th percentile of its foreground; slices all but empty stay as they are.

    Attributes:
        fields: (slices, channels, height, width); real and imaginary part where there are two channels.
        scale: of each of them.
        numbers: their positions in the volume.
        values: the volume, (right, anterior, superior), complex where its phase is known.
        origin: its file, of which the result gets the position in space.
    """

    fields: Tensor
    scale: Tensor
    numbers: Sequence[int]
    values: np.ndarray
    origin: Path

    @classmethod
    def read(cls, magnitude: Path, phase: Path | None, channels: int) -> Volume:
        """The slices of a NIfTI file as fields of 1 channel, or with a file of phase of 2.

        Raises:
            InputError: magnitude alone for a model of complex images, the reverse, or a volume of more than three axes.
        """
        if channels != (1 if phase is None else 2):
            have = "magnitude alone" if phase is None else "magnitude and phase"
            need = "complex images: give --phases" if phase is None else f"{channels} channels: leave out --phases"
            raise InputError(f"{magnitude} is {have}, and the model is of {need}.")
        volumes = [read_nifti(magnitude)] if phase is None else read_volumes(magnitude, phase)
        if len(volumes) != 1 or volumes[0].ndim != 3:
            raise InputError(f"{magnitude} holds several volumes: denoise them one by one.")
        slices = np.moveaxis(volumes[0], 2, 0)
        numbers = [n for n, image in enumerate(slices) if np.any(image) and foreground(image).mean() > LEAST_FOREGROUND]
        if not numbers:
            raise InputError(f"{magnitude} has no slices that hold anything.")
        scale = np.array([scale_of(slices[n]) for n in numbers], dtype=np.float32)
        scaled = torch.from_numpy(np.ascontiguousarray(slices[numbers] / scale[:, None, None]))
        fields = scaled[:, None] if phase is None else torch.view_as_real(scaled).movedim(-1, 1)
        return cls(fields.contiguous(), torch.from_numpy(scale), numbers, volumes[0], magnitude)

    def write(self, stem: Path, x: Tensor) -> list[Path]:
        """Write NAME.nii.gz in the units of the file, and NAME-phase.nii.gz in radians where the phase is known."""
        import nibabel

        result = self.values.copy()
        found = (x * self.scale.reshape(-1, 1, 1, 1)).movedim(1, -1).contiguous()
        whole = torch.view_as_complex(found) if x.shape[1] == 2 else found[..., 0]
        result[..., list(self.numbers)] = np.moveaxis(whole.numpy(), 0, 2)
        parts = {"": np.abs(result), "-phase": np.angle(result)} if x.shape[1] == 2 else {"": result}
        place, written = load_nifti(self.origin), []
        place.header.set_data_dtype(np.float32)
        for name, values in parts.items():
            path = stem.with_name(f"{stem.name}{name}.nii.gz")
            with replacing(path) as temporary:
                image = nibabel.Nifti1Image(values.astype(np.float32), place.affine, place.header)
                temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
            written.append(path)
        return written
