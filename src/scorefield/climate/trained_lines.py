"""Predictors on the lines of training: which rows and columns of a file to take, and the part of the domain under them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scorefield.climate.files import Cube
from scorefield.climate.grid import CURVILINEAR, Grid, orientation_to
from scorefield.climate.regrid import Conservative, Regridder
from scorefield.climate.source import grid_of_cube
from scorefield.climate.template import Template
from scorefield.foundation.errors import InputError

TOLERANCE = 1e-3  # of a step, by which positions of one grid may differ: files round
ALIKE = 0.1  # by how much of itself the distance of points may differ in another region


def on_trained_lines(cube: Cube, trained: Grid, coarsen: int, *, whole: bool) -> tuple[Cube, Regridder | None, Grid]:
    """Predictors on the grid that drove training, whatever the direction of their axes, the branch of their longitudes, and how
    far they reach beyond it; where training coarsened its files, files that are as fine are coarsened, too.

    Args:
        cube: predictors.
        trained: the grid that drove training.
        coarsen: how many points training took the mean over, along each axis.
        whole: whether fields are the whole domain, so that predictors have to cover it; else the lines have to go on.

    Raises:
        InputError: they are on another grid.
    """
    given = grid_of_cube(cube)
    rows, columns = _places(given, trained, whole=whole)
    if rows is not None and columns is not None:
        placed = cube.placed(rows, columns)
        return placed, None, trained if whole else grid_of_cube(placed)
    if coarsen > 1 and min(given.shape) >= coarsen:
        coarse = given.coarsened(coarsen)
        ends = (None if places is None else places.tolist() for places in _places(coarse, trained, whole=whole))
        if list(ends) == [list(range(n)) for n in coarse.shape]:
            return cube, Conservative().between(given, coarse), coarse
    sizes = (f"{grid.shape[0]}×{grid.shape[1]} points of {grid.kind}" for grid in (given, trained))
    what = ", not ".join(sizes)
    if given.shares_lines_with(trained) and given.kind != CURVILINEAR:
        axis, own, theirs = ("y", trained.y, given.y) if rows is None else ("x", trained.x, given.x)
        ends = [f"{len(line)} from {line[0]:.5g} to {line[-1]:.5g}" for line in (theirs, own)]
        what = f"along {axis} {ends[0]}, not {ends[1]}"
    other = "" if whole else "; for another region, where the model knows no places, --elsewhere"
    raise InputError(
        f"{cube.origin} is on another grid than the predictors of training: {what}. Regrid it, or cut it to that{other}."
    )


def elsewhere(cube: Cube, template: Template) -> Template:
    """The template of a model of tiles for the region under some predictors, which it was not trained in.

    Raises:
        InputError: the model knows places, or the predictors are not as far apart as those of training, or on another mapping.
    """
    fine, trained, given = template.grid, template.driving, grid_of_cube(cube)
    knows = {
        "whole fields": template.facts["whole"],
        "static fields": template.facts["static"],
        "further predictors": template.further,
    }
    if named := [name for name, there in knows.items() if there]:
        raise InputError(f"--elsewhere is for models that know no places, and this one has {named[0]}: leave it out.")
    if CURVILINEAR in (given.kind, trained.kind) or not given.shares_lines_with(trained):
        raise InputError(
            f"{cube.origin} is on a grid of {given.kind}, and that of training is {trained.kind}: regrid it."
        )
    for axis, line, known in zip("yx", (given.y, given.x), trained.step, strict=True):
        steps = np.abs(np.diff(line)) if len(line) > 1 else np.array([known])
        found = float(steps[np.abs(steps / known - 1).argmax()])  # the one that differs most
        if abs(found / known - 1) > ALIKE:
            raise InputError(
                f"{cube.origin} has points {found:.4g} apart along {axis}, and the model was trained on {known:.4g}: "
                "regrid it to that."
            )
    ratios = [coarse / step for coarse, step in zip(trained.step, fine.step, strict=True)]
    starts = [
        (coarse[0] - own[0]) / step
        for coarse, own, step in zip(
            (trained.y_edges, trained.x_edges), (fine.y_edges, fine.x_edges), fine.step, strict=True
        )
    ]
    if any(abs(number - round(number)) > 10 * TOLERANCE for number in (*ratios, *starts)):
        raise InputError(
            "--elsewhere is for predictors whose cells hold whole points of the targets, as `coarsen` makes them."
        )
    rows, columns = (
        np.arange(n)[:: 1 if _step(own) * _step(theirs) > 0 else -1]
        for n, own, theirs in zip(given.shape, (trained.y, trained.x), (given.y, given.x), strict=True)
    )
    return template.elsewhere(given.turned(rows, columns), (round(ratios[0]), round(ratios[1])))


def _places(given: Grid, trained: Grid, *, whole: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Which rows and columns to take of a grid, in order, to have those of training, or for tiles their steps; else None."""
    if given.kind == trained.kind == CURVILINEAR:
        order = orientation_to(trained.points(), given.points())
        if order is None:
            return None, None
        return np.arange(given.shape[0])[order[0]], np.arange(given.shape[1])[order[1]]
    if not given.shares_lines_with(trained):
        return None, None
    find = _numbers_of if whole else _numbers_beside
    return find(trained.y, given.y, 0.0), find(trained.x, given.x, 360.0 * trained.spherical)


def _turned(distance: np.ndarray, period: float) -> np.ndarray:
    return (distance + period / 2) % period - period / 2 if period else distance


def _numbers_of(own: np.ndarray, theirs: np.ndarray, period: float) -> np.ndarray | None:
    """Where each of the lines of training is among others."""
    away = np.abs(_turned(own[:, None] - theirs[None], period))
    found = away.argmin(1)
    return found if away.min(1).max() <= TOLERANCE * abs(_step(own)) else None


def _numbers_beside(own: np.ndarray, theirs: np.ndarray, period: float) -> np.ndarray | None:
    """The numbers of lines that go on those of training, in their direction."""
    forth = np.arange(len(theirs)) if _step(own) * _step(theirs) > 0 else np.arange(len(theirs))[::-1]
    offset, step = float(_turned(theirs[forth[:1]] - own[:1], period)[0]), abs(_step(own))
    same = (
        abs(step - abs(_step(theirs))) <= TOLERANCE * step
        and abs(offset / step - round(offset / step)) < 10 * TOLERANCE
    )
    return forth if same else None


def parts_covered(given: Grid, template: Template) -> tuple[slice, slice]:
    """The part of the domain under some predictors: all of it, unless the model was trained on tiles, which know no places."""
    grid = template.grid
    if template.facts["whole"]:
        return slice(0, grid.shape[0]), slice(0, grid.shape[1])
    if given.kind == CURVILINEAR:
        raise InputError("A model of tiles of a curvilinear grid predicts the splits of its own data alone.")
    return _within(grid.y, given.y_edges, circle=False), _within(grid.x, given.x_edges, circle=grid.spherical)


def _within(positions: np.ndarray, edges: np.ndarray, *, circle: bool) -> slice:
    low, high = edges.min(), edges.max()
    wrapped = (positions - low) % 360 + low if circle else positions
    inside = np.flatnonzero((wrapped > low) & (wrapped < high))
    if not len(inside):
        raise InputError("The predictors lie outside the domain of the training data.")
    return slice(int(inside[0]), int(inside[-1]) + 1)


def _step(positions: np.ndarray) -> float:
    return float(positions[-1] - positions[0]) / (len(positions) - 1) if len(positions) > 1 else 1.0


def common_part(parts: Sequence[slice]) -> slice:
    """What all of some parts share. InputError where it is nothing."""
    start, stop = max(part.start for part in parts), min(part.stop for part in parts)
    if start >= stop:
        raise InputError("The sources of predictors cover no common part of the domain: give files of one region.")
    return slice(start, stop)
