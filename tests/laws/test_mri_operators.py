"""Fourier, coils and their composition: adjoints in single precision, agreement with each other, pseudo-inverse, range."""

import pytest
import torch

from laws.cases import keys
from scorefield.foundation.errors import InputError
from scorefield.operators import (
    Coils,
    Compose,
    Fourier,
    Mask,
    Sense,
    conjugate_gradients,
    least_squares,
    project_range,
    to_channels,
    to_complex,
)

GRIDS = {"even": (12, 8), "odd": (9, 7), "line": (10,), "volume": (4, 6, 5)}
COILS = 3


def draw(shape, seed=0, dtype=torch.float32):
    return keys(shape[0], seed).randn(shape, like=torch.empty(0, dtype=dtype))


def maps_of(grid, dtype=torch.float32):
    maps = to_complex(draw((1, 2 * COILS, *grid), seed=5, dtype=dtype))[0]
    return maps / maps.abs().square().sum(0).sqrt()


def columns(grid, dtype=torch.float32):
    """Every other one along the last axis, and the same along all others."""
    mask = torch.zeros(grid, dtype=dtype)
    mask[..., ::2] = 1
    return mask


def operators(grid, dtype=torch.float32):
    maps, mask = maps_of(grid, dtype), (draw((1, *grid), seed=6)[0] > 0).to(dtype)
    return {
        "Fourier": Fourier(),
        "Coils": Coils(maps),
        "Mask": Mask(mask),
        "Compose": Compose((Coils(maps), Fourier(), Mask(mask))),
        "Sense": Sense(maps, mask),
        "Sense(columns)": Sense(maps, columns(grid, dtype)),
    }


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", operators((4,)))
@pytest.mark.parametrize("form", ["channels", "complex"])
def test_the_adjoint_is_the_transpose(name, grid, form):
    """⟨A x, y⟩ = ⟨x, A* y⟩ in float32, for pairs of channels (real part of the product) and for complex fields (all of it)."""
    operator = operators(grid)[name]
    x = draw((2, 2, *grid))
    x = to_complex(x) if form == "complex" else x
    shape = operator(x).shape
    y = draw((2, 2 * shape[1], *grid), seed=1) if form == "complex" else draw(tuple(shape), seed=1)
    y = to_complex(y) if form == "complex" else y
    left, right = (operator(x) * y.conj()).sum(), (x * operator.adjoint(y).conj()).sum()
    assert operator.adjoint(y).shape == x.shape and operator(x).dtype == x.dtype
    assert abs(left - right) <= 1e-5 * operator(x).norm() * y.norm()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_pairs_of_channels_are_the_complex_field(grid):
    x = draw((2, 6, *grid))
    assert to_channels(to_complex(x)).equal(x)
    torch.testing.assert_close(to_complex(Fourier()(x)), Fourier()(to_complex(x)))


def test_the_transform_is_centred_and_orthonormal():
    """A constant becomes one value at n // 2, of the field's norm, on even and odd grids."""
    for grid in ((8, 6), (7, 9)):
        spectrum = to_complex(Fourier()(torch.ones(1, 2, *grid)))[0, 0]
        centre = tuple(n // 2 for n in grid)
        expected = torch.zeros(grid, dtype=torch.complex64)
        expected[centre] = (1 + 1j) * (grid[0] * grid[1]) ** 0.5
        torch.testing.assert_close(spectrum, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", ["Sense", "Sense(columns)"])
def test_sense_is_the_composition_and_its_normal_operator_a_shortcut(name, grid):
    sense = operators(grid, torch.float64)[name]
    composed = Compose((Coils(sense.maps), Fourier(), Mask(sense.mask)))
    x, y = draw((2, 2, *grid), dtype=torch.float64), draw((2, 2 * COILS, *grid), seed=1, dtype=torch.float64)
    torch.testing.assert_close(sense(x), composed(x))
    torch.testing.assert_close(sense.adjoint(y), composed.adjoint(y))
    torch.testing.assert_close(sense.normal(x), sense.adjoint(sense(x)))
    assert sense.normal(x).norm() <= x.norm()


def test_unsampled_k_space_is_never_read():
    sense = operators((9, 7))["Sense"]
    y = draw((1, 2 * COILS, 9, 7))
    spoilt = torch.where(sense.chosen, y, torch.nan)
    torch.testing.assert_close(sense.adjoint(spoilt), sense.adjoint(y))


def matrix(apply, columns_of, shape):
    size = torch.Size(shape).numel()
    return apply(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).reshape(columns_of, -1).T


def test_least_squares_is_the_pseudo_inverse_and_the_projection_onto_the_range():
    """Against dense linear algebra, on a mask so sparse that A has a null space."""
    grid = (4, 5)
    maps = maps_of(grid, torch.float64)
    mask = torch.zeros(grid, dtype=torch.float64)
    mask[:, 2] = 1
    sense, shape = Sense(maps, mask, iterations=80, tolerance=1e-12), (2, *grid)
    a = matrix(sense, 40, shape)
    x, y = draw((3, *shape), dtype=torch.float64), draw((3, 2 * COILS, *grid), seed=1, dtype=torch.float64)
    pinv = torch.linalg.pinv(a)
    assert torch.linalg.matrix_rank(a) < 40
    found = least_squares(sense, y, iterations=80, tolerance=1e-12)
    torch.testing.assert_close(found.flatten(1), y.flatten(1) @ pinv.T, atol=1e-8, rtol=1e-8)
    projected = project_range(sense, x, iterations=80, tolerance=1e-12)
    torch.testing.assert_close(projected.flatten(1), x.flatten(1) @ (pinv @ a).T, atol=1e-8, rtol=1e-8)
    again = project_range(sense, projected, iterations=80, tolerance=1e-12)
    torch.testing.assert_close(again, projected, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(sense(sense.project(x, sense(found))), sense(found), atol=1e-8, rtol=1e-8)
    damped = least_squares(sense, y, damping=0.3, iterations=80, tolerance=1e-12)
    expected = torch.linalg.solve(a.T @ a + 0.3 * torch.eye(40, dtype=torch.float64), a.T @ y.flatten(1).T).T
    torch.testing.assert_close(damped.flatten(1), expected, atol=1e-8, rtol=1e-8)


def test_conjugate_gradients_that_have_converged_stay_where_they_are():
    """Of a projection, as one coil is, they converge at once; what is left is rounding outside of its range, without bound."""
    sense = Sense(torch.ones(1, 48, 40, dtype=torch.complex64), columns((48, 40)))
    y = sense(draw((2, 2, 48, 40)))
    found = least_squares(sense, y, iterations=40, tolerance=0.0)
    torch.testing.assert_close(found, sense.adjoint(y), rtol=1e-4, atol=1e-5)


def test_conjugate_gradients_solve_each_sample_by_itself():
    diagonal = torch.linspace(1, 5, 6, dtype=torch.float64)
    b = draw((3, 6), dtype=torch.float64)
    b[1] = 0
    x = conjugate_gradients(lambda v: diagonal * v, b, iterations=6, tolerance=0)
    torch.testing.assert_close(x, b / diagonal)
    alone = conjugate_gradients(lambda v: diagonal * v, b[2:], iterations=3, tolerance=1e-3)
    torch.testing.assert_close(conjugate_gradients(lambda v: diagonal * v, b, iterations=3, tolerance=1e-3)[2:], alone)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: to_complex(torch.zeros(1, 3, 4)), "pairs of channels"),
        (lambda: Coils(torch.zeros(2, 4, 4)), "complex"),
        (lambda: Sense(maps_of((4, 4)), torch.ones(4, 5)), "mask"),
        (lambda: Sense(maps_of((4, 4)), torch.ones(4, 4))(torch.zeros(1, 4, 4, 4)), "one complex field"),
        (lambda: Sense(maps_of((4, 4)), torch.ones(4, 4)).adjoint(torch.zeros(1, 2, 4, 4)), "1 coils"),
        (lambda: least_squares(Fourier(), torch.zeros(1, 2, 4), damping=-1.0), "damping"),
    ],
)
def test_what_does_not_fit_is_named(act, words):
    with pytest.raises(InputError, match=words):
        act()
