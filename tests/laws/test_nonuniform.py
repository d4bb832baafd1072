"""The Fourier transform off the grid: against the direct sum, its adjoint, its normal operator, its density; posteriors by it."""

import math

import pytest
import torch

from laws.cases import keys
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import VP
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.guidance import DPS, Guided, Measurement, MomentMatching, PiGDM, Proximal
from scorefield.operators import (
    Fourier,
    NonUniformFourier,
    NonUniformSense,
    cg_sense,
    largest_singular_value,
    to_complex,
    zero_filled,
)

GRIDS = {"line": (20,), "odd": (17, 24), "volume": (8, 9, 10)}
SAMPLES, COILS = (6, 9), 3


def draw(shape, seed=0, dtype=torch.float64):
    return keys(shape[0], seed).randn(shape, like=torch.empty(0, dtype=dtype))


def places_of(grid, samples=SAMPLES):
    unit = torch.rand((*samples, len(grid)), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (unit - 0.5) * torch.tensor(grid)


def maps_of(grid):
    maps = to_complex(draw((1, 2 * COILS, *grid), seed=5))[0]
    return maps / maps.abs().square().sum(0).sqrt()


def sense_of(grid, mask=None):
    places = places_of(grid)
    return NonUniformSense(maps_of(grid), places, torch.ones(SAMPLES, dtype=torch.bool) if mask is None else mask)


def direct_sum(places, z):
    """N^(−1/2) Σ_r z_r exp(−2πi Σ_a k_a (r_a − n_a // 2)/n_a), term by term."""
    grid = z.shape[2:]
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / n for n in grid]
    phase = places @ torch.stack([r.flatten() for r in torch.meshgrid(*axes, indexing="ij")])
    return z.flatten(2) @ torch.exp(-2j * math.pi * phase).T / math.sqrt(math.prod(grid))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_it_is_the_direct_sum(grid):
    places, x = places_of(grid).flatten(0, 1), draw((2, 4, *grid))
    fourier, right = NonUniformFourier(places, grid), direct_sum(places, to_complex(x))
    for dtype in (torch.float64, torch.float32):
        found = to_complex(fourier(x.to(dtype)))
        assert found.dtype == to_complex(x.to(dtype)).dtype
        assert (found - right).norm() < 1e-5 * right.norm()


def test_at_integers_it_is_the_transform_on_the_grid():
    grid = (8, 9)
    places = torch.cartesian_prod(*(torch.arange(n) - n // 2 for n in grid))
    x = draw((2, 2, *grid))
    assert (NonUniformFourier(places, grid)(x).unflatten(2, grid) - Fourier()(x)).norm() < 1e-5 * x.norm()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_adjoint_is_the_transpose_and_the_derivative(grid):
    """To rounding, as no accuracy of the interpolation enters; and A* A by a convolution to that of the interpolation."""
    mask = draw(SAMPLES, seed=7) > -0.5
    sense = sense_of(grid, mask)
    balanced, _ = sense.balanced(draw((1, 2 * COILS, *SAMPLES)))
    for operator in (NonUniformFourier(places_of(grid).flatten(0, 1), grid), sense, balanced):
        x = draw((2, 2, *grid)).requires_grad_()
        measured = operator(x)
        y = draw(tuple(measured.shape), seed=1)
        pulled = operator.adjoint(y)
        assert abs((measured * y).sum() - (x * pulled).sum()) < 1e-12 * measured.norm() * y.norm()
        torch.testing.assert_close(torch.autograd.grad((measured * y).sum(), x)[0], pulled)
        normal = operator.adjoint(operator(x.detach()))
        assert (operator.normal(x.detach()) - normal).norm() < 2e-5 * normal.norm()


def test_what_is_masked_is_0_and_never_read():
    mask = torch.ones(SAMPLES, dtype=torch.bool)
    mask[:, 4:] = False
    whole, part = sense_of((17, 24)), sense_of((17, 24)).restricted(mask)
    x, y = draw((1, 2, 17, 24)), draw((1, 2 * COILS, *SAMPLES), seed=1)
    torch.testing.assert_close(part(x), torch.where(mask, whole(x), 0))
    torch.testing.assert_close(part.adjoint(torch.where(mask, y, torch.nan)), whole.adjoint(torch.where(mask, y, 0)))


def test_single_and_double_precision_and_batches_agree():
    operator, x = sense_of((17, 24)), draw((3, 2, 17, 24))
    together = operator(x)
    torch.testing.assert_close(operator(x.float()).double(), together, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(operator(x[1:2]), together[1:2])
    with torch.autocast("cpu", torch.bfloat16):  # about a network that is evaluated in it
        torch.testing.assert_close(operator(x.float()).double(), together, atol=1e-5, rtol=1e-5)


def spokes_of(size, count, samples):
    """Radial k-space, (samples, spokes, 2), samples half a cell apart and beyond."""
    angle = torch.arange(count, dtype=torch.float64) * math.pi / count
    along = (torch.arange(samples, dtype=torch.float64) - samples // 2) * (size / samples)
    return along[:, None, None] * torch.stack((angle.sin(), angle.cos()), -1)


def test_density_compensation_makes_an_image_of_radial_k_space():
    """Of all of k-space within the circle: A* W A is 1 there, the density that of 1/|k|, and its sum the circle's area."""
    size, count = 32, 52
    places = spokes_of(size, count, 64)
    sense = NonUniformSense(torch.ones(1, size, size, dtype=torch.complex128), places, torch.ones(64, count) > 0)
    density = sense.compensation
    assert float(density.sum()) == pytest.approx(math.pi * (size / 2) ** 2, rel=0.06)
    assert float(density[48].mean() / density[40].mean()) == pytest.approx(2, rel=0.05)  # twice as far from the centre
    grid = torch.meshgrid(*[torch.arange(size, dtype=torch.float64) - size // 2] * 2, indexing="ij")
    smooth = torch.exp(-(grid[0] ** 2 + (grid[1] - 3) ** 2) / 30)
    x = torch.stack((smooth, -2 * smooth))[None]
    assert (zero_filled(sense, sense(x)) - x).norm() < 0.03 * x.norm()
    assert (cg_sense(sense, sense(x), iterations=8) - x).norm() < 0.01 * x.norm()
    assert largest_singular_value(sense.balanced(sense(x))[0], (2, size, size), 200) < 1


@pytest.mark.parametrize(
    "method",
    [MomentMatching(30, 1e-9), PiGDM(0.5, 60, 1e-9), Proximal(0.5, 1.0, 80, 1e-9), DPS()],
    ids=lambda method: type(method).__name__,
)
def test_every_posterior_method_runs_on_it(method):
    """Under a white Gaussian prior the first three are exact, DPS brings the image nearer to what was measured."""
    grid = (6, 8)
    variance, noise = 0.25, 0.1
    prior = Gaussian(SDE(VP()), torch.full((2, *grid), variance, dtype=torch.float64))
    operator = sense_of(grid)
    truth = 0.5 * draw((1, 2, *grid), seed=3)
    y = operator(truth) + noise * draw((1, 2 * COILS, *SAMPLES), seed=4)
    x_t, t = draw((2, 2, *grid)), torch.tensor(0.4, dtype=torch.float64)
    found = Guided(prior, Measurement(operator, y, noise), method)(x_t, t)
    before = prior(x_t, t)
    if isinstance(method, DPS):
        assert (operator(found) - y).norm() < (operator(before) - y).norm()
        return
    alpha, sigma = prior.sde.scales(t, x_t)
    spread = sigma**2 * variance / (sigma**2 + alpha**2 * variance)
    size = 2 * math.prod(grid)
    a = operator(torch.eye(size, dtype=torch.float64).reshape(size, 2, *grid)).flatten(1).T
    gain = torch.linalg.solve(a.T @ a + noise**2 / spread * torch.eye(size, dtype=torch.float64), a.T)
    right = before + ((y - operator(before)).flatten(1) @ gain.T).reshape(before.shape)
    assert (found - right).norm() < 1e-4 * right.norm()


def test_the_largest_singular_value_is_that_of_the_matrix():
    grid = (6, 8)
    operator, size = sense_of(grid), 96
    a = operator(torch.eye(size, dtype=torch.float64).reshape(size, 2, *grid)).flatten(1)
    found = largest_singular_value(operator, (2, *grid))
    assert 0.98 * torch.linalg.matrix_norm(a, 2) < found < 1.0001 * torch.linalg.matrix_norm(a, 2)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: NonUniformFourier(torch.zeros(5, 3), (8, 8)), "2"),
        (lambda: NonUniformFourier(torch.full((5, 2), 6.0), (8, 8)), "beyond"),
        (lambda: NonUniformFourier(torch.full((5, 2), torch.nan), (8, 8)), "NaN"),
        (lambda: NonUniformSense(maps_of((8, 8)), torch.zeros(5, 2), torch.ones(4) > 0), "mask"),
    ],
)
def test_what_does_not_fit_is_named(act, words):
    with pytest.raises(InputError, match=words):
        act()
