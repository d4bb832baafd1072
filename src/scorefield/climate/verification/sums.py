"""What is added up over times: every figure of a set of times follows from sums, so that blocks can be drawn again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.foundation.random import Generators
from scorefield.metrics.ensemble import fair_crps, fair_energy_score, ranks
from scorefield.metrics.marginal import counted
from scorefield.metrics.neighbourhood import fraction_errors
from scorefield.metrics.spectrum import enough, radial_spectrum

Sums = Mapping[str, Tensor]  # by name, along the first dimension times or blocks


@dataclass(frozen=True)
class Measures:
    """What is measured of a variable.

    Args:
        edges: of the bins from which quantiles are read.
        thresholds: from which on fractions skill counts.
        scales: sides of its windows, in grid points.
        wet: from this value on it is wet; None for what is not precipitation.
        seed: of the ties of ranks.
    """

    edges: Tensor
    thresholds: tuple[float, ...]
    scales: tuple[int, ...]
    wet: float | None
    seed: int = 0


def sums_of(
    members: Float[Tensor, "members time y x"],
    truth: Float[Tensor, "time y x"],
    area: Float[Tensor, "y x"],
    measures: Measures,
    first: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Sums over the grid for each time, and over time for each box.

    Args:
        members: predictions, NaN where the truth is.
        truth: what happened.
        area: weights of the boxes.
        measures: what is measured.
        first: number of the first of these times; the ties of time i depend on seed and i alone.
    """
    valid = truth.isfinite()
    weight = valid * area.double()
    mean = members.mean(0)
    maps = {
        "crps": fair_crps(members, truth).double(),
        "error": (mean - truth).double(),
        "squared": (mean - truth).double().square(),
        "variance": (members.double().var(0) if len(members) > 1 else torch.zeros_like(mean).double()),
        "absolute": (mean - truth).double().abs(),
    }
    maps = {name: torch.where(valid, value, 0.0) for name, value in maps.items()}
    sums = {name: (value * weight).sum((1, 2)) for name, value in maps.items()}
    sums |= {"weight": weight.sum((1, 2))}
    sums |= {"mean": (torch.where(valid, mean, 0.0).double() * weight).sum((1, 2))}
    sums |= {"mean_truth": (torch.where(valid, truth, 0.0).double() * weight).sum((1, 2))}
    sums |= _ranked(members, truth, weight, measures, first) | _whole(members, truth, area, valid)
    sums |= _counted(members, truth, weight, measures) | _fractions(members, truth, measures)
    sums |= _reliable(members, truth, weight, measures)
    if measures.wet is not None:
        sums |= _wet(members, truth, weight, measures.wet)
    return sums, {name: value.sum(0) for name, value in maps.items()} | {"n": valid.double().sum(0)}


def _ranked(members: Tensor, truth: Tensor, weight: Tensor, measures: Measures, first: int) -> dict[str, Tensor]:
    keys = [(measures.seed, first + i) for i in range(len(truth))]
    place = ranks(members, truth, generator=Generators(keys)).flatten(1)
    counts = weight.new_zeros(len(truth), len(members) + 1)
    return {"ranks": counts.scatter_add_(1, place, weight.flatten(1))}


def _whole(members: Tensor, truth: Tensor, area: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Of fields as a whole; spectra only of those of which enough is known, `spectra` being their number."""
    energy = fair_energy_score(members, truth, area)
    complete = valid.all(2).all(1)
    told = complete if bool(complete.all()) else enough(valid)
    found = {"energy": energy.nan_to_num(0.0), "fields": energy.isfinite().double(), "spectra": told.double()}
    if min(truth.shape[1:]) < 2:
        return found
    for name, fields in (("power", members), ("power_truth", truth[None])):
        known = torch.where(valid, fields, 0.0).double()
        part = None if bool(complete.all()) else valid.expand_as(known)
        found[name] = torch.where(told[:, None], radial_spectrum(known, valid=part).power.mean(0), 0.0)
    return found


def _reliable(members: Tensor, truth: Tensor, weight: Tensor, measures: Measures) -> dict[str, Tensor]:
    """For each threshold, how often 0, 1, ... of the members reach it, and how often the truth does then."""
    found = {}
    for i, threshold in enumerate(measures.thresholds if len(members) > 1 else ()):
        place = (members >= threshold).sum(0).flatten(1)
        for name, w in ((f"forecasts {i}", weight), (f"events {i}", weight * (truth >= threshold))):
            counts = weight.new_zeros(len(truth), len(members) + 1)
            found[name] = counts.scatter_add_(1, place, w.flatten(1))
    return found


def _counted(members: Tensor, truth: Tensor, weight: Tensor, measures: Measures) -> dict[str, Tensor]:
    w = weight.flatten(1)
    ours = members.flatten(2).nan_to_num(0.0).movedim(0, 1).flatten(1)
    return {
        "counts": counted(ours, w.repeat(1, len(members)), measures.edges),
        "counts_truth": counted(truth.flatten(1).nan_to_num(0.0), w, measures.edges),
    }


def _fractions(members: Tensor, truth: Tensor, measures: Measures) -> dict[str, Tensor]:
    """Of every member by itself, added over members."""
    found = {}
    for i, threshold in enumerate(measures.thresholds):
        for scale in measures.scales:
            found[f"fractions {i} {scale}"] = (
                fraction_errors(members, truth.expand_as(members), threshold, scale).double().sum(0)
            )
    return found


def _wet(members: Tensor, truth: Tensor, weight: Tensor, wet: float) -> dict[str, Tensor]:
    found = {}
    for name, fields in (("", members), ("_truth", truth[None])):
        event = fields >= wet  # as of the indices of ETCCDI and of `QuantileMap`
        found[f"wet{name}"] = (event * weight).sum((2, 3)).mean(0)
        found[f"amount{name}"] = (torch.where(event, fields, 0.0).double() * weight).sum((2, 3)).mean(0)
    return found
