"""Scores of the draws of a flow map: least for the map whose draws have the law of the data, beside distillation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from laws.cases import keys, spectrum
from scorefield.core.denoiser import UNTIL
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM, VP
from scorefield.core.sde import SDE
from scorefield.data import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses import CRPS, EnergyScore, JumpScore, SelfDistillation
from scorefield.losses.jump_score import same_condition, say_few
from scorefield.training.plan import Plan

GRID, N = (8,), 4000


class Scaled(nn.Module):
    """The exact map of a Gaussian times a factor: too narrow, or too wide."""

    def __init__(self, law: Gaussian, factor: float) -> None:
        super().__init__()
        self.law, self.sde = law, law.sde
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x_t, t, cond=None):
        return self.factor * self.law(x_t, t, cond)


def of_part(loss: JumpScore, denoiser: Scaled, x: torch.Tensor, generator: Generators) -> torch.Tensor:
    return torch.autograd.grad(loss.of_draws(denoiser, Batch(x, {}), generator).mean(), denoiser.factor)[0]


def slope(schedule, factor: float, loss: JumpScore) -> tuple[float, float]:
    """The derivative of the mean score with respect to the factor, and its standard error."""
    law = Gaussian(SDE(schedule), spectrum(GRID, 1.5, 0.5))
    x = law.marginal((N, 1, *GRID), torch.zeros(()).double(), generator=keys(N, 1))
    denoiser = Scaled(law, factor)
    values = torch.stack(
        [of_part(loss, denoiser, part, keys(N // 20, number)) for number, part in enumerate(x.chunk(20))]
    )
    return float(values.mean()), float(values.std() / 20**0.5)


@pytest.mark.parametrize(
    "scores", [[EnergyScore()], [CRPS()], [EnergyScore(4), CRPS(2)]], ids=["energy", "crps", "both"]
)
@pytest.mark.parametrize("schedule", [VP(), EDM()], ids=["VP", "EDM"])
@pytest.mark.parametrize("members", [1, 2])
def test_the_slope_vanishes_for_the_exact_map_and_points_to_it(schedule, scores, members: int) -> None:
    loss = JumpScore(scores=scores, levels=(0.5, 2.0), members=members)
    (exact, error), (narrow, _), (wide, _) = (slope(schedule, factor, loss) for factor in (1.0, 0.7, 1.4))
    assert abs(exact) < 4 * error
    assert narrow < -10 * error and wide > 10 * error


class TwiceScaled(Scaled):
    """The exact map, but for a first jump whose draws are too narrow, or too wide."""

    def __init__(self, law: Gaussian, factor: float, first: float) -> None:
        super().__init__(law, factor)
        self.first = first

    def forward(self, x_t, t, cond=None):
        factor = torch.where(t == 1, self.first, self.factor).expand(len(x_t))
        return factor[:, None, None] * self.law(x_t, t, cond)


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("first", [0.7, 1.4])
def test_the_last_jump_is_not_taught_to_make_up_for_errors_of_draws_in_one(first: float, members: int) -> None:
    """From a level that forgets the first jump, the exact map is stationary, whatever the draws of one jump are."""
    law = Gaussian(SDE(EDM()), spectrum(GRID, 1.5, 0.5))
    x = law.marginal((N, 1, *GRID), torch.zeros(()).double(), generator=keys(N, 1))
    loss, denoiser = JumpScore(scores=[CRPS()], levels=(60.0,), members=members), TwiceScaled(law, 1.0, first)
    slopes = [of_part(loss, denoiser, part, keys(N // 20, number)) for number, part in enumerate(x.chunk(20))]
    values = torch.stack(slopes)
    assert abs(float(values.mean())) < 4 * float(values.std()) / 20**0.5


def test_all_pairs_of_a_batch_say_more_than_two_draws_of_each() -> None:
    _, all_pairs = slope(EDM(), 1.0, JumpScore(scores=[EnergyScore()], members=1))
    _, two_each = slope(EDM(), 1.0, JumpScore(scores=[EnergyScore()], members=2))  # as well from twice the draws
    assert all_pairs < 0.8 * two_each


class TwoModes(nn.Module):
    """A map that draws ±1 with a chance and a spread, whatever the noise's own law: no Gaussian."""

    def __init__(self, chance: float, spread: float) -> None:
        super().__init__()
        self.sde = SDE(EDM())
        self.chance, self.spread = chance, nn.Parameter(torch.tensor(spread, dtype=torch.float64))

    def forward(self, x_t, t, cond=None):
        u = torch.special.ndtr(x_t / self.sde.scales(t, x_t)[1])  # of noise that is far above the data
        inside = torch.where(u < self.chance, u / self.chance, (u - self.chance) / (1 - self.chance)).clamp(
            1e-9, 1 - 1e-9
        )
        return torch.where(u < self.chance, -1.0, 1.0) + self.spread * torch.special.ndtri(inside)


@pytest.mark.parametrize(("spread", "sign"), [(0.1, 0), (0.3, 1), (0.03, -1)])
def test_the_slope_finds_the_spread_of_two_modes(spread: float, sign: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(4000, 1, 4, generator=generator) < 0.5).double() * 2 - 1
    x = x + 0.1 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    loss = JumpScore(scores=[CRPS(), EnergyScore()], levels=(1e6,))
    denoiser = TwoModes(0.5, spread)
    found = []
    for number, part in enumerate(x.chunk(20)):
        score = loss.of_draws(denoiser, Batch(part, {}), keys(200, number)).mean()
        found.append(torch.autograd.grad(score, denoiser.spread)[0])
    mean, error = torch.stack(found).mean(), torch.stack(found).std() / 20**0.5
    assert abs(mean) < 4 * error if sign == 0 else sign * mean > 6 * error


@pytest.mark.parametrize(
    "score",
    [EnergyScore(), EnergyScore(3), EnergyScore(2, joint=False), EnergyScore(2, pool=2), CRPS(), CRPS(pool=3)],
)
@pytest.mark.parametrize("grid", [(7,), (6, 5), (4, 3, 5)])
def test_pairs_are_the_distances_of_differences(score, grid: tuple[int, ...]) -> None:
    x, y = torch.randn(3, 2, *grid, dtype=torch.float64), torch.randn(4, 2, *grid, dtype=torch.float64)
    z = x[:, None] - y[None]
    expected = score.distance(z, torch.ones_like(z))
    torch.testing.assert_close(score.pairs(x, y), expected, atol=1e-6, rtol=1e-6)
    assert bool((score.pairs(x, x).diagonal() == 0).all())


def test_only_fields_of_one_class_are_compared() -> None:
    """Each draw's score is that of its class alone, whatever the others are."""
    law = Gaussian(SDE(EDM()), spectrum(GRID, 1.5, 0.5))
    x = law.marginal((40, 1, *GRID), torch.zeros(()).double(), generator=keys(40, 1))
    label = torch.arange(40) % 2
    far = torch.where(label[:, None, None] == 1, 100.0, 0.0)
    loss, seen = JumpScore(scores=[EnergyScore()]), []
    for data in (x, x + far):
        seen.append(loss.of_draws(Scaled(law, 1.0), Batch(data, {"label": label}), keys(40, 3)))
    torch.testing.assert_close(seen[0][label == 0], seen[1][label == 0])
    assert bool((seen[1] > seen[0] + 50)[label == 1].all())


def test_conditions_of_their_own_and_parts_that_are_not_known_ask_for_two_members() -> None:
    law = Gaussian(SDE(EDM()), spectrum(GRID, 1.5, 0.5))
    x = law.marginal((4, 1, *GRID), torch.zeros(()).double(), generator=keys(4, 1))
    given, mask = Batch(x, {"field": torch.randn(4, 1, *GRID)}), Batch(x, {}, mask=(x > 0).double())
    for batch in (given, mask):
        with pytest.raises(InputError, match=r"train\.loss\.members 2"):
            JumpScore()(law, batch, generator=keys(4))
        assert bool(JumpScore(members=2)(law, batch, generator=keys(4)).isfinite().all())


def test_conditions_that_are_not_known_are_alike() -> None:
    nan = float("nan")
    vector = torch.tensor([[nan, nan], [nan, nan], [0.0, nan], [0.0, 0.0], [0.0, 0.0]])
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    assert same_condition({"vector": vector}, vector).tolist() == torch.tensor(expected).bool().tolist()


def test_a_batch_of_many_classes_stops_nothing_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    law = Gaussian(SDE(EDM()), spectrum(GRID, 1.5, 0.5))
    x = law.marginal((6, 1, *GRID), torch.zeros(()).double(), generator=keys(6, 1))
    say_few.cache_clear()
    for _ in range(2):
        found = JumpScore().of_draws(law, Batch(x, {"label": torch.arange(6)}), keys(6))
        assert not found.any()
    assert caplog.text.count("raise train.batch_size") == 1


def test_a_field_at_a_time_is_refused() -> None:
    with pytest.raises(InputError, match=r"JumpScore compares 2 .* train\.accumulate"):
        Plan(loss=JumpScore(), batch_size=8, accumulate=8)
    Plan(loss=JumpScore(), batch_size=8, accumulate=4)
    Plan(loss=JumpScore(members=2), batch_size=8, accumulate=8)


def test_half_of_the_draws_take_two_jumps_and_only_the_last_has_a_gradient() -> None:
    law = Gaussian(SDE(EDM()), spectrum(GRID, 1.5, 0.5))
    starts = []

    class Seen(Scaled):
        def forward(self, x_t, t, cond=None):
            assert bool((cond[UNTIL] == 0).all())
            starts.append((t.expand(len(x_t)).clone(), torch.is_grad_enabled()))
            return super().forward(x_t, t, cond)

    x = torch.zeros(400, 1, *GRID, dtype=torch.float64)
    loss, generator = JumpScore(), keys(400)
    kind = loss.kinds(Batch(x, {}), generator)
    loss.draw(Seen(law, 1.0), Batch(x, {}), kind, generator)
    (first, off), (last, on) = starts
    assert len(first) == len(x)  # all, since the dropout of a network is that of a whole batch
    assert bool((first == 1).all()) and not off and on
    ratio = (-law.sde.schedule.log_snr(last) / 2).exp()
    again = (ratio - 1).abs() < 1e-6
    assert torch.equal(again, kind == 1)
    assert 150 < int(again.sum()) < 250 and bool((last[~again] == 1).all())


def test_it_is_the_distillation_and_the_score() -> None:
    law = Gaussian(SDE(EDM()), spectrum(GRID, 1.5, 0.5))
    x = law.marginal((8, 1, *GRID), torch.zeros(()).double(), generator=keys(8, 1))
    loss, generator = JumpScore(SelfDistillation(denoising=0.5), factor=3.0), keys(8, 3)
    score = loss.of_draws(law, Batch(x, {}), generator)
    rest = loss.distillation(law, Batch(x, {}), generator=generator)
    torch.testing.assert_close(loss(law, Batch(x, {}), generator=keys(8, 3)), score + rest)
    assert [figure.name for figure in loss.figures] == ["defect"]
    alone = JumpScore(None, factor=3.0)
    torch.testing.assert_close(alone(law, Batch(x, {}), generator=keys(8, 3)), score)
    assert alone.figures == ()


def test_what_makes_no_score_is_refused() -> None:
    for words in ({"members": 0}, {"scores": []}, {"factor": 0.0}, {"levels": ()}, {"levels": (0.0,)}):
        with pytest.raises(InputError, match="JumpScore needs"):
            JumpScore(**words)
