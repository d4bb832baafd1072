"""Handwritten digits that come with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scorefield.data.fields import ArrayFields, FieldDataset, Subset
from scorefield.data.source import Source, Split, hold_out


@dataclass(frozen=True)
class Digits(Source):
    """Handwritten digits of 8×8 pixels, values 0-16, 1797 in all, 10 classes; they come with scikit-learn.

    Args:
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
    """

    valid: int | float = 500
    seed: int = 0

    def load(self, split: Split) -> FieldDataset:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        fields = ArrayFields(pixels.reshape(-1, 8, 8).astype(np.uint8), "none", np.asarray(labels))
        return Subset(fields, hold_out(len(fields), self.valid, self.seed, split))
