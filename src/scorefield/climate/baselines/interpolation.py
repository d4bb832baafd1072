"""Bilinear interpolation: as it is, with the mean error of each hour added, or dressed with chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from scorefield.climate.baselines.baseline import Baseline, When, first, generator_of, mean_of, same_for_all
from scorefield.climate.baselines.grids import Blocks, Grids
from scorefield.foundation.errors import InputError


@dataclass(eq=False)
class Bilinear(Baseline):
    """Bilinear interpolation between the centres of the coarse boxes."""

    def fit(
        self,
        coarse: Num[np.ndarray, "time *channel Y X"],
        fine: Num[np.ndarray, "time y x"],
        when: When,
        grids: Grids | None = None,
    ) -> Bilinear:
        """Only how the grids lie."""
        self.grids = grids or Blocks.of(coarse, fine)
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time *channel Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """The same for all members."""
        return same_for_all(self.grids.up(first(coarse)), members)


@dataclass(eq=False)
class HourlyResidual(Baseline):
    """Bilinear interpolation and, at each point, its mean error at that hour of the day."""

    def fit(
        self,
        coarse: Num[np.ndarray, "time *channel Y X"],
        fine: Num[np.ndarray, "time y x"],
        when: When,
        grids: Grids | None = None,
    ) -> HourlyResidual:
        """A map of mean errors for each hour that occurs, and one of all hours for others."""
        self.grids = grids or Blocks.of(coarse, fine)
        error = fine - self.grids.up(first(coarse))
        self.mean = mean_of(error)
        hours = {int(hour): mean_of(error[when.hour == hour]) for hour in np.unique(when.hour)}
        self.hours = {hour: np.where(np.isnan(mean), self.mean, mean) for hour, mean in hours.items()}
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time *channel Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """The same for all members."""
        error = np.stack([self.hours.get(int(hour), self.mean) for hour in when.hour])
        return same_for_all(self.grids.up(first(coarse)) + error, members)


@dataclass(eq=False)
class DressedBilinear(Baseline):
    """At each point a draw from the true values of all training points whose bilinear value lay in the same bin.

    The points are drawn independently: the law of each is about right, the field is not. Values up to `dry`, of which rain has
    many, have a bin of their own.

    Args:
        bins: as many, equally full.
        dry: largest bilinear value of the bin of dry points.
    """

    same_quantity = False

    bins: int = 100
    dry: float = 1e-3

    def fit(
        self,
        coarse: Num[np.ndarray, "time *channel Y X"],
        fine: Num[np.ndarray, "time y x"],
        when: When,
        grids: Grids | None = None,
    ) -> DressedBilinear:
        """Sort the true values by bins."""
        self.grids = grids or Blocks.of(coarse, fine)
        smooth = self.grids.up(first(coarse)).ravel()
        known = np.isfinite(smooth) & np.isfinite(fine.ravel())
        smooth, true = smooth[known], fine.ravel()[known]
        if not len(true):
            raise InputError("DressedBilinear has no time at which predictors and truth are both known.")
        above = smooth[smooth > self.dry] if (smooth <= self.dry).any() else smooth
        inner = np.unique(np.quantile(above, np.linspace(0, 1, self.bins + 1)[1:-1])) if len(above) else np.empty(0)
        self.edges = np.unique(np.concatenate(([self.dry] if len(above) < len(smooth) else [], inner))).astype(
            np.float32
        )
        place = np.searchsorted(self.edges, smooth, side="left")
        order = np.argsort(place, kind="stable")
        self.values = true[order].astype(np.float32)
        self.counts = np.bincount(place, minlength=len(self.edges) + 1)
        self.first = np.cumsum(self.counts) - self.counts
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time *channel Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """Independent draws for each point, member and time."""
        place = np.searchsorted(self.edges, self.grids.up(first(coarse)), side="left")
        count, begin = np.maximum(self.counts[place], 1), self.first[place]
        found = np.empty((members, *place.shape), np.float32)
        for member in range(members):
            for time in range(len(place)):
                chance = generator_of(seed, member, time).random(place.shape[1:])
                found[member, time] = self.values[begin[time] + (chance * count[time]).astype(int)]
        return found
