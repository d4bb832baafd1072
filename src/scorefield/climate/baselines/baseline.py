"""What every baseline can do: learn from pairs of coarse and fine fields, and draw fine fields for coarse ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from scorefield.foundation.errors import InputError
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


def factor_between(coarse: tuple[int, ...], fine: tuple[int, ...]) -> tuple[int, int]:
    """How many fine boxes lie in a coarse one, along y and x, from the last two sizes of each."""
    factors = fine[-2] // coarse[-2], fine[-1] // coarse[-1]
    if min(factors) < 1 or (coarse[-2] * factors[0], coarse[-1] * factors[1]) != tuple(fine[-2:]):
        raise InputError(
            f"A grid of {coarse[-2]}×{coarse[-1]} boxes does not divide one of {fine[-2]}×{fine[-1]} evenly: crop the fine one, "
            "or bring the coarse one onto a grid that does."
        )
    return factors


def block_mean(
    fine: Num[np.ndarray, "*batch y x"], factor: tuple[int, int], area: Num[np.ndarray, "y x"] | None = None
) -> np.ndarray:
    """The mean over each block of boxes, by area: what a fine field is on the coarse grid.

    Args:
        fine: fields.
        factor: boxes of a block along y and x.
        area: relative areas; equal by default.
    """
    area = np.ones(fine.shape[-2:]) if area is None else area
    factor_between((fine.shape[-2] // factor[0], fine.shape[-1] // factor[1]), fine.shape)

    def blocks(x: np.ndarray) -> np.ndarray:
        y, x_ = x.shape[-2] // factor[0], x.shape[-1] // factor[1]
        return x.reshape(*x.shape[:-2], y, factor[0], x_, factor[1]).sum((-3, -1), dtype=float)

    return blocks(fine * area) / blocks(area)


def bilinear(coarse: Num[np.ndarray, "time Y X"], factor: tuple[int, int]) -> Float[np.ndarray, "time y x"]:
    """Bilinear interpolation from the centres of coarse boxes to those of fine ones; constant beyond the outermost centres."""
    import torch
    from torch.nn.functional import interpolate

    x = torch.from_numpy(np.ascontiguousarray(coarse, np.float32))[:, None]
    size = (x.shape[-2] * factor[0], x.shape[-1] * factor[1])
    return interpolate(x, size=size, mode="bilinear", align_corners=False)[:, 0].numpy()
