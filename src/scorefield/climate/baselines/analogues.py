"""Analogues: fine fields of the training times whose coarse fields are most like the one given (Zorita and von Storch 1999)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from scorefield.climate.baselines.baseline import Baseline, When, mean_of, same_for_all
from scorefield.climate.baselines.grids import Grids
from scorefield.foundation.errors import InputError


@dataclass(eq=False)
class Analogues(Baseline):
    """The mean of the fine fields that belong to the most similar coarse ones, by the squared difference of standardised values;
    what is unknown is taken for the mean.

    Args:
        number: how many; a single one keeps the texture of true fields.
    """

    same_quantity = False

    number: int = 1

    def __post_init__(self) -> None:
        if self.number < 1:
            raise InputError(f"Analogues needs a number of at least 1, not {self.number}.")

    def fit(
        self,
        coarse: Num[np.ndarray, "time *channel Y X"],
        fine: Num[np.ndarray, "time y x"],
        when: When,
        grids: Grids | None = None,
    ) -> Analogues:
        """Keep all pairs."""
        flat = coarse.reshape(len(coarse), -1).astype(float)
        self.shift = mean_of(flat)
        self.scale = np.maximum(np.sqrt(mean_of((flat - self.shift) ** 2)), 1e-12)
        self.library, self.fine, self.mean = self._standard(coarse), fine, mean_of(fine)
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time *channel Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """The same for all members."""
        found = []
        for row in self._standard(coarse):
            nearest = np.argsort(((self.library - row) ** 2).sum(1), kind="stable")[: self.number]
            mean = mean_of(self.fine[nearest])
            found.append(np.where(np.isnan(mean), self.mean, mean))
        return same_for_all(np.stack(found), members)

    def _standard(self, coarse: np.ndarray) -> np.ndarray:
        return np.nan_to_num((coarse.reshape(len(coarse), -1) - self.shift) / self.scale)
