"""The figures that two sets of features give, and how the Fréchet distance depends on the number of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.metrics.frechet import Moments, frechet_distance
from scorefield.metrics.kernel import kernel_distance
from scorefield.metrics.manifold import DENSITY_K, manifold
from scorefield.metrics.statistics import Statistics

LEVELS = 6  # of a curve, each of half the number
SUBSETS = 4  # disjoint ones at each number, at most


def figures(samples: Statistics, reference: Statistics, *, customary: bool = True) -> dict[str, float]:
    """Fréchet distance of all; kernel distance, precision, recall, density and coverage of equally many kept; Inception score.

    What a set does not have, kept features or classes, gives no figures.

    Args:
        samples: of the samples.
        reference: of the data.
        customary: whether the kernel distance is of the features as they are; otherwise less the mean of the data's and divided
            by their standard deviation, one for all: a cubic kernel means nothing for features in any units.
    """
    row = {"fréchet": frechet_distance(samples.moments, reference.moments)}
    kept = min(len(samples.vectors), len(reference.vectors))
    if kept > DENSITY_K:
        first, second = samples.vectors[:kept], reference.vectors[:kept]
        shift, scale = (0.0, 1.0) if customary else _units(reference)
        kernel = kernel_distance((first - shift) / scale, (second - shift) / scale)
        row |= {"kernel": kernel.distance}
        row |= {"kernel_std": kernel.std} if kernel.subsets > 1 else {}
        row |= manifold(second, first)._asdict()
        row["kept_n"] = kept
    if score := samples.inception_score:
        row |= {"inception_score": score.mean, "inception_score_splits": score.splits}
        row |= {"inception_score_std": score.std} if score.splits > 1 else {}
    return row


def _units(reference: Statistics) -> tuple[Tensor, float]:
    """Mean and standard deviation of features, the latter over all of their components."""
    variance = float(reference.moments.covariance.diagonal().mean())
    return reference.moments.mean, math.sqrt(variance) if variance > 0 else 1.0


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, spread, and the values themselves."""
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else math.nan, "values": list(values)}


def curve(samples: Sequence[Statistics], reference: Moments) -> dict[str, Any]:
    """The Fréchet distance against the number of samples, from the features that were kept.

    At n, n/2, n/4, ... samples it is computed of disjoint subsets of each set: their spread is that of independent draws. A line
    through the means over 1/n meets 1/n = 0 at the distance for endless samples (Chong and Forsyth 2020, section 3), less
    the bias of the reference itself, which stays.
    """
    vectors = [part.vectors for part in samples]
    n = min(map(len, vectors))
    sizes = [n >> level for level in range(LEVELS) if n >> level > max(1, min(len(reference.mean), n // 2))]
    if not sizes:
        raise InputError(f"A curve needs features of at least two samples, not {n}.")
    rows = []
    for size in sizes:
        parts = [x[i * size : (i + 1) * size] for x in vectors for i in range(min(SUBSETS, len(x) // size))]
        distances = []
        for part in parts:
            state = Statistics(reference.features)
            state.update(part)
            distances.append(frechet_distance(state.moments, reference))
        rows.append({"n": size} | summary(distances))
    limit = None
    if len(rows) > 1:
        line = np.polyfit([1 / row["n"] for row in rows], [row["mean"] for row in rows], 1)
        limit = float(line[1])
    return {"rows": rows, "extrapolated": limit}
