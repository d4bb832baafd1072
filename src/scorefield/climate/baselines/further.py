"""Coarse fields of further files on the grid and at the times of the first ones, as baselines take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scorefield.climate.carried import numbers_at, units_of
from scorefield.climate.files import Cube
from scorefield.climate.grid import CURVILINEAR, Grid
from scorefield.climate.regrid import Bilinear, Conservative, Regrid
from scorefield.climate.source import FurtherPredictors, grid_of_cube
from scorefield.climate.times import dates
from scorefield.climate.trained_lines import on_trained_lines
from scorefield.foundation.errors import InputError


class Source(NamedTuple):
    """One further source.

    Args:
        variables: how it is read and carried.
        learnt: its fields to learn from.
        given: those to draw for, in the units and on the grid of these.
    """

    variables: FurtherPredictors
    learnt: Cube
    given: Cube


def sources_of(wanted: Mapping[str, FurtherPredictors], paths: Mapping[str, Path]) -> list[Source]:
    """The files of further sources.

    Args:
        wanted: what to learn from, by the name of the source.
        paths: files to draw for, by the same names.
    """
    if differing := set(wanted) ^ set(paths):
        names = [", ".join(one) or "none" for one in (wanted, paths)]
        raise InputError(f"--train-further has {names[0]}, and --further {names[1]}: give {min(differing)} to both.")
    found = []
    for name, variables in wanted.items():
        learnt = Cube(variables)
        units = {one: text for one, text in units_of(learnt).items() if text}
        given = Cube(replace(variables, path=str(paths[name]), units=units))
        found.append(Source(variables, learnt, on_trained_lines(given, grid_of_cube(learnt), 1, whole=True)[0]))
    return found


def beside(cube: Cube, variables: FurtherPredictors, times: np.ndarray, grid: Grid) -> np.ndarray:
    """The fields of a cube at some times on a grid, (times, channels, rows, columns) float32. InputError where it lacks any."""
    own = grid_of_cube(cube)
    driving = own.coarsened(variables.coarsen) if variables.coarsen > 1 else own
    means = Conservative().between(own, driving) if variables.coarsen > 1 else None
    way = (variables.regrid or usual(driving, grid)).between(driving, grid)
    numbers = np.zeros(len(times), int)
    if cube.layout.time:
        cube.check_dates()
        numbers = numbers_at(cube.times, times)
    if (lacking := np.flatnonzero(numbers < 0)).size:
        ends, first = dates(cube.times), dates(times)[lacking[0]]
        raise InputError(
            f"{cube.origin} goes from {ends[0]} to {ends[-1]} and lacks {len(lacking)} of {len(times)} times, the first {first}: "
            "give files of all of them."
        )
    fields = (cube.read(int(number)) for number in numbers)
    return np.stack([way(field if means is None else means(field)) for field in fields]).astype(np.float32)


def usual(own: Grid, wanted: Grid) -> Regrid:
    """Area means from finer grids with parallel lines, else interpolation."""
    finer = own.shares_lines_with(wanted) and own.kind != CURVILINEAR
    return Conservative() if finer and max(own.step) < min(wanted.step) else Bilinear()
