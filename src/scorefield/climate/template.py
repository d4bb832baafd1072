"""Templates: all that a prediction takes from the training data beside the weights, as the bytes of a small NetCDF file.

Coordinates and their bounds, grid mapping, units, names and attributes of the targets, where they are known and between which
values; static fields on the target's grid; and what predictors have to be like. It travels in the checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scorefield.climate.axes import NAMES, Layout, bounds_name, library, mapping_name
from scorefield.climate.carried import Predictors, units_of
from scorefield.climate.files import Cube
from scorefield.climate.grid import CURVILINEAR, Grid, grid_of, is_angle
from scorefield.climate.times import calendar_of
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

FACTS = "scorefield"  # the attribute with what fits into JSON
DEGREES = {"y": ("latitude", "degrees_north"), "x": ("longitude", "degrees_east")}
KNOWN, STATIC = "scorefield_known", "scorefield_static"


@dataclass(frozen=True, eq=False)
class Template:
    """What a prediction takes from the training data.

    Attributes:
        frame: the coordinates of the domain, the targets' attributes on empty variables, grid mapping and bounds.
        facts: variables, predictors, units, ranges, driving grid.
    """

    frame: xr.Dataset
    facts: dict[str, Any]

    @classmethod
    def read(cls, content: Tensor) -> Template:
        """From the bytes (n) in a checkpoint. Raises InputError where there are none."""
        if not content.numel():
            raise InputError(
                "The run has no gridded data: `downscale` is for runs that were trained on `Climate` data."
            )
        xarray = library()
        with xarray.open_dataset(BytesIO(content.numpy().tobytes()), engine="h5netcdf", decode_times=False) as file:
            frame = file.load()
        return cls(frame, json.loads(frame.attrs[FACTS]))

    @property
    def variables(self) -> list[str]:
        """Names of the targets' channels."""
        return list(self.facts["variables"])

    @property
    def grid(self) -> Grid:
        """The whole domain of the targets."""
        return grid_of(self.frame, KNOWN, Layout(x=self.facts["x"], y=self.facts["y"]))

    @property
    def driving(self) -> Grid:
        """The grid of the predictors."""
        return _grid(self.facts["driving"])

    @property
    def further(self) -> dict[str, tuple[Grid, dict[str, str]]]:
        """The grids of further predictors, and the units of their variables, by the name of their source."""
        stored = self.facts.get("further", {})  # runs of before have none
        return {name: (_grid(one["driving"]), dict(one["units"])) for name, one in stored.items()}

    @property
    def known(self) -> np.ndarray:
        """Where targets were ever known, (rows, columns) bool."""
        return self.frame[KNOWN].values.astype(bool)

    def coordinates(self, rows: slice, columns: slice) -> xr.Dataset:
        """The coordinates of a part of the domain, with the attributes that CF asks for where the training files have none."""
        y, x = self.facts["y"], self.facts["x"]
        dataset = self.frame.isel({y: rows, x: columns}).drop_vars([KNOWN, STATIC], errors="ignore")
        for axis, name in (("y", y), ("x", x)):
            complete(dataset, name, axis, geographic=not self.facts["mapping"])
        dataset.attrs = dict(self.facts["attrs"])
        return dataset

    def elsewhere(self, coarse: Grid, factor: tuple[int, int]) -> Template:
        """The same for another region: that under some predictors, whose cells have so many rows and columns of points each."""
        y, x, mapping = self.facts["y"], self.facts["x"], self.facts["mapping"]
        frame = library().Dataset(attrs=self.frame.attrs)
        for name, edges, parts in ((y, coarse.y_edges, factor[0]), (x, coarse.x_edges, factor[1])):
            numbers = np.arange((len(edges) - 1) * parts + 1) / parts
            fine = np.interp(numbers, np.arange(len(edges)), edges)
            frame.coords[name] = (name, (fine[1:] + fine[:-1]) / 2)
            if name in self.frame.coords:
                frame[name].attrs = {k: v for k, v in self.frame[name].attrs.items() if k != "bounds"}
        frame[KNOWN] = ((y, x), np.ones((frame.sizes[y], frame.sizes[x]), np.int8))
        if mapping:
            frame[mapping] = self.frame[mapping]
            frame[KNOWN].attrs["grid_mapping"] = mapping
        learnt = f"a model of another region: {self.facts['attrs'].get('title', 'without a title')}"
        attributes = {"title": "Draws for a region that the model was not trained in", "source": learnt}
        return Template(frame, self.facts | {"driving": _lines(coarse), "attrs": attributes})

    @property
    def static(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Names and values of the fields that do not change."""
        names = tuple(self.facts["static"])
        values = self.frame[STATIC].values if names else np.zeros((0, *self.grid.shape))
        return names, values.astype(np.float32)


def template_bytes(
    targets: Cube,
    domain: Grid,
    predictors: Predictors | None,
    required: dict[str, Any],
    known: np.ndarray,
    facts: dict[str, Any],
) -> Tensor:
    """Make a template.

    Args:
        targets: the variables learnt.
        domain: their grid.
        predictors: what they are learnt from.
        required: units of the predictors by name, under "units", and whether they may have gaps, under "gaps".
        known: where targets were ever known, (rows, columns).
        facts: further entries.
    """
    layout, dataset = targets.layouts[0], targets.dataset
    rows, columns = domain.shape
    frame = dataset.isel({layout.y: slice(rows), layout.x: slice(columns)})
    kept = [str(name) for name in frame.variables if _is_frame(frame, str(name), (layout.y, layout.x), targets)]
    frame = frame.drop_vars([name for name in frame.variables if name not in kept]).load()
    frame[KNOWN] = ((layout.y, layout.x), known.astype(np.int8))
    if mapping := mapping_name(dataset, targets.variables.names[0]):
        frame[mapping] = dataset[mapping].variable.load()
        frame[KNOWN].attrs["grid_mapping"] = mapping
    if predictors is not None and predictors.static_names:
        frame[STATIC] = (("scorefield_channel", layout.y, layout.x), predictors.static)
    attributes = {name: _plain(targets.attributes(name)) for name in targets.variables.names}
    kept_attributes = ("institution", "title", "source", "references")
    time = dataset[targets.layout.time] if targets.layout.time else None
    facts = facts | {
        "variables": list(targets.names),
        "attributes": attributes,
        "y": layout.y,
        "x": layout.x,
        "mapping": mapping,
        "predictors": required,
        "static": [] if predictors is None else list(predictors.static_names),
        "driving": None if predictors is None else _lines(predictors.grid),
        "further": {
            one.name: {"driving": _lines(one.grid), "units": units_of(one.cube)}
            for one in (() if predictors is None else predictors.sources[1:])
        },
        "calendar": "" if time is None else calendar_of(time),
        "attrs": {k: v for k, v in _plain(dataset.attrs).items() if k in kept_attributes},
    }
    frame.attrs = {FACTS: json.dumps(facts)}
    for variable in frame.variables.values():
        variable.encoding = {k: v for k, v in variable.encoding.items() if k == "_FillValue" and v is None}
    file = BytesIO()
    fields = [name for name in (KNOWN, STATIC) if name in frame]
    frame.to_netcdf(file, engine="h5netcdf", encoding={name: {"zlib": True, "complevel": 4} for name in fields})
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def complete(dataset: xr.Dataset, name: str, axis: str, *, geographic: bool) -> None:
    """Say what a coordinate is where its file did not."""
    if name not in dataset.coords:
        dataset.coords[name] = (name, np.arange(dataset.sizes[name], dtype=np.float64))
        dataset[name].attrs = {"long_name": f"number of the point along {axis}", "units": "1"}
    attributes = dataset[name].attrs
    attributes.setdefault("axis", axis.upper())
    if geographic and name.lower() in NAMES[axis][:2]:
        standard, units = DEGREES[axis]
        attributes.update({"standard_name": standard, "units": attributes.get("units", units)})
        attributes.setdefault("long_name", standard)


def _is_frame(frame: xr.Dataset, name: str, axes: tuple[str, str], targets: Cube) -> bool:
    """Whether a variable says where the points are: a coordinate or bounds of the grid, or one number, and nothing of time."""
    dims, numeric = set(map(str, frame[name].dims)), frame[name].dtype.kind in "iuf"
    if not dims:
        return name in frame.coords and numeric and name.lower() not in (*NAMES["member"], *NAMES["time"])
    if name in targets.variables.names or not dims & set(axes):
        return False
    bounds = {bounds_name(frame, str(coordinate)) for coordinate in frame.coords}
    positions = name in frame.coords or name in bounds or is_angle(frame[name])
    return positions and all(frame.sizes[d] in (2, 4) and d not in frame.coords for d in dims - set(axes))


def _grid(stored: dict[str, Any]) -> Grid:
    """The inverse of `_lines`."""
    arrays = {name: np.asarray(values) for name, values in {**stored["lines"], **stored.get("points", {})}.items()}
    pole = tuple((name, number) for name, number in stored["pole"])
    return Grid(**arrays, kind=stored["kind"], pole=pole, spherical=stored["spherical"])


def _lines(grid: Grid) -> dict[str, Any]:
    numbered = grid.kind == CURVILINEAR and grid.latitude is not None
    lines, points = (
        {name: getattr(grid, name).tolist() for name in names}
        for names in (("y", "x", "y_edges", "x_edges"), ("latitude", "longitude") if numbered else ())
    )
    pole = [list(pair) for pair in grid.pole]
    return {"lines": lines, "points": points, "kind": grid.kind, "pole": pole, "spherical": grid.spherical}


def _plain(attributes: Any) -> dict[str, Any]:
    """Attributes as JSON has them."""
    plain = {str(name): np.asarray(value).tolist() for name, value in attributes.items()}
    return {name: value for name, value in plain.items() if isinstance(value, str | int | float)}
