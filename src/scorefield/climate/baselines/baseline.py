"""What every baseline can do: learn from pairs of coarse and fine fields, and draw fine fields for coarse ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from scorefield.foundation.random import sequence


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
    def fit(self, coarse: Num[np.ndarray, "time Y X"], fine: Num[np.ndarray, "time y x"], when: When) -> Baseline:
        """Learn from pairs.

        Args:
            coarse: fields of the driving model, without NaN.
            fine: what they belong to, without NaN.
            when: the times.
        """

    @abstractmethod
    def draw(
        self, coarse: Num[np.ndarray, "time Y X"], members: int, seed: int, when: When
    ) -> Float[np.ndarray, "members time y x"]:
        """Fine fields for coarse ones. Member m at time t depends on seed, m and t alone; without chance all members are equal.

        Args:
            coarse: fields of the driving model.
            members: how many fine fields for each.
            seed: of their chance.
            when: the times.
        """


def generator_of(seed: int, member: int, time: int) -> np.random.Generator:
    """The chance of one member at one time."""
    return np.random.Generator(np.random.SFC64(sequence(seed, member, time)))


def same_for_all(fine: Num[np.ndarray, "time y x"], members: int) -> Float[np.ndarray, "members time y x"]:
    """Members of a baseline without chance."""
    return np.broadcast_to(fine.astype(np.float32), (members, *fine.shape)).copy()
