"""Losses that are proper scores: unbiased for every number of members, least at the right law, learnt in one evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from often import seldom
from scorefield.core.denoiser import Denoiser, OneStep
from scorefield.core.noise import GaussianField, Matern, Noise, White
from scorefield.core.schedule import EDM, VP, Rectified, Schedule
from scorefield.core.sde import SDE
from scorefield.data import Batch
from scorefield.data.normalise import Identity
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.inverse import posterior
from scorefield.losses import CRPS, EnergyScore, EnsembleScore, Score
from scorefield.losses.ensemble import boxes
from scorefield.model import Model
from scorefield.nn.network import Network
from scorefield.operators import Mask
from scorefield.samplers import Sampler

DOUBLE = torch.float64
FIELD = GaussianField(Matern(0.3, 1.0, nugget=1e-3))


class Transport(Network):
    """x = shift + e^scale G(ξ), G one map of every point; with noise of unit variance it has the law of shift + e^scale G(N)."""

    def __init__(self, G: Callable[[Tensor], Tensor], shift: float = 0.0, scale: float = 0.0, mix: float = 0.0) -> None:
        super().__init__()
        self.G = G
        self.weights = nn.ParameterList(torch.tensor(v, dtype=DOUBLE) for v in (shift, scale, mix))

    def forward(self, x: Tensor, label: Tensor, cond: object = None) -> Tensor:
        shift, scale, mix = self.weights
        mixed = (x + mix * x.roll(1, -1)) / (1 + mix**2).sqrt()  # neighbours alike, and every point as it was
        return shift + scale.exp() * self.G(mixed)


def exponential(x: Tensor) -> Tensor:
    return -torch.special.log_ndtr(-x)


def two_humps(x: Tensor) -> Tensor:
    """Of N(0, 1): a smooth map to a law with two humps."""
    return x + 2 * torch.tanh(4 * x)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def keys(n: int, seed: int = 0) -> Generators:
    return Generators((seed, index) for index in range(n))


@pytest.mark.parametrize("members", [2, 3, 7])
def test_the_loss_is_the_score_of_endless_members(members: int) -> None:
    """Of N(0, 1) at x = 0.7 (Gneiting et al. 2005, eq. 5), for every number of members."""
    n, y = 400, torch.tensor(0.7, dtype=DOUBLE)
    denoiser = Denoiser(Transport(lambda x: x), SDE(VP()), OneStep())
    loss = EnsembleScore(members=members)
    found = loss(denoiser, Batch(y.expand(n, 1, 64)), generator=keys(n)).detach()
    law = torch.distributions.Normal(0.0, 1.0)
    expected = y * (2 * law.cdf(y) - 1) + 2 * law.log_prob(y).exp() - 1 / math.sqrt(math.pi)
    error = float(found.std()) / math.sqrt(n)
    assert abs(float(found.mean() - expected)) < 4 * error
    assert 4 * error < 1 / (members * math.sqrt(math.pi))  # what a score that is not fair has too much


def slope(net: Transport, score: Score, x: Tensor, noise: Noise = White()) -> tuple[Tensor, Tensor]:  # noqa: B008
    """The mean of the loss's gradient in shift, scale and mix, and its standard error, over groups of fields."""
    denoiser = Denoiser(net, SDE(EDM(0.01, 80.0), noise), OneStep())
    losses = EnsembleScore([score])(denoiser, Batch(x), generator=keys(len(x), 7)).view(32, -1).mean(1)
    found = torch.stack([torch.stack(torch.autograd.grad(part, [*net.weights], retain_graph=True)) for part in losses])
    return found.mean(0), found.std(0) / math.sqrt(len(found))


LAWS = {"normal": lambda x: x, "exponential": exponential, "two humps": two_humps}


@pytest.mark.parametrize(
    ("law", "noise"),
    [("normal", White()), ("exponential", FIELD), ("two humps", White()), seldom("normal", FIELD), seldom("exponential", White()),
     seldom("two humps", FIELD)],
)  # fmt: skip
def test_the_gradient_vanishes_at_the_right_law_alone(law: str, noise: Noise) -> None:
    n, shape = 512, (1, 16)
    G = LAWS[law]
    x = G(noise.sample((n, *shape), generator=keys(n, 3), like=normal(1)))
    for score in (CRPS(), EnergyScore(4)):
        mean, error = slope(Transport(G), score, x, noise)
        assert (mean[:2].abs() < 4 * error[:2]).all()
        for number, wrong in enumerate((Transport(G, shift=0.5), Transport(G, scale=0.5))):
            mean, error = slope(wrong, score, x, noise)
            assert mean[number] > 4 * error[number]  # back to the right one


@pytest.mark.parametrize(("score", "sees"), [(CRPS(), False), (EnergyScore(2), True), (CRPS(pool=2), True)])
def test_patches_and_means_over_boxes_see_how_points_belong_together(score: Score, sees: bool) -> None:
    x = normal(8192, 1, 16)
    mean, error = slope(Transport(lambda x: x, mix=0.5), score, x)  # neighbours that are alike, and in truth are not
    assert (mean[2] > 4 * error[2]) == sees
    mean, error = slope(Transport(lambda x: x, mix=1e-9), score, x)
    assert abs(mean[2]) < 4 * error[2]


def test_what_is_not_known_has_no_part() -> None:
    x, mask = normal(4, 2, 6, 5), (normal(4, 1, 6, 5, seed=1) > 0).double()
    denoiser = Denoiser(Transport(exponential), SDE(EDM(0.01, 80.0)), OneStep())
    for score in (CRPS(), CRPS(pool=4), EnergyScore(3), EnergyScore()):
        found = []
        for filled in (0.0, math.nan):
            batch = Batch(x.where(mask > 0, filled), mask=mask)
            loss = EnsembleScore([score])(denoiser, batch, generator=keys(4)).sum()
            found.append(
                torch.stack([loss, *torch.autograd.grad(loss, [*denoiser.net.parameters()], allow_unused=True)])
            )
        assert torch.equal(*found) and bool(found[0].isfinite().all())
    nothing = Batch(x, mask=torch.zeros_like(x))
    assert EnsembleScore()(denoiser, nothing, generator=keys(4)).eq(0).all()


def test_a_loss_is_not_rounded_where_the_network_is() -> None:
    denoiser, batch = Denoiser(Transport(exponential), SDE(VP()), OneStep()), Batch(normal(4, 1, 6, 5).float())
    plain = EnsembleScore()(denoiser, batch, generator=keys(4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(EnsembleScore()(denoiser, batch, generator=keys(4)), plain)


def test_a_score_of_boxes_is_that_of_their_means() -> None:
    z = normal(3, 2, 1, 8, 6)
    means = nn.functional.avg_pool2d(z.flatten(0, 1), 2).view(3, 2, -1)
    ones = torch.ones_like(z)
    torch.testing.assert_close(CRPS(pool=2).distance(z, ones), means.abs().mean(2))
    torch.testing.assert_close(EnergyScore().distance(z, ones), z.flatten(2).square().mean(2).sqrt())
    assert boxes(z, 4, 2).shape == (3, 2, 1, 2, 2, 16)


class Learner(Network):
    """x of noise and a condition, point by point."""

    cond_channels = 1

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor, label: Tensor, cond: dict[str, Tensor] | None = None) -> Tensor:
        assert cond is not None
        return self.layers(torch.stack((x, cond["field"]), dim=-1))[..., 0]


def test_training_recovers_a_law_that_is_not_normal() -> None:
    """x = c + E/2^c with E exponential: its median, its quantiles and its spread for each c, by the model's own sampler."""
    torch.manual_seed(0)
    model = Model(SDE(EDM(0.01, 80.0)), Learner(), OneStep(), Identity(), sampler=Sampler(steps=1), shape=(1, 256))
    optimiser = torch.optim.Adam(model.denoiser.parameters(), lr=1e-2)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 200)
        c = 2 * torch.rand(8, 1, 256) - 1
        x = c + torch.empty_like(c).exponential_() / 2**c
        loss = EnsembleScore()(model.denoiser, Batch(x, {"field": c}), generator=keys(8, step)).mean()
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    for c in (-0.8, 0.0, 0.8):
        drawn = (model.sample(64, cond={"field": torch.full((64, 1, 256), c)}) - c) * 2**c
        for level in (0.1, 0.5, 0.9):
            assert float(drawn.quantile(level)) == pytest.approx(-math.log1p(-level), abs=0.15)
        assert float(drawn.std()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("schedule", [VP(), EDM(0.01, 80.0), Rectified()])
def test_what_follows_from_noise_levels_is_refused_in_one_line(schedule: Schedule) -> None:
    model = Model(SDE(schedule), Transport(lambda x: x), OneStep(), Identity(), sampler=Sampler(1), shape=(1, 16))
    x = normal(2, 1, 16)
    calls: list[Callable[[], object]] = [
        lambda: model.log_prob(x), lambda: model.encode(x), lambda: model.decode(x), lambda: model.score(x, 1.0),
        lambda: model.denoise(x, 0.1), lambda: model.sample(1, sampler=Sampler(2)), lambda: model.prior,
        lambda: model.denoiser(x, torch.tensor(0.5)), lambda: posterior(model, Mask(x[0] > 0), x[:1], 0.1, n=1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(InputError, match="draws in one evaluation") as raised:
            call()
        assert "\n" not in str(raised.value) and len(str(raised.value)) <= 300


@pytest.mark.parametrize(
    "make",
    [lambda: EnsembleScore(members=1), lambda: EnsembleScore([]), lambda: EnsembleScore(factors=[1.0, 2.0]), lambda: CRPS(0),
     lambda: EnergyScore(-1)],
)  # fmt: skip
def test_settings_without_a_meaning_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="needs"):
        make()
