"""Bias correction and spatial disaggregation (Wood et al. 2002, 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from scorefield.climate.baselines.baseline import Baseline, When, first, mean_of, same_for_all
from scorefield.climate.baselines.grids import Blocks, Grids
from scorefield.climate.baselines.quantiles import QuantileMap

DRY = 0.01  # of the mean over all coarse boxes: below, a ratio to the mean of a box says nothing


@dataclass(kw_only=True, eq=False)
class BCSD(Baseline):
    """Map the quantiles of each coarse box to the truth's there, then add the fine pattern that its climate has.

    The corrected coarse field is divided by the mean coarse truth, interpolated, and multiplied by the mean fine truth; with
    differences instead of ratios for what is not precipitation. Where the climate is dry, below a hundredth of the mean over all
    boxes, there is no pattern to scale: what falls there all the same falls evenly. Only laws are compared: pairs of fields
    need not belong together.

    Args:
        ratio: of ratios, as for precipitation, or of differences.
        wet: where given, wet days are handled: both laws become wet equally often, and fine values below are dry.
        levels: number of quantiles.
    """

    ratio: bool = False
    wet: float | None = None
    levels: int = 100

    def __post_init__(self) -> None:
        QuantileMap(self.levels)  # refused before there are data

    def fit(
        self,
        coarse: Num[np.ndarray, "time *channel Y X"],
        fine: Num[np.ndarray, "time y x"],
        when: When,
        grids: Grids | None = None,
    ) -> BCSD:
        """Learn the quantiles of the coarse boxes and the climate of the fine ones."""
        self.grids = grids or Blocks.of(coarse, fine)
        truth = self.grids.down(fine)
        self.map = QuantileMap(self.levels, ratio=self.ratio, wet=self.wet).fit(first(coarse), truth)
        self.coarse_mean, self.fine_mean = mean_of(truth), mean_of(fine)
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time *channel Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """The same for all members."""
        corrected = self.map(first(coarse))
        if not self.ratio:
            return same_for_all(self.grids.up(corrected - self.coarse_mean) + self.fine_mean, members)
        dry = self.coarse_mean <= DRY * np.nanmean(self.coarse_mean)
        ratio = np.where(dry, 1.0, corrected / np.where(dry, 1.0, self.coarse_mean))
        fine = self.grids.up(ratio) * np.where(self.grids.spread(dry), 0.0, self.fine_mean)
        fine = (fine + self.grids.spread(np.where(dry, corrected, 0.0))).astype(np.float32)
        return same_for_all(
            np.where((fine >= self.wet) | np.isnan(fine), fine, 0.0) if self.wet is not None else fine, members
        )
