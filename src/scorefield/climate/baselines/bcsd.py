"""Bias correction and spatial disaggregation (Wood et al. 2002, 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num, Shaped

from scorefield.climate.baselines.baseline import Baseline, When, same_for_all
from scorefield.climate.baselines.quantiles import QuantileMap
from scorefield.climate.grid import factor_between
from scorefield.climate.regrid import bilinear, block_mean

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
        self.map = QuantileMap(self.levels, ratio=self.ratio, wet=self.wet)

    def fit(self, coarse: Num[np.ndarray, "time Y X"], fine: Num[np.ndarray, "time y x"], when: When) -> BCSD:
        """Learn the quantiles of the coarse boxes and the climate of the fine ones."""
        self.factor = factor_between(coarse.shape, fine.shape)
        truth = block_mean(fine, self.factor)
        self.map.fit(coarse, truth)
        self.coarse_mean, self.fine_mean = truth.mean(0), fine.mean(0, dtype=float)
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """The same for all members."""
        corrected = self.map(coarse)
        if not self.ratio:
            return same_for_all(bilinear(corrected - self.coarse_mean, self.factor) + self.fine_mean, members)
        dry = self.coarse_mean <= DRY * self.coarse_mean.mean()
        ratio = np.where(dry, 1.0, corrected / np.where(dry, 1.0, self.coarse_mean))
        fine = bilinear(ratio, self.factor) * np.where(spread(dry, self.factor), 0.0, self.fine_mean)
        fine = (fine + spread(np.where(dry, corrected, 0.0), self.factor)).astype(np.float32)
        return same_for_all(np.where(fine >= self.wet, fine, 0.0) if self.wet is not None else fine, members)


def spread(coarse: Shaped[np.ndarray, "*batch Y X"], factor: tuple[int, int]) -> Shaped[np.ndarray, "*batch y x"]:
    """The value of each coarse box in all fine ones within it."""
    return coarse.repeat(factor[0], -2).repeat(factor[1], -1)
