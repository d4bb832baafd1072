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
from scorefield.losses import CRPS, EnergyScore, JumpScore, SelfDistillation

GRID, N = (8,), 4000


class Scaled(nn.Module):
    """The exact map of a Gaussian times a factor: too narrow, or too wide."""

    def __init__(self, law: Gaussian, factor: float) -> None:
        super().__init__()
        self.law, self.sde = law, law.sde
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x_t, t, cond=None):
        return self.factor * self.law(x_t, t, cond)


def slope(schedule, factor: float, loss: JumpScore) -> tuple[float, float]:
    """The derivative of the mean score with respect to the factor, and its standard error."""
    law = Gaussian(SDE(schedule), spectrum(GRID, 1.5, 0.5))
    x = law.marginal((N, 1, *GRID), torch.zeros(()).double(), generator=keys(N, 1))
    denoiser = Scaled(law, factor)
    score = loss.of_draws(denoiser, Batch(x, {}), keys(N, 2))
    parts = [torch.autograd.grad(part.mean(), denoiser.factor, retain_graph=True)[0] for part in score.chunk(20)]
    values = torch.stack(parts)
    return float(values.mean()), float(values.std() / 20**0.5)


@pytest.mark.parametrize(
    "scores", [[EnergyScore()], [CRPS()], [EnergyScore(4), CRPS(2)]], ids=["energy", "crps", "both"]
)
@pytest.mark.parametrize("schedule", [VP(), EDM()], ids=["VP", "EDM"])
def test_the_slope_vanishes_for_the_exact_map_and_points_to_it(schedule, scores) -> None:
    loss = JumpScore(scores=scores, levels=(0.5, 2.0))
    (exact, error), (narrow, _), (wide, _) = (slope(schedule, factor, loss) for factor in (1.0, 0.7, 1.4))
    assert abs(exact) < 4 * error
    assert narrow < -10 * error and wide > 10 * error


def test_half_of_the_draws_take_two_jumps_and_only_the_last_has_a_gradient() -> None:
    law = Gaussian(SDE(EDM()), spectrum(GRID, 1.5, 0.5))
    starts = []

    class Seen(Scaled):
        def forward(self, x_t, t, cond=None):
            assert bool((cond[UNTIL] == 0).all())
            starts.append((t.expand(len(x_t)).clone(), torch.is_grad_enabled()))
            return super().forward(x_t, t, cond)

    x = torch.zeros(400, 1, *GRID, dtype=torch.float64)
    JumpScore().draw(Seen(law, 1.0), Batch(x, {}), keys(400))
    (first, off), (last, on) = starts
    assert bool((first == 1).all()) and not off and on
    ratio = (-law.sde.schedule.log_snr(last) / 2).exp()
    again = (ratio - 1).abs() < 1e-6
    assert 150 < int(again.sum()) < 250 and bool((last[~again] == 1).all())


def test_it_is_the_distillation_and_the_score() -> None:
    law = Gaussian(SDE(EDM()), spectrum(GRID, 1.5, 0.5))
    x = law.marginal((8, 1, *GRID), torch.zeros(()).double(), generator=keys(8, 1))
    loss, generator = JumpScore(SelfDistillation(denoising=0.5), factor=3.0), keys(8, 3)
    score = loss.of_draws(law, Batch(x, {}), generator)
    rest = loss.distillation(law, Batch(x, {}), generator=generator)
    torch.testing.assert_close(loss(law, Batch(x, {}), generator=keys(8, 3)), score + rest)
    assert [figure.name for figure in loss.figures] == ["defect"]


def test_what_makes_no_score_is_refused() -> None:
    for words in ({"members": 1}, {"scores": []}, {"factor": 0.0}, {"levels": ()}, {"levels": (0.0,)}):
        with pytest.raises(InputError, match="JumpScore needs"):
            JumpScore(**words)
