"""Each preconditioner is an identity in (x, ξ): if the network is the target it documents, the denoiser returns x."""

import pytest
import torch

from laws.cases import SCHEDULES, TABLES, gaussian, keys, time
from scorefield.core.denoiser import (
    DataPrediction,
    Denoiser,
    EDMPreconditioner,
    EpsilonPrediction,
    FlowPrediction,
    NoiseRatio,
    ScorePrediction,
    Times,
    VelocityPrediction,
)
from scorefield.core.sde import SDE, expand_like
from scorefield.nn.network import Network

F64 = torch.float64
TIMES = (1e-3, 0.01, 0.3, 0.7, 0.99)

TARGETS = {  # what the network predicts of x_t = α x + σ ξ
    "Epsilon": (EpsilonPrediction(), lambda x, noise, alpha, sigma: noise),
    "Score": (ScorePrediction(), lambda x, noise, alpha, sigma: -noise),
    "Velocity": (
        VelocityPrediction(),
        lambda x, noise, alpha, sigma: (alpha * noise - sigma * x) / torch.hypot(alpha, sigma),
    ),
    "Flow": (FlowPrediction(), lambda x, noise, alpha, sigma: noise - x),
    "Identity": (DataPrediction(), lambda x, noise, alpha, sigma: x),
    "Karras(1)": (EDMPreconditioner(), lambda x, noise, alpha, sigma: karras_target(x, noise, alpha, sigma, 1.0)),
    "Karras(0.5)": (EDMPreconditioner(0.5), lambda x, noise, alpha, sigma: karras_target(x, noise, alpha, sigma, 0.5)),
}
DEFINED_WITHOUT_SIGNAL = ("Velocity", "Flow", "Identity", "Karras(1)", "Karras(0.5)")

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
every_target = pytest.mark.parametrize("target", TARGETS)


def karras_target(x, noise, alpha, sigma, sigma_data):
    """(x − c_skip x_t)/c_out = (σ x − α σ_d² ξ)/(σ_d r), written so that nothing is divided by σ."""
    r = torch.hypot(alpha * sigma_data, sigma)
    return (sigma * x - alpha * sigma_data**2 * noise) / (sigma_data * r)


class Told(Network):
    """Returns what it was told to, and remembers what it was given."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, label, cond=None):
        self.x, self.label = x, label
        return self.answer


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@every_target
@every_schedule
def test_the_target_gives_the_data(name, target):
    precondition, predict = TARGETS[target]
    sde, x, t = SDE(SCHEDULES[name]), randn(5, 2, 3, 4), torch.tensor(TIMES, dtype=F64)
    x_t, noise = sde.perturb(x, t, generator=keys(5))
    alpha, sigma = sde.scales(t, x)
    denoiser = Denoiser(Told(predict(x, noise, alpha, sigma)), sde, precondition)
    torch.testing.assert_close(denoiser(x_t, t), x, rtol=0, atol=1e-10)  # the rounding of x_t over α >= 1e-4


@every_schedule
@pytest.mark.parametrize("target", DEFINED_WITHOUT_SIGNAL)
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_target_gives_the_data_at_both_ends(name, target, t):
    precondition, predict = TARGETS[target]
    sde, x = SDE(SCHEDULES[name]), randn(2, 1, 6)
    x_t, noise = sde.perturb(x, time(t), generator=keys(2))
    denoiser = Denoiser(Told(predict(x, noise, *sde.scales(time(t), x))), sde, precondition)
    torch.testing.assert_close(denoiser(x_t, time(t)), x, rtol=0, atol=1e-12)
    assert torch.isfinite(denoiser.net.label).all()


@every_target
@every_schedule
def test_the_mean_target_gives_the_oracle(name, target):
    """A network trained by least squares predicts the mean of its target given x_t; the denoiser then is E[x | x_t]."""
    precondition, predict = TARGETS[target]
    oracle, t = gaussian(SCHEDULES[name], mean=0.3), torch.tensor(TIMES, dtype=F64)
    x_t = oracle.marginal((5, 1, 8), t, generator=keys(5))
    denoised = oracle(x_t, t)
    epsilon, (alpha, sigma) = oracle.sde.epsilon(denoised, x_t, t), oracle.sde.scales(t, x_t)
    denoiser = Denoiser(Told(predict(denoised, epsilon, alpha, sigma)), oracle.sde, precondition)
    torch.testing.assert_close(denoiser(x_t, t), denoised, rtol=0, atol=1e-10)


@every_schedule
@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
def test_karras_sees_and_asks_for_unit_variance(name, sigma_data):
    """In closed form: x_t has the variance α² σ_d² + σ², and the target that of a linear form in independent x and ξ."""
    t = torch.linspace(0, 1, 21, dtype=F64)
    alpha, sigma = SCHEDULES[name](t)
    c = EDMPreconditioner(sigma_data)(SCHEDULES[name], t)
    torch.testing.assert_close(
        c.scale**2 * (alpha**2 * sigma_data**2 + sigma**2), torch.ones_like(t), rtol=1e-13, atol=0
    )
    variance = (1 - c.skip * alpha) ** 2 * sigma_data**2 + (c.skip * sigma) ** 2
    inside = slice(1, -1)  # 1 − c_skip α cancels where σ = 0
    torch.testing.assert_close(variance[inside], (c.out**2)[inside], rtol=1e-7, atol=0)


@every_target
def test_the_network_sits_between_the_coefficients(target):
    precondition, _ = TARGETS[target]
    schedule, x_t = SCHEDULES["SubVP"], randn(3, 2, 5)
    t, answer = torch.tensor([0.1, 0.5, 0.9], dtype=F64), randn(3, 2, 5, seed=1)
    denoiser, c = Denoiser(Told(answer), SDE(schedule), precondition), precondition(schedule, t)
    skip, out, scale = (expand_like(v, x_t) for v in (c.skip, c.out, c.scale))
    torch.testing.assert_close(denoiser(x_t, t), skip * x_t + out * answer, rtol=1e-15, atol=0)
    assert torch.equal(denoiser.net.x, scale * x_t)


def test_edm_table_1():
    """Karras et al. (2022), table 1, last column, σ_data = 0.5."""
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=F64)
    schedule = SCHEDULES["EDM"]
    c = EDMPreconditioner(0.5)(schedule, schedule.time(-2 * sigma.log()))
    for ours, theirs in (
        (c.skip, 0.25 / (sigma**2 + 0.25)),
        (c.out, sigma * 0.5 / (sigma**2 + 0.25).sqrt()),
        (c.scale, 1 / (sigma**2 + 0.25).sqrt()),
        (c.label, sigma.log() / 4),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@every_target
@pytest.mark.parametrize("name", ["VE", "VP", "DDPM"])
def test_one_time_for_all_is_the_same_as_one_each(name, target):
    precondition, _ = TARGETS[target]
    x_t, answer, t = randn(4, 2, 5), randn(4, 2, 5, seed=1), time(0.3)
    denoiser = Denoiser(Told(answer), SDE(SCHEDULES[name]), precondition)
    one = denoiser(x_t, t), denoiser.net.label
    each = denoiser(x_t, t.expand(4)), denoiser.net.label
    for a, b in zip(one, each, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-15, atol=0)
    assert one[1].shape == (4,)


@pytest.mark.parametrize("name", TABLES)
def test_a_score_network_of_a_table_gives_the_score_of_the_table(name):
    """NCSN: s = F/σ; DDPM: s = −F/σ. What an imported network computes is what the SDE gives back."""
    sde, x_t, answer, t = (
        SDE(SCHEDULES[name]),
        randn(3, 1, 4),
        randn(3, 1, 4, seed=1),
        torch.tensor([0.0, 0.4, 1.0], dtype=F64),
    )
    sigma = expand_like(sde.schedule.sigma(t), x_t)
    for precondition, sign in ((ScorePrediction(NoiseRatio()), 1), (EpsilonPrediction(Times()), -1)):
        score = sde.score(Denoiser(Told(answer), sde, precondition)(x_t, t), x_t, t)
        torch.testing.assert_close(score, sign * answer / sigma, rtol=1e-8, atol=1e-8)
