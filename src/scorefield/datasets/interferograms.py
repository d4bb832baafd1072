"""Wrapped phases of radar interferograms, as points of the circle: cos φ and sin φ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.arrays import ArrayFile
from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.source import Source, Split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError


@dataclass(frozen=True)
class Interferograms(Source):
    """Wrapped phases φ of interferograms, two channels cos φ and sin φ.

    A `.int` file is rows × columns pairs of float32 in little-endian order, real and imaginary part of a complex interferogram,
    of which the phase is taken. In a .npz, a real array (N, rows, columns) is unwrapped phase in radians. Points that are not
    finite, or 0, which both formats have where there are no data, are masked, and cos and sin are 0 there.

    Args:
        path: a folder of .int files, one such file, or a .npz.
        shape: rows and columns of a .int file.
        crop: rows and columns that are used, from the middle; all by default.
        key: the name of the array in a .npz.
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
    """

    path: Path
    shape: tuple[int, int] = (128, 128)
    crop: tuple[int, int] | None = (120, 120)
    key: str = "x"
    valid: int | float = 0.1
    seed: int = 0

    def load(self, split: Split) -> FieldDataset:
        path = Path(self.path)
        phases = self._of_array(path) if path.suffix == ".npz" else self._of_files(path)
        return Subset(phases, hold_out(len(phases), self.valid, self.seed, split))

    def _of_array(self, path: Path) -> PhaseFields:
        array = ArrayFile(path).read(self.key, "key")
        if array.ndim != 3 or array.dtype.kind not in "fc":
            raise InputError(f"{self.key} of {path} is {array.dtype} {array.shape}, not (N, rows, columns) of phases.")
        rows, columns = middle(array.shape[1:], self.crop, f"{self.key} of {path}")
        return PhaseFields([], array[:, rows, columns], self.shape, (rows, columns))

    def _of_files(self, path: Path) -> PhaseFields:
        files = sorted(path.rglob("*.int")) if path.is_dir() else [path]
        if not path.exists():
            raise AbsentDataError(f"There is no {path}: correct the path.")
        if not files:
            raise InputError(f"{path} holds no .int files: give their folder, or a .npz.")
        rows, columns = self.shape
        for file in files:
            if (size := file.stat().st_size) != 8 * rows * columns:
                raise InputError(
                    f"{file} has {size} bytes, not the {8 * rows * columns} of {rows}×{columns} pairs of float32: correct shape."
                )
        return PhaseFields(files, None, self.shape, middle(self.shape, self.crop, str(path)))


class PhaseFields(FieldDataset):
    """cos φ and sin φ, and a mask (1, rows, columns) that is 0 where there is no phase."""

    def __init__(
        self, files: list[Path], array: np.ndarray | None, shape: tuple[int, int], window: tuple[slice, slice]
    ) -> None:
        self.paths, self.array, self.shape, self.window = files, array, shape, window

    def __len__(self) -> int:
        return len(self.paths) if self.array is None else len(self.array)

    def gather(self, indices: Tensor) -> Batch:
        numbers = indices.tolist()
        z = torch.from_numpy(
            np.stack([self._read(number) for number in numbers]) if self.array is None else self.array[numbers]
        )
        if not z.is_complex():
            z = torch.where(z == 0, torch.zeros((), dtype=torch.complex64), torch.polar(torch.ones_like(z), z))
        size = z.abs()
        known = (size > 0) & size.isfinite()
        unit = torch.where(known, z / torch.where(known, size, 1), 0)
        return Batch(torch.view_as_real(unit.to(torch.complex64)).movedim(-1, 1).contiguous(), mask=known[:, None])

    def _read(self, number: int) -> np.ndarray:
        try:
            values = np.fromfile(self.paths[number], dtype="<c8").reshape(self.shape)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.paths[number]} cannot be read ({error}): restore it, or remove it.") from error
        return values[self.window].astype(np.complex64)


def middle(shape: tuple[int, ...], crop: tuple[int, int] | None, origin: str) -> tuple[slice, slice]:
    """The middle of a grid."""
    rows, columns = crop or shape
    if not (1 <= rows <= shape[0] and 1 <= columns <= shape[1]):
        raise InputError(f"{origin} is {shape[0]}×{shape[1]}, from which no {rows}×{columns} can be cut: correct crop.")
    top, left = (shape[0] - rows) // 2, (shape[1] - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)
