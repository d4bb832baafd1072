"""The measures themselves: each oracle's denoiser, score, density, flow and draws belong to one law."""

import doctest
import importlib
import math

import pytest
import torch

from laws.cases import LAWS, SCHEDULES, Draws, Periodic, gaussian, keys, mixture, spectrum, time
from scorefield.core.oracle import Gaussian, Mixture
from scorefield.core.schedule import VP
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError

F64 = torch.float64
GRIDS = {"1d": (7,), "2d": (3, 4), "3d": (2, 3, 5)}
ORACLES = {"Gaussian": lambda schedule: gaussian(schedule, "coloured data", grid=(3,), mean=0.3), "Mixture": mixture}

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
every_law = pytest.mark.parametrize("law", LAWS)
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
every_oracle = pytest.mark.parametrize("oracle", ORACLES)


def covariance(oracle, t, channels=1):
    """That of the draws, read off: `marginal` is affine in its white noise."""
    shape = (channels, *oracle.grid)
    size = math.prod(shape)
    zero, unit = torch.zeros(1, *shape, dtype=F64), torch.eye(size, dtype=F64).reshape(size, *shape)
    mean = oracle.marginal(zero.shape, t, generator=Draws(zero))
    factor = (oracle.marginal(unit.shape, t, generator=Draws(unit)) - mean).reshape(size, size)
    return mean.flatten(), factor.T @ factor


def matrix(apply, grid):
    """The matrix of a linear map of fields on a grid."""
    size = math.prod(grid)
    return apply(torch.eye(size, dtype=F64).reshape(size, 1, *grid)).reshape(size, size).T


@every_law
@every_grid
@pytest.mark.parametrize("name", ["VP", "EDM"])
def test_draws_have_the_covariance_of_the_law(name, grid, law):
    """α² S + σ² C, with S and C built as matrices."""
    mean = torch.randn(1, *grid, dtype=F64, generator=torch.Generator().manual_seed(0))
    oracle, t = gaussian(SCHEDULES[name], law, grid, mean), time(0.4)
    smoothness, noise = LAWS[law]
    data = 0.5 * matrix(Periodic(smoothness).covariance, grid)
    alpha, sigma = SCHEDULES[name](t)
    drawn_mean, drawn = covariance(oracle, t)
    torch.testing.assert_close(
        drawn, alpha**2 * data + sigma**2 * matrix(noise.covariance, grid), rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(drawn_mean, alpha * mean.flatten(), rtol=1e-12, atol=1e-14)


@every_law
@every_grid
def test_gaussian_density_is_torchs(grid, law):
    oracle, x, t = (
        gaussian(VP(), law, grid, mean=0.3),
        keys(4).randn((4, 1, *grid), like=torch.empty(0, dtype=F64)),
        time(0.3),
    )
    reference = torch.distributions.MultivariateNormal(*covariance(oracle, t))
    torch.testing.assert_close(oracle.log_density(x, t), reference.log_prob(x.flatten(1)), rtol=1e-10, atol=0)


@every_schedule
def test_mixture_density_is_torchs(name):
    oracle, x, t = mixture(SCHEDULES[name]), keys(5).randn((5, 1, 3), like=torch.empty(0, dtype=F64)), time(0.4)
    alpha, sigma = SCHEDULES[name](t)
    scale = (alpha**2 * oracle.variances + sigma**2).sqrt()[:, None].expand(2, 3)
    components = torch.distributions.Independent(torch.distributions.Normal(alpha * oracle.means.flatten(1), scale), 1)
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(oracle.log_weights.exp()), components
    )
    torch.testing.assert_close(oracle.log_density(x, t), reference.log_prob(x.flatten(1)), rtol=1e-12, atol=0)


@every_oracle
@every_schedule
def test_the_denoiser_is_tweedies_formula(name, oracle):
    """x̂ = (x_t + σ² ∇log p)/α, the gradient by autograd, with one time per sample; `score` is the gradient itself."""
    oracle, t = ORACLES[oracle](SCHEDULES[name]), torch.tensor([0.01, 0.2, 0.5, 0.8, 0.99], dtype=F64)
    x_t = oracle.marginal((5, 1, 3), t, generator=keys(5)).requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_density(x_t, t).sum(), x_t)
    denoised = oracle.sde.denoised_from_score(gradient, x_t, t)
    torch.testing.assert_close(oracle(x_t, t), denoised, rtol=0, atol=1e-8)
    torch.testing.assert_close(oracle.score(x_t, t), gradient, rtol=1e-8, atol=1e-8)


@every_grid
def test_under_coloured_noise_the_score_is_c_times_the_gradient(grid):
    oracle, t = gaussian(VP(), "coloured both", grid, mean=0.3), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    x_t = oracle.marginal((3, 1, *grid), t, generator=keys(3)).requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_density(x_t, t).sum(), x_t)
    torch.testing.assert_close(oracle.score(x_t, t), Periodic().covariance(gradient), rtol=1e-10, atol=1e-10)


@every_oracle
def test_one_time_for_all_is_the_same_as_one_each(oracle):
    oracle, t = ORACLES[oracle](VP()), time(0.3)
    each = t.expand(4)
    x_t = oracle.marginal((4, 1, 3), t, generator=keys(4))
    torch.testing.assert_close(oracle.marginal((4, 1, 3), each, generator=keys(4)), x_t, rtol=1e-14, atol=0)
    for function in (oracle, oracle.score, oracle.log_density):
        torch.testing.assert_close(function(x_t, each), function(x_t, t), rtol=1e-13, atol=1e-14)


@every_law
@every_schedule
def test_the_flow_solves_its_equation_and_inverts(name, law):
    """dx/dt = f x − ½ g² C∇log p along the closed form, by central differences: error of order h² and ε/h."""
    oracle, t, h = gaussian(SCHEDULES[name], law, mean=0.3), time(0.4003), 1e-5
    x = oracle.marginal((2, 1, 8), t, generator=keys(2))
    slope = (oracle.flow(x, t, t + h) - oracle.flow(x, t, t - h)) / (2 * h)
    velocity = oracle.sde.drift(x, t) - 0.5 * oracle.sde.diffusion(t) ** 2 * oracle.score(x, t)
    torch.testing.assert_close(slope, velocity, rtol=1e-5, atol=1e-7)
    s = time(0.05)
    torch.testing.assert_close(oracle.flow(oracle.flow(x, t, s), s, t), x, rtol=1e-10, atol=1e-12)


@every_law
@every_schedule
def test_the_flow_carries_the_marginal(name, law):
    oracle, t, s = gaussian(SCHEDULES[name], law, mean=0.3), time(1.0), time(0.05)
    z = keys(3).randn((3, 1, 8), like=oracle.spectrum)
    at_t, at_s = (oracle.marginal(z.shape, level, generator=Draws(z)) for level in (t, s))
    torch.testing.assert_close(oracle.flow(at_t, t, s), at_s, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["VP", "EDM"])
def test_mixture_draws_have_its_weights_and_moments(name):
    """Within 4 standard errors."""
    oracle, n, t = mixture(SCHEDULES[name]), 10_000, time(0.2)
    x = oracle.marginal((n, 1, 3), t, generator=keys(n)).flatten(1) / SCHEDULES[name].alpha(t)
    weights, means = oracle.log_weights.exp(), oracle.means.flatten(1)
    alpha, sigma = SCHEDULES[name](t)
    mean = weights @ means
    within = (weights * (oracle.variances + (sigma / alpha) ** 2)).sum()
    variance = within + (weights[:, None] * (means - mean) ** 2).sum(0)
    assert ((x.mean(0) - mean).abs() < 4 * (variance / n).sqrt()).all()
    fourth = (x - mean).pow(4).mean(0)
    assert ((x.var(0) - variance).abs() < 4 * ((fourth - variance**2) / n).sqrt()).all()
    if name == "EDM":  # σ(0.2) = 0.08 leaves the components apart: they can be counted
        share = (x[:, 0] < 0).double().mean()
        split = torch.distributions.Normal(means[:, 0], (oracle.variances + (sigma / alpha) ** 2).sqrt()).cdf(
            torch.zeros(2, dtype=F64)
        )
        expected = (weights * split).sum()
        assert abs(share - expected) < 4 * (expected * (1 - expected) / n).sqrt()


def test_a_point_mass_is_denoised_to_itself():
    oracle = Gaussian(SDE(VP()), torch.zeros(1, 8, dtype=F64), mean=0.7)
    x_t = oracle.marginal((3, 1, 8), time(0.5), generator=keys(3))
    assert torch.equal(oracle(x_t, time(0.5)), torch.full((3, 1, 8), 0.7, dtype=F64))


@pytest.mark.parametrize("values", [-spectrum((8,)), torch.arange(8.0)[None], torch.tensor([[1.0, 2.0, 3.0, 3.0]])])
def test_a_spectrum_of_no_real_field_raises(values):
    with pytest.raises(InputError):
        Gaussian(SDE(VP()), values)


def test_the_examples_in_the_docstring_run():
    outcome = doctest.testmod(importlib.import_module("scorefield.core.oracle"))
    assert outcome.attempted > 0 and outcome.failed == 0


def test_data_without_a_mode_have_a_denoiser_where_there_is_no_noise_either():
    spectrum = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    x = torch.full((1, 1, 3), 0.5, dtype=F64)
    assert torch.allclose(Gaussian(SDE(VP()), spectrum)(x, torch.tensor(0.0, dtype=F64)), x)


def test_a_mixture_under_coloured_noise_is_refused():
    with pytest.raises(InputError, match="white noise"):
        Mixture(SDE(VP(), Periodic()), torch.zeros(2, 1, 5, dtype=F64), torch.ones(2, dtype=F64))
