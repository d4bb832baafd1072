"""Quantile mapping: replace each value by the one that is as rare in the truth."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from jaxtyping import Float, Num

from scorefield.foundation.errors import InputError


@dataclass(eq=False)
class QuantileMap:
    """In each grid box, the map that takes quantiles of one law to those of another (Panofsky and Brier 1968).

    Between quantiles it is linear. Beyond the outermost ones of the training period it goes on with their correction: a
    constant, or for `ratio` a constant factor.

    Args:
        levels: number of quantiles, at most as many as there are values.
        ratio: go on with a factor, as for precipitation.
        wet: if given, values below are dry. Where the source is wet more often than the truth, its smallest wet values become
            dry, so that both are wet equally often; where it is dry more often, dry values stay dry. Only wet ones are mapped.
    """

    levels: int = 100
    _: KW_ONLY
    ratio: bool = False
    wet: float | None = None

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise InputError(f"A quantile map needs at least 2 levels, not {self.levels}.")

    def fit(self, source: Num[np.ndarray, "n *box"], truth: Num[np.ndarray, "m *box"]) -> QuantileMap:
        """Learn from values of the same period; they need not belong together in pairs.

        Args:
            source: values to be mapped, such as members and times in one dimension. NaN are left out, in each box by itself.
            truth: values that they should be like; likewise. A box without any is mapped to NaN, as NaN are.
        """
        self.box = source.shape[1:]
        if truth.shape[1:] != self.box:
            raise InputError(f"A quantile map needs one grid, not {source.shape[1:]} and {truth.shape[1:]}.")
        source, truth = (np.sort(x.reshape(len(x), -1).astype(float), 0) for x in (source, truth))  # NaN come last
        pairs = zip(source.T, truth.T, strict=True)
        self.tables = [self._table(s[np.isfinite(s)], t[np.isfinite(t)]) for s, t in pairs]
        return self

    def _table(self, source: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Quantiles of one box of both, and from where on the source is wet; NaN where one of both is never known."""
        if not (len(source) and len(truth)):
            return np.full(1, np.nan), np.full(1, np.nan), -np.inf
        threshold = -np.inf
        if self.wet is not None:
            share = float((truth >= self.wet).mean())
            threshold = max(self.wet, float(np.quantile(source, 1 - share, method="higher"))) if share > 0 else np.inf
            source, truth = source[source >= threshold], truth[truth >= self.wet]
            if not len(source):
                return np.zeros(1), np.zeros(1), np.inf
        levels = np.linspace(0, 1, min(self.levels, len(source), len(truth)))
        ours, theirs = np.quantile(source, levels), np.quantile(truth, levels)
        distinct, first = np.unique(ours, return_index=True)
        last = len(ours) - 1 - np.unique(ours[::-1], return_index=True)[1]
        return (
            distinct,
            (theirs[first] + theirs[last]) / 2,
            threshold,
        )  # an atom goes to the middle of what it stands for

    def __call__(self, values: Num[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """Map values whose last dimensions are those of the boxes."""
        shape = values.shape
        flat = values.reshape(-1, len(self.tables)).astype(float)
        mapped = np.stack([self._map(x, *table) for x, table in zip(flat.T, self.tables, strict=True)], 1)
        return mapped.reshape(shape).astype(np.float32)

    def _map(self, x: np.ndarray, ours: np.ndarray, theirs: np.ndarray, threshold: float) -> np.ndarray:
        found = np.interp(x, ours, theirs)
        for beyond, end in ((x < ours[0], 0), (x > ours[-1], -1)):
            if self.ratio and ours[end] > 0:
                found[beyond] = x[beyond] * (theirs[end] / ours[end])
            else:
                found[beyond] = x[beyond] + (theirs[end] - ours[end])
        return np.where((x >= threshold) | np.isnan(x), found, 0.0)
