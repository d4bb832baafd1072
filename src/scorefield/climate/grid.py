"""Grids: where the points of a field are, what they stand for, and how they are named in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield.climate.files import Layout
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

GEOGRAPHIC, CURVILINEAR = "latitude_longitude", "curvilinear"  # the latter's lines are numbered: y and x are indices
LENGTHS = ("m", "km", "metre", "metres", "meter", "meters", "kilometre", "kilometres")


@dataclass(frozen=True, eq=False)
class Grid:
    """Points at the crossings of lines y and x: of latitude and longitude, of those of a rotated pole, or of a projection.

    Attributes:
        y: positions of the rows, (rows), rising or falling; degrees, or the projection's units.
        x: positions of the columns, (columns), likewise.
        y_edges: between the rows, (rows + 1).
        x_edges: between the columns, (columns + 1).
        kind: name of the grid mapping; "latitude_longitude" where there is none.
        pole: what else tells the mapping: its numbers, by name.
        latitude: of every point, (rows, columns), where a file tells or a rotated pole gives it; else None.
        longitude: likewise.
        spherical: whether y and x are angles on a sphere, so that areas go with the cosine of y.
    """

    y: np.ndarray
    x: np.ndarray
    y_edges: np.ndarray
    x_edges: np.ndarray
    kind: str = GEOGRAPHIC
    pole: tuple[tuple[str, float], ...] = ()
    latitude: np.ndarray | None = None
    longitude: np.ndarray | None = None
    spherical: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.y), len(self.x)

    @property
    def step(self) -> tuple[float, float]:
        """Mean distance of rows and of columns."""
        y, x = (abs(float(e[-1] - e[0])) / (len(e) - 1) for e in (self.y_edges, self.x_edges))
        return y, x

    def shares_lines_with(self, other: Grid) -> bool:
        """Whether rows are parallel to rows: one mapping with one pole."""
        same = len(self.pole) == len(other.pole) and all(
            name == name_ and abs(a - b) < 1e-4 for (name, a), (name_, b) in zip(self.pole, other.pole, strict=True)
        )
        return self.kind == other.kind and same

    def crop(self, rows: slice, columns: slice) -> Grid:
        """A part of it."""
        last = (rows.indices(len(self.y)), columns.indices(len(self.x)))
        (top, bottom, _), (left, right, _) = last
        return Grid(
            self.y[rows],
            self.x[columns],
            self.y_edges[top : bottom + 1],
            self.x_edges[left : right + 1],
            self.kind,
            self.pole,
            None if self.latitude is None else self.latitude[rows, columns],
            None if self.longitude is None else self.longitude[rows, columns],
            self.spherical,
        )

    def coarsened(self, factor: int) -> Grid:
        """Cells of factor × factor points; what is left over at the far ends is dropped."""
        rows, columns = (n // factor for n in self.shape)
        if not min(rows, columns):
            raise InputError(f"A grid of {self.shape[0]}×{self.shape[1]} cannot be coarsened {factor} times.")
        y_edges, x_edges = self.y_edges[: rows * factor + 1 : factor], self.x_edges[: columns * factor + 1 : factor]
        y, x = ((edges[1:] + edges[:-1]) / 2 for edges in (y_edges, x_edges))
        latitude, longitude = (None, None) if self.spherical else self._middles(factor)
        return Grid(y, x, y_edges, x_edges, self.kind, self.pole, latitude, longitude, self.spherical)

    def _middles(self, factor: int) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Latitude and longitude of cells of factor × factor points: of the mean of their unit vectors."""
        if self.latitude is None or self.longitude is None:
            return None, None
        rows, columns = (n // factor for n in self.shape)
        vectors = unit_vectors(self.latitude, self.longitude)[: rows * factor, : columns * factor]
        x, y, z = np.moveaxis(vectors.reshape(rows, factor, columns, factor, 3).mean((1, 3)), -1, 0)
        turn = 360 * (self.longitude.max() > 180)  # the branch of the file
        longitude = np.degrees(np.arctan2(y, x))
        return np.degrees(np.arctan2(z, np.hypot(x, y))), np.where(longitude < 0, longitude + turn, longitude)

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of every point in degrees, (rows, columns) each."""
        if self.latitude is not None and self.longitude is not None:
            return self.latitude, self.longitude
        if self.kind == GEOGRAPHIC:
            latitude, longitude = np.meshgrid(self.y, self.x, indexing="ij")
            return latitude, longitude
        if self.kind == "rotated_latitude_longitude":
            pole = dict(self.pole)
            return unrotate(self.y, self.x, pole["grid_north_pole_latitude"], pole["grid_north_pole_longitude"])
        raise InputError(f"A grid of the mapping {self.kind} needs latitude and longitude of every point in the file.")

    def areas(self) -> np.ndarray:
        """Relative areas of the cells, (rows, columns)."""
        if self.kind == CURVILINEAR and min(self.shape) > 1:  # |∂r/∂i × ∂r/∂j| on the unit sphere
            along = np.gradient(unit_vectors(*self.points()), axis=(0, 1))
            return np.linalg.norm(np.cross(*along), axis=-1)
        heights = np.abs(np.diff(np.sin(np.radians(self.y_edges)) if self.spherical else self.y_edges))
        return heights[:, None] * np.abs(np.diff(self.x_edges))[None]


def grid_of(dataset: xr.Dataset, name: str, layout: Layout) -> Grid:
    """The grid of a variable, with the bounds that a file gives, or else half way between its points."""
    kind, pole = mapping_of(dataset, name)
    curved = _curvilinear(dataset, layout)
    y, x = (_positions(dataset, dimension) for dimension in (layout.y, layout.x))
    if layout.y not in dataset.coords and curved is not None:
        kind = CURVILINEAR
    elif kind == GEOGRAPHIC and layout.y in dataset.coords and dataset[layout.y].attrs.get("units") in LENGTHS:
        kind = "projection"  # one that the file does not name
    spherical = kind in (GEOGRAPHIC, "rotated_latitude_longitude")
    y_edges, x_edges = _edges(dataset, layout.y, y), _edges(dataset, layout.x, x)
    if spherical:
        y_edges = y_edges.clip(-90, 90)
    lat, lon = curved if curved is not None else (None, None)
    return Grid(y, x, y_edges, x_edges, kind, pole, lat, lon, spherical)


def mapping_of(dataset: xr.Dataset, name: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """The name of a variable's grid mapping, and its numbers."""
    variable = dataset[name].attrs.get("grid_mapping", dataset[name].encoding.get("grid_mapping", ""))
    if str(variable) not in dataset.variables:
        return GEOGRAPHIC, ()
    attributes: dict[str, Any] = dataset[str(variable)].attrs
    told = {k: np.asarray(v) for k, v in attributes.items() if "pole" in k}
    numbers = {k: float(v) for k, v in told.items() if v.dtype.kind in "iuf" and not v.ndim}
    return str(attributes.get("grid_mapping_name", GEOGRAPHIC)), tuple(sorted(numbers.items()))


def unit_vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Points on the unit sphere, (..., 3), of latitude and longitude (...) in degrees."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    return np.stack((np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)), axis=-1)


def unrotate(
    y: np.ndarray, x: np.ndarray, pole_latitude: float, pole_longitude: float
) -> tuple[np.ndarray, np.ndarray]:
    """Geographic latitude and longitude of points on lines of a rotated pole, all in degrees."""
    phi, lam = np.meshgrid(np.radians(y), np.radians(x), indexing="ij")
    tilt = np.radians(pole_latitude)
    north = np.cos(phi) * np.cos(lam) * np.cos(tilt) + np.sin(phi) * np.sin(tilt)
    east = np.cos(phi) * np.sin(lam)
    away = np.cos(phi) * np.cos(lam) * np.sin(tilt) - np.sin(phi) * np.cos(tilt)
    longitude = np.degrees(np.arctan2(east, away)) + pole_longitude + 180.0
    return np.degrees(np.arcsin(north.clip(-1, 1))), (longitude + 180.0) % 360.0 - 180.0


def _positions(dataset: xr.Dataset, dimension: str) -> np.ndarray:
    if dimension not in dataset.coords:
        return np.arange(dataset.sizes[dimension], dtype=np.float64)
    values = np.asarray(dataset[dimension].values, np.float64)
    steps = np.diff(values)
    if len(steps) and not ((steps > 0).all() or (steps < 0).all()):
        raise InputError(f"The coordinate {dimension} neither rises nor falls: sort it.")
    return values


def _edges(dataset: xr.Dataset, dimension: str, positions: np.ndarray) -> np.ndarray:
    bounds = str(dataset[dimension].attrs.get("bounds", "")) if dimension in dataset.coords else ""
    if bounds not in dataset.variables:
        bounds = str(dataset[dimension].encoding.get("bounds", "")) if dimension in dataset.coords else ""
    if bounds in dataset.variables:
        pairs = np.asarray(dataset[bounds].values, np.float64)
        falling = len(positions) > 1 and positions[1] < positions[0]
        low, high = pairs.min(1), pairs.max(1)
        return np.append(high, low[-1]) if falling else np.append(low, high[-1])
    return edges_between(positions)


def edges_between(positions: np.ndarray) -> np.ndarray:
    """Half way between positions, and as far beyond the first and the last."""
    if len(positions) == 1:
        return np.array([positions[0] - 0.5, positions[0] + 0.5])
    middle = (positions[1:] + positions[:-1]) / 2
    return np.concatenate(([2 * positions[0] - middle[0]], middle, [2 * positions[-1] - middle[-1]]))


def _curvilinear(dataset: xr.Dataset, layout: Layout) -> tuple[np.ndarray, np.ndarray] | None:
    """Latitude and longitude of every point, where the file has them."""
    found = []
    for names in (("lat", "latitude", "nav_lat", "XLAT"), ("lon", "longitude", "nav_lon", "XLONG")):
        name = next((n for n in names if n in dataset.variables and set(dataset[n].dims) == {layout.y, layout.x}), None)
        if name is None:
            return None
        found.append(np.asarray(dataset[name].transpose(layout.y, layout.x).values, np.float64))
    return found[0], found[1]
