"""Likelihoods in few evaluations: what the head is to give is right in closed form, and so is what it has learnt."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from laws.cases import SCHEDULES, rarely
from scorefield.core.noise import GaussianField, Matern, White
from scorefield.core.oracle import Gaussian, Mixture
from scorefield.core.sde import SDE
from scorefield.foundation.random import Generators
from scorefield.samplers import Exact, ProbabilityFlow
from scorefield.samplers import learned_likelihood as learned
from scorefield.samplers.learned_likelihood import LearnedLikelihood

SHAPE, STEPS = (1, 8), 5
FLOW = ProbabilityFlow(1e-6, Exact())


def gaussian(name: str, noise) -> Gaussian:
    mode = torch.fft.fftfreq(8, 1 / 8, dtype=torch.float64)
    return Gaussian(SDE(SCHEDULES[name], noise), (4 / (1 + mode**2))[None], mean=0.3)


def keys(n: int, seed: int = 0) -> Generators:
    return Generators([(seed, i) for i in range(n)])


class Constant(nn.Module):
    """A head that adds nothing to the means: right wherever the divergence is the same for all fields."""

    def forward(self, u, label):
        return torch.zeros(len(u), STEPS, dtype=u.dtype)


@pytest.mark.parametrize("noise", [White(), GaussianField(Matern(0.3))], ids=["white", "field"])
@pytest.mark.parametrize("name", rarely(SCHEDULES))
def test_gains_are_the_closed_form_and_add_up_to_the_density(name: str, noise) -> None:
    """Of a Gaussian, each interval's is −½ Σ log of the ratio of variances of u, whatever the field."""
    law = gaussian(name, noise)
    path = learned.first_path(law.sde.schedule, FLOW, STEPS)
    times = torch.tensor(path.times, dtype=torch.float64)
    x = law.marginal((3, *SHAPE), times[0], generator=keys(3)) / law.sde.schedule.alpha(times[0])
    truth = learned.solved(law, x, path.times, FLOW, generator=keys(3))
    radius = torch.hypot(*law.sde.schedule(times))
    volume = torch.stack([(law.variance(t) / r**2).log().sum() / 2 for t, r in zip(times, radius, strict=True)])
    torch.testing.assert_close(8 * truth.gains, volume.diff().expand(3, STEPS), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        truth.end, law.flow(law.sde.schedule.alpha(times[0]) * x, times[0], times[-1]), rtol=1e-3, atol=1e-3
    )
    exact = FLOW.log_prob(law, x, generator=keys(3)).nats
    torch.testing.assert_close(
        learned.log_end(law, x, truth.end, path) + 8 * truth.gains.sum(1), exact, atol=2e-2, rtol=0
    )


@pytest.mark.parametrize("name", ["VP", "VE"])
def test_a_gaussians_density_is_exact_where_the_path_is(name: str) -> None:
    """The head has nothing to learn but constants; what is left is the path, which fitting brings nearer."""
    law = gaussian(name, White())
    start = learned.first_path(law.sde.schedule, FLOW, STEPS)
    x = law.marginal((40, *SHAPE), torch.tensor(start.times[0]).double(), generator=keys(40))
    end = learned.solved(law, x, start.times, FLOW, generator=keys(40)).end
    path = learned.fit_path(law, x, end, start, rounds=8)
    errors = []
    for each in (start, path):
        missed = each.states(law, x)[-1] - end
        errors.append(float(missed.square().mean().sqrt() / end.square().mean().sqrt()))
    assert errors[1] < 0.2 * errors[0] and errors[1] < 0.01
    truth = learned.solved(law, x, path.times, FLOW, generator=keys(40))
    wanted = learned.goals(law, x, path.states(law, x), path, truth)
    found = LearnedLikelihood(path, Constant(), wanted[:20].mean(0), torch.ones(STEPS).double())
    fresh = law.marginal((40, *SHAPE), torch.tensor(path.times[0]).double(), generator=keys(40, seed=1))
    exact = law.log_density(
        law.sde.schedule.alpha(torch.tensor(path.times[0]).double()) * fresh, torch.tensor(path.times[0]).double()
    )
    nats = found.log_prob(law, fresh).nats
    assert float((nats - exact).mean().abs()) < 0.05 and float((nats - exact).std()) < 0.1
    assert int(found.log_prob(law, fresh).evaluations.max()) == STEPS


def test_the_sum_of_goals_is_the_solvers_density_on_any_path() -> None:
    """For a law whose divergence differs from field to field."""
    means = torch.tensor([[[-2.0, 1.0]], [[1.0, 2.0]], [[0.5, -2.0]]], dtype=torch.float64)
    law = Mixture(SDE(SCHEDULES["VP"]), means, torch.tensor([0.05, 0.3, 0.6], dtype=torch.float64))
    x = law.marginal((6, 1, 2), torch.tensor(0.01).double(), generator=keys(6))
    path = learned.first_path(law.sde.schedule, FLOW, 3)
    states = path.states(law, x)
    truth = learned.solved(law, x, path.times, FLOW, generator=keys(6))
    wanted = learned.goals(law, x, states, path, truth)
    assert float(truth.gains.std(0).max()) > 0.01
    exact = FLOW.log_prob(law, x, generator=keys(6)).nats
    found = learned.log_end(law, x, states[-1], path) + 2 * wanted.sum(1)
    torch.testing.assert_close(found, exact, atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", ["VP", "Rectified"])
def test_goals_are_those_of_the_whole_flow_where_a_path_ends_before_it(name: str) -> None:
    """Of data so wide that much of them is left at σ/α = 80."""
    law = Gaussian(SDE(SCHEDULES[name]), torch.full((1, 8), 300.0**2, dtype=torch.float64))
    path = learned.first_path(law.sde.schedule, FLOW, STEPS)
    x = law.marginal((4, *SHAPE), torch.tensor(path.times[0]).double(), generator=keys(4))
    states, truth = path.states(law, x), learned.solved(law, x, path.times, FLOW, generator=keys(4))
    found = learned.log_end(law, x, states[-1], path) + 8 * learned.goals(law, x, states, path, truth).sum(1)
    torch.testing.assert_close(found, FLOW.log_prob(law, x, generator=keys(4)).nats, atol=2e-2, rtol=0)


def test_a_head_learns_what_depends_on_the_field() -> None:
    """Twice as many gains as fields could hold by chance: a line in the mean square of the field."""

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(1, STEPS)

        def forward(self, u, label):
            return self.line(u.square().flatten(1).mean(1, keepdim=True))

    schedule = SCHEDULES["VP"]
    path = learned.first_path(schedule, FLOW, STEPS)
    states = torch.randn(STEPS, 300, 1, 4, generator=torch.Generator().manual_seed(0))
    radius = torch.hypot(*schedule(torch.tensor(path.times).double())).float()
    power = (states / radius[:-1, None, None, None]).square().flatten(2).mean(2).T.double()
    wanted = 0.3 + power * torch.arange(1, STEPS + 1)
    torch.manual_seed(0)
    found = learned.learn(Line(), schedule, path, states, wanted, dimension=4, epochs=40, lr=0.05)
    plain = 4 * (wanted - wanted.mean(0)).sum(1).square().mean().sqrt()
    assert abs(found.bias) < 0.01 * plain and found.spread < 0.02 * plain
