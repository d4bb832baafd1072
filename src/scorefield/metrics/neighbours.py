"""Nearest neighbours tell whether samples differ from data, and whether they are copies of the training data."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.foundation.errors import InputError

BLOCK = 2**23  # distances held at once: 64 MiB


class TwoSample(NamedTuple):
    """Leave-one-out accuracy of the nearest-neighbour two-sample test.

    Args:
        accuracy: the mean of both; 1/2 for the same law, 1 for laws that can be told apart, below 1/2 for copies.
        first: the fraction of the first set whose nearest neighbour is of the first set.
        second: the same for the second set.
        n: the number of samples in each set.
        standard_error: of the accuracy if the laws are the same, at most: 1/√(4n), as if all neighbours were mutual.
    """

    accuracy: float
    first: float
    second: float
    n: int
    standard_error: float


class Memorisation(NamedTuple):
    """How much nearer generated samples are to the training data than held-out data are: 1 if not at all, 0 for copies.

    Args:
        mean: the ratio of the mean distances to the nearest training sample, generated over held out.
        median: the ratio of the median distances.
        closer: the fraction of generated samples nearer to the training data than every held-out sample.
        n_generated: the number of generated samples.
        n_held_out: the number of held-out samples.
        n_train: the number of training samples.
    """

    mean: float
    median: float
    closer: float
    n_generated: int
    n_held_out: int
    n_train: int


def two_sample_accuracy(first: Tensor, second: Tensor) -> TwoSample:
    """Leave-one-out 1-nearest-neighbour two-sample test (Lopez-Paz and Oquab 2017; Xu et al. 2018, section 3).

    Each sample is assigned to the set that its nearest other sample is in, by Euclidean distance. A sample that is
    equally near to both sets counts as half right. Sets of unequal size, for which 1/2 would not mean equal laws, raise
    InputError.

    Args:
        first: (n, ...), such as data.
        second: (n, ...), such as samples.
    """
    if first.shape != second.shape or len(first) < 2:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise InputError(
            f"The two-sample test needs sets of equal size, not {shapes}: take the first n of each, n > 1."
        )
    within = [nearest(own, own, itself=False) for own in (first, second)]
    across = [nearest(first, second), nearest(second, first)]
    right, other = (
        float((own < far).double().mean() + 0.5 * (own == far).double().mean())
        for own, far in zip(within, across, strict=True)
    )
    n = len(first)
    return TwoSample((right + other) / 2, right, other, n, (4 * n) ** -0.5)


def memorisation_ratio(generated: Tensor, held_out: Tensor, train: Tensor) -> Memorisation:
    """Compare the distances of generated and of held-out samples to their nearest training samples.

    Args:
        generated: (n, ...).
        held_out: (m, ...), data of the same law that were not trained on.
        train: (k, ...), all of the training data.
    """
    if not (len(generated) and len(held_out) and len(train)):
        raise InputError("The memorisation ratio needs generated, held-out and training samples: one set is empty.")
    near, usual = nearest(generated, train), nearest(held_out, train)
    if usual.median() == 0:
        raise InputError("Most held-out samples are copies of training samples: hold out others.")
    return Memorisation(
        mean=float(near.mean() / usual.mean()),
        median=float(near.median() / usual.median()),
        closer=float((near < usual.min()).double().mean()),
        n_generated=len(generated),
        n_held_out=len(held_out),
        n_train=len(train),
    )


def nearest(x: Tensor, others: Tensor, *, itself: bool = True) -> Float[Tensor, " n"]:
    """The Euclidean distance (float64) of each x to the nearest of others, in blocks.

    A product of matrices finds the nearest one, whose distance is then computed directly, hence exactly 0 for a copy.

    Args:
        x: (n, ...).
        others: (m, ...).
        itself: whether others[i] may be the nearest of x[i]; False where the two sets are one.
    """
    x, others = x.flatten(1).double(), others.flatten(1).double()
    centre = others.mean(0)
    points, half = others - centre, 0.5 * (others - centre).square().sum(1)
    found = []
    rows = max(1, BLOCK // len(others))
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        rank = torch.addmm(half, part - centre, points.T, alpha=-1)  # half the squared distance, less |x|²/2
        if not itself:
            rank[torch.arange(len(part)), torch.arange(start, start + len(part))] = torch.inf
        found.append((part - others[rank.argmin(1)]).square().sum(1).sqrt())
    return torch.cat(found)
