"""What gridded files contain, in lines: variables with their units and ranges, dates and calendar, grids."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.climate.fields import GriddedFields
from scorefield.climate.times import calendar_of, dates
from scorefield.data.inspect import written

SUMMARISED = 256, 2**25  # fields of which statistics are given, and bytes of them


def summary_of(fields: GriddedFields) -> tuple[str, ...]:
    """What the files contain: variables with their units and ranges, dates and calendar, grids."""
    targets, predictors = fields.targets, fields.predictors
    count = min(SUMMARISED[0], max(2, SUMMARISED[1] * len(fields) // max(fields.bytes, 1)), len(fields))
    chosen = fields.gather(torch.linspace(0, len(fields) - 1, count).long())
    ends = [fields.place(i).number % len(targets.times) for i in (0, len(fields) - 1)]  # members follow each other
    first, last = (dates(targets.times[i : i + 1])[0] for i in ends)
    calendar = calendar_of(targets.dataset[targets.layout.time]) if targets.layout.time else "no calendar"
    rows, columns = fields.domain.shape
    given = fields.matching[fields.matching >= 0]
    cut = 0 if predictors is None else int((~predictors.complete(given)).sum())
    found = [
        f"{first} to {last}, {calendar}; {targets.members} member{'s' * (targets.members > 1)}",
        f"domain {rows} × {columns}, {fields.domain.kind}, steps {fields.domain.step[0]:.4g} and {fields.domain.step[1]:.4g}",
    ]
    if cut:
        found.append(
            f"{cut} of {len(targets)} fields are in no split: the times before or after them are not in the files"
        )
    for number, (name, channel) in enumerate(zip(fields.variables, targets.channels * fields.window, strict=True)):
        units = targets.attributes(channel[0]).get("units", "no units")
        known = torch.ones_like(chosen.x[:, number]) > 0 if chosen.mask is None else chosen.mask[:, number]
        found.append(f"target {name} in {units}: {_reach(chosen.x[:, number][known])}")
        found.append(f"target {name} {_correlation_line(chosen.x[:, number], known)}")
    for carried in () if predictors is None else predictors.sources:
        sizes = f"{carried.grid.shape[0]} × {carried.grid.shape[1]}, {carried.grid.kind}"
        found.append(f"predictors{f' {carried.name}' * bool(carried.name)}: {sizes}, {len(carried.cube.times)} times")
    for number, name in enumerate(() if predictors is None else predictors.names):
        values = chosen.cond["field"][:, number]
        gaps = float(torch.isnan(values).float().mean())
        found.append(f"predictor {name}: {_reach(values)}" + (f", {gaps:.1%} unknown" if gaps else ""))
    return tuple(found)


def _correlation_line(x: Tensor, known: Tensor) -> str:
    length = correlation_length(x, known)
    if length is None:
        return (
            f"is correlated over more than {min(x.shape[1:]) // 2} points: larger tiles would show more of its patterns"
        )
    return (
        f"is correlated over {length} points (1/e): a model of tiles needs some {4 * length} points or more on a side"
    )


def correlation_length(x: Tensor, known: Tensor) -> int | None:
    """The distance in points at which fields' correlation with themselves is below 1/e, along rows and columns together.

    Args:
        x: (fields, rows, columns).
        known: where; likewise.

    Returns:
        None where it stays above to half the shorter side.
    """
    weight = known.double()
    away = torch.where(known, x.double() - (x * weight).sum() / weight.sum().clamp(min=1), 0.0)
    variance = away.square().sum() / weight.sum().clamp(min=1)
    for distance in range(1, min(x.shape[1:]) // 2 + 1):
        products, pairs = 0.0, 0.0
        for axis in (1, 2):
            n = x.shape[axis] - distance
            products += float((away.narrow(axis, 0, n) * away.narrow(axis, distance, n)).sum())
            pairs += float((weight.narrow(axis, 0, n) * weight.narrow(axis, distance, n)).sum())
        if products <= float(variance) * pairs / math.e:
            return distance
    return None


def _reach(values: Tensor) -> str:
    known = values[values.isfinite()].double()
    if not len(known):
        return "unknown everywhere"
    low, high, mean, std = (float(v) for v in (known.min(), known.max(), known.mean(), known.std(correction=0)))
    return f"{written(low, std, 5)} to {written(high, std, 5)}, mean {written(mean, std, 5)}, std {std:.4g}"
