"""Members that persist: what is left to chance in a member at one time is an AR(1) process along the steps of time.

With w_k the noise that is new at step k, ξ_k = √(1 − φ²) Σ_j φ^j w_(k−j), whose correlation is φ^|lag|. As w_k depends on the
seed, the member and the number of the step alone, so does ξ_k: how times are divided among chunks and processes plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import torch

from scorefield.climate.predictors import EnsembleInput, minutes
from scorefield.climate.times import span_of
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream

FORGOTTEN = 1e-2  # φ^j below which the past is left out: the correlation at lag l is off by 1e-4 φ^−l of itself
LONGEST = 0.99  # φ, of a past of 458 steps


def check(persistence: float) -> None:
    """Refuse what is no correlation, or one that reaches too far back."""
    if not 0 <= persistence <= LONGEST:
        raise InputError(f"--persistence is {persistence}: give a correlation from 0 to {LONGEST}.")


def steps_of(given: EnsembleInput) -> np.ndarray:
    """The number of the step of every field, (n) int64: months and years by the calendar, others in steps of the least distance.

    Raises:
        InputError: times that are not whole steps apart.
    """
    found = [given.date(position) for position in range(len(given))]
    at = np.array([minutes(date + timedelta(seconds=30)) for date in found], np.int64)  # to the nearest: files round
    times, first = np.unique(at, return_index=True)
    if len(times) < 2:
        return np.zeros(len(at), np.int64)
    dates = np.array([found[i] for i in first])
    span = span_of(dates.astype("datetime64[us]") if type(found[0]).__module__ == "datetime" else dates)
    counted = np.array([date.year * 12 + date.month if span == 2 else date.year for date in found])
    if span < 3 and len(np.unique(counted)) == len(times):  # not of steps of four weeks
        return counted
    apart = np.diff(times)
    step = int(apart.min())
    if (wrong := np.flatnonzero(apart % step)).size:
        near = given.name(int(first[wrong[0] + 1]))
        raise InputError(
            f"--persistence is a correlation from one step of time to the next, and times near {near} are no whole steps of "
            f"{step} minutes apart: give predictors with even steps, or leave it out."
        )
    return at // step


def persistent(rows: Sequence[tuple[tuple[int, ...], int]], seed: int, correlation: float) -> Generators:
    """Noise for fields that persists from one step of time to the next.

    Args:
        rows: of each field the numbers that tell its series from others, such as its member, and the number of its step.
        seed: of the draws.
        correlation: φ, above 0.
    """
    past = math.floor(math.log(FORGOTTEN) / math.log(correlation))
    weights = np.sqrt((1 - correlation**2) / (1 - correlation ** (2 * past + 2))) * correlation ** np.arange(past + 1)
    columns: dict[tuple[int, ...], int] = {}
    places = [
        [
            columns.setdefault((seed, *series, step - lag + past, Stream.PERSISTENT), len(columns))
            for lag in range(past + 1)
        ]
        for series, step in rows
    ]
    mixing = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    for row, place in zip(mixing, places, strict=True):
        row[place] = torch.from_numpy(weights)
    return Generators(columns, mixing)
