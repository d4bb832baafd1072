"""Whether members, averaged over the boxes of the driving grid, are what they were driven with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Num

from scorefield.climate.grid import factor_between
from scorefield.climate.regrid import block_mean
from scorefield.climate.verification.pair import Pair

VALUES = 2**22  # read at once


class Moments:
    """Sums from which a correlation and an error follow."""

    def __init__(self) -> None:
        self.sums = np.zeros(6)

    def add(self, one: Num[np.ndarray, " n"], other: Num[np.ndarray, " n"]) -> None:
        """More values of both."""
        self.sums += [len(one), one.sum(), other.sum(), (one * one).sum(), (other * other).sum(), (one * other).sum()]

    @property
    def correlation(self) -> float:
        """Pearson's."""
        n, x, y, xx, yy, xy = self.sums
        return float((n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y)))

    @property
    def rmse(self) -> float:
        """Root mean square of the differences."""
        n, _, _, xx, yy, xy = self.sums
        return float(np.sqrt(max(xx + yy - 2 * xy, 0) / n))


def consistency(pair: Pair, name: str, coarse: Num[np.ndarray, "time Y X"]) -> Mapping[str, float]:
    """Compare the area means of every member with the driving field, over all coarse boxes and times.

    Args:
        pair: predictions beside the truth.
        name: of the variable.
        coarse: the driving field, in the units of the variable, on a grid whose boxes the fine ones divide evenly.

    Returns:
        Mean and lowest correlation over members, their mean root mean square difference, and the correlation of the truth.
    """
    factor = factor_between(coarse.shape, pair.area.shape)
    members, truth = [Moments() for _ in range(pair.members)], Moments()
    chunk = max(1, VALUES // (pair.area.size * (pair.members + 1)))
    for first in range(0, len(coarse), chunk):
        part = slice(first, first + chunk)
        ours, theirs = pair.at(name, time=part)
        for moments, fields in zip([*members, truth], [*ours, theirs], strict=True):
            means = block_mean(fields, factor, pair.area)
            known = np.isfinite(means) & np.isfinite(coarse[part])
            moments.add(means[known], coarse[part][known].astype(float))
    correlations = [one.correlation for one in members]
    return {
        "correlation": float(np.mean(correlations)),
        "lowest_correlation": min(correlations),
        "rmse": float(np.mean([one.rmse for one in members])),
        "correlation_truth": truth.correlation,
    }
