"""Bias correction and spatial disaggregation (Wood et al. 2002, 2004)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from scorefield.baselines.baseline import Baseline, When, bilinear, block_mean, factor_between, same_for_all
from scorefield.baselines.quantiles import QuantileMap


class BCSD(Baseline):
    """Map the quantiles of each coarse box to the truth's there, then add the fine pattern that its climate has.

    The corrected coarse field is divided by the mean coarse truth, interpolated, and multiplied by the mean fine truth; with
    differences instead of ratios for what is not precipitation. Only laws are compared: pairs of fields need not belong together.

    Args:
        ratio: of ratios, as for precipitation, or of differences.
        wet: where given, wet days are handled: both laws become wet equally often, and fine values below are dry.
        levels: number of quantiles.
    """

    def __init__(self, *, ratio: bool = False, wet: float | None = None, levels: int = 100) -> None:
        self.ratio, self.wet = ratio, wet
        self.map = QuantileMap(levels, ratio=ratio, wet=wet)

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
        tiny = np.finfo(np.float32).tiny
        fine = bilinear(corrected / np.maximum(self.coarse_mean, tiny), self.factor) * self.fine_mean
        return same_for_all(np.where(fine >= self.wet, fine, 0.0) if self.wet is not None else fine, members)
