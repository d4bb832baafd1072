"""Ridge regression of every fine point on the whole coarse field and the hour, with or without its errors drawn again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from scorefield.climate.baselines.baseline import Baseline, When, generator_of, same_for_all
from scorefield.climate.grid import factor_between

PENALTIES = tuple(10.0**k for k in range(-3, 5))
FOLDS = 5  # of whole days


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

    def fit(self, coarse: Num[np.ndarray, "time Y X"], fine: Num[np.ndarray, "time y x"], when: When) -> Ridge:
        """Solve for all points at once."""
        factor_between(coarse.shape, fine.shape)
        self.shape = fine.shape[1:]
        flat = coarse.reshape(len(coarse), -1).astype(float)
        self.shift, self.scale = flat.mean(0), np.maximum(flat.std(0), 1e-12)
        self.hours = np.unique(when.hour)
        x, y = self._predictors(coarse, when), fine.reshape(len(fine), -1).astype(float)
        self.mean_x, self.mean_y = x.mean(0), y.mean(0)
        fold = np.unique(when.day, return_inverse=True)[1] % FOLDS
        folds = [fold == k for k in range(FOLDS) if (fold == k).any() and not (fold == k).all()]
        penalties = PENALTIES if self.penalty is None else (self.penalty,)
        self.left_out = {penalty: self._errors(x, y, folds, penalty) for penalty in penalties} if folds else {}
        losses = {penalty: float(np.square(error).mean()) for penalty, error in self.left_out.items()}
        self.chosen = min(losses, key=losses.__getitem__) if losses else penalties[0]
        self.coefficients = _solve(x - self.mean_x, y - self.mean_y, self.chosen)
        self.errors = self.left_out.get(self.chosen, y - self._apply(x)).astype(np.float32)
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """The same for all members."""
        fine = self._apply(self._predictors(coarse, when))
        return same_for_all(fine.reshape(-1, *self.shape), members)

    def _predictors(self, coarse: np.ndarray, when: When) -> np.ndarray:
        flat = (coarse.reshape(len(coarse), -1) - self.shift) / self.scale
        return np.concatenate((flat, when.hour[:, None] == self.hours), 1)

    def _apply(self, x: np.ndarray) -> np.ndarray:
        return self.mean_y + (x - self.mean_x) @ self.coefficients

    def _errors(self, x: np.ndarray, y: np.ndarray, folds: list[np.ndarray], penalty: float) -> np.ndarray:
        """Errors of every time by a fit without its fold."""
        errors = np.empty_like(y)
        for out in folds:
            mean_x, mean_y = x[~out].mean(0), y[~out].mean(0)
            coefficients = _solve(x[~out] - mean_x, y[~out] - mean_y, penalty)
            errors[out] = y[out] - mean_y - (x[out] - mean_x) @ coefficients
        return errors


def _solve(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)


@dataclass(eq=False)
class DressedRidge(Baseline):
    """Ridge and, at each point independently, one of its errors there on training days that were left out of the fit.

    The law of each point is about right; errors of neighbours, which belong together in truth, do not.

    Args:
        penalty: as of `Ridge`.
    """

    same_quantity = False

    penalty: float | None = None

    def fit(self, coarse: Num[np.ndarray, "time Y X"], fine: Num[np.ndarray, "time y x"], when: When) -> DressedRidge:
        """Of the regression."""
        self.ridge = Ridge(self.penalty).fit(coarse, fine, when)
        return self

    def draw(
        self, coarse: Num[np.ndarray, "time Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """Independent errors for each point, member and time."""
        found = self.ridge.draw(coarse, members, seed, when)
        errors = self.ridge.errors.reshape(-1, *self.ridge.shape)
        rows, columns = np.indices(self.ridge.shape)
        for member in range(members):
            for time in range(len(coarse)):
                chosen = generator_of(seed, member, time).integers(len(errors), size=self.ridge.shape)
                found[member, time] += errors[chosen, rows, columns]
        return found
