"""What needs all times of a grid box at once: transport distances, extremes of years, memory, and how variables go together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from scorefield.climate.times import Dates
from scorefield.climate.units import WET_DAY, rain_per_day, wet_threshold
from scorefield.climate.verification.pair import Pair
from scorefield.metrics.marginal import correlation, wasserstein

TEMPORAL = ("lag1_correlation", "wet_spell", "dry_spell")  # figures of how times follow one another
VALUES = 2**25  # read at once
SAMPLED = 2**20  # values of a variable from which the bins of its quantiles are chosen


@dataclass
class Boxes:
    """Maps of figures for one set of times.

    Args:
        maps: by variable (or `a × b` for two of them) and by figure, (y, x).
    """

    maps: dict[str, dict[str, np.ndarray]]

    def means(self, area: np.ndarray) -> dict[str, dict[str, float]]:
        """The mean of each map over the boxes where it is known, weighted by their area (y, x)."""
        return {name: {key: mean_of(value, area) for key, value in maps.items()} for name, maps in self.maps.items()}


def mean_of(values: np.ndarray, area: np.ndarray) -> float:
    """The mean of values (y, x) over the boxes where they are known, weighted by area (y, x)."""
    known = np.isfinite(values) & (area > 0)
    return float((values[known] * area[known]).sum() / area[known].sum()) if known.any() else float("nan")


@dataclass
class Range:
    """What values a variable takes: some of them, and the ends of all."""

    sample: Tensor
    low: float
    high: float


def box_figures(pair: Pair, selections: dict[str, np.ndarray]) -> tuple[dict[str, Boxes], dict[str, Range]]:
    """Maps for each selection of times, and the range of each variable, from one reading of the data, some rows at a time.

    Args:
        pair: predictions beside the truth.
        selections: which times, by name.
    """
    names = [str(name) for name in pair.truth.data_vars]
    times, height, width = pair.truth.sizes["time"], pair.truth.sizes["y"], pair.truth.sizes["x"]
    rows = max(1, VALUES // (pair.members * times * width * len(names)))
    pieces: dict[str, list[dict[str, dict[str, np.ndarray]]]] = {name: [] for name in selections}
    seen: dict[str, list[Range]] = {name: [] for name in names}
    stride = max(1, times * height * width * (pair.members + 1) // SAMPLED)
    for first in range(0, height, rows):
        read = {name: pair.at(name, y=slice(first, first + rows)) for name in names}
        for name, both in read.items():
            values = np.concatenate([part[np.isfinite(part)] for part in both])
            if len(values):
                seen[name].append(
                    Range(torch.from_numpy(values[::stride].copy()), float(values.min()), float(values.max()))
                )
        for selection, chosen in selections.items():
            pieces[selection].append(_maps(pair, read, chosen))
    maps = {
        selection: Boxes({n: {k: np.concatenate([p[n][k] for p in parts]) for k in parts[0][n]} for n in parts[0]})
        for selection, parts in pieces.items()
    }
    return maps, {name: _join(parts) for name, parts in seen.items() if parts}


def _join(parts: list[Range]) -> Range:
    return Range(torch.cat([p.sample for p in parts]), min(p.low for p in parts), max(p.high for p in parts))


def _maps(
    pair: Pair, read: dict[str, tuple[np.ndarray, np.ndarray]], chosen: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    dates = pair.dates
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, (ours, theirs) in read.items():
        members, truth = torch.from_numpy(ours[:, chosen]).double(), torch.from_numpy(theirs[chosen]).double()
        maps = {"wasserstein": wasserstein(members, truth).numpy()}
        maps |= _memory(ours, theirs, chosen, dates)
        if dates.dated:
            per_day = rain_per_day(pair.truth[name], pair.hours)
            maps |= _extremes(ours, theirs, chosen, dates, (per_day, pair.hours))
            if per_day is not None:
                maps |= _spells(ours, theirs, chosen, dates, wet_threshold(per_day, pair.hours))
        maps |= {f"{key}_error": maps[key] - maps[f"{key}_truth"] for key in TEMPORAL if key in maps}
        found[name] = maps
    for one, other in combinations(read, 2):
        if chosen.sum() > 2:
            found[f"{one} × {other}"] = _together(read[one], read[other], chosen)
    return found


def _memory(ours: np.ndarray, theirs: np.ndarray, chosen: np.ndarray, dates: Dates) -> dict[str, np.ndarray]:
    """Correlation of each box with itself one step before."""
    before = dates.following
    before = before[chosen[before] & chosen[before + 1]]
    if len(before) < 3:
        return {}
    pairs = {"lag1_correlation": ours, "lag1_correlation_truth": theirs[None]}
    return {name: _correlated(x[:, before], x[:, before + 1]) for name, x in pairs.items()}


def _spells(
    ours: np.ndarray, theirs: np.ndarray, chosen: np.ndarray, dates: Dates, wet: float
) -> dict[str, np.ndarray]:
    """The mean number of steps that it is wet, and dry, in turn, in each box; spells cut by the ends are included."""
    places = chosen.nonzero()[0]
    if len(places) < 3 or not len(dates.following):
        return {}
    goes_on = np.isin(places[1:] - 1, dates.following) & (np.diff(places) == 1)
    if not goes_on.any():
        return {}
    found = {}
    for suffix, x in (("", ours[:, chosen]), ("_truth", theirs[None, chosen])):
        unknown = np.isnan(x).any((0, 1))
        for name, event in (("wet", x >= wet), ("dry", x < wet)):
            begins = event[:, 1:] & ~(event[:, :-1] & goes_on[:, None, None])
            number = begins.sum((0, 1)) + event[:, 0].sum(0)
            with np.errstate(invalid="ignore"):
                found[f"{name}_spell{suffix}"] = np.where(unknown, np.nan, event.sum((0, 1)) / number)
    return found


def _together(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], chosen: np.ndarray
) -> dict[str, np.ndarray]:
    """Correlation of two variables in each box, over time."""
    return {
        "correlation": _correlated(one[0][:, chosen], other[0][:, chosen]),
        "correlation_truth": _correlated(one[1][None, chosen], other[1][None, chosen]),
    }


def _correlated(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The mean over members of their correlations over time."""
    pairs = zip(torch.from_numpy(one), torch.from_numpy(other), strict=True)
    return torch.stack([correlation(a, b) for a, b in pairs]).mean(0).numpy()


def _extremes(
    ours: np.ndarray, theirs: np.ndarray, chosen: np.ndarray, dates: Dates, rain: tuple[float | None, float]
) -> dict[str, np.ndarray]:
    """The largest value of a year, and of precipitation the largest day and the intensity of wet days, both in mm/day."""
    found: dict[str, np.ndarray] = {}
    both = {"": ours, "_truth": theirs[None]}
    for suffix, x in both.items():
        found[f"yearly_maximum{suffix}"] = _yearly(x[:, chosen], dates.year[chosen])
    per_day, hours = rain
    if per_day is None or not hours <= 24:
        return found
    day, years = _full_days(chosen, dates, hours)
    if not len(years):
        return found
    for suffix, x in both.items():
        daily = per_day * np.stack([x[:, times].mean(1) for times in day], 1)
        found[f"rx1day{suffix}"] = _yearly(daily, years)
        wet = daily >= WET_DAY
        with np.errstate(invalid="ignore"):
            intensity = np.where(wet, daily, 0).sum((0, 1)) / wet.sum((0, 1))
        found[f"sdii{suffix}"] = np.where(np.isnan(daily).any((0, 1)), np.nan, intensity)
    return found


def _full_days(chosen: np.ndarray, dates: Dates, hours: float) -> tuple[list[np.ndarray], np.ndarray]:
    """The times of each day that is complete, and the years of these days."""
    places = chosen.nonzero()[0]
    wanted = round(24 / hours)
    groups = [places[dates.day[places] == day] for day in np.unique(dates.day[places])]
    full = [group for group in groups if len(group) == wanted]
    return full, np.array([dates.year[group[0]] for group in full])


def _yearly(x: np.ndarray, years: np.ndarray) -> np.ndarray:
    """The mean over years and members of the maximum of a year, (y, x)."""
    return np.stack([x[:, years == year].max(1) for year in np.unique(years)]).mean((0, 1))
