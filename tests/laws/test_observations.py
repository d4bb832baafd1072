"""What is known of a field, in general: densities, linearisations, and posteriors by particles against quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from laws.cases import SCHEDULES, keys, spectrum
from scorefield.core.noise import GaussianField, Matern, Noise, White
from scorefield.core.oracle import Gaussian, Mixture
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.guidance import (
    DPS,
    Guided,
    LogLikelihood,
    Measurement,
    Method,
    MomentMatching,
    NoisyLikelihood,
    Observation,
    PiGDM,
    Poisson,
    Proximal,
    Replacement,
)
from scorefield.operators import Coarsen, Differentiable, FourierMagnitude, Identity, Mask, Saturated
from scorefield.particles import Particles, Population
from scorefield.samplers import DPMSolverPP2M, EDMGrid, Sampler

pytestmark = pytest.mark.usefixtures("unchecked")
DOUBLE = torch.float64
FIELD = GaussianField(Matern(0.3, 1.0, nugget=1e-2))
SAMPLER = Sampler(40, DPMSolverPP2M(eta=1.0), EDMGrid(ratio_min=0.01, ratio_max=40.0))


def tensor(*values: float) -> Tensor:
    return torch.tensor([[values]], dtype=DOUBLE)


def mixture(schedule: str = "EDM") -> Mixture:
    """Three modes in the plane."""
    means = torch.tensor([[1.5, 0.5], [-1.0, 1.0], [0.3, -1.5]], dtype=DOUBLE)[:, None]
    variances = torch.tensor([0.1, 0.2, 0.15], dtype=DOUBLE)
    return Mixture(SDE(SCHEDULES[schedule]), means, variances, torch.tensor([0.4, 0.35, 0.25]))


NORM = Differentiable(lambda x: x.square().sum(-1, keepdim=True))  # a ring
PRODUCT = Differentiable(lambda x: torch.cat((x.prod(-1, keepdim=True), x.sum(-1, keepdim=True).sin()), -1))
KNOWN = {
    "ring": Measurement(NORM, tensor(2.4), 0.3),
    "curved": Measurement(PRODUCT, tensor(-0.6, 0.4), torch.tensor([0.4, 0.3], dtype=DOUBLE)),
    "saturated": Measurement(Saturated(1.0), tensor(0.7, 0.5), 0.15),
    "each entry": Measurement(Identity(), tensor(0.6, 0.3), torch.tensor([0.3, 0.9], dtype=DOUBLE)),
    "covariance": Measurement(Identity(), tensor(0.9, 0.2), GaussianField(Matern(0.8, 1.0, nugget=0.05))),
    "counts": Poisson(Differentiable(lambda x: (0.8 * x).exp()), tensor(5.0, 1.0), exposure=2.0, background=0.1),
    "robust": LogLikelihood(lambda x: -((x - 0.6).abs() / 0.4 + math.log(0.8)).flatten(1).sum(1), values=2),
}


def exact(law: nn.Module, log_prior: Callable[[Tensor], Tensor], known: Observation) -> tuple[Tensor, Tensor, float]:
    """Mean, mean of squares and log p(y) by quadrature in the plane."""
    axis = torch.linspace(-5, 5, 401, dtype=DOUBLE)
    x = torch.cartesian_prod(axis, axis)[:, None]
    log = log_prior(x) + known.log_prob(x)
    weight = log.softmax(0)[:, None, None]
    return (weight * x).sum(0)[0], (weight * x.square()).sum(0)[0], float(log.logsumexp(0)) + 2 * math.log(10 / 400)


def holds(found: Population, truth: tuple[Tensor, Tensor, float], close: float = 0.1) -> None:
    mean, square, evidence = truth
    assert float((found.mean(found.x)[0] - mean).abs().max()) < close
    assert float((found.mean(found.x.square())[0] - square).abs().max()) < 2.5 * close
    assert abs(found.log_evidence - evidence) < 0.2


@pytest.mark.parametrize("name", KNOWN)
def test_particles_are_right_for_whatever_is_known(name: str) -> None:
    law, known = mixture(), KNOWN[name]
    truth = exact(law, lambda x: law.log_density(x, torch.tensor(0.0, dtype=DOUBLE)), known)
    found = Particles(DPS(), 1500, SAMPLER)(law, known, (1, 2), seed=1, like=law.means)
    holds(found, truth)


@pytest.mark.parametrize("method", [PiGDM(), MomentMatching()], ids=["PiGDM", "MomentMatching"])
@pytest.mark.parametrize("name", ["curved", "covariance", "counts"])
def test_so_they_are_by_methods_that_linearise(name: str, method: Method) -> None:
    law, known = mixture(), KNOWN[name]
    truth = exact(law, lambda x: law.log_density(x, torch.tensor(0.0, dtype=DOUBLE)), known)
    holds(Particles(method, 600, SAMPLER)(law, known, (1, 2), seed=2, like=law.means), truth)


@pytest.mark.parametrize("schedule", ["VE", "VP", "EDM", "Rectified"])
@pytest.mark.parametrize("noise", [White(), FIELD], ids=["white", "field"])
def test_a_nonlinear_measurement_under_every_schedule_and_noise(schedule: str, noise: Noise) -> None:
    """Of a Gaussian field of two points, seen by a sensor that saturates."""
    law = Gaussian(SDE(SCHEDULES[schedule], noise), spectrum((2,), 1.0, 1.0), mean=0.3)
    prior = torch.fft.ifft(law.spectrum * torch.fft.fft(torch.eye(2, dtype=DOUBLE)[:, None])).real[:, 0]
    normal = torch.distributions.MultivariateNormal(law.mean.expand(2), prior)
    known = Measurement(Saturated(1.0), tensor(0.8, -0.2), 0.2)
    truth = exact(law, lambda x: normal.log_prob(x[:, 0]), known)
    holds(Particles(DPS(), 600, SAMPLER)(law, known, (1, 2), seed=3, like=law.mean[None]), truth)


@pytest.mark.slow
def test_the_error_falls_with_the_number_for_a_ring() -> None:
    law, known = mixture(), KNOWN["ring"]
    mean, _, evidence = exact(law, lambda x: law.log_density(x, torch.tensor(0.0, dtype=DOUBLE)), known)
    squares = {}
    for count in (50, 800):
        runs = [Particles(DPS(), count, SAMPLER)(law, known, (1, 2), seed=s, like=law.means) for s in range(12)]
        squares[count] = torch.stack([run.mean(run.x)[0] - mean for run in runs]).square().mean()
        ratios = torch.tensor([math.exp(run.log_evidence - evidence) for run in runs])
        assert abs(float(ratios.mean()) - 1) < 3 * float(ratios.std()) / math.sqrt(len(runs)) + 0.06
    assert 4 < float(squares[50] / squares[800]) < 60  # 16 without the spread of a dozen runs


def test_densities_are_those_of_the_laws() -> None:
    x, y = torch.randn(3, 1, 4, dtype=DOUBLE), torch.randn(1, 1, 4, dtype=DOUBLE)
    std = torch.tensor([0.3, 1.0, 2.0, 0.5], dtype=DOUBLE)
    each = torch.distributions.Normal(y, std).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(Measurement(Identity(), y, std).log_prob(x), each)
    torch.testing.assert_close(
        Measurement(Identity(), y, 0.3).log_prob(x), torch.distributions.Normal(y, 0.3).log_prob(x).flatten(1).sum(1)
    )
    matrix = FIELD.covariance(torch.eye(4, dtype=DOUBLE)[:, None])[:, 0]
    whole = torch.distributions.MultivariateNormal(y[0, 0], matrix).log_prob(x[:, 0])
    torch.testing.assert_close(Measurement(Identity(), y, FIELD).log_prob(x), whole)
    keep = torch.tensor([True, False, True, True])
    part = torch.distributions.MultivariateNormal(y[0, 0, keep], matrix[keep][:, keep]).log_prob(x[:, 0, keep])
    torch.testing.assert_close(Measurement(Mask(keep), y, FIELD).log_prob(x), part)
    counts = torch.tensor([[[0.0, 3.0, torch.nan, 7.0]]], dtype=DOUBLE)
    rate = (2 * x.abs() + 0.1)[:, :, [0, 1, 3]]
    told = torch.distributions.Poisson(rate).log_prob(counts[:, :, [0, 1, 3]]).flatten(1).sum(1)
    torch.testing.assert_close(Poisson(Differentiable(torch.abs), counts, 2.0, 0.1).log_prob(x), told)


@pytest.mark.parametrize("name", KNOWN)
def test_the_density_by_coordinates_is_the_density(name: str) -> None:
    known, x = KNOWN[name], torch.randn(5, 1, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    compared = known.comparison(White(), (1, 2), x)
    z = compared.of(x)
    torch.testing.assert_close(compared.density(z, z.new_zeros(z.shape[1])), known.log_prob(x))


@pytest.mark.parametrize(
    "operator", [PRODUCT, FourierMagnitude(), Saturated(2.0)], ids=["product", "magnitude", "tanh"]
)
def test_jacobians_are_derivatives_with_their_adjoints(operator: Differentiable) -> None:
    x, v = (torch.randn(3, 1, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    tangent = operator.jacobian(x)
    step = 1e-6
    torch.testing.assert_close(
        tangent(v), (operator(x + step * v) - operator(x - step * v)) / (2 * step), rtol=1e-6, atol=1e-7
    )
    u = torch.randn(tangent(v).shape, dtype=DOUBLE)
    torch.testing.assert_close((tangent(v) * u).flatten(1).sum(1), (v * tangent.adjoint(u)).flatten(1).sum(1))


@pytest.mark.parametrize(
    "noise",
    [torch.tensor([0.1, 0.5, 1.0, 0.2, 0.3, torch.inf], dtype=DOUBLE), FIELD],
    ids=["each entry", "covariance"],
)
def test_moment_matching_is_exact_for_gaussian_data_and_any_noise(noise: Tensor | Noise) -> None:
    """E[x | x_t, y] by matrices; what has an infinite noise, or is masked, may be NaN."""
    law = Gaussian(SDE(SCHEDULES["EDM"]), spectrum((6,), 1.0, 0.5), mean=0.3)
    keep = torch.tensor([True, True, False, True, True, True])
    y = torch.randn(1, 1, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    y[..., 2] = torch.nan
    eye = torch.eye(6, dtype=DOUBLE)
    if isinstance(noise, Tensor):
        y[..., 5], keep[5] = torch.nan, False
        errors = torch.diag(noise[keep].square())
    else:
        errors = noise.covariance(eye[:, None])[:, 0][keep][:, keep]
    known = Measurement(Mask(torch.tensor([1, 1, 0, 1, 1, 1])), y, noise)
    prior = torch.fft.ifft(law.spectrum * torch.fft.fft(eye[:, None])).real[:, 0]
    t = torch.tensor(0.4, dtype=DOUBLE)
    alpha, sigma = law.sde.schedule(t)
    x_t = law.marginal((2, 1, 6), t, generator=keys(2))
    rows = torch.cat((alpha * eye, eye[keep]))
    total = rows @ prior @ rows.T + torch.block_diag(sigma**2 * eye, errors)
    seen = torch.cat((x_t[:, 0], y[0, 0, keep].expand(2, -1)), 1)
    expected = 0.3 + (seen - 0.3 * rows.sum(1)) @ torch.linalg.solve(total, rows @ prior)
    found = Guided(law, known, MomentMatching(200, 1e-10))(x_t, t)
    torch.testing.assert_close(found[:, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", [DPS(), PiGDM(), MomentMatching()], ids=["DPS", "PiGDM", "MomentMatching"])
@pytest.mark.parametrize("name", ["ring", "curved", "counts"])
def test_guidance_never_makes_the_likelihood_of_x_smaller(name: str, method: Method) -> None:
    law, known = mixture(), KNOWN[name]
    for t in torch.tensor([0.1, 0.4, 0.8], dtype=DOUBLE):
        x_t = law.marginal((50, 1, 2), t, generator=keys(50))
        plain, guided = law(x_t, t), Guided(law, known, method)(x_t, t)
        assert bool((known.log_prob(guided) >= known.log_prob(plain) - 1e-9).all())
        assert bool((known.log_prob(guided) > known.log_prob(plain) + 1e-3).any())


def test_what_does_not_serve_is_refused_in_one_line() -> None:
    law, x_t, t = mixture(), torch.zeros(1, 1, 2, dtype=DOUBLE), torch.tensor(0.4, dtype=DOUBLE)
    for method in (PiGDM(), MomentMatching()):
        with pytest.raises(InputError, match="no measured values to be linearised: take DPS"):
            Guided(law, KNOWN["robust"], method)(x_t, t)
    for method in (Proximal(), NoisyLikelihood(), Replacement()):
        for name in ("ring", "each entry", "counts"):
            with pytest.raises(InputError, match="linear A and white noise"):
                Guided(law, KNOWN[name], method)(x_t, t)
    with pytest.raises(InputError, match="needs a noise > 0"):
        Measurement(NORM, tensor(1.0))
    with pytest.raises(InputError, match="standard deviation > 0, or ∞"):
        Measurement(Identity(), tensor(1.0, 2.0), torch.tensor([0.0, 1.0]))
    with pytest.raises(InputError, match="one for each entry"):
        Measurement(Identity(), tensor(1.0, 2.0), torch.ones(3))
    with pytest.raises(InputError, match="whole numbers of at least 0"):
        Poisson(Identity(), tensor(1.5))
    with pytest.raises(InputError, match="one number of each"):
        LogLikelihood(lambda x: x).log_prob(x_t)


def test_a_coarse_measurement_has_independent_coordinates_under_field_noise() -> None:
    """B C B* = diag D for the movable coordinates, which the lift moves one by one, and nothing that is independent of them."""
    known = Measurement(
        Coarsen(2), torch.zeros(1, 1, 4, dtype=DOUBLE), torch.tensor([0.2, 0.3, 0.4, 0.5], dtype=DOUBLE)
    )
    compared = known.comparison(FIELD, (1, 8), known.y)
    assert compared.movable is not None
    moved = compared.movable.lift(torch.eye(4, dtype=DOUBLE) / compared.movable.variances)
    torch.testing.assert_close(compared.of(moved), torch.eye(4, dtype=DOUBLE), atol=1e-9, rtol=0)
    draws = FIELD.sample((4000, 1, 8), generator=keys(4000), like=known.y)
    rest = draws - compared.movable.lift(compared.of(draws) / compared.movable.variances)
    cross = compared.of(draws).T @ rest[:, 0] / 4000
    assert float(cross.abs().max()) < 0.1 * float(compared.movable.variances.sqrt().max())
