"""Gridded data sets: which variables are to be predicted from which, on what grids, and what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.climate.carried import Carried, Predictors, matched, units_of
from scorefield.climate.fields import GriddedFields
from scorefield.climate.files import Cube, Variables
from scorefield.climate.grid import Grid, grid_of
from scorefield.climate.opening import tell
from scorefield.climate.regrid import Bilinear, Conservative, Regrid
from scorefield.climate.split import Division
from scorefield.climate.summary import summary_of
from scorefield.climate.template import template_bytes
from scorefield.climate.tiles import Tiles
from scorefield.climate.time_features import TimeFeature
from scorefield.climate.times import dates, irregular, usual_step
from scorefield.data.source import Source, Split
from scorefield.foundation.errors import InputError

SURVEYED = 2**26  # bytes of fields in memory while all are gone through


@dataclass(frozen=True)
class FurtherPredictors(Variables):
    """Variables that a field is predicted from, too, on a grid of their own, with times of their own or none.

    Args:
        path: as of `Variables`.
        names: likewise.
        units: likewise.
        levels: likewise.
        select: likewise.
        fill: likewise.
        regrid: how they come to the target's grid; as the first predictors by default.
        coarsen: take the area means over cells of so many points squared first.
    """

    regrid: Regrid | None = None
    coarsen: int = 1


@dataclass(frozen=True)
class Climate(Source):
    """Fine fields of gridded files beside coarse ones: p(targets | predictors) is to be learnt.

    Every field is one time of one ensemble member, of the whole grid or of a tile of it. Predictors come in files of their own,
    on their own grid, or are the targets themselves as a coarse model would show them (`coarsen`), and further ones from any
    number of sources on other grids.

    Args:
        targets: what is to be predicted.
        division: what is held out.
        predictors: from what; without them and without `coarsen`, fields have no conditions.
        coarsen: take for predictors the area means of the targets, or of the predictors, over cells of so many points squared.
        regrid: how predictors come to the target's grid.
        static: fields that do not change, such as orography, on any grid.
        features: of the time of the field.
        before: steps of time before that of the target from which predictors are taken, too.
        after: steps after it.
        tiles: cut the domain into fields of one size.
        mask_channel: give the network a channel of where the target is known.
        memory: GiB that the fields may take; beyond it they are read when they are needed.
        further: more predictors by the name of their source, each with files, grid and regridding of its own; what has no time,
            such as a land mask, is taken at all times and kept in the checkpoint.
        window: steps of time that follow one another and are learnt and drawn jointly, as channels: all variables of the first,
            then of the next, from the predictors of all of them. The noise may go along them, by `AlongTime` of as many `times`.
    """

    targets: Variables
    division: Division
    predictors: Variables | None = None
    coarsen: int = 1
    regrid: Regrid = field(default_factory=Bilinear)
    static: Variables | None = None
    features: tuple[TimeFeature, ...] = ()
    before: int = 0
    after: int = 0
    tiles: Tiles | None = None
    mask_channel: bool = False
    memory: float = 4.0
    further: dict[str, FurtherPredictors] | None = None
    window: int = 1

    def __post_init__(self) -> None:
        if self.window < 1 or (self.window > 1 and self.tiles is not None):
            raise InputError("Climate needs window >= 1, and several steps of time at once go without tiles.")
        if self.coarsen < 1 or self.before < 0 or self.after < 0:
            raise InputError("Climate needs coarsen >= 1, before >= 0 and after >= 0.")
        if self.predictors is None and self.coarsen == 1 and (self.before or self.after):
            raise InputError("There are no predictors whose times before and after could be taken: give some.")
        for name, further in (self.further or {}).items():
            if not name or "." in name or "@" in name:
                raise InputError(f"further.{name} is no name of a source: give a word without a point.")
            if further.coarsen < 1:
                raise InputError(f"further.{name}.coarsen is {further.coarsen}: give a number of at least 1.")

    def files_read(self) -> list[Path]:
        given = (self.targets, self.predictors, self.static, *(self.further or {}).values())
        return [Path(file) for variables in given if variables is not None for file in variables.files()]

    def load(self, split: Split) -> GriddedFields:
        self.division.check()
        targets = Cube(self.targets)
        targets.check_dates()
        domain = self.domain(targets)
        predictors = self.predictors_for(targets, domain)
        matching = np.arange(len(targets)) if predictors is None else matched(targets, predictors.cube)
        size = domain.shape if self.tiles is None else tuple(self.tiles.size)
        fields = GriddedFields(
            targets,
            predictors,
            self._places(targets, domain, predictors, matching, split),
            (size[0], size[1]),
            domain,
            mask_channel=self.mask_channel,
            matching=matching,
            about=summary_of,
            describe=partial(describe, self) if split == "train" else None,
            kept=self.memory * 2**30,
            window=self.window,
        )
        if not len(fields):
            raise InputError(f"No field of {targets.origin} belongs to the split {split}: correct division or tiles.")
        fields.gather(torch.tensor([0]))  # what cannot be read is told here; the others are read when they are used
        return fields

    def domain(self, targets: Cube) -> Grid:
        """The grid of the targets; where they are coarsened, without what is left over at its far ends."""
        grid = grid_of(targets.dataset, targets.variables.names[0], targets.layouts[0])
        if self.predictors is not None or self.coarsen == 1:
            return grid
        rows, columns = (n // self.coarsen * self.coarsen for n in grid.shape)
        return grid.crop(slice(rows), slice(columns))

    def predictors_for(self, targets: Cube, domain: Grid) -> Predictors | None:
        """The predictors of training, on the grid of the targets."""
        if self.predictors is None and self.coarsen == 1:
            if self.static is not None or self.features or self.further:
                raise InputError("static, further and features go with predictors: give predictors, or coarsen.")
            return None
        cube = targets if self.predictors is None else Cube(self.predictors)
        own = grid_of_cube(cube)
        driving = own if self.coarsen == 1 else (domain if cube is targets else own).coarsened(self.coarsen)
        coarsen = None if self.coarsen == 1 else Conservative().between(own, driving)
        sources = [Carried(cube, driving, self.regrid.between(driving, domain), coarsen)]
        static = [self.static_on(domain)]
        for name, variables in (self.further or {}).items():
            more = Cube(variables)
            if not more.layout.time or (len(more.times) == 1 < len(cube.times)):
                tell(f"{name}, {more.origin}, has one field: it is taken at all times")
                names, values = self._unchanging(variables, domain)
                static.append((tuple(f"{name}.{channel}" for channel in names), values))
                continue
            own = grid_of_cube(more)
            driving = own.coarsened(variables.coarsen) if variables.coarsen > 1 else own
            coarsen = Conservative().between(own, driving) if variables.coarsen > 1 else None
            way = (variables.regrid or self.regrid).between(driving, domain)
            sources.append(Carried(more, driving, way, coarsen, name).beside(cube))
        names, values = zip(*static, strict=True)
        return self.assembled(sources, (sum(names, ()), np.concatenate(values)))

    def assembled(self, sources: Sequence[Carried], static: tuple[tuple[str, ...], np.ndarray]) -> Predictors:
        """Predictors of any files that carry the variables."""
        after = self.after + self.window - 1
        return Predictors(tuple(sources), self.before, after, static[1], static[0], tuple(self.features))

    def static_on(self, domain: Grid) -> tuple[tuple[str, ...], np.ndarray]:
        """Names and values of the fields of `static`, on the grid of the targets."""
        if self.static is None:
            return (), np.zeros((0, *domain.shape), np.float32)
        return self._unchanging(self.static, domain)

    def _unchanging(self, variables: Variables, domain: Grid) -> tuple[tuple[str, ...], np.ndarray]:
        cube = Cube(variables)
        grid, field, regrid = grid_of_cube(cube), cube.read(0), self.regrid
        if isinstance(variables, FurtherPredictors):
            regrid = variables.regrid or regrid
            if variables.coarsen > 1:
                coarse = grid.coarsened(variables.coarsen)
                grid, field = coarse, Conservative().between(grid, coarse)(field)
        return cube.names, regrid.between(grid, domain)(field)

    def _followed(self, targets: Cube, chosen: np.ndarray, matching: np.ndarray) -> np.ndarray:
        """Which fields begin a window of the split: the times after them belong to it, without a hole, and have predictors."""
        n, found = len(targets.times), np.ones(len(chosen), bool)
        even = np.tile(np.append(~irregular(targets.times), False), targets.members)
        for step in range(1, self.window):
            before = np.minimum(np.arange(len(chosen)) + step - 1, len(chosen) - 1)
            after = np.minimum(before + 1, len(chosen) - 1)
            found &= even[before] & chosen[after] & (matching[after] == matching[before] + 1)
        return found & (np.arange(len(chosen)) % n + self.window <= n)

    def _places(
        self, targets: Cube, domain: Grid, predictors: Predictors | None, matching: np.ndarray, split: Split
    ) -> np.ndarray:
        """Number, first row and first column of every field of a split."""
        chosen = np.tile(self.division.times(targets.times, split), targets.members)
        numbers = np.flatnonzero(chosen)
        if predictors is not None and (lacking := numbers[matching[numbers] < 0]).size:
            first, ends = dates(targets.times)[lacking[0] % len(targets.times)], dates(predictors.cube.times)
            raise InputError(
                f"{predictors.cube.origin} goes from {ends[0]} to {ends[-1]} and lacks {len(lacking)} times of the targets, "
                f"the first {first}: give predictors of all times, or choose others by division."
            )
        numbers = numbers[self._followed(targets, chosen, matching)[numbers]]
        if predictors is not None:
            numbers = numbers[predictors.complete(matching[numbers])]  # `summary_of` says how many are left out
            predictors.check_sources(matching[numbers])
        places = self.division.places(domain.shape, split)
        if self.tiles is None:
            if not places.all():
                raise InputError("Bands of a domain are held out, but a field is the whole of it: give tiles.")
            return np.stack([numbers, np.zeros_like(numbers), np.zeros_like(numbers)], axis=1)
        corners = self.tiles.corners(places)
        found = [np.empty((0, 3), int)]
        for number in numbers:
            kept = corners[self.tiles.fitting(targets.read(int(number)), corners)]
            found.append(np.column_stack([np.full(len(kept), number), kept]))
        return np.concatenate(found)


def grid_of_cube(cube: Cube) -> Grid:
    """The grid of a cube's variables."""
    found = grid_of(cube.dataset, cube.variables.names[0], cube.layouts[0])
    return found if cube.order is None else found.turned(*cube.order)


def surveyed(fields: GriddedFields) -> tuple[list[list[float]], list[list[float]], np.ndarray, bool]:
    """Ranges of the targets and of the predictors, where the targets are ever known, (rows, columns), and whether predictors
    have gaps: over all fields, a part of them in memory at a time.
    """
    channels = len(fields.variables), 0 if fields.predictors is None else len(fields.predictors.names)
    low, high = (np.full(sum(channels), value) for value in (np.inf, -np.inf))
    ever, gaps = np.zeros(fields.size, bool), False
    step = max(1, SURVEYED * len(fields) // max(fields.bytes, 1))
    for first in range(0, len(fields), step):
        batch = fields.gather(torch.arange(first, min(first + step, len(fields))))
        x = batch.x if batch.mask is None else batch.x.where(batch.mask, torch.nan)
        ever |= x.isfinite().any(1).any(0).numpy()
        parts = [x]
        if fields.predictors is not None:
            parts.append(batch.cond["field"][:, : channels[1]])
            gaps |= bool(parts[1].isnan().any())
        for sign, ends in ((-1, high), (1, low)):
            found = [(sign * v).where(v.isfinite(), torch.inf).amin((0, 2, 3)).double().numpy() for v in parts]
            ends[:] = sign * np.minimum(sign * ends, np.concatenate(found))
    reach = [[float(a), float(b)] if a <= b else [0.0, 0.0] for a, b in zip(low, high, strict=True)]
    return reach[: channels[0]], reach[channels[0] :], ever, gaps


def describe(source: Climate, fields: GriddedFields) -> Tensor:
    """The template of a training set, what its predictions will need, as bytes (n) uint8."""
    targets, predictors = fields.targets, fields.predictors
    reach, given, ever, gaps = surveyed(fields)
    whole = source.tiles is None
    ever = ever if whole else np.ones(fields.domain.shape, bool)
    times = [reach[start :: len(targets.names)] for start in range(len(targets.names))]  # of each variable
    reach = [[min(low for low, _ in one), max(high for _, high in one)] for one in times]
    facts = {"ranges": reach, "whole": whole, "size": list(fields.size), "members": targets.members}
    facts |= {"window": source.window} if source.window > 1 else {}
    required: dict[str, Any] = {"units": {}, "gaps": gaps}
    if predictors is not None:
        required["units"] = units_of(predictors.cube)
        required["step"] = usual_step(predictors.cube.times) if predictors.before or predictors.after else None
        required["ranges"] = dict(zip(predictors.names, given, strict=True))
    return template_bytes(targets, fields.domain, predictors, required, ever, facts)
