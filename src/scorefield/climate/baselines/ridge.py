"""Ridge regression of every fine point on the whole coarse field and the hour, with or without its errors drawn again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from scorefield.climate.baselines.baseline import Baseline, When, folds_of, generator_of, mean_of, same_for_all
from scorefield.climate.baselines.grids import Grids

PENALTIES = tuple(10.0**k for k in range(-3, 5))


@dataclass(eq=False)
class Ridge(Baseline):
    """At each fine point a linear function of all coarse values and of the hour of the day; one penalty for all points.

    The coarse values are standardised; the hour comes in as one indicator for each that occurs. The penalty is that with the
    least squared error on days left out in turn.

    Args:
        penalty: on squared coefficients; by default chosen among powers of ten.
    """

    same_quantity = False

    penalty: float | None = None

    def fit(
        self,
        coarse: Num[np.ndarray, "time *channel Y X"],
        fine: Num[np.ndarray, "time y x"],
        when: When,
        grids: Grids | None = None,
    ) -> Ridge:
        """Solve for all points at once that are known at the same times."""
        self.shape = fine.shape[1:]
        flat = coarse.reshape(len(coarse), -1).astype(float)
        self.kept = np.isfinite(flat).any(0)
        self.shift = mean_of(flat)
        self.scale = np.maximum(np.sqrt(mean_of((flat - self.shift) ** 2)), 1e-12)
        self.hours = np.unique(when.hour)
        x, y = self._predictors(coarse, when), fine.reshape(len(fine), -1).astype(float)
        folds = folds_of(when.day)
        penalties = PENALTIES if self.penalty is None else (self.penalty,)
        self.left_out = {penalty: self._errors(x, y, folds, penalty) for penalty in penalties} if folds else {}
        losses = {penalty: float(np.nanmean(np.square(error))) for penalty, error in self.left_out.items()}
        self.chosen = min(losses, key=losses.__getitem__) if losses else penalties[0]
        self.coefficients = _solve(x, y, self.chosen)
        self.errors = self.left_out.get(self.chosen, y - self._apply(x)).astype(np.float32)
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time *channel Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """The same for all members."""
        fine = self._apply(self._predictors(coarse, when))
        return same_for_all(fine.reshape(-1, *self.shape), members)

    def _predictors(self, coarse: np.ndarray, when: When) -> np.ndarray:
        flat = (coarse.reshape(len(coarse), -1)[:, self.kept] - self.shift[self.kept]) / self.scale[self.kept]
        # What is unknown is taken for the mean, which says nothing.
        return np.concatenate((np.where(np.isfinite(flat), flat, 0.0), when.hour[:, None] == self.hours), 1)

    def _apply(self, x: np.ndarray) -> np.ndarray:
        return np.concatenate((x, np.ones((len(x), 1))), 1) @ self.coefficients

    def _errors(self, x: np.ndarray, y: np.ndarray, folds: list[np.ndarray], penalty: float) -> np.ndarray:
        """Errors of every time by a fit without its fold."""
        errors = np.empty_like(y)
        for out in folds:
            errors[out] = y[out] - np.concatenate((x[out], np.ones((out.sum(), 1))), 1) @ _solve(
                x[~out], y[~out], penalty
            )
        return errors


def _solve(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Coefficients (predictors + 1, points), the last of them the intercept, which has no penalty; NaN for points never known."""
    found = np.full((x.shape[1] + 1, y.shape[1]), np.nan)
    patterns, which = np.unique(np.packbits(np.isfinite(y), axis=0), axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        points = (which.ravel() == number).nonzero()[0]
        times = np.isfinite(y[:, points[0]])
        if not times.any():
            continue
        mean_x, part = x[times].mean(0), y[np.ix_(times, points)]
        centred, rest = x[times] - mean_x, part - part.mean(0)
        few = len(rest) < x.shape[1]  # (XᵀX + λ)⁻¹Xᵀ = Xᵀ(XXᵀ + λ)⁻¹: the smaller of the two is solved
        gram = centred @ centred.T if few else centred.T @ centred
        gram = gram + penalty * np.eye(len(gram))
        slope = centred.T @ np.linalg.solve(gram, rest) if few else np.linalg.solve(gram, centred.T @ rest)
        found[:-1, points], found[-1, points] = slope, part.mean(0) - mean_x @ slope
    return found


@dataclass(eq=False)
class DressedRidge(Baseline):
    """Ridge and, at each point independently, one of its errors there on training days that were left out of the fit.

    The law of each point is about right; errors of neighbours, which belong together in truth, do not.

    Args:
        penalty: as of `Ridge`.
    """

    same_quantity = False

    penalty: float | None = None

    def fit(
        self,
        coarse: Num[np.ndarray, "time *channel Y X"],
        fine: Num[np.ndarray, "time y x"],
        when: When,
        grids: Grids | None = None,
    ) -> DressedRidge:
        """Of the regression."""
        self.ridge = Ridge(self.penalty).fit(coarse, fine, when, grids)
        # Errors that are known come first, at each point; the others are never drawn.
        self.errors = np.sort(self.ridge.errors, 0) if np.isnan(self.ridge.errors).any() else self.ridge.errors
        self.known = np.isfinite(self.errors).sum(0).reshape(self.ridge.shape)
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time *channel Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """Independent errors for each point, member and time."""
        found = self.ridge.draw(coarse, members, seed, when)
        errors = self.errors.reshape(-1, *self.ridge.shape)
        rows, columns = np.indices(self.ridge.shape)
        for member in range(members):
            for time in range(len(coarse)):
                chosen = generator_of(seed, member, time).integers(np.maximum(self.known, 1), size=self.ridge.shape)
                found[member, time] += errors[chosen, rows, columns]
        return found
