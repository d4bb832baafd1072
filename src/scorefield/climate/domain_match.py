"""Which part of a domain predictors cover, if they are on the grid of those a model was trained on."""

from __future__ import annotations

import numpy as np

from scorefield.climate.grid import CURVILINEAR, Grid, same_points
from scorefield.climate.template import Template
from scorefield.foundation.errors import InputError

TOLERANCE = 1e-3  # of a step, by which positions of one grid may differ: files round


def parts_covered(given: Grid, template: Template, origin: str) -> tuple[slice, slice]:
    """The part of the domain under some predictors: all of it, unless the model was trained on tiles, which know no places."""
    trained = template.driving
    if trained.kind == CURVILINEAR:
        _check_points(given, trained, origin, whole=template.facts["whole"])
        return slice(0, template.grid.shape[0]), slice(0, template.grid.shape[1])
    for axis, own, theirs in (("y", trained.y, given.y), ("x", trained.x, given.x)):
        step, other = _step(own), _step(theirs)
        offset = float(
            (theirs[0] - own[0] + 180) % 360 - 180 if trained.spherical and axis == "x" else theirs[0] - own[0]
        )
        beside = abs(offset / step - round(offset / step)) if step else 0.0
        same = len(own) == len(theirs) and abs(offset) < TOLERANCE * abs(step)
        fits = beside < 10 * TOLERANCE and (same or not template.facts["whole"])
        if not given.shares_lines_with(trained) or abs(step - other) > TOLERANCE * abs(step) or not fits:
            what = f"{len(theirs)} from {theirs[0]:.5g} to {theirs[-1]:.5g}, not {len(own)} from {own[0]:.5g} to {own[-1]:.5g}"
            raise InputError(
                f"{origin} is on another grid than the predictors of training: along {axis} {what}. Regrid it, or cut it to that."
            )
    if template.facts["whole"]:
        return slice(0, template.grid.shape[0]), slice(0, template.grid.shape[1])
    grid = template.grid
    return _within(grid.y, given.y_edges, circle=False), _within(grid.x, given.x_edges, circle=grid.spherical)


def _check_points(given: Grid, trained: Grid, origin: str, *, whole: bool) -> None:
    """Refuse another curvilinear grid than that of training: its lines have the same numbers in every file."""
    same = given.kind == CURVILINEAR and given.shape == trained.shape
    if not same or not same_points(given.points(), trained.points()):
        what = f"{given.shape[0]}×{given.shape[1]} points, not the {trained.shape[0]}×{trained.shape[1]}"
        raise InputError(f"{origin} is on another grid than the predictors of training: {what} with their lat and lon.")
    if not whole:
        raise InputError("A model of tiles of a curvilinear grid predicts the splits of its own data alone.")


def _within(positions: np.ndarray, edges: np.ndarray, *, circle: bool) -> slice:
    low, high = edges.min(), edges.max()
    wrapped = (positions - low) % 360 + low if circle else positions
    inside = np.flatnonzero((wrapped > low) & (wrapped < high))
    if not len(inside):
        raise InputError("The predictors lie outside the domain of the training data.")
    return slice(int(inside[0]), int(inside[-1]) + 1)


def _step(positions: np.ndarray) -> float:
    return float(positions[-1] - positions[0]) / (len(positions) - 1) if len(positions) > 1 else 1.0
