"""Kernel distance: squared maximum mean discrepancy of features under a cubic kernel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.foundation.errors import InputError

SUBSETS, SIZE = 100, 1000  # customary


class KernelDistance(NamedTuple):
    """A kernel distance and what it was computed from.

    Args:
        distance: the mean over subsets; unbiased, so slightly below 0 for some sets of the same law.
        std: over the subsets, which overlap: the spread of one, not of the mean; NaN for a single one.
        subsets: their number.
        size: features of each set in a subset.
    """

    distance: float
    std: float
    subsets: int
    size: int


def kernel_distance(
    first: Float[Tensor, "n dim"],
    second: Float[Tensor, "m dim"],
    *,
    subsets: int = SUBSETS,
    size: int = SIZE,
    seed: int = 0,
) -> KernelDistance:
    """KID (Bińkowski et al. 2018, section 4): the unbiased MMD² with k(x, y) = (xᵀy/dim + 1)³, averaged over random subsets.

    MMD² = Σ_{i≠j} [k(xᵢ, xⱼ) + k(yᵢ, yⱼ)]/(s(s-1)) - 2 Σ_{ij} k(xᵢ, yⱼ)/s² for s of each. The subsets are the same for the same
    seed and numbers. Where s is not below n and m, the first s = min(n, m) of each are compared, once.
    """
    if first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise InputError(
            f"The kernel distance needs two sets of the same features, at least two of each, not {shapes}."
        )
    least = min(len(first), len(second))
    if size >= least:
        value = discrepancy(first[:least].double(), second[:least].double())
        return KernelDistance(value, float("nan"), 1, least)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        x, y = (part[torch.randperm(len(part), generator=generator)[:size]].double() for part in (first, second))
        values.append(discrepancy(x, y))
    found = torch.tensor(values, dtype=torch.float64)
    return KernelDistance(float(found.mean()), float(found.std()), subsets, size)


def discrepancy(x: Float[Tensor, "s dim"], y: Float[Tensor, "s dim"]) -> float:
    """The unbiased estimate of MMD² from two sets of equal size."""
    s = len(x)
    within = sum(kernel(part, part).fill_diagonal_(0).sum() for part in (x, y))
    return float(within / (s * (s - 1)) - 2 * kernel(x, y).mean())


def kernel(x: Float[Tensor, "n dim"], y: Float[Tensor, "m dim"]) -> Float[Tensor, "n m"]:
    """(xᵀy/dim + 1)³."""
    return (x @ y.T / x.shape[1] + 1) ** 3
