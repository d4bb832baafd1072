"""Scores of ensembles against closed forms: what they expect of exchangeable members, whatever their number."""

from __future__ import annotations

import math

import pytest
import torch

from scorefield.foundation.random import Generators
from scorefield.metrics.ensemble import fair_crps, fair_energy_score, ranks, spread_skill

N = 40_000


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def crps_of_normal(y: torch.Tensor) -> torch.Tensor:
    """Of N(0, 1) (Gneiting et al. 2005, eq. 5)."""
    law = torch.distributions.Normal(0.0, 1.0)
    return y * (2 * law.cdf(y) - 1) + 2 * law.log_prob(y).exp() - 1 / math.sqrt(math.pi)


@pytest.mark.parametrize("members", [2, 3, 8, 20])
def test_the_fair_crps_does_not_depend_on_the_number_of_members(members: int) -> None:
    y = torch.tensor([0.0, 1.5])  # N(0, 1) ensembles, off their truth and not
    found = fair_crps(normal(members, N, 2, seed=members), y.double().expand(N, 2))
    error = found.std(0) / math.sqrt(N)
    assert ((found.mean(0) - crps_of_normal(y.double())).abs() < 4 * error).all()
    plain_bias = 1 / (members * math.sqrt(math.pi))  # what the score that is not fair has too much
    assert (4 * error < plain_bias).all()


def test_a_single_member_is_scored_by_its_error() -> None:
    x, y = normal(1, 7, seed=0), normal(7, seed=1)
    torch.testing.assert_close(fair_crps(x, y), (x[0] - y).abs())
    torch.testing.assert_close(fair_energy_score(x[..., None], y[:, None], torch.ones(1)), (x[0] - y).abs())


def test_what_is_unknown_has_no_score() -> None:
    x, y = normal(4, 3, seed=0), normal(3, seed=1)
    x[1, 0], y[2] = math.nan, math.nan
    assert fair_crps(x, y).isnan().tolist() == [True, False, True]


@pytest.mark.parametrize("members", [1, 5, 12])
@pytest.mark.parametrize("dry", [0.0, 0.7])
def test_ranks_of_exchangeable_members_are_flat(members: int, dry: float) -> None:
    x = normal(members + 1, N, seed=members).sub(
        torch.distributions.Normal(0, 1).icdf(torch.tensor(dry)) if dry else -9
    )
    x = x.clamp(min=0)  # an atom, as of dry pixels, where dry > 0
    found = ranks(x[1:, None], x[:1], generator=Generators([(1,)]))
    counts = found.flatten().bincount(minlength=members + 1).double()
    expected = N / (members + 1)
    assert counts.sub(expected).square().sum() / expected < members + 4 * math.sqrt(2 * members)  # χ² of M degrees
    again = ranks(x[1:, None], x[:1], generator=Generators([(1,)]))
    assert torch.equal(found, again)


def test_spread_equals_skill_for_exchangeable_members() -> None:
    for members in (2, 8):
        x = normal(members + 1, N, seed=members)
        variance, error = x[1:].var(0).mean(), (x[1:].mean(0) - x[0]).square().mean()
        assert float(spread_skill(variance, error, members)) == pytest.approx(1, abs=4 / math.sqrt(N))
        assert float(spread_skill(variance / 4, error, members)) == pytest.approx(0.5, abs=4 / math.sqrt(N))


@pytest.mark.parametrize("members", [2, 9])
def test_the_fair_energy_score_has_the_expectation_of_endless_members(members: int) -> None:
    dimensions = 6  # ‖z‖ of z ~ N(0, I_d) has mean √2 Γ((d+1)/2)/Γ(d/2): E‖X − Y‖ − E‖X − X'‖/2 = √2 times half of that
    x = normal(members + 1, 8000, dimensions, seed=members)
    found = fair_energy_score(x[1:], x[0], torch.ones(dimensions))
    mean = math.sqrt(2) * math.exp(math.lgamma((dimensions + 1) / 2) - math.lgamma(dimensions / 2))
    expected = math.sqrt(2) * mean / 2 / math.sqrt(dimensions)
    assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / math.sqrt(8000))


def test_the_energy_score_of_one_box_is_its_crps_and_masked_boxes_weigh_nothing() -> None:
    x, y = normal(5, 30, 2, seed=0), normal(30, 2, seed=1)
    torch.testing.assert_close(fair_energy_score(x, y, torch.tensor([3.0, 0.0])), fair_crps(x[..., 0], y[..., 0]))
    y[:, 1] = math.nan
    torch.testing.assert_close(fair_energy_score(x, y, torch.ones(2)), fair_crps(x[..., 0], y[..., 0]))
    assert fair_energy_score(x, y * math.nan, torch.ones(2)).isnan().all()


def test_the_energy_score_sees_dependence_that_the_crps_does_not() -> None:
    shared, own = normal(9, 4000, 1, seed=0).expand(9, 4000, 12), normal(9, 4000, 12, seed=1)
    truth = normal(4000, 1, seed=2).expand(4000, 12).contiguous()  # one number on all of the grid
    together, apart = (fair_energy_score(x.contiguous(), truth, torch.ones(12)).mean() for x in (shared, own))
    assert together < 0.95 * apart
    assert float(fair_crps(shared.contiguous(), truth).mean() - fair_crps(own, truth).mean()) == pytest.approx(
        0, abs=0.02
    )
