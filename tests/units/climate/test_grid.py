"""One grid, one area: cells end at bounds, else half way between points, and at the poles; areas are those of a sphere."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scorefield.climate.alignment import coarse_boxes, same_grid
from scorefield.climate.files import Layout, layout_of
from scorefield.climate.grid import CURVILINEAR, GEOGRAPHIC, PLANE, Grid, grid_of
from scorefield.climate.verification.pair import pair_up
from scorefield.foundation.errors import InputError

GAUSSIAN = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))
IRREGULAR = np.array([-90.0, -70, -62, -20, 1, 5, 33, 80])


def fields(lat: np.ndarray, lon: np.ndarray, **more: object) -> xr.Dataset:
    axes = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    values = np.random.default_rng(0).normal(size=(3, len(lat), len(lon))).astype(np.float32)
    coords = {"time": xr.date_range("2001-01-01", periods=3)} | axes
    return xr.Dataset({"tas": (("time", "lat", "lon"), values, {"units": "K"})}, coords).assign(**more)


def grid(data: xr.Dataset, name: str = "tas") -> Grid:
    return grid_of(data, name, layout_of(data, name, "a.nc"))


def with_bounds(data: xr.Dataset, name: str, edges: np.ndarray) -> xr.Dataset:
    data = data.assign({f"{name}_bnds": ((name, "bnds"), np.stack((edges[:-1], edges[1:]), 1))})
    data[name].attrs["bounds"] = f"{name}_bnds"
    return data


LONGITUDES = {
    "from 0": np.arange(0, 360, 15.0),
    "from -180": np.arange(-180, 180, 15.0),
    "falling": np.arange(345, -15, -15.0),
    "across 0": np.roll(np.arange(0, 360, 15.0), 7),
}


@pytest.mark.parametrize("lon", LONGITUDES.values(), ids=LONGITUDES)
@pytest.mark.parametrize(
    "lat",
    [np.linspace(-90, 90, 13), np.arange(-85, 90, 10.0), np.arange(85, -90, -10.0), GAUSSIAN, IRREGULAR],
    ids=["with poles", "without", "falling", "Gaussian", "irregular"],
)
def test_the_areas_of_a_globe_are_those_of_a_sphere(lat: np.ndarray, lon: np.ndarray) -> None:
    """4π in all, whatever the latitudes and wherever the circle is cut."""
    found = grid(fields(lat, lon)).areas()
    assert found.sum() == pytest.approx(4 * np.pi, rel=1e-12) and (found > 0).all()


def test_the_area_of_a_regular_grid_is_the_cosine_to_second_order() -> None:
    errors = []
    for step in (4.0, 2.0):
        lat = np.arange(20 + step / 2, 60, step)
        area = grid(fields(lat, np.arange(0, 40, step))).areas()
        errors.append(np.abs(area / np.radians(step) ** 2 / np.cos(np.radians(lat))[:, None] - 1).max())
    assert errors[0] == pytest.approx(np.radians(4) ** 2 / 24, rel=1e-2) and errors[0] / errors[1] == pytest.approx(
        4, rel=1e-2
    )


def test_irregular_latitudes_weigh_by_their_cells_not_by_their_cosine() -> None:
    found = grid(fields(np.array([0.0, 5, 15, 40, 75]), np.arange(0, 40, 10.0))).areas()[:, 0]
    np.testing.assert_allclose(found / found.sum(), [0.084, 0.125, 0.276, 0.366, 0.150], atol=6e-4)


def test_bounds_come_before_what_lies_half_way() -> None:
    lat, edges = np.array([10.0, 20.0, 30.0]), np.array([5.0, 12.0, 29.0, 31.0])
    data = with_bounds(fields(lat, np.arange(4.0)), "lat", edges)
    expected = np.diff(np.sin(np.radians(edges)))
    np.testing.assert_allclose(grid(data).areas()[:, 0] / np.radians(1), expected, rtol=1e-12)
    turned = data.isel(lat=slice(None, None, -1))
    np.testing.assert_allclose(grid(turned).areas(), grid(data).areas()[::-1], rtol=1e-12)
    wrapped = with_bounds(fields(lat, np.array([358.0, 0, 2])), "lon", np.array([357.0, 359, 361, 363]) % 360)
    np.testing.assert_allclose(grid(wrapped).x_edges, [357, 359, 361, 363])
    elsewhere = grid(with_bounds(fields(lat, np.arange(4.0)), "lat", np.array([0.0, 1, 2, 3])))
    np.testing.assert_array_equal(elsewhere.y_edges, [5, 15, 25, 35])  # they do not contain their points


def test_cells_in_metres_are_equal_and_those_of_curved_lines_have_their_size_on_the_sphere() -> None:
    metres = {name: (name, np.arange(n) * 2200.0, {"units": "m"}) for name, n in (("y", 6), ("x", 5))}
    plane = xr.Dataset({"pr": (("y", "x"), np.zeros((6, 5)))}, metres)
    assert grid(plane, "pr").kind == PLANE and np.allclose(grid(plane, "pr").areas(), 2200.0**2)
    lat, lon = np.meshgrid(np.linspace(20, 70, 101), np.linspace(0, 40, 81), indexing="ij")
    curved = xr.Dataset({"pr": (("y", "x"), np.zeros(lat.shape)), "lat": (("y", "x"), lat), "lon": (("y", "x"), lon)})
    expected = grid(fields(lat[:, 0], lon[0])).areas()
    found = grid(curved, "pr")
    np.testing.assert_allclose(found.areas()[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=2e-4)
    assert found.kind == CURVILINEAR


def test_verification_weighs_by_the_same_areas() -> None:
    """With bounds, in the order of the predictions."""
    truth = with_bounds(fields(np.array([10.0, 20, 30]), np.arange(0, 40, 10.0)), "lat", np.array([5.0, 12, 29, 31]))
    pred = truth.drop_vars("lat_bnds").isel(lat=slice(None, None, -1))
    found = pair_up(pred, truth)
    np.testing.assert_allclose(found.area, grid(truth).areas()[::-1], rtol=1e-12)


def test_longitudes_go_on_across_zero_and_a_gap_is_refused() -> None:
    lat, lon = np.arange(3.0), np.concatenate((np.arange(356, 360, 0.5), np.arange(0, 4, 0.5)))
    found = grid(fields(lat, lon))
    np.testing.assert_allclose(found.x, np.arange(356, 364, 0.5))
    assert found.step[1] == pytest.approx(0.5) and found.kind == GEOGRAPHIC
    with pytest.raises(InputError, match="lon neither rises nor falls"):
        grid(fields(lat, np.sort(lon)))


def ocean(lat0: float = 50.0) -> xr.Dataset:
    """A curvilinear grid with numbered lines, i and j or x and y, as models of the ocean have."""
    rows, columns = 8, 12
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    lat, lon = lat0 + 0.5 * i + 0.05 * j, -10 + 0.7 * j - 0.08 * i
    coords = {
        "time": xr.date_range("2001-01-01", periods=3),
        "y": ("y", np.arange(rows)),
        "x": ("x", np.arange(columns)),
        "geolat": (("y", "x"), lat, {"standard_name": "latitude"}),
        "geolon": (("y", "x"), lon, {"standard_name": "longitude"}),
    }
    values = np.random.default_rng(1).normal(size=(3, rows, columns)).astype(np.float32)
    return xr.Dataset({"tos": (("time", "y", "x"), values, {"units": "K"})}, coords)


def test_numbers_of_lines_are_no_degrees_where_points_have_latitude_and_longitude() -> None:
    data = ocean()
    found = grid(data, "tos")
    assert found.kind == CURVILINEAR and not found.spherical
    np.testing.assert_array_equal(found.points()[0], data.geolat.values)
    plain = data.drop_vars(["geolat", "geolon"])
    assert grid(plain, "tos").kind == PLANE


def test_fields_on_curved_lines_are_paired_by_their_points() -> None:
    truth = ocean()
    turned = truth.isel(y=slice(None, None, -1)).drop_vars(["y", "x"])
    pair = pair_up(turned, truth)
    np.testing.assert_array_equal(pair.truth.tos, turned.tos)
    with pytest.raises(InputError, match="The grids differ"):
        pair_up(ocean(50.3), truth)
    blocks = grid(truth, "tos").coarsened(2)
    coords = {"lat": (("y", "x"), blocks.latitude), "lon": (("y", "x"), blocks.longitude)}
    coarse = xr.Dataset({"tos": (("y", "x"), np.arange(24.0).reshape(4, 6))}, coords)
    xr.testing.assert_equal(coarse_boxes(coarse.isel(x=slice(None, None, -1)), truth, ("a", "b")), coarse)
    with pytest.raises(InputError, match="The grids differ"):
        coarse_boxes(coarse.assign_coords(lat=coarse.lat + 0.6), truth, ("a", "b"))
    assert same_grid(truth, truth).equals(truth)


@pytest.mark.parametrize("names", [("nlat", "nlon", "TLAT", "TLONG"), ("eta_rho", "xi_rho", "lat_rho", "lon_rho")])
def test_grids_of_ocean_models_are_recognised_by_their_names(names: tuple[str, ...]) -> None:
    data = ocean().drop_vars(["y", "x"]).rename(dict(zip(("y", "x", "geolat", "geolon"), names, strict=True)))
    for name in names[2:]:
        data[name].attrs.clear()
    assert layout_of(data, "tos", "") == Layout(names[1], names[0], "time") and grid(data, "tos").kind == CURVILINEAR
