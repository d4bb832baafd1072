"""The fields of a data set's own splits, to predict them: whole fields by their dates, tiles by their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scorefield.climate.axes import library
from scorefield.climate.fields import GriddedFields
from scorefield.climate.predictors import Driving, EnsembleInput, minutes, rescaled, to_cells_and_back
from scorefield.climate.regrid import Conservative, spreading
from scorefield.climate.source import Climate
from scorefield.climate.template import DEGREES, Template
from scorefield.climate.times import dates
from scorefield.data.source import Split
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


def predictors_of_split(source: Climate, split: Split, most: int | None = None) -> tuple[EnsembleInput, GriddedFields]:
    """What the fields of a split, or at most so many of them, are predicted from, and the fields."""
    fields = source.load(split)
    fields = fields if most is None else fields.some(most)
    if fields.predictors is None:
        raise InputError("The data have no predictors to predict from.")
    if source.tiles is not None:
        return SplitTiles(fields), fields
    if fields.targets.members > 1:
        raise InputError(
            f"{fields.targets.origin} has {fields.targets.members} members: write the predictors of each to a file of its own, "
            f"with xarray .isel({fields.targets.layout.member}=0), and give the folder of them."
        )
    everything = slice(0, fields.domain.shape[0]), slice(0, fields.domain.shape[1])
    back = to_cells_and_back(fields.domain, fields.predictors.grid)
    return Driving(fields.predictors, *everything, fields.domain, fields.given_places[:, 0], *back, True), fields


@dataclass(frozen=True, eq=False)
class SplitTiles(EnsembleInput):
    """The tiles of a split.

    Attributes:
        fields: the tiles.
    """

    fields: GriddedFields
    dimension: str = "tile"

    @property
    def shape(self) -> tuple[int, int]:
        return self.fields.size

    @property
    def quantities(self) -> tuple[tuple[str, str], ...]:
        return () if self.fields.predictors is None else self.fields.predictors.cube.quantities

    def __len__(self) -> int:
        return len(self.fields)

    def key(self, position: int) -> tuple[int, ...]:
        place = self.fields.place(position)
        number = place.number // len(self.fields.targets.times)
        return minutes(self.date(position)), number, place.row, place.column

    def digest(self) -> str:
        return "" if self.fields.predictors is None else self.fields.predictors.digest(self.fields.given_places)

    def field(self, position: int) -> Tensor:
        return self.fields.gather(torch.tensor([position])).cond["field"][0]

    def known(self, template: Template) -> np.ndarray:
        return np.ones(self.shape, bool)

    def frame(self, template: Template) -> tuple[xr.Dataset, tuple[str, str], dict[str, str]]:
        xarray = library()
        grids = [self.fields.grid(i) for i in range(len(self))]
        kind = template.facts["mapping"]
        lines = {}
        for axis in ("y", "x"):
            own = template.facts[axis]
            positions = np.stack([getattr(grid, axis) for grid in grids])
            lines[own] = (("tile", axis), positions, self._attributes(template, axis))
        times = np.asarray([self.fields.time(i) for i in range(len(self))])
        coords = {
            "tile": ("tile", np.arange(len(self), dtype=np.int32), {"long_name": "number of the tile", "units": "1"}),
            "place": ("tile", self._places(), {"long_name": "number of the tile's first point", "units": "1"}),
            "time": ("tile", times, {"standard_name": "time", "long_name": "time"}),
            "y": ("y", np.arange(self.shape[0], dtype=np.int32), {"long_name": "row in the tile", "units": "1"}),
            "x": ("x", np.arange(self.shape[1], dtype=np.int32), {"long_name": "column in the tile", "units": "1"}),
        }
        dataset = xarray.Dataset(coords=coords | {k: v for k, v in lines.items() if k not in coords})
        dataset["time"].encoding = {"dtype": "float64"}
        dataset.attrs = dict(template.facts["attrs"])
        if kind:
            dataset[kind] = template.frame[kind].variable
        names = " ".join(["time", "place", *(k for k in lines if k not in ("y", "x"))])
        return dataset, ("y", "x"), {"coordinates": names} | ({"grid_mapping": kind} if kind else {})

    def conserved(self, position: int, x: np.ndarray, *, multiply: bool) -> np.ndarray:
        place, predictors = self.fields.place(position), self.fields.predictors
        factor = self.fields.domain.shape[0] // (predictors.grid.shape[0] if predictors else 1)
        if predictors is None or any(n % factor for n in (place.row, place.column, *self.shape)):
            raise InputError("The tiles are not made of whole cells of the predictors' grid: leave out --conserve.")
        fine = self.fields.grid(position)
        coarse = fine.coarsened(factor)
        part = slice(place.row // factor, (place.row + self.shape[0]) // factor)
        along = slice(place.column // factor, (place.column + self.shape[1]) // factor)
        given = self.fields.coarse(position)[: len(x), part, along].astype(np.float64)
        return rescaled(x, given, Conservative().between(fine, coarse), spreading(coarse, fine), multiply=multiply)

    def _attributes(self, template: Template, axis: str) -> dict[str, str]:
        own = dict(template.frame[template.facts[axis]].attrs) if template.facts[axis] in template.frame.coords else {}
        own = {k: v for k, v in own.items() if k in ("standard_name", "long_name", "units")}
        if template.facts["mapping"] or own.get("units"):
            return own
        standard, units = DEGREES[axis]
        return {"standard_name": standard, "long_name": standard, "units": units}

    def _places(self) -> np.ndarray:
        """Where each tile lies, at any time: the number of its first point, row by row."""
        return (self.fields.places[:, 1] * self.fields.domain.shape[1] + self.fields.places[:, 2]).astype(np.int32)

    def date(self, position: int) -> Any:
        return dates(np.asarray([self.fields.time(position)]))[0]
