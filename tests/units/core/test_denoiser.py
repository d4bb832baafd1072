"""How a network is told the noise level, and the plumbing around it."""

import math

import pytest
import torch

from laws.cases import SCHEDULES
from scorefield.core.denoiser import (
    DataPrediction,
    Denoiser,
    EDMPreconditioner,
    EpsilonPrediction,
    FlowPrediction,
    Index,
    LogNoise,
    NoiseRatio,
    ScorePrediction,
    Times,
    VelocityPrediction,
)
from scorefield.core.schedule import EDM, VE, VP, Rectified, ddpm
from scorefield.core.sde import SDE
from scorefield.nn.network import Network

F64 = torch.float64
LABELS = {
    "LogNoise": LogNoise(),
    "LogNoise(1)": LogNoise(1.0),
    "Times": Times(),
    "NoiseRatio": NoiseRatio(),
    "Index": Index(1000),
    "Index(reverse)": Index(1000, reverse=True),
}


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", SCHEDULES)
def test_log_noise_is_finite_and_rises_at_both_ends(name, dtype):
    label = LogNoise()(SCHEDULES[name], torch.tensor([0.0, 0.5, 1.0], dtype=dtype))
    assert torch.isfinite(label).all() and (label.diff() > 0).all()
    assert label.abs().max() <= 0.25 * math.log(1e6) * (1 + 1e-6)


def test_log_noise_is_edms():
    sigma = torch.tensor([0.01, 1.0, 50.0], dtype=F64)
    torch.testing.assert_close(LogNoise()(EDM(), EDM().time(-2 * sigma.log())), sigma.log() / 4, rtol=0, atol=1e-12)
    t = torch.tensor([0.2, 0.9], dtype=F64)
    torch.testing.assert_close(LogNoise(1.0)(VE(), t), VE().sigma(t).log(), rtol=1e-14, atol=0)


def test_times_and_noise_ratio():
    t = torch.tensor([0.0, 0.25, 1.0], dtype=F64)
    assert Times()(VP(), t).tolist() == [0.0, 249.75, 999.0]
    torch.testing.assert_close(NoiseRatio()(VE(), t), VE().sigma(t), rtol=0, atol=0)
    torch.testing.assert_close(
        NoiseRatio()(Rectified(), t[:2]), torch.tensor([0.0, 1 / 3], dtype=F64), rtol=1e-15, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("levels", [2, 232, 1000, 3000])
def test_index_is_whole_at_the_entries(levels, dtype):
    k = torch.arange(levels, dtype=dtype)
    t = k / (levels - 1)
    assert torch.equal(Index(levels)(VP(), t), k.double())
    assert torch.equal(Index(levels, reverse=True)(VP(), t), levels - 1 - k.double())  # NCSNv2: 0 = most noise


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("name", ["VE", "VP", "EDM", "DDPM"])
def test_a_label_can_be_read_back(name, label):
    schedule, t = SCHEDULES[name], torch.tensor([0.001, 0.1, 0.5, 0.999], dtype=F64)
    torch.testing.assert_close(LABELS[label].invert(schedule, LABELS[label](schedule, t)), t, rtol=0, atol=1e-11)


class Recorder(Network):
    def forward(self, x, label, cond=None):
        self.given = (x, label, cond)
        return torch.zeros_like(x, dtype=torch.bfloat16)  # as under autocast


def test_a_network_is_given_labels_in_its_own_dtype_and_the_condition_unchanged():
    net, x, cond = Recorder(), torch.randn(3, 2, 4, 5), {"vector": torch.zeros(3, 7)}
    denoiser = Denoiser(net, SDE(ddpm()), DataPrediction(Index(1000)))
    denoised = denoiser(x, torch.tensor(0.5, dtype=F64), cond)
    assert denoised.dtype == x.dtype == net.given[1].dtype
    assert net.given[1].shape == (3,) and net.given[2] is cond


class Wave(Network):
    def forward(self, x, label, cond=None):
        return 0.01 * torch.sin(3 * x)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_score_keeps_its_digits_where_the_noise_is_weak(power):
    x, t = (
        torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(0)),
        torch.tensor([1e-3, 0.01, 0.1, 0.5, 1.0]),
    )
    for schedule in (VP(), VE()):
        denoiser = Denoiser(Wave(), SDE(schedule), ScorePrediction(power=power))
        sigma = schedule.sigma(t.double()).reshape(-1, 1, 1, 1)
        expected = Wave()(x.double(), t) / sigma**power  # the definition: F = σᵖ · score
        error = (denoiser.score(x, t).double() - expected).flatten(1).abs().amax(1) / expected.flatten(1).abs().amax(1)
        assert error.max() < 1e-6
        exact = denoiser.double().score(x.double(), t.double())
        torch.testing.assert_close(exact, denoiser.sde.score(denoiser(x.double(), t.double()), x.double(), t.double()))


@pytest.mark.parametrize(
    "precondition",
    [EpsilonPrediction(), EDMPreconditioner(0.5), VelocityPrediction(), FlowPrediction(), DataPrediction()],
)
def test_the_score_is_that_of_the_denoiser(precondition):
    x, t = (
        torch.randn(3, 2, 4, dtype=F64, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0.1, 0.5, 0.9]).double(),
    )
    denoiser = Denoiser(Wave(), SDE(VP()), precondition)
    torch.testing.assert_close(denoiser.score(x, t), denoiser.sde.score(denoiser(x, t), x, t))
