"""What every baseline can do: learn from pairs of coarse and fine fields, and draw fine fields for coarse ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from scorefield.climate.baselines.grids import Grids
from scorefield.foundation.random import sequence

FOLDS = 5  # of whole days


class When(NamedTuple):
    """When each field is: what some baselines know beside it. Zeros where nobody knows.

    Args:
        hour: of the day.
        day: number of the day since some first one; days are left out together where errors are estimated.
    """

    hour: Int[np.ndarray, " time"]
    day: Int[np.ndarray, " time"]

    @classmethod
    def unknown(cls, n: int) -> When:
        """Of n fields without dates: each is its own day."""
        return cls(np.zeros(n, int), np.arange(n))


class Baseline(ABC):
    """A map from coarse to fine fields. It is fitted once.

    Attributes:
        same_quantity: whether coarse values are taken for values of the fine variable, so that units have to be the same.
    """

    same_quantity = True

    @abstractmethod
    def fit(
        self,
        coarse: Num[np.ndarray, "time *channel Y X"],
        fine: Num[np.ndarray, "time y x"],
        when: When,
        grids: Grids | None = None,
    ) -> Baseline:
        """Learn from pairs.

        Args:
            coarse: fields of the driving model, of one variable or of several, the first of which is that of the truth.
            fine: what they belong to. Both may have NaN; points that are never known get NaN.
            when: the times.
            grids: how fields come from one grid to the other; by default the fine one divides the coarse one evenly.
        """

    @abstractmethod
    def draw(
        self, coarse: Num[np.ndarray, "time *channel Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """Fine fields for coarse ones. Member m at time t depends on seed, m and t alone; without chance all members are equal.

        Args:
            coarse: fields of the driving model.
            members: how many fine fields for each.
            seed: of their chance.
            when: the times.
        """


def first(coarse: Num[np.ndarray, "time *channel Y X"]) -> Num[np.ndarray, "time Y X"]:
    """The first of several variables."""
    return coarse if coarse.ndim == 3 else coarse[:, 0]


def folds_of(day: Int[np.ndarray, " time"]) -> list[np.ndarray]:
    """Which times to leave out together, whole days, in up to FOLDS turns; none where there is a single day."""
    fold = np.unique(day, return_inverse=True)[1] % FOLDS
    return [fold == k for k in range(FOLDS) if (fold == k).any() and not (fold == k).all()]


def mean_of(x: Num[np.ndarray, "time *box"]) -> Float[np.ndarray, "*box"]:
    """The mean over the times that are known; NaN where none is."""
    known = np.isfinite(x)
    with np.errstate(invalid="ignore"):
        return np.where(known, x, 0.0).sum(0, dtype=float) / known.sum(0)


def generator_of(seed: int, member: int, time: int) -> np.random.Generator:
    """The chance of one member at one time."""
    return np.random.Generator(np.random.SFC64(sequence(seed, member, time)))


def same_for_all(fine: Num[np.ndarray, "time y x"], members: int) -> Float[np.ndarray, "members time y x"]:
    """Members of a baseline without chance."""
    return np.broadcast_to(fine.astype(np.float32), (members, *fine.shape)).copy()
