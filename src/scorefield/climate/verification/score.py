"""All figures of predictions beside the truth: of every variable, over all times and by season, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.climate.units import rain_per_day, wet_threshold
from scorefield.climate.verification.boxes import Boxes, Range, box_figures
from scorefield.climate.verification.figures import skill, with_bands, with_intervals
from scorefield.climate.verification.pair import Pair
from scorefield.climate.verification.sums import Measures, sums_of
from scorefield.foundation.errors import InputError
from scorefield.metrics.ensemble import fair_crps
from scorefield.metrics.marginal import quantile_edges

VALUES = 2**22  # held at once for one variable
SCALES = (1, 3, 9, 17)
EXCEEDED = (0.75, 0.9, 0.99)  # quantiles of the truth that are thresholds of what is not precipitation
RAIN = (1.0, 5.0, 20.0)  # multiples of the wet threshold that are those of precipitation


@dataclass(frozen=True)
class Options:
    """What is measured, and how.

    Args:
        thresholds: of fractions skill, in units of the variable; by default multiples of the wet threshold, or quantiles.
        scales: sides of its windows in grid points; those that fit.
        wet: from where on it is wet; by default 0.1 mm/h for steps within a day and 1 mm/day for days.
        replicates: of the bootstrap over blocks.
        seed: of the bootstrap and of the ties of ranks.
    """

    thresholds: tuple[float, ...] = ()
    scales: tuple[int, ...] = SCALES
    wet: float | None = None
    replicates: int = 500
    seed: int = 0


@dataclass(frozen=True)
class Scored:
    """The figures of one variable.

    Args:
        record: what is written down: figures, curves and intervals by season.
        maps: (y, x) by name.
        sums: of each block, over all times.
        measures: what was measured.
    """

    record: dict[str, Any]
    maps: dict[str, np.ndarray]
    sums: dict[str, Tensor]
    measures: Measures


def score(
    pair: Pair, options: Options = Options(), progress: Callable[[int], object] = lambda n: None
) -> dict[str, Scored]:
    """Score every variable.

    Args:
        pair: predictions beside the truth.
        options: what is measured.
        progress: called with the number of times that are done, once for each variable.
    """
    times = pair.truth.sizes["time"]
    every = {"all": np.ones(times, bool)}
    selections = every | pair.dates.seasons if len(pair.dates.seasons) > 1 else every
    boxes, ranges = box_figures(pair, selections)
    found = {}
    for name in map(str, pair.truth.data_vars):
        if name not in ranges:
            raise InputError(f"{name} has no value that both predictions and truth know.")
        measures = measures_of(pair, name, ranges[name], options)
        found[name] = _variable(pair, name, measures, options, selections, boxes, progress)
    return found


def measures_of(pair: Pair, name: str, values: Range, options: Options) -> Measures:
    """Thresholds and bins that suit a variable."""
    per_day = rain_per_day(pair.truth[name], pair.hours)
    wet = options.wet if options.wet is not None or per_day is None else wet_threshold(per_day, pair.hours)
    thresholds = options.thresholds
    if not thresholds:
        levels = torch.tensor(EXCEEDED, dtype=torch.float64)
        ordered = values.sample.double().sort().values
        thresholds = tuple(ordered[(levels * (len(ordered) - 1)).long()].tolist())
        thresholds = thresholds if wet is None else tuple(wet * factor for factor in RAIN)
    scales = tuple(scale for scale in options.scales if scale <= min(pair.area.shape))
    return Measures(quantile_edges(values.sample, values.low, values.high), thresholds, scales, wet, options.seed)


def _variable(
    pair: Pair,
    name: str,
    measures: Measures,
    options: Options,
    selections: dict[str, np.ndarray],
    boxes: dict[str, Boxes],
    progress: Callable[[int], object],
) -> Scored:
    season = np.zeros(len(pair.block), int)
    for number, chosen in enumerate(selections.values()):
        season[chosen] = number
    units, unit = np.unique(np.stack((pair.block, season), 1), axis=0, return_inverse=True)
    sums, maps, series = _add_up(pair, name, measures, unit.ravel(), len(units), progress)
    record: dict[str, Any] = {"units": str(pair.truth[name].attrs.get("units", ""))}
    for number, selection in enumerate(selections):
        kept = np.ones(len(units), bool) if selection == "all" else units[:, 1] == number
        blocks = by_block({key: value[kept] for key, value in sums.items()}, units[kept, 0])
        means = {n: v for n, v in boxes[selection].means(pair.area).items() if n == name or n.startswith(f"{name} × ")}
        record[selection] = with_intervals(blocks, measures, options.replicates, options.seed)
        record[selection] |= {"boxes": means} | with_bands(blocks, measures, options.replicates, options.seed)
    record |= cycles(series, pair)
    n = maps.pop("n")
    with np.errstate(invalid="ignore", divide="ignore"):
        maps = {key: value / n for key, value in maps.items()} | boxes["all"].maps[name]
    return Scored(record, maps, by_block(sums, units[:, 0]), measures)


def against(pair: Pair, other: Pair, options: Options) -> dict[str, Any]:
    """The CRPS of predictions beside that of others, where both are known; `skill` is 1 − ours/theirs, above 0 if ours is better.

    Args:
        pair: predictions beside the truth.
        other: other predictions of the same times and boxes.
        options: replicates and seed of the bootstrap over blocks.
    """
    times, found = pair.truth.sizes["time"], {}
    chunk = max(1, VALUES // (pair.area.size * (pair.members + other.members + 1)))
    index, blocks = torch.from_numpy(pair.block), int(pair.block.max()) + 1
    for name in map(str, pair.truth.data_vars):
        sums = torch.zeros(3, blocks, dtype=torch.float64)
        for first in range(0, times, chunk):
            part = slice(first, first + chunk)
            (ours, truth), (theirs, _) = pair.at(name, time=part), other.at(name, time=part)
            scores = [fair_crps(torch.from_numpy(x), torch.from_numpy(truth)).double() for x in (ours, theirs)]
            weight = torch.from_numpy(pair.area) * (scores[0].isfinite() & scores[1].isfinite())
            for row, score_ in zip(sums, [*scores, torch.ones_like(scores[0])], strict=True):
                row.index_add_(0, index[part], (score_.nan_to_num(0.0) * weight).sum((1, 2)))
        mean = (sums.sum(1) / sums[2].sum()).tolist()
        found[name] = {
            "crps": mean[0],
            "crps_baseline": mean[1],
            "skill": skill(sums[0], sums[1], options.replicates, options.seed),
        }
    return found


def by_block(sums: dict[str, Tensor], block: np.ndarray) -> dict[str, Tensor]:
    """Sums (units, ...) added within each block, (units) int."""
    numbers, place = np.unique(block, return_inverse=True)
    index = torch.from_numpy(place.ravel())
    return {
        name: value.new_zeros(len(numbers), *value.shape[1:]).index_add_(0, index, value)
        for name, value in sums.items()
    }


def _add_up(
    pair: Pair, name: str, measures: Measures, unit: np.ndarray, units: int, progress: Callable[[int], object]
) -> tuple[dict[str, Tensor], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Sums of each unit, maps of sums over time, and the sums of each time that cycles are made of."""
    times = pair.truth.sizes["time"]
    chunk = max(1, VALUES // (pair.area.size * (pair.members + 1)))
    sums: dict[str, Tensor] = {}
    maps: dict[str, np.ndarray] = {}
    series: dict[str, list[np.ndarray]] = {"mean": [], "mean_truth": [], "weight": []}
    area = torch.from_numpy(pair.area)
    for first in range(0, times, chunk):
        members, truth = pair.at(name, time=slice(first, first + chunk))
        found, onto = sums_of(torch.from_numpy(members), torch.from_numpy(truth), area, measures, first)
        index = torch.from_numpy(unit[first : first + len(truth)])
        for key, value in found.items():
            held = sums.setdefault(key, torch.zeros(units, *value.shape[1:], dtype=torch.float64))
            held.index_add_(0, index, value.double())
        for key, value in onto.items():
            maps[key] = maps.get(key, 0) + value.numpy()
        for key, values in series.items():
            values.append(found[key].numpy())
        progress(len(truth))
    return sums, maps, {key: np.concatenate(values) for key, values in series.items()}


def cycles(series: dict[str, np.ndarray], pair: Pair) -> dict[str, Any]:
    """The mean of every month, and of every hour of the day where there are several, by area."""
    dates, found = pair.dates, {}
    if not dates.dated:
        return {}
    for name, phase in (("months", dates.month), ("hours", dates.hour)):
        if len(phases := np.unique(phase)) > 1:
            rows = {
                key: [float(series[key][phase == p].sum() / series["weight"][phase == p].sum()) for p in phases]
                for key in ("mean", "mean_truth")
            }
            found[name] = {"of": phases.tolist()} | rows
    return {"cycles": found} if found else {}
