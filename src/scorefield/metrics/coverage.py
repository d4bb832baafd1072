"""Which classes the samples fall into, by a classifier's word."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from scorefield.foundation.errors import InputError


class Coverage(NamedTuple):
    """How samples spread over classes.

    Args:
        counts: samples in each class.
        n: their number.
        missing: classes without a sample.
        entropy: of the frequencies, in nats; log(classes) if all are equal.
        distance: total variation of the frequencies from those of the reference, or from equal ones: 0 to 1.
        expected_distance: what that distance would be by chance for n draws of the reference frequencies, about.
    """

    counts: tuple[int, ...]
    n: int
    missing: tuple[int, ...]
    entropy: float
    distance: float
    expected_distance: float


def class_coverage(predicted: Tensor, classes: int, reference: Tensor | None = None) -> Coverage:
    """Count predicted labels.

    Args:
        predicted: (n) labels of the samples, from a classifier.
        classes: the number of classes.
        reference: labels or predicted labels of data; by default all classes are expected equally often.
    """
    if len(predicted) == 0 or int(predicted.max()) >= classes:
        raise InputError(f"Coverage of {classes} classes needs labels from 0 to {classes - 1}, at least one.")
    counts = predicted.bincount(minlength=classes)
    frequency = counts.double() / len(predicted)
    if reference is None:
        expected = frequency.new_full((classes,), 1 / classes)
    else:
        expected = reference.bincount(minlength=classes).double() / len(reference)
    chance = (expected * (1 - expected) * 2 / (math.pi * len(predicted))).sqrt().sum() / 2
    return Coverage(
        counts=tuple(counts.tolist()),
        n=len(predicted),
        missing=tuple((counts == 0).nonzero().flatten().tolist()),
        entropy=float(-(frequency * frequency.clamp(min=1e-300).log()).sum()),
        distance=float((frequency - expected).abs().sum() / 2),
        expected_distance=float(chance),
    )
