"""Particles: by any method that proposes, the law is p(x | y), and the evidence p(y)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from laws.cases import SCHEDULES, keys, spectrum, time
from scorefield.core.noise import GaussianField, Matern, Noise, White
from scorefield.core.oracle import Gaussian, Mixture
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.guidance import DPS, Measurement, Method, MomentMatching, PiGDM
from scorefield.operators import Blur, Mask
from scorefield.particles import Particles, _Kernel, _Level, systematic
from scorefield.samplers import DDIM, Ancestral, DPMSolverPP2M, EDMGrid, EulerMaruyama, Heun, Jump, Sampler, Step

DOUBLE = torch.float64
FIELD = GaussianField(Matern(0.3, 1.0, nugget=1e-2))


def case(noise: float) -> tuple[Mixture, Measurement]:
    """Three modes in four dimensions, of which two coordinates are measured."""
    means = torch.tensor([[1.5, 0.0, 1.0, 0.0], [-1.5, 0.5, 0.0, 1.0], [0.0, -2.0, -1.0, -1.0]], dtype=DOUBLE)
    law = Mixture(
        SDE(SCHEDULES["EDM"]),
        means[:, None],
        torch.tensor([0.1, 0.2, 0.3], dtype=DOUBLE),
        torch.tensor([0.5, 0.3, 0.2]),
    )
    seen = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]], dtype=DOUBLE)
    return law, Measurement(Mask(seen), torch.tensor([[[0.4, 0.3, 0.0, 0.0]]], dtype=DOUBLE), noise)


def exact(law: Mixture, measurement: Measurement) -> tuple[Tensor, Tensor, float]:
    """Weights of the modes, the mean, and log p(y)."""
    means, y = law.means[:, 0], measurement.y[0, 0, :2]
    variance = law.variances[:, None]
    total = variance + measurement.noise**2
    log = law.log_weights - 0.5 * ((y - means[:, :2]) ** 2 / total + (2 * math.pi * total).log()).sum(1)
    weights = log.softmax(0)
    each = means.clone()
    each[:, :2] += variance / total * (y - means[:, :2])
    return weights, (weights[:, None] * each).sum(0), float(log.logsumexp(0))


def responsibilities(law: Mixture, x: Tensor) -> Tensor:
    """Which mode each point belongs to, softly."""
    square = (x[:, None, 0] - law.means[:, 0]).square().sum(-1)
    return (law.log_weights - 0.5 * square / law.variances - 2 * law.variances.log()).softmax(1)


@pytest.mark.parametrize("method", [DPS(), PiGDM(), MomentMatching()], ids=["DPS", "PiGDM", "MomentMatching"])
def test_a_mixture_is_recovered_whatever_proposes(method: Method) -> None:
    law, measurement = case(0.5)
    weights, mean, evidence = exact(law, measurement)
    sampler = Sampler(60, DPMSolverPP2M(eta=1.0), EDMGrid(ratio_min=0.01))
    found = Particles(method, 1000, sampler)(law, measurement, (1, 4), seed=1, like=mean)
    error = found.mean(responsibilities(law, found.x)) - weights
    assert float(error.abs().max()) < 0.04
    assert float((found.mean(found.x)[0] - mean).abs().max()) < 0.08
    assert abs(found.log_evidence - evidence) < 0.1


@pytest.mark.slow
def test_the_error_falls_as_one_over_the_root_of_the_number() -> None:
    law, measurement = case(0.5)
    weights, mean, evidence = exact(law, measurement)
    sampler = Sampler(24, DPMSolverPP2M(eta=1.0), EDMGrid(ratio_min=0.02))
    squares = {}
    for count in (50, 800):
        runs = [Particles(PiGDM(), count, sampler)(law, measurement, (1, 4), seed=s, like=mean) for s in range(12)]
        errors = torch.stack([run.mean(responsibilities(law, run.x)) - weights for run in runs])
        squares[count] = torch.stack([errors[:, 0].square().mean(), errors[:, 1].square().mean()]).mean()
        ratios = torch.tensor([math.exp(run.log_evidence - evidence) for run in runs])
        assert (
            abs(float(ratios.mean()) - 1) < 3 * float(ratios.std()) / math.sqrt(len(runs)) + 0.03
        )  # the steps' own error
    assert 4 < float(squares[50] / squares[800]) < 60  # 16 without the spread of a dozen runs


@pytest.mark.parametrize("schedule", ["VE", "VP", "EDM", "Rectified"])
@pytest.mark.parametrize("noise", [White(), FIELD], ids=["white", "field"])
def test_a_gaussian_field_seen_through_a_blur_is_recovered(schedule: str, noise: Noise) -> None:
    """Mean, covariance and p(y) in closed form, for every kind of schedule and of noise."""
    grid = (6,)
    law = Gaussian(SDE(SCHEDULES[schedule], noise), spectrum(grid, 1.0, 0.5), mean=0.3)
    operator = Blur(0.2)
    eye = torch.eye(6, dtype=DOUBLE)[:, None]
    prior = torch.fft.ifft(law.spectrum * torch.fft.fft(eye)).real[:, 0]
    seen = operator(eye)[:, 0].T
    truth = law.marginal((1, 1, *grid), time(0.0 if schedule != "VE" else 1e-3), generator=keys(1, 9))
    y = operator(truth) + 0.2 * torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    total = seen @ prior @ seen.T + 0.04 * eye[:, 0]
    gain = prior @ seen.T @ torch.linalg.inv(total)
    shift = law.mean.expand(6)
    mean = shift + gain @ (y[0, 0] - seen @ shift)
    covariance = prior - gain @ seen @ prior
    evidence = torch.distributions.MultivariateNormal(seen @ shift, total).log_prob(y[0, 0])
    sampler = Sampler(40, DPMSolverPP2M(eta=1.0), EDMGrid(ratio_min=0.02, ratio_max=40.0))
    found = Particles(PiGDM(), 1500, sampler)(law, Measurement(operator, y, 0.2), (1, *grid), seed=3, like=y)
    centred = (found.x[:, 0] - mean).double()
    assert float((found.mean(found.x)[0] - mean).abs().max()) < 0.08
    assert float((found.mean(centred[:, :, None] * centred[:, None]) - covariance).abs().max()) < 0.06
    assert abs(found.log_evidence - float(evidence)) < 0.25


@pytest.mark.parametrize("step", [Ancestral(), DDIM(eta=1.0), EulerMaruyama(), DPMSolverPP2M(eta=2.0)], ids=repr)
def test_any_stochastic_step_of_one_evaluation_serves(step: Step) -> None:
    law, measurement = case(0.5)
    weights, mean, _ = exact(law, measurement)
    found = Particles(PiGDM(), 400, Sampler(60, step, EDMGrid(ratio_min=0.02)), chunk=150)(
        law, measurement, (1, 4), seed=1, like=mean
    )
    assert float((found.mean(responsibilities(law, found.x)) - weights).abs().max()) < 0.08


@pytest.mark.parametrize("step", [Heun(), DDIM(), DPMSolverPP2M()], ids=repr)
def test_a_step_without_a_kernel_is_refused(step: Step) -> None:
    law, measurement = case(0.5)
    with pytest.raises(InputError, match="take DPMSolverPP2M"):
        Particles(PiGDM(), 4, Sampler(6, step))(law, measurement, (1, 4), seed=0, like=law.means)


def test_what_is_not_of_steps_by_the_denoiser_alone_is_refused() -> None:
    with pytest.raises(InputError, match="Jump goes by more than x̂: take DPMSolverPP2M"):
        Particles(PiGDM(), 4, Sampler(6, Jump(1.0)))
    with pytest.raises(InputError, match="denoise=False"):
        Particles(PiGDM(), 4, Sampler(6, Ancestral(), denoise=False))


def test_exact_measurements_are_refused_as_their_likelihood_cannot_be_weighed() -> None:
    law, measurement = case(0.0)
    with pytest.raises(InputError, match="noise > 0"):
        Particles(PiGDM(), 4)(law, measurement, (1, 4), seed=0, like=law.means)


def test_draws_are_as_frequent_as_their_weights() -> None:
    weights = torch.tensor([0.5, 0.3, 0.2, 0.0]).log()
    chosen = systematic(weights, 1000, keys(1))
    assert torch.bincount(chosen, minlength=4).sub(torch.tensor([500, 300, 200, 0])).abs().max() <= 1


@pytest.mark.parametrize("movable", [True, False], ids=["narrow", "as it is"])
@pytest.mark.parametrize("astray", [0.1, 3.0])
def test_whatever_is_proposed_weights_have_the_mean_1_and_a_bound(astray: float, movable: bool) -> None:
    """p/q of a step, of which E_q is 1, for proposals that are near and far off: 4 standard errors; at most 1/0.03."""
    law, measurement = case(0.3)
    n, sde = 4000, law.sde
    compared = measurement.comparison(sde.noise, (1, 4), law.means)
    t, s = (torch.tensor(value, dtype=DOUBLE) for value in (0.35, 0.3))
    x = torch.tensor([[0.5, -1.0, 0.3, 0.2]], dtype=DOUBLE).expand(n, 1, 4)
    prior = law(x, t)
    guided = prior + astray * torch.tensor([[1.0, 0.5, 1.0, -1.0]], dtype=DOUBLE)
    z = compared.of(prior)
    level = _Level(prior, guided, z, torch.zeros(n, dtype=DOUBLE))
    kernel = _Kernel(sde, DPMSolverPP2M(eta=1.0), t, s, keys(n))
    spread = torch.full((2,), 4.0, dtype=DOUBLE)
    x_s, ratio, _ = kernel(x, level, (None, None, None), compared, compared.movable if movable else None, spread)
    weights = ratio.exp()
    assert float(weights.max()) <= 1 / 0.03 * (1 + 1e-9)
    assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / math.sqrt(n)
    plain, _ = kernel._made(prior, x, keys(n, 1), None)  # draws of p itself: the same mean of any function
    for of in (lambda v: v[:, 0, 0], lambda v: v[:, 0, 3].square()):
        found, own = weights * of(x_s), of(plain)
        error = math.hypot(float(found.std()), float(own.std())) / math.sqrt(n)
        assert abs(float(found.mean() - own.mean())) < 4 * error


@dataclass(frozen=True)
class Astray(Method):
    """A proposal that leads all away from where p(x | y) is."""

    def __call__(self, denoiser, measurement, x_t, t, cond):
        return denoiser(x_t, t, cond) + 3


def test_a_proposal_that_leads_astray_costs_particles_and_is_not_wrong() -> None:
    law, measurement = case(0.5)
    weights, mean, evidence = exact(law, measurement)
    sampler = Sampler(24, DPMSolverPP2M(eta=1.0), EDMGrid(ratio_min=0.02))
    found = Particles(Astray(), 3000, sampler)(law, measurement, (1, 4), seed=1, like=mean)
    assert float((found.mean(responsibilities(law, found.x)) - weights).abs().max()) < 0.15
    assert abs(found.log_evidence - evidence) < 0.5
