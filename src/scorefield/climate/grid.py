"""Grids: where the points of a field are, how large their cells are, and how they are named in a file.

A cell ends at its bounds where the file has them, else half way to its neighbours, as far beyond the outermost points, and at a
pole where that is less than half a cell away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield.climate.axes import Layout, bounds_name, mapping_name, points_of
from scorefield.climate.units import conversion
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

GEOGRAPHIC, ROTATED = "latitude_longitude", "rotated_latitude_longitude"
CURVILINEAR = "curvilinear"  # lines are numbered, and every point has a latitude and a longitude
PLANE = "projection"  # one that the file does not name
ANGLES = ("lat", "latitude", "rlat", "grid_latitude", "lon", "longitude", "rlon", "grid_longitude")


@dataclass(frozen=True, eq=False)
class Grid:
    """Points at the crossings of lines y and x: of latitude and longitude, of those of a rotated pole, or of a projection.

    Attributes:
        y: positions of the rows, (rows), rising or falling; degrees, or the projection's units.
        x: positions of the columns, (columns), likewise; longitudes go on beyond 360 where they cross it.
        y_edges: between the rows, (rows + 1).
        x_edges: between the columns, (columns + 1).
        kind: name of the grid mapping; "latitude_longitude" where there is none.
        pole: the numbers of a rotated mapping, by name; degrees.
        latitude: of every point, (rows, columns) degrees, where the file has it; else None.
        longitude: likewise.
        spherical: whether y and x are angles on a sphere.
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

    def turned(self, rows: np.ndarray, columns: np.ndarray) -> Grid:
        """All of it with rows and columns in their own order or the reverse, by their numbers."""
        down, along = (slice(None, None, -1 if len(n) > 1 and n[0] > n[-1] else 1) for n in (rows, columns))
        latitude, longitude = (None if p is None else p[down, along] for p in (self.latitude, self.longitude))
        lines = self.y[down], self.x[along], self.y_edges[down], self.x_edges[along]
        return Grid(*lines, self.kind, self.pole, latitude, longitude, self.spherical)

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
        pole = dict(self.pole)
        if self.kind == ROTATED and pole:
            return unrotate(self.y, self.x, pole["grid_north_pole_latitude"], pole["grid_north_pole_longitude"])
        raise InputError(f"A grid of the mapping {self.kind} needs latitude and longitude of every point in the file.")

    def areas(self) -> np.ndarray:
        """Areas of the cells, (rows, columns): (sin φ₂ − sin φ₁)(λ₂ − λ₁) sr on a sphere; else in units of y²."""
        if self.kind == CURVILINEAR and min(self.shape) > 1:  # |∂r/∂i × ∂r/∂j| on the unit sphere
            along = np.gradient(unit_vectors(*self.points()), axis=(0, 1))
            return np.linalg.norm(np.cross(*along), axis=-1)
        y, x = (
            (np.sin(np.radians(self.y_edges)), np.radians(self.x_edges))
            if self.spherical
            else (self.y_edges, self.x_edges)
        )
        return np.abs(np.diff(y))[:, None] * np.abs(np.diff(x))[None]


def grid_of(dataset: xr.Dataset, name: str, layout: Layout) -> Grid:
    """The grid of a variable.

    Raises:
        InputError: a coordinate neither rises nor falls.
    """
    kind, pole = mapping_of(dataset, name)
    lines = [dataset[d] for d in (layout.y, layout.x) if d in dataset.coords]
    whole = len(lines) == 2
    angles = whole and all(map(is_angle, lines))
    lengths = whole and all(conversion(line.attrs.get("units", ""), "m") for line in lines)
    projected = whole and kind not in ("", GEOGRAPHIC, ROTATED)
    latitude, longitude = _points(dataset, name, layout)
    if latitude is not None and not (angles or lengths or projected):
        kind = CURVILINEAR  # what else stands along y and x are the numbers of lines
    elif not kind:
        rotated = angles and "grid_latitude" in (lines[0].attrs.get("standard_name"), layout.y)
        kind = ROTATED if rotated else GEOGRAPHIC if angles else PLANE
    spherical = kind in (GEOGRAPHIC, ROTATED)
    numbers = kind == CURVILINEAR
    y, y_edges = _line(dataset, layout.y, numbered=numbers)
    x, x_edges = _line(dataset, layout.x, numbered=numbers, circle=spherical)
    if spherical:
        y_edges = y_edges.clip(-90, 90) if bounds_name(dataset, layout.y) else to_poles(y_edges)
    return Grid(y, x, y_edges, x_edges, kind, pole, latitude, longitude, spherical)


def is_angle(coordinate: xr.DataArray) -> bool:
    """Whether a coordinate is in degrees, by its units, or where it has none by its name."""
    units = coordinate.attrs.get("units")
    if units is not None:
        return str(units).startswith("degree")
    return bool({str(coordinate.name).lower(), coordinate.attrs.get("standard_name")} & set(ANGLES))


def mapping_of(dataset: xr.Dataset, name: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """The name of a variable's grid mapping, "" where there is none, and the numbers of its pole."""
    if not (variable := mapping_name(dataset, name)):
        return "", ()
    attributes: dict[str, Any] = dataset[variable].attrs
    given = {k: np.asarray(v) for k, v in attributes.items() if "pole" in k}
    numbers = {k: float(v) for k, v in given.items() if v.dtype.kind in "iuf" and not v.ndim}
    return str(attributes.get("grid_mapping_name", GEOGRAPHIC)), tuple(sorted(numbers.items()))


def unit_vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Points on the unit sphere, (..., 3), of latitude and longitude (...) in degrees."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    return np.stack((np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)), axis=-1)


def unrotate(
    y: np.ndarray, x: np.ndarray, pole_latitude: float, pole_longitude: float
) -> tuple[np.ndarray, np.ndarray]:
    """Geographic latitude and longitude, (rows, columns), of lines y (rows), x (columns) of a rotated pole; in degrees."""
    phi, lam = np.meshgrid(np.radians(y), np.radians(x), indexing="ij")
    tilt = np.radians(pole_latitude)
    north = np.cos(phi) * np.cos(lam) * np.cos(tilt) + np.sin(phi) * np.sin(tilt)
    east = np.cos(phi) * np.sin(lam)
    away = np.cos(phi) * np.cos(lam) * np.sin(tilt) - np.sin(phi) * np.cos(tilt)
    longitude = np.degrees(np.arctan2(east, away)) + pole_longitude + 180.0
    return np.degrees(np.arcsin(north.clip(-1, 1))), (longitude + 180.0) % 360.0 - 180.0


def edges_between(positions: np.ndarray) -> np.ndarray:
    """The n + 1 edges half way between n positions, and as far beyond the first and the last."""
    if len(positions) == 1:
        return np.array([positions[0] - 0.5, positions[0] + 0.5])
    middle = (positions[1:] + positions[:-1]) / 2
    return np.concatenate(([2 * positions[0] - middle[0]], middle, [2 * positions[-1] - middle[-1]]))


def to_poles(edges: np.ndarray) -> np.ndarray:
    """Edges of latitude in degrees, which end at a pole where it is less than half a cell away."""
    edges = edges.clip(-90, 90)
    for end, inner in ((0, 1), (-1, -2)):
        if 90 - abs(edges[end]) < abs(edges[end] - edges[inner]) / 2:
            edges[end] = np.copysign(90, edges[end])
    return edges


def same_points(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether points (rows, columns), by latitude and longitude in degrees, are the same to a hundredth of their spacing."""
    if ours[0].shape != theirs[0].shape:
        return False
    away = np.abs(unit_vectors(*ours) - unit_vectors(*theirs)).max()
    return bool(away < 1e-2 * np.radians(spacing(*theirs)))


def orientation_to(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]
) -> tuple[slice, slice] | None:
    """The order of their rows and columns in which their points, (rows, columns) in degrees, are ours; None without one."""
    forth, back = slice(None), slice(None, None, -1)
    orders = [(rows, columns) for rows in (forth, back) for columns in (forth, back)]
    return next((order for order in orders if same_points(ours, (theirs[0][order], theirs[1][order]))), None)


def spacing(latitude: np.ndarray, longitude: np.ndarray) -> float:
    """The largest distance of neighbouring points (rows, columns), in degrees."""
    steps = [np.abs(np.diff(latitude, axis=a)).max(initial=0) for a in (0, 1)]
    turns = [np.abs((np.diff(longitude, axis=a) + 180) % 360 - 180).max(initial=0) for a in (0, 1)]
    return float(max(*steps, *turns))


def factor_between(coarse: tuple[int, ...], fine: tuple[int, ...]) -> tuple[int, int]:
    """How many fine cells lie in a coarse one, along y and x, from the last two sizes of each."""
    factors = fine[-2] // coarse[-2], fine[-1] // coarse[-1]
    if min(factors) < 1 or (coarse[-2] * factors[0], coarse[-1] * factors[1]) != tuple(fine[-2:]):
        raise InputError(
            f"A grid of {coarse[-2]}×{coarse[-1]} boxes does not divide one of {fine[-2]}×{fine[-1]} evenly: crop the fine one, "
            "or bring the coarse one onto a grid that does."
        )
    return factors


def _line(
    dataset: xr.Dataset, dimension: str, *, numbered: bool, circle: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Positions along a dimension, numbers where it has none, and the edges between them; on a circle they go on beyond 360."""
    if numbered or dimension not in dataset.coords:
        positions = np.arange(dataset.sizes[dimension], dtype=np.float64)
        return positions, edges_between(positions)
    positions = np.asarray(dataset[dimension].values, np.float64)
    positions = np.unwrap(positions, period=360) if circle else positions
    steps = np.diff(positions)
    if len(steps) and not ((steps > 0).all() or (steps < 0).all()):
        advice = "roll it, so that it goes on around the circle" if circle else "sort it"
        raise InputError(f"The coordinate {dimension} neither rises nor falls: {advice}.")
    if not (bounds := bounds_name(dataset, dimension)):
        return positions, edges_between(positions)
    pairs = np.asarray(dataset[bounds].values, np.float64)
    if circle:
        pairs = np.unwrap(pairs, period=360, axis=1)
        pairs += 360 * np.round((positions - pairs.mean(1)) / 360)[:, None]
    low, high = pairs.min(1), pairs.max(1)
    slack = 1e-6 * np.abs(pairs).max()
    if ((positions < low - slack) | (positions > high + slack)).any():
        return positions, edges_between(positions)
    falling = len(positions) > 1 and positions[1] < positions[0]
    return positions, np.append(high, low[-1]) if falling else np.append(low, high[-1])


def _points(dataset: xr.Dataset, name: str, layout: Layout) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Latitude and longitude of every point, where the file has them."""
    if (names := points_of(dataset, name, (layout.y, layout.x))) is None:
        return None, None
    latitude, longitude = (np.asarray(dataset[n].transpose(layout.y, layout.x).values, np.float64) for n in names)
    wrong = ~(np.abs(latitude) <= 90.001) | ~(np.abs(longitude) <= 1e3)
    if wrong.any():
        raise InputError(
            f"{int(wrong.sum())} points have no latitude and longitude in {names[0]} and {names[1]}: give every point its place."
        )
    return latitude, longitude
