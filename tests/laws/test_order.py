"""Deterministic steps follow the probability flow at their stated order, against its closed form.

The grids are uniform in log-SNR, so that an order shows at few steps; the observed one may fall short of theory by 0.15.
"""

import functools

import pytest
import torch

from laws.cases import (
    DETERMINISTIC,
    LAWS,
    NEEDS_SIGNAL,
    NOISE_ENDS,
    OFTEN,
    SCHEDULES,
    SIGNAL_ENDS,
    gaussian,
    keys,
    mixture,
    order,
    rarely,
    time,
)
from often import crossed
from scorefield.core.schedule import Numerical
from scorefield.foundation.errors import InputError
from scorefield.samplers import DDIM, DPMSolverPP2M, Heun, LogSNRGrid, UniformGrid, sample

SHORTFALL = 0.15
OTHER_LAWS = [law for law in LAWS if law != "coloured both"]

pytestmark = pytest.mark.usefixtures("unchecked")
every_step = pytest.mark.parametrize("step", DETERMINISTIC)


def run(oracle, x, times, step):
    return sample(oracle, x, times, step, denoise=False, generator=keys(len(x)))


def check_order(schedule, law, grid, step):
    oracle, (step, theory) = gaussian(schedule, law, grid, mean=0.3), DETERMINISTIC[step]
    t, s = time(0.999), time(1e-3)
    x = oracle.marginal((2, 1, *grid), t, generator=keys(2))
    exact = oracle.flow(x, t, s)

    def error(levels):
        times = LogSNRGrid(t_min=1e-3, t_max=0.999)(schedule, levels + 1)
        return (run(oracle, x, times, step) - exact).abs().max().item()

    assert order(error, 100) > theory - SHORTFALL


@pytest.mark.parametrize(("name", "step"), crossed(SCHEDULES, DETERMINISTIC, OFTEN))
def test_order_for_a_coloured_law_under_coloured_noise(name, step):
    check_order(SCHEDULES[name], "coloured both", (8,), step)


@pytest.mark.parametrize(("law", "step"), crossed(OTHER_LAWS, DETERMINISTIC, OTHER_LAWS))
@pytest.mark.parametrize("name", rarely(["VE", "VP", "Rectified"], often=("VP",)))
def test_order_for_other_laws(name, law, step):
    check_order(SCHEDULES[name], law, (8,), step)


@pytest.mark.parametrize("step", ["DDIM", "Heun", "DPMSolverPP2M"])
@pytest.mark.parametrize("grid", [(4, 5), (2, 3, 4)], ids=["2d", "3d"])
def test_order_on_other_grids(grid, step):
    check_order(SCHEDULES["VP"], "coloured both", grid, step)


@functools.cache
def mixture_reference(name):
    oracle = mixture(SCHEDULES[name])
    x = oracle.marginal((8, 1, 3), time(0.99), generator=keys(8))
    return oracle, x, run(oracle, x, LogSNRGrid(1e-2, 0.99)(SCHEDULES[name], 1601), Heun())


@pytest.mark.parametrize("step", ["DDIM", "Heun", "DPMSolverPP2M"])
@pytest.mark.parametrize("name", rarely(["VE", "VP", "Rectified"], often=("VP",)))
def test_order_where_the_denoiser_is_not_linear(name, step):
    """Against Heun on a grid 8 times as fine as the finest one tested: its own error is 1/64 of that one's."""
    (oracle, x, exact), (step, theory) = mixture_reference(name), DETERMINISTIC[step]

    def error(levels):
        return (run(oracle, x, LogSNRGrid(1e-2, 0.99)(SCHEDULES[name], levels + 1), step) - exact).abs().max().item()

    assert order(error, 100) > theory - SHORTFALL


@every_step
@pytest.mark.parametrize("name", rarely(NOISE_ENDS))
def test_from_pure_noise_to_pure_data(name, step):
    """From t = 1 to t = 0, where α = 0 or σ = 0, on a grid uniform in t: finite, and at first order still.

    The first and last steps are infinite in log-SNR whatever their number, which costs the higher orders and part of the first.
    """
    schedule, (rule, _) = SCHEDULES[name], DETERMINISTIC[step]
    oracle = gaussian(schedule, mean=0.3)
    x = oracle.marginal((2, 1, 8), time(1.0), generator=keys(2))
    exact = oracle.flow(x, time(1.0), time(0.0))

    def error(levels):
        return (run(oracle, x, UniformGrid(0.0, 1.0)(schedule, levels + 1), rule) - exact).abs().max().item()

    if step in NEEDS_SIGNAL and name in SIGNAL_ENDS:
        with pytest.raises(InputError, match="t_max < 1"):
            error(10)
    else:
        coarse, fine = error(50), error(200)
        floor = (
            3e-4 if step == "UniPC" else 0.0
        )  # extrapolation over steps that grow without bound, which Nichol's ends do
        assert fine < 0.1 and fine < max(coarse / 4**0.7, floor)


@pytest.mark.parametrize("name", ["Cosine", "Rectified"])
def test_from_pure_noise_second_order_steps_begin_as_ddim(name):
    oracle = gaussian(SCHEDULES[name], mean=0.3)
    x = oracle.marginal((2, 1, 8), time(1.0), generator=keys(2))
    times = torch.tensor([1.0, 0.9], dtype=torch.float64)
    first = run(oracle, x, times, DDIM())
    for step in (Heun(), DPMSolverPP2M()):
        torch.testing.assert_close(run(oracle, x, times, step), first, rtol=1e-13, atol=1e-13)


def test_heun_survives_an_alpha_that_is_zero_but_for_rounding():
    """A user's cos(πt/2) is 6e-17 at t = 1 in float64: the slope in σ/α there is noise, and must not be used."""

    class UserCosine(Numerical):
        def alpha(self, t):
            return (torch.pi / 2 * t).cos()

        def sigma(self, t):
            return (torch.pi / 2 * t).sin()

    outcome = []
    for schedule in (UserCosine(), SCHEDULES["Cosine"]):
        oracle = gaussian(schedule, mean=0.3)
        x = oracle.marginal((2, 1, 8), time(1.0), generator=keys(2))
        outcome.append(run(oracle, x, UniformGrid(0.01, 1.0)(schedule, 20), Heun()))
    torch.testing.assert_close(*outcome, rtol=1e-10, atol=1e-12)
