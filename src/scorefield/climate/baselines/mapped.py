"""Quantile mapping of interpolated fields, and the errors of any baseline drawn again."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Num

from scorefield.climate.baselines.baseline import Baseline, When, first, folds_of, generator_of, same_for_all
from scorefield.climate.baselines.grids import Blocks, Grids
from scorefield.climate.baselines.quantiles import QuantileMap
from scorefield.foundation.errors import InputError


@dataclass(eq=False)
class MappedBilinear(Baseline):
    """Bilinear interpolation whose quantiles are mapped to the truth's at each fine point.

    Args:
        map: how.
    """

    map: QuantileMap = field(default_factory=QuantileMap)

    def fit(
        self,
        coarse: Num[np.ndarray, "time *channel Y X"],
        fine: Num[np.ndarray, "time y x"],
        when: When,
        grids: Grids | None = None,
    ) -> MappedBilinear:
        """Learn the quantiles of both; pairs need not belong together."""
        self.grids = grids or Blocks.of(coarse, fine)
        self.fitted = deepcopy(self.map).fit(self.grids.up(first(coarse)), fine)
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time *channel Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """The same for all members."""
        return same_for_all(self.fitted(self.grids.up(first(coarse))), members)


@dataclass(eq=False)
class Dressed(Baseline):
    """Another baseline and, at each point independently, one of its errors there on days that were left out of its fit.

    An error is drawn from the training times whose predictions at that point are nearest in rank to the one at hand, so that rain
    has those of rain; nothing falls below the least true value of training.

    Args:
        baseline: what is dressed.
        share: of the training times, from whose errors one is drawn; at least 20 of them.
    """

    baseline: Baseline
    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"Dressed needs a share within (0, 1], not {self.share}.")
        self.same_quantity = self.baseline.same_quantity

    def fit(
        self,
        coarse: Num[np.ndarray, "time *channel Y X"],
        fine: Num[np.ndarray, "time y x"],
        when: When,
        grids: Grids | None = None,
    ) -> Dressed:
        """Fit without each fifth of the days, then with all."""
        folds, predicted = folds_of(when.day), np.full(fine.shape, np.nan)
        for out in folds or [np.ones(len(fine), bool)]:
            inside = ~out if folds else out
            base = deepcopy(self.baseline).fit(
                coarse[inside], fine[inside], When(*(part[inside] for part in when)), grids
            )
            predicted[out] = base.draw(coarse[out], 1, 0, When(*(part[out] for part in when)))[0]
        self.least = np.nanmin(fine, initial=np.inf)
        errors = fine - predicted
        predicted[np.isnan(errors)] = np.nan
        order = np.argsort(predicted, 0, kind="stable")  # NaN come last
        self.predicted, self.errors = (np.take_along_axis(x, order, 0) for x in (predicted, errors))
        self.known = np.isfinite(self.predicted).sum(0)
        self.base = deepcopy(self.baseline).fit(coarse, fine, when, grids)
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time *channel Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """Independent errors for each point, member and time."""
        found = self.base.draw(coarse, members, seed, when)
        width = np.minimum(np.maximum(20, np.ceil(self.share * self.known)), self.known)
        for time in range(found.shape[1]):
            below, upto = ((compare(self.predicted, found[0, time])).sum(0) for compare in (np.less, np.less_equal))
            for member in range(members):
                chance = generator_of(seed, member, time).random((2, *self.known.shape))
                rank = below + chance[0] * np.maximum(upto - below, 1)
                begin = np.clip(np.rint(rank - width / 2), 0, self.known - width)
                place = np.clip((begin + chance[1] * width).astype(int), 0, np.maximum(self.known - 1, 0))
                found[member, time] += np.take_along_axis(self.errors, place[None], 0)[0].astype(np.float32)
        return np.maximum(found, np.float32(self.least))
