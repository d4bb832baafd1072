"""Regridding: constants stay, linear fields are followed exactly, sums over areas are kept, gaps stay gaps."""

import numpy as np
import pytest
import torch

from scorefield.climate import Bilinear, Conservative, Nearest
from scorefield.climate.grid import Grid, edges_between, unrotate
from scorefield.climate.regrid import bilinear
from scorefield.foundation.errors import InputError


def grid(y, x, **more) -> Grid:
    y, x = np.asarray(y, float), np.asarray(x, float)
    return Grid(y, x, edges_between(y), edges_between(x), **more)


FINE = grid(np.arange(40.125, 50, 0.25), np.arange(-9.875, 2, 0.25))
COARSE = FINE.coarsened(4)
FALLING = grid(COARSE.y[::-1], COARSE.x)
EAST = grid(COARSE.y, COARSE.x + 360)
ROTATED = grid(
    np.linspace(-3, 3, 13),
    np.linspace(357, 363, 13),
    kind="rotated_latitude_longitude",
    pole=(("grid_north_pole_latitude", 37.5), ("grid_north_pole_longitude", 177.5)),
)
GLOBE = grid(np.linspace(-89.5, 89.5, 180), np.arange(0.5, 360))


def linear_field(g: Grid) -> np.ndarray:
    return (2 + 3 * g.y[:, None] - 0.5 * ((g.x[None] + 180) % 360 - 180)).astype(np.float32)


@pytest.mark.parametrize("method", [Bilinear(), Nearest(), Conservative()])
@pytest.mark.parametrize("source", [COARSE, FALLING, EAST], ids=["plain", "falling", "0-360"])
def test_constants_stay(method, source) -> None:
    ones = np.full((3, *source.shape), 7.0, np.float32)
    found = method.between(source, FINE)(ones)
    assert found.shape == (3, *FINE.shape) and np.allclose(found, 7, rtol=1e-6)


@pytest.mark.parametrize("source", [COARSE, FALLING, EAST], ids=["plain", "falling", "0-360"])
def test_bilinear_follows_a_linear_field_whatever_the_order_and_branch(source) -> None:
    found = Bilinear().between(source, FINE)(linear_field(source))
    inner = (slice(2, -2), slice(2, -2))  # beyond the outermost centres it is constant
    np.testing.assert_allclose(found[inner], linear_field(FINE)[inner], rtol=1e-6)


def test_bilinear_closes_the_circle_of_longitudes() -> None:
    wave = np.broadcast_to(np.cos(np.radians(GLOBE.x)), GLOBE.shape)
    found = Bilinear().between(GLOBE, grid([0.25], [-0.25, 0.0, 0.25, 359.9]))(wave)
    np.testing.assert_allclose(found[0], np.cos(np.radians([-0.5, 0.5, 0.5, 0.5])).mean(), atol=1e-4)


def test_conservative_keeps_the_sum_over_areas_and_is_the_block_mean() -> None:
    field = np.random.default_rng(0).gamma(0.3, size=FINE.shape).astype(np.float32)
    found = Conservative().between(FINE, COARSE)(field)
    assert np.sum(found * COARSE.areas()) == pytest.approx(np.sum(field * FINE.areas()), rel=1e-6)
    block, areas = field[4:8, 8:12].astype(float), FINE.areas()[4:8, 8:12]
    assert found[1, 2] == pytest.approx((block * areas).sum() / areas.sum(), rel=1e-6)


def test_one_bilinear_interpolation_serves_grids_and_blocks() -> None:
    """That of blocks is that of the grids whose cells they are, and that of torch between pixels."""
    field = np.random.default_rng(2).normal(size=(3, *COARSE.shape)).astype(np.float32)
    found = bilinear(field, (4, 4))
    np.testing.assert_allclose(found, Bilinear().between(COARSE, FINE)(field), atol=1e-5)
    for factor in ((4, 4), (3, 2)):
        size = tuple(n * f for n, f in zip(COARSE.shape, factor, strict=True))
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(field).double()[:, None], size=size, mode="bilinear"
        )[:, 0]
        np.testing.assert_allclose(bilinear(field, factor), expected, atol=1e-6)


def test_a_part_of_the_target_is_that_part_of_the_whole() -> None:
    field = np.random.default_rng(1).normal(size=(2, *COARSE.shape))
    for method in (Bilinear(), Nearest()):
        regridder = method.between(COARSE, FINE)
        np.testing.assert_array_equal(regridder(field, slice(4, 12), slice(9, 20)), regridder(field)[:, 4:12, 9:20])


def test_rotated_points_are_where_the_pole_puts_them() -> None:
    """The origin of the UK's rotated grid, from its published definition, and distances on the sphere, which a rotation keeps."""
    latitude, longitude = unrotate(np.array([0.0]), np.array([0.0]), 37.5, 177.5)
    assert latitude[0, 0] == pytest.approx(52.5) and longitude[0, 0] == pytest.approx(-2.5)
    lat, lon = (np.radians(v) for v in ROTATED.points())
    p = np.stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
    steps = np.degrees(np.arccos((p[:, 1:] * p[:, :-1]).sum(0)))
    np.testing.assert_allclose(steps, 0.5, rtol=1e-6)  # along a meridian of the rotated pole


def test_global_model_to_rotated_grid() -> None:
    field = np.broadcast_to(np.sin(np.radians(GLOBE.y))[:, None], GLOBE.shape)
    found = Bilinear().between(GLOBE, ROTATED)(field)
    np.testing.assert_allclose(found, np.sin(np.radians(ROTATED.points()[0])), atol=1e-4)


def test_unknown_values_leave_the_mean_and_gaps_stay_gaps() -> None:
    field = np.full(FINE.shape, 5.0, np.float32)
    field[:4, :3] = np.nan  # most of the first cell
    field[4:8, 4] = np.nan  # a quarter of another
    found = Conservative().between(FINE, COARSE)(field)
    assert np.isnan(found[0, 0]) and found[1, 1] == pytest.approx(5) and np.isnan(found).sum() == 1


@pytest.mark.parametrize("method", [Bilinear(), Nearest(), Conservative()])
def test_a_grid_that_is_not_covered_is_refused(method) -> None:
    far = grid(np.arange(30, 45, 0.5), FINE.x)
    with pytest.raises(InputError, match="cover"):
        method.between(COARSE, far)
