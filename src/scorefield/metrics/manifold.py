"""Precision, recall, density and coverage: whether samples lie where data do, and data where samples do."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.metrics.neighbours import BLOCK

PRECISION_K, DENSITY_K = 3, 5  # as the papers have it


class Manifold(NamedTuple):
    """How two sets lie to each other.

    Args:
        precision: the fraction of samples within some ball around a datum.
        recall: the fraction of data within some ball around a sample.
        density: in how many balls around data a sample lies, over k; about 1 for equal laws, not bounded.
        coverage: the fraction of data whose own ball holds a sample.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(
    data: Float[Tensor, "n dim"],
    samples: Float[Tensor, "m dim"],
    *,
    precision_k: int = PRECISION_K,
    density_k: int = DENSITY_K,
) -> Manifold:
    """Precision and recall (Kynkäänniemi et al. 2019, eqs. 1-3); density and coverage (Naeem et al. 2020, eqs. 5 and 7).

    The ball of a point reaches to its k-th nearest other point of the same set, border included. All four depend on n, m and k:
    compare at equal numbers only.

    Args:
        data: features of data.
        samples: features of samples.
        precision_k: k of precision and recall.
        density_k: k of density and coverage.
    """
    most = max(precision_k, density_k)
    if data.shape[1] != samples.shape[1] or min(len(data), len(samples)) <= most or min(precision_k, density_k) < 1:
        shapes = f"{tuple(data.shape)} and {tuple(samples.shape)}"
        raise InputError(
            f"{most} nearest neighbours need two sets of the same features, more than {most} of each, not {shapes}."
        )
    centre = data.double().mean(0)  # distances by products of matrices lose digits far from the origin
    data, samples = data.double() - centre, samples.double() - centre
    near_data, far_data = radii(data, (precision_k, density_k))
    (near_samples,) = radii(samples, (precision_k,))
    inside, balls, nearest = [], [], torch.full((len(data),), torch.inf, dtype=data.dtype)
    recalled = torch.zeros(len(data), dtype=torch.bool)
    rows = max(1, BLOCK // len(data))
    for part, radius in zip(samples.split(rows), near_samples.split(rows), strict=True):
        distance = squared(part, data)
        inside.append((distance <= near_data).any(1))
        balls.append((distance <= far_data).sum(1))
        recalled |= (distance <= radius[:, None]).any(0)
        nearest = torch.minimum(nearest, distance.amin(0))
    return Manifold(
        precision=float(torch.cat(inside).double().mean()),
        recall=float(recalled.double().mean()),
        density=float(torch.cat(balls).double().mean() / density_k),
        coverage=float((nearest <= far_data).double().mean()),
    )


def radii(x: Float[Tensor, "n dim"], ks: tuple[int, ...]) -> list[Float[Tensor, " n"]]:
    """The squared distances from each point to its k-th nearest other point, for several k."""
    found = []
    rows = max(1, BLOCK // len(x))
    for start in range(0, len(x), rows):
        distance = squared(x[start : start + rows], x)
        own = torch.arange(len(distance))
        distance[own, start + own] = torch.inf
        found.append(distance.topk(max(ks), largest=False).values)
    values = torch.cat(found)
    return [values[:, k - 1] for k in ks]


def squared(x: Float[Tensor, "n dim"], y: Float[Tensor, "m dim"]) -> Float[Tensor, "n m"]:
    """Squared Euclidean distances."""
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp_(min=0)
