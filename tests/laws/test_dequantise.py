"""Dequantisation: the noise's own law, a bound that holds of any model, and one that is tight of laws on a grid of values."""

import math

import pytest
import torch
from scipy import stats

from laws.cases import SCHEDULES, keys, rarely
from scorefield.core.oracle import Mixture
from scorefield.core.sde import SDE
from scorefield.samplers import Exact, ProbabilityFlow, TruncatedNormal, Uniform
from scorefield.samplers.likelihood import bits_per_dimension

F64 = torch.float64
pytestmark = pytest.mark.usefixtures("unchecked")
VALUES = torch.tensor([[[-1.0, 0.5]], [[0.25, 0.0]], [[1.5, 0.25]]], dtype=F64)  # fields of two points, quantum 0.25
WEIGHTS = torch.tensor([0.6, 0.3, 0.1], dtype=F64)
QUANTUM = 0.25


def uniforms(n, shape=(1, 2), seed=0):
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("width", [0.05, 0.3, 0.8, 40.0])
def test_the_noise_is_of_its_law_within_the_cell(width):
    """Kolmogorov's statistic of 4000 draws, and the log density of each beside scipy's."""
    spread = torch.full((1, 2), width, dtype=F64)
    noise, log_density = TruncatedNormal()(uniforms(2000), spread)
    law = stats.truncnorm(-0.5 / width, 0.5 / width, scale=width)
    assert noise.abs().max() <= 0.5
    assert stats.kstest(noise.flatten().numpy(), law.cdf).pvalue > 1e-3
    torch.testing.assert_close(log_density, torch.from_numpy(law.logpdf(noise.numpy())).sum((1, 2)), rtol=0, atol=1e-9)


def test_ends_of_the_draws_are_draws_of_the_law():
    """A draw in float32 stands for an interval of 2⁻²⁴: 0 is no end of the cell that 200 standard deviations lie before."""
    ends = torch.tensor([0.0, 2**-24, 1 - 2**-24])[:, None, None]
    for width in (0.002, 0.05, 0.3, 100.0):
        noise, log_density = TruncatedNormal()(ends, torch.full((1, 1), width, dtype=F64))
        assert noise.isfinite().all() and noise.abs().max() <= 0.5 and noise[0] < noise[1] < noise[2]
        assert (
            log_density[0] == pytest.approx(log_density[2].item(), abs=1e-3) and log_density[1] - log_density[0] < 1.5
        )


def bits(name, dequantisation, width_of=QUANTUM, n=200):
    """By the flow of the law that has its weights on three fields of quantised values, of draws of it."""
    oracle = Mixture(SDE(SCHEDULES[name]), VALUES, torch.full((3,), 1e-8, dtype=F64), WEIGHTS)
    which = torch.multinomial(WEIGHTS, n, replacement=True, generator=torch.Generator().manual_seed(1))
    flow = dequantisation.begin(ProbabilityFlow(1e-4, Exact()), width_of)
    t_min, _ = flow.ends(oracle.sde.schedule)
    ratio = (-oracle.sde.schedule.log_snr(t_min) / 2).exp()
    noise, log_density = dequantisation(uniforms(n), (ratio / QUANTUM).expand(1, 2))
    nats = flow.log_prob(oracle, VALUES[which] + QUANTUM * noise, generator=keys(n)).nats
    return bits_per_dimension(nats - log_density, QUANTUM, 2), -WEIGHTS[which].log2() / 2


@pytest.mark.parametrize("name", rarely(SCHEDULES))
def test_the_bound_is_tight_where_the_model_knows_the_values(name):
    """Of the law's own −log₂ P/2, 0.65 bits: within 0.02 by a truncated normal, field by field; uniform noise misses by bits."""
    found, exact = bits(name, TruncatedNormal(0.2))
    assert (found - exact).mean().abs() < 0.02


def test_uniform_noise_is_beside_what_such_a_model_knows():
    found, exact = bits("VE", Uniform(), n=10)
    assert found.mean() - exact.mean() > 1


def test_the_bound_holds_and_its_mean_of_probabilities_is_the_cells_mass():
    """E[p/r] = the mass of the cell, whatever the model's law: here with a width of 0.6, of which much lies beyond."""
    oracle, n = Mixture(SDE(SCHEDULES["VE"]), VALUES + 0.04, torch.full((3,), 0.01, dtype=F64), WEIGHTS), 4000
    flow = TruncatedNormal(0.6).begin(ProbabilityFlow(1e-6, Exact()), QUANTUM)
    t_min, _ = flow.ends(oracle.sde.schedule)
    spread = torch.full((1, 2), 0.6, dtype=F64)
    noise, log_density = TruncatedNormal(0.6)(uniforms(n), spread)
    log_p = oracle.log_density(VALUES[:1] + QUANTUM * noise, t_min) + 2 * math.log(QUANTUM) - log_density
    sd = math.sqrt(0.01 + (0.6 * QUANTUM) ** 2)
    edges = (torch.tensor([-0.5, 0.5], dtype=F64) * QUANTUM - 0.04) / sd
    mass = 0.6 * (torch.special.ndtr(edges[1]) - torch.special.ndtr(edges[0])) ** 2  # the others are far away
    assert log_p.mean() < mass.log()
    error = log_p.exp().std() / math.sqrt(n)
    assert abs(log_p.exp().mean() - mass) < 4 * error
