"""A critic of a flow map's draws: at rest where their laws are that of the data, and else what moves the map there."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from laws.cases import keys, spectrum
from laws.test_jump_score import GRID, Scaled
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM, VP
from scorefield.core.sde import SDE
from scorefield.data import Batch
from scorefield.foundation.errors import InputError
from scorefield.losses import AdversarialJumps, EnergyScore, JumpScore
from scorefield.nn.network import Network

DOUBLE = torch.float64


class Power(Network):
    """D_k(u) = a_k mean u², or a_k mean u."""

    def __init__(self, kinds: int = 2, a: float = 0.0, linear: bool = False) -> None:
        super().__init__()
        self.logits, self.linear = kinds, linear
        self.a = nn.Parameter(torch.full((kinds,), a, dtype=DOUBLE))

    def forward(self, x: Tensor, label: Tensor, cond: object = None) -> Tensor:
        return (x if self.linear else x.square()).flatten(1).mean(1)[:, None] * self.a


def data(schedule, n: int, seed: int = 1) -> tuple[Gaussian, Tensor]:
    law = Gaussian(SDE(schedule), spectrum(GRID, 1.5, 0.5))
    return law, law.marginal((n, 1, *GRID), torch.zeros(()).double(), generator=keys(n, seed))


@pytest.mark.parametrize("schedule", [VP(), EDM()], ids=["VP", "EDM"])
@pytest.mark.parametrize("noise", [(0.0,), (0.0, 0.5)], ids=["plain", "noisy"])
@pytest.mark.parametrize(("factor", "sign"), [(1.0, 0), (0.7, -1), (1.4, 1)])
def test_a_critic_that_sees_nothing_yet_rests_at_equal_laws_alone(schedule, noise, factor: float, sign: int) -> None:
    """At D = 0 its slope is (E X² − E x²)/2 for each kind of draw: nothing to be learnt where the map is exact."""
    critic = Power(3)
    law, x = data(schedule, 8000)
    loss = AdversarialJumps(critic, JumpScore(levels=(0.5, 2.0)), noise=noise).adversary
    found = []
    for number, part in enumerate(x.chunk(20)):
        value = loss(Scaled(law, factor), Batch(part, {}), generator=keys(400, number)).mean()
        found.append(torch.autograd.grad(value, critic.a)[0])
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / 20**0.5
    assert bool((mean.abs() < 4 * error).all() if sign == 0 else (sign * mean > 5 * error).all())


def test_a_critic_that_tells_nothing_apart_moves_no_map() -> None:
    law, x = data(EDM(), 16)
    map_, critic = Scaled(law, 0.7), Power()
    loss = AdversarialJumps(critic, JumpScore(scores=[EnergyScore()]), factor=100.0)
    ours = torch.autograd.grad(loss.of_draws(map_, Batch(x, {}), keys(16)).mean(), map_.factor)[0]
    scores = torch.autograd.grad(loss.score.of_draws(map_, Batch(x, {}), keys(16)).mean(), map_.factor)[0]
    torch.testing.assert_close(ours, scores)


def test_the_slope_of_a_critic_is_that_of_the_closed_form() -> None:
    """Of D = a mean u on N points it is ‖∇D‖² = a²/N; the game itself is flat in a where the laws are equal."""
    law, x = data(EDM(), 20000)
    found = []
    for penalty in (1.0, 3.0):
        loss = AdversarialJumps(Power(a=2.0, linear=True), penalty=penalty, noise=(0.0,)).adversary
        found.append(loss(Scaled(law, 1.0), Batch(x, {}), generator=keys(20000)).detach().mean())
    torch.testing.assert_close(found[1] - found[0], torch.tensor(2 * 4.0 / 8, dtype=DOUBLE), rtol=0.03, atol=0.0)


def test_the_critic_leaves_the_map_alone() -> None:
    law, x = data(EDM(), 8)
    map_, critic = Scaled(law, 0.7), Power(a=0.3)
    AdversarialJumps(critic).adversary(map_, Batch(x, {}), generator=keys(8)).sum().backward()
    assert map_.factor.grad is None and critic.a.grad is not None


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_a_map_that_is_too_narrow_or_too_wide_finds_the_law_of_the_data(factor: float) -> None:
    """By the critic: its share in the loss is a thousand times that of a score of one value."""
    law, _ = data(EDM(), 2)
    map_, critic = Scaled(law, factor), Power()
    loss = AdversarialJumps(critic, JumpScore(scores=[EnergyScore()], factor=1e-3), penalty=0.1, noise=(0.0, 0.3))
    steps = [torch.optim.Adam(part.parameters(), 3e-2, betas=(0.0, 0.9)) for part in (map_, critic)]
    found = []
    for step in range(150):
        _, x = data(EDM(), 128, step)
        for optimiser, part in zip(reversed(steps), (loss.adversary, None), strict=True):
            optimiser.zero_grad()
            draws = keys(128, 1000 + step)
            value = (
                loss.of_draws(map_, Batch(x, {}), draws) if part is None else part(map_, Batch(x, {}), generator=draws)
            )
            value.mean().backward()
            optimiser.step()
        found.append(float(map_.factor.detach()))
    assert abs(sum(found[-50:]) / 50 - 1) < 0.1


def test_the_noise_of_data_and_of_draws_is_of_one_level_and_independent() -> None:
    loss = AdversarialJumps(Power(), noise=(0.0, 0.5, 2.0))
    level, first, second = loss.noises(torch.zeros(3000, 1, 8, dtype=DOUBLE), keys(3000))
    assert {float(value) for value in level.unique()} == {0.0, 0.5, 2.0}
    for value in (0.0, 0.5, 2.0):
        here = level == value
        assert 900 < int(here.sum()) < 1100
        for noise in (first, second):
            assert math.isclose(float(noise[here].std()), value, rel_tol=0.04, abs_tol=1e-12)
    assert abs(float((first * second).mean())) < 0.05


def test_held_out_fields_are_judged_by_the_scores_alone() -> None:
    loss = AdversarialJumps(Power())
    assert loss.held_out is loss.score and loss.figures == loss.score.figures


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"factor": 0.0}, "factor > 0"),
        ({"penalty": -1.0}, "penalty > 0"),
        ({"rate": 0.0}, "rate > 0"),
        ({"rounds": 0}, "rounds >= 1"),
        ({"noise": ()}, "levels of noise"),
        ({"noise": (-0.1,)}, "levels of noise"),
        ({"score": JumpScore(members=2)}, "members 1"),
        ({"score": JumpScore(levels=(0.5, 1.0))}, "classes 3"),
    ],
)
def test_settings_that_are_none_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        AdversarialJumps(Power(), **settings)


def test_fields_that_are_known_in_part_are_refused() -> None:
    law, x = data(EDM(), 8)
    batch = Batch(x, {}, mask=(torch.arange(8) < 5).expand(8, 1, 8))
    loss = AdversarialJumps(Power())
    with pytest.raises(InputError, match="whole fields"):
        loss(Scaled(law, 1.0), batch, generator=keys(8))
