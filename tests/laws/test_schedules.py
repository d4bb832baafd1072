"""Every schedule: f and g are the derivatives of its scales, λ falls, its ends are what they are said to be, time inverts λ."""

import math

import pytest
import torch

from laws.cases import NOISE_ENDS, SCHEDULES, SIGNAL_ENDS, TABLES
from scorefield.core.schedule import VP, Numerical, Tabulated

F32, F64 = torch.float32, torch.float64
EPS = {F32: 1.2e-7, F64: 2.3e-16}
INSIDE = (1e-5, 1e-3, 0.0503, 0.2003, 0.5003, 0.8003, 0.9503, 0.9993)  # between the entries of the tables

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
both_precisions = pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])


class Copy(Numerical):
    """The two scales of another schedule, and nothing else of it."""

    def __init__(self, original):
        self.alpha, self.sigma = original.alpha, original.sigma  # type: ignore[method-assign]

    def alpha(self, t):
        raise NotImplementedError

    def sigma(self, t):
        raise NotImplementedError


def derivative(function, t):
    t = t.clone().requires_grad_()
    return torch.autograd.grad(function(t).sum() + 0 * t.sum(), t)[0]  # α may be constant


@every_schedule
def test_drift_and_diffusion_are_the_derivatives_of_the_scales(name):
    schedule, t = SCHEDULES[name], torch.tensor(INSIDE, dtype=F64)
    # autograd of σ²/α² loses digits to cancellation nowhere here: 1e-10 leaves four decades above rounding
    torch.testing.assert_close(schedule.drift(t), derivative(lambda t: schedule.alpha(t).log(), t), rtol=1e-10, atol=0)
    growth = derivative(lambda t: (schedule.sigma(t) / schedule.alpha(t)) ** 2, t)
    torch.testing.assert_close(schedule.diffusion(t) ** 2, schedule.alpha(t) ** 2 * growth, rtol=1e-10, atol=0)


@every_schedule
def test_numerical_agrees_with_the_closed_forms(name):
    schedule, t = SCHEDULES[name], torch.tensor(INSIDE, dtype=F64)
    copy = Copy(schedule)
    for function in ("drift", "diffusion"):
        ours, theirs = (getattr(each, function)(t) for each in (copy, schedule))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
    torch.testing.assert_close(copy.time(schedule.log_snr(t)), t, rtol=0, atol=1e-12)


@every_schedule
def test_float32_is_as_good_as_its_rounding(name):
    schedule, t = SCHEDULES[name], torch.tensor(INSIDE, dtype=F32)
    for function in ("alpha", "sigma", "drift", "diffusion"):
        single, double = getattr(schedule, function)(t), getattr(schedule, function)(t.double())
        assert single.dtype == F32
        # exp(x) multiplies the rounding of x by |x| <= 13, the largest exponent of any schedule here
        torch.testing.assert_close(single.double(), double, rtol=13 * EPS[F32], atol=0)


@both_precisions
@every_schedule
def test_ends(name, dtype):
    schedule, ends = SCHEDULES[name], torch.tensor([0.0, 1.0], dtype=dtype)
    alpha, sigma = (scale.tolist() for scale in schedule(ends))
    assert alpha[0] == pytest.approx(math.sqrt(1 - 1e-4) if name == "DDPM" else 1.0, rel=EPS[dtype])
    assert (sigma[0] == 0) == (name in NOISE_ENDS)
    assert (alpha[1] == 0) == (name in SIGNAL_ENDS)
    assert sigma[0] >= 0 and alpha[1] >= 0 and sigma[1] > 0
    expected = {
        "VE": 50.0,
        "NCSN": 50.0,
        "EDM": 80.0,
        "VP": math.sqrt(1 - math.exp(-10.05)),
        "SubVP": 1 - math.exp(-10.05),
    }
    if name not in TABLES:
        assert sigma[1] == pytest.approx(expected.get(name, 1.0), rel=13 * EPS[dtype])


@both_precisions
@every_schedule
def test_log_snr_falls_strictly(name, dtype):
    log_snr = SCHEDULES[name].log_snr(torch.linspace(0, 1, 1001, dtype=dtype))
    assert (log_snr.diff() < 0).all()


@both_precisions
@every_schedule
def test_time_inverts_log_snr(name, dtype):
    schedule, t = SCHEDULES[name], torch.linspace(0, 1, 1001, dtype=dtype)
    # |λ′| >= 6 for every schedule and |λ| <= 40 where it is finite, so that the rounding of λ moves t by less than 20 ε
    torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t, rtol=0, atol=20 * EPS[dtype])


@both_precisions
@every_schedule
def test_time_out_of_reach_is_the_nearest_end(name, dtype):
    out_of_reach = torch.tensor([math.inf, 1e4, -1e4, -math.inf], dtype=dtype)
    torch.testing.assert_close(
        SCHEDULES[name].time(out_of_reach), torch.tensor([0, 0, 1, 1], dtype=dtype), rtol=0, atol=20 * EPS[dtype]
    )
    assert SCHEDULES[name].time(out_of_reach[0]).shape == ()


@pytest.mark.parametrize("levels", [2, 3, 10, 232, 1000, 3000])
@both_precisions
def test_a_table_returns_its_entries_bit_exactly(levels, dtype):
    alphas = torch.rand(levels, dtype=F64, generator=torch.Generator().manual_seed(levels)) + 0.5
    sigmas = alphas * torch.logspace(-2, 2, levels, dtype=F64)
    table = Tabulated(alphas.tolist(), sigmas.tolist())
    up = torch.arange(levels, dtype=dtype)
    for t in (
        up / (levels - 1),
        torch.linspace(0, 1, levels, dtype=dtype),
        torch.linspace(1, 0, levels, dtype=dtype).flip(0),
    ):
        assert torch.equal(table.alpha(t), alphas.to(dtype))
        assert torch.equal(table.sigma(t), sigmas.to(dtype))
        assert torch.equal(table.index(t), up.double())


@pytest.mark.parametrize("levels", [2, 10, 3000])
def test_between_entries_log_alpha_and_log_snr_are_linear(levels):
    alphas = torch.linspace(1.0, 0.1, levels, dtype=F64)
    sigmas = torch.logspace(-2, 1, levels, dtype=F64)
    table = Tabulated(alphas.tolist(), sigmas.tolist())
    for weight in (1e-4, 0.3, 0.9999):  # close to an entry is not at it
        t = (torch.arange(levels - 1, dtype=F64) + weight) / (levels - 1)
        for function, entries in (
            (lambda t: table.alpha(t).log(), alphas.log()),
            (table.log_snr, 2 * (alphas / sigmas).log()),
        ):
            expected = entries[:-1] + weight * entries.diff()
            torch.testing.assert_close(function(t), expected, rtol=1e-10, atol=1e-10)


def test_ddpm_is_the_table_of_vp():
    """Ho's product Π(1 − β_k) is Song's exp(−∫β) up to Σβ²/2 <= N (β_max/N)²/2·(1/3) = 0.07 in log α² at the noisy end."""
    t = torch.linspace(0, 1, 1000, dtype=F64)
    gap = (SCHEDULES["DDPM"].alpha(t).log() - VP().alpha(t).log()).abs()
    assert gap.max() < 0.04
    steps = SCHEDULES["DDPM"].alpha(t)[1:] / SCHEDULES["DDPM"].alpha(t)[:-1]
    betas = torch.linspace(0.1 / 1000, 20 / 1000, 1000, dtype=F64)[1:]
    torch.testing.assert_close(1 - steps**2, betas, rtol=1e-10, atol=0)
