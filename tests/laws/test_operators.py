"""Every operator: its adjoint, its matrix, and a projection that measures what it should."""

import doctest
import inspect
import math

import pytest
import torch

from laws.cases import keys
from scorefield.foundation.errors import InputError
from scorefield.guidance import Measurement
from scorefield.operators import (
    Blur,
    Coarsen,
    Compose,
    CosineCoarsen,
    FourierCoarsen,
    Grey,
    Hole,
    Identity,
    LinearOperator,
    Mask,
    Scale,
    as_operator,
)
from scorefield.operators import function as function_module

F64 = torch.float64
GRIDS = {"1d": (12,), "2d": (6, 4), "3d": (4, 2, 6)}
CHANNELS = 3


def known(grid):
    return (torch.arange(math.prod(grid)).reshape(grid) % 3 > 0).double()


def operators(grid):
    factor = torch.tensor([2.0, 0.5, 3.0], dtype=F64).reshape(3, *(1,) * len(grid))
    return {
        "Identity": Identity(),
        "Mask": Mask(known(grid)),
        "Hole": Hole((1,) * len(grid), (1,) * len(grid)),
        "Grey": Grey((0.3, 0.6, 0.1)),
        "Coarsen": Coarsen(2),
        "Coarsen(each)": Coarsen((2,) + (1,) * (len(grid) - 1)),
        "CosineCoarsen": CosineCoarsen(grid, tuple(max(1, n // 2 + (n > 4)) for n in grid)),
        "FourierCoarsen": FourierCoarsen(grid, tuple(max(1, n // 2 + (n > 4)) for n in grid)),
        "FourierCoarsen(half)": FourierCoarsen(grid, tuple(max(1, n // 2) for n in grid)),
        "Blur": Blur(0.8),
        "Blur(zero)": Blur(0.8, "zero"),
        "Blur(reflect)": Blur(5.0, "reflect"),
        "Scale": Scale(factor),
        "Compose": Compose((Scale(factor), Grey(), Coarsen(2))),
        "Compose(mask)": Compose((Mask(known(grid)), Blur(1.0, "zero"))),
    }


CASES = [(name, grid) for grid in GRIDS for name in operators(GRIDS[grid])]
PROJECTED = [case for case in CASES if "Blur" not in case[0] and case[0] != "Compose(mask)"]


def draw(shape, seed=0, dtype=F64):
    return keys(shape[0], seed).randn(shape, like=torch.empty(0, dtype=dtype))


@pytest.mark.parametrize(("name", "grid"), CASES)
def test_the_adjoint_is_the_transpose(name, grid):
    """⟨A x, y⟩ = ⟨x, A* y⟩, in the precision in which it is used."""
    operator = operators(GRIDS[grid])[name]
    x = draw((2, CHANNELS, *GRIDS[grid]), dtype=torch.float32)
    y = draw(tuple(operator(x).shape), seed=1, dtype=torch.float32)
    left, right = (operator(x) * y).sum(), (x * operator.adjoint(y)).sum()
    assert operator.adjoint(y).shape == x.shape and operator(x).dtype == torch.float32
    assert abs(left - right) < 1e-5 * x.norm() * y.norm()


@pytest.mark.parametrize(("name", "grid"), PROJECTED)
def test_the_projection_measures_y_and_changes_what_does_already_not_at_all(name, grid):
    operator = operators(GRIDS[grid])[name]
    x, other = draw((2, CHANNELS, *GRIDS[grid])), draw((2, CHANNELS, *GRIDS[grid]), seed=1)
    y = operator(other)
    projected = operator.project(x, y)
    torch.testing.assert_close(operator(projected), y)
    torch.testing.assert_close(operator.project(projected, y), projected)
    if name != "Compose":  # the shortest change: it lies in the range of A*
        change = (projected - x).flatten(1)
        null = other - operator.project(torch.zeros_like(other), y)
        torch.testing.assert_close((change * null.flatten(1)).sum(1), torch.zeros(2, dtype=F64), atol=1e-12, rtol=0)


def test_a_blur_is_the_convolution_it_says():
    x = torch.zeros(1, 1, 9, dtype=F64)
    x[..., 0] = 1
    kernel = torch.exp(-0.5 * (torch.arange(-4, 5) / 1.0).double() ** 2)
    kernel /= kernel.sum()
    torch.testing.assert_close(Blur(1.0)(x)[0, 0], kernel.roll(5))
    torch.testing.assert_close(Blur(1.0, "zero")(x)[0, 0, :5], kernel[4:])
    flat = torch.ones(1, 1, 5, 7, dtype=F64)
    for boundary in ("periodic", "reflect"):
        torch.testing.assert_close(Blur((3.0, 9.0), boundary)(flat), flat)  # unit sum, though longer than the grid
    torch.testing.assert_close(Blur(0.0)(x), x)


def test_coarsening_averages_boxes():
    x = torch.arange(24, dtype=F64).reshape(1, 1, 4, 6)
    torch.testing.assert_close(Coarsen((2, 3))(x), torch.nn.functional.avg_pool2d(x, (2, 3)))


def test_cosine_coarsening_is_the_function_at_fewer_points_and_without_the_modes_they_lack():
    """cos(2πu) + 1 stays itself, at the centres of the coarse cells; cos(7πu) has no place on 6 points."""
    fine, coarse = ((torch.arange(n, dtype=F64) + 0.5) / n for n in (16, 6))
    kept, lost = (lambda u: 1 + torch.cos(2 * math.pi * u)), torch.cos(7 * math.pi * fine)
    x = (kept(fine) + lost)[None, None]
    torch.testing.assert_close(CosineCoarsen((16,), (6,))(x)[0, 0], kept(coarse))
    through = CosineCoarsen((11,), (6,))(CosineCoarsen((16,), (11,))(x))
    torch.testing.assert_close(through, CosineCoarsen((16,), (6,))(x))  # in one step or two


def test_fourier_coarsening_is_the_function_on_a_torus_at_fewer_points():
    fine, coarse = (2 * math.pi * torch.arange(n, dtype=F64) / n for n in (16, 6))
    kept, lost = (lambda u: 1 + torch.cos(2 * u + 0.3)), torch.cos(5 * fine + 0.1)
    torch.testing.assert_close(FourierCoarsen((16,), (6,))((kept(fine) + lost)[None, None])[0, 0], kept(coarse))


def test_what_a_mask_hides_is_never_read():
    x = draw((2, 3, 4, 5))
    y = x.clone()
    y[..., 0] = torch.nan
    mask = Mask(torch.arange(5) > 0)
    assert mask.adjoint(y).isfinite().all() and mask.project(x, y).equal(x)


@pytest.mark.parametrize(
    ("operator", "shape", "words"),
    [
        (Mask(torch.ones(4, 4)), (1, 1, 4, 5), "mask"),
        (Grey(), (1, 1, 4, 5), "3 weights"),
        (Coarsen(2), (1, 1, 4, 5), "divisors"),
        (Blur((1.0, 1.0)), (1, 1, 4), "2 widths"),
        (Hole((0,), (2,)), (1, 1, 4, 4), "1 axes"),
        (Hole((3,), (2,)), (1, 1, 4), "beyond the grid"),
        (CosineCoarsen((4, 4), (2, 2)), (1, 1, 4, 5), "does not fit"),
    ],
)
def test_what_does_not_fit_is_named(operator, shape, words):
    with pytest.raises(InputError, match=words):
        operator(torch.zeros(shape))


class Half(LinearOperator):
    """The least that an operator must have: a map and its adjoint."""

    def __call__(self, x):
        return x / 2

    def adjoint(self, y):
        return y / 2


def test_bad_operators_and_projections_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="sizes from 1"):
        CosineCoarsen((8, 8), (4, 9))
    for build in (lambda: Coarsen(0), lambda: Blur(-1.0), lambda: Grey((0.0,)), lambda: Hole((0,), (0,))):
        with pytest.raises(InputError):
            build()
    x = draw((1, 1, 6))
    for operator in (Blur(), Half()):
        with pytest.raises(InputError, match=f"{type(operator).__name__} has no projection"):
            operator.project(x, x)
    grid = Compose((Mask(torch.arange(6) > 0), Coarsen(2)))
    with pytest.raises(InputError, match="MomentMatching"):
        grid.project(x, torch.ones(1, 1, 3, dtype=F64))


# ------------------------------------------------------------------------------------------------------------ functions
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ["Blur", "Coarsen", "Grey", "Scale", "Compose", "FourierCoarsen"])
def test_an_operator_made_of_a_function_is_that_operator(name, grid):
    """The adjoint by differentiation and the projection by least squares are those that were written down."""
    shape = (CHANNELS, *GRIDS[grid])
    written = operators(GRIDS[grid])[name]
    found = as_operator(written, shape)
    x = draw((2, *shape))
    y = written(draw((2, *shape), seed=1))
    torch.testing.assert_close(found(x), written(x))
    torch.testing.assert_close(found.adjoint(y), written.adjoint(y))
    if name not in ("Blur", "Compose"):
        torch.testing.assert_close(found.project(x, y), written.project(x, y), rtol=1e-3, atol=1e-3)


def test_a_function_of_other_shapes_is_an_operator():
    matrix = draw((5, 12))
    operator = as_operator(lambda x: x.flatten(1) @ matrix.to(x).T, (1, 12))
    x, y = draw((2, 1, 12), seed=1), draw((2, 5), seed=2)
    torch.testing.assert_close(operator.adjoint(y), (y @ matrix)[:, None])
    torch.testing.assert_close(operator(operator.project(x, y)), y, rtol=1e-3, atol=1e-3)
    given = as_operator(lambda x: x.flatten(1) @ matrix.to(x).T, (1, 12), adjoint=lambda y: (y @ matrix.to(y))[:, None])
    torch.testing.assert_close(given.adjoint(y), operator.adjoint(y))


@pytest.mark.parametrize(
    ("f", "more", "words"),
    [
        (lambda x: x.square(), {}, r"f\(2 x\)"),
        (lambda x: x + 1, {}, r"f\(2 x\)"),
        (lambda x: x.abs(), {}, r"f\(x \+ y\)"),
        (lambda x: x.clamp(-255, 255), {}, r"f\(x \+ y\)"),
        (lambda x: x - x.mean(), {}, "batch"),
        (lambda x: torch.from_numpy(2 * x.detach().numpy()), {}, "differentiated"),
        (lambda x: 2 * x, {"adjoint": lambda y: y}, "does not belong"),
        (lambda x: x[..., ::2], {"adjoint": lambda y: y}, "shape of x"),
    ],
)
def test_a_function_that_is_no_linear_measurement_is_refused(f, more, words):
    with pytest.raises(InputError, match=words) as error:
        as_operator(f, (1, 4), **more)
    assert len(str(error.value)) <= 300 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: 3.0, "gives float, not a tensor"),
        (lambda x: x.numpy(), "gives ndarray, not a tensor"),
        (lambda x: x.flatten(1).sum(1), "two axes or more"),
        (lambda x: x.reshape(-1, 2), "two axes or more"),
        (lambda x: x @ torch.ones(4, 4, dtype=F64), r"c\.to\(x\)"),
        (lambda x: x @ torch.ones(7, 7), "fails"),
        (torch.fft.fft, "two channels"),
    ],
)
def test_a_function_that_makes_no_batch_of_values_is_refused(f, words):
    with pytest.raises(InputError, match=words) as error:
        inspect.unwrap(as_operator)(f, (1, 4))  # without the checks of types that the tests have
    assert len(str(error.value)) <= 300 and "\n" not in str(error.value)


def test_what_least_squares_do_not_invert_has_no_projection():
    blurred = as_operator(Blur(3.0), (1, 32))
    y = draw((1, 1, 32))
    with pytest.raises(InputError, match="no projection"):
        blurred.project(0 * y, y)
    assert not Measurement(blurred, y).exact


def test_an_operator_needs_no_projection():
    class Doubled(LinearOperator):
        def __call__(self, x):
            return 2 * x

        def adjoint(self, y):
            return 2 * y

    with pytest.raises(InputError, match="Doubled has no projection"):
        Doubled().project(draw((1, 1, 4)), draw((1, 1, 4)))
    assert not Measurement(Doubled(), draw((1, 1, 4))).exact


def test_the_docstring_of_functions_runs():
    failed, tried = doctest.testmod(function_module)
    assert tried and not failed
