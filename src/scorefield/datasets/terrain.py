"""Terrain: patches of digital elevation models, as functions at any resolution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.arrays import ArrayFile
from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.data.source import Source, Split, hold_out
from scorefield.foundation.cosine import resample
from scorefield.foundation.errors import InputError


@dataclass(frozen=True)
class Terrain(Source):
    """Elevation in metres above the mean of each patch, from tiles of an SRTM-like .npz: one integer array per tile.

    Patches do not overlap and lie in one tile each. Used are those without voids, with little sea and some relief. A patch is a
    function on its square: its cosine series is cut off for a coarser grid (`scorefield.foundation.cosine`), neither averaged
    nor decimated.
    Tiles are held out whole, because patches of one mountain resemble each other.

    Args:
        path: the .npz.
        patch: points of a patch along each side, as stored.
        size: points of the grid that it is given on; that of the patch by default.
        void: the value where nothing is known.
        sea: the largest share of points at exactly 0 m.
        relief: the smallest standard deviation of a patch in metres.
        valid: how many tiles are held out (integer) or which fraction (float).
        seed: draws which ones.
    """

    path: Path
    patch: int = 128
    size: int | None = None
    void: int = -32768
    sea: float = 0.01
    relief: float = 10.0
    valid: int | float = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.patch < 2 or not 1 <= (self.size or self.patch) <= self.patch:
            raise InputError(f"Terrain needs patch >= 2 and a size up to it, not {self.patch} and {self.size}.")

    def load(self, split: Split) -> FieldDataset:
        file = ArrayFile(Path(self.path))
        chosen = hold_out(len(file.names), self.valid, self.seed, split)
        patches = [self.patches(file.read(file.names[tile], "path")) for tile in chosen.tolist()]
        found = torch.cat(patches)
        if len(found) == 0:
            raise InputError(
                f"{self.path} has no patch of {self.patch}×{self.patch} in its {split} tiles that is free of voids and sea and "
                "has some relief: allow a smaller patch, more sea or less relief."
            )
        return ArrayFields(found.numpy(), "first", origin=str(self.path))

    def patches(self, tile: np.ndarray) -> Tensor:
        """The patches of one tile, (n, 1, size, size), in rows from its first corner."""
        if tile.ndim != 2 or tile.dtype.kind not in "iuf":
            raise InputError(f"A tile of {self.path} is {tile.dtype} {tile.shape}, not rows × columns of elevations.")
        rows, columns = (length // self.patch for length in tile.shape)
        used = torch.from_numpy(tile[: rows * self.patch, : columns * self.patch].astype(np.float64))
        cut = used.reshape(rows, self.patch, columns, self.patch).transpose(1, 2).reshape(-1, self.patch, self.patch)
        known = (cut != self.void).all((1, 2)) & cut.isfinite().all((1, 2))
        good = known & ((cut == 0).double().mean((1, 2)) <= self.sea) & (cut.std((1, 2)) >= self.relief)
        chosen = cut[good][:, None]
        centred = chosen - chosen.mean((2, 3), keepdim=True)
        size = self.size or self.patch
        return resample(centred, (size, size)).float()
