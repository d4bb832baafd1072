"""The methods without a gradient: exact where they should be, one evaluation each, and their solver's limits."""

import pytest
import torch

from laws.cases import gaussian, keys, time
from laws.posterior import F64, Exact, operators
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM, VP
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.guidance import Guided, NoisyLikelihood, Proximal
from scorefield.operators import Mask, Sense, to_complex
from scorefield.samplers import DPMSolverPP2M, LogSNRGrid, sample

GRID, SHAPE = (4, 6), (3, 4, 6)


class Counted:
    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, 0

    @property
    def sde(self):
        return self.denoiser.sde

    def __call__(self, x_t, t, cond=None):
        self.calls += 1
        return self.denoiser(x_t, t, cond)


@pytest.mark.parametrize("schedule", [VP(), EDM()], ids=["VP", "EDM"])
@pytest.mark.parametrize("name", operators(GRID))
def test_the_proximal_step_is_exact_for_white_data(schedule, name):
    """E[x | x_t, y] of N(0.3, 0.5 I) for every operator, at every level."""
    prior = gaussian(schedule, "white", GRID, mean=0.3)
    exact = Exact(prior, operators(GRID)[name], SHAPE, 0.2)
    measured = exact.measure()
    counted = Counted(prior)
    guided = Guided(counted, measured, Proximal(0.5**0.5, iterations=100, tolerance=1e-10))
    for level in (0.05, 0.4, 0.9):
        x_t = prior.marginal((2, *SHAPE), time(level), generator=keys(2))
        found = guided(x_t, time(level))
        torch.testing.assert_close(found, exact.denoise(x_t, time(level), measured.y), atol=1e-6, rtol=0)
    assert counted.calls == 3


def test_samples_of_the_proximal_step_have_the_posterior_of_coils():
    """White complex data seen by coils through a mask: mean and variance of the samples are those of p(x | y)."""
    maps = to_complex(keys(1, 5).randn((1, 6, 4, 5), like=torch.empty(0, dtype=F64)))[0]
    mask = torch.zeros(4, 5, dtype=F64)
    mask[:, [0, 2, 3]] = 1
    operator = Sense(maps / maps.abs().square().sum(0).sqrt(), mask)
    prior = Gaussian(SDE(EDM(sigma_max=40.0)), torch.full((2, 4, 5), 0.25, dtype=F64))
    exact = Exact(prior, operator, (2, 4, 5), 0.05)
    measured = exact.measure()
    guided = Guided(prior, measured, Proximal(0.5, iterations=60, tolerance=1e-9))
    times = LogSNRGrid(0.0)(guided.sde.schedule, 129)
    x_1 = guided.sde.prior((400, 2, 4, 5), times[0], generator=keys(400, 1), like=torch.empty(0, dtype=F64))
    x = sample(guided, x_1, times, DPMSolverPP2M(1.0), generator=keys(400, 2)).flatten(1)
    mean, covariance = exact.posterior(measured.y)
    spread = covariance.diagonal().clamp(min=0).sqrt()
    assert ((x.mean(0) - mean).abs() / spread).max() < 4 / 400**0.5 + 0.02  # 40 means of 400 draws, and the steps
    assert (x.var(0) / spread**2 - 1).abs().max() < 4 * (2 / 400) ** 0.5 + 0.02


def test_the_noisy_likelihood_is_exact_where_the_prior_says_nothing():
    """Pixels of which a mask measures some, the data as broad as can be: E[x | x_t, y] to the prior's 1e-4."""
    mask = torch.zeros(GRID, dtype=F64)
    mask[..., ::2] = 1
    for schedule in (VP(), EDM()):
        prior = Gaussian(SDE(schedule), torch.full(SHAPE, 1e6, dtype=F64))
        exact = Exact(prior, Mask(mask), SHAPE, 0.3)
        measured, t = exact.measure(), time(0.3)
        x_t = prior.marginal((2, *SHAPE), t, generator=keys(2))
        counted = Counted(prior)
        found = Guided(counted, measured, NoisyLikelihood())(x_t, t)
        torch.testing.assert_close(found, exact.denoise(x_t, t, measured.y), atol=1e-2, rtol=1e-4)
        assert counted.calls == 1


def test_settings_that_solve_nothing_are_refused():
    for build in (lambda: Proximal(0.0), lambda: Proximal(spread=-1.0), lambda: Proximal(iterations=0)):
        with pytest.raises(InputError):
            build()
