"""Stochastic steps carry the marginal, exactly so in the limit of small steps.

Driven by a Gaussian oracle, a step is affine in (x_t, ξ) and diagonal in the Fourier modes. Its three coefficients per mode are
read off with chosen draws, and mean and variance then follow by recursion: no Monte Carlo, no standard errors.
"""

from itertools import pairwise

import pytest
import torch

from laws.cases import (
    NEEDS_SIGNAL,
    NOISE_ENDS,
    OFTEN,
    SCHEDULES,
    SIGNAL_ENDS,
    STOCHASTIC,
    Draws,
    gaussian,
    keys,
    rarely,
    time,
)
from often import crossed
from scorefield.core.noise import White
from scorefield.core.oracle import Gaussian
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.samplers import (
    DDIM,
    Ancestral,
    Langevin,
    LogSNRGrid,
    ReverseDiffusion,
    StochasticHeun,
    UniformGrid,
    sample,
)

pytestmark = pytest.mark.usefixtures("unchecked")
F64 = torch.float64
MEAN = 0.3

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
costly_schedules = pytest.mark.parametrize("name", rarely(SCHEDULES))
every_step = pytest.mark.parametrize("step", STOCHASTIC)


def affine(oracle, step, t, s):
    """x_s = c + A x_t + B z, z white: c (its constant field), A and B per mode."""
    zero = torch.zeros(1, *oracle.grid, dtype=F64)
    impulse = zero.clone()
    impulse.view(-1)[0] = 1
    x_t, z = torch.stack((zero, impulse, zero)), torch.stack((zero, zero, impulse))
    x_s, _ = step(oracle, x_t, t, s, None, generator=Draws(z), memory=None)
    constant, signal, noise = torch.fft.fftn(x_s, dim=tuple(range(2, x_s.ndim)))[:, 0]
    return constant, signal - constant, noise - constant


def moments(oracle, step, times):
    """Mean and variance per mode at times[-1], from the exact marginal at times[0]."""
    mean = oracle.sde.schedule.alpha(times[0]) * torch.fft.fftn(torch.full(oracle.grid, MEAN, dtype=F64))
    variance = oracle.variance(times[0])[0]
    for t, s in pairwise(times):
        constant, signal, noise = affine(oracle, step, t, s)
        mean, variance = constant + signal * mean, signal.abs() ** 2 * variance + noise.abs() ** 2
    return mean, variance


def errors(oracle, step, times):
    """Of the variance per mode, relative, signed; and of the mean, the largest at a point."""
    mean, variance = moments(oracle, step, times)
    exact = oracle.sde.schedule.alpha(times[-1]) * MEAN
    off = (torch.fft.ifftn(mean) - exact).abs().max()
    return variance / oracle.variance(times[-1])[0] - 1, off


@pytest.mark.parametrize(("name", "step"), crossed(SCHEDULES, STOCHASTIC, OFTEN))
def test_weak_order_one(name, step):
    """Mean and variance err by c/n + O(1/n²): halved from n to 2n, and extrapolated, 2e(2n) − e(n), next to nothing."""
    oracle = gaussian(SCHEDULES[name], mean=MEAN)
    coarse, fine = (
        errors(oracle, STOCHASTIC[step], LogSNRGrid(1e-3, 0.999)(SCHEDULES[name], n + 1)) for n in (100, 200)
    )
    assert fine[0].abs().max() < coarse[0].abs().max() / 2**0.85
    assert (2 * fine[0] - coarse[0]).abs().max() < 0.015
    assert fine[0].abs().max() < 0.1
    assert fine[1] < max(coarse[1] / 2**0.85, 1e-13)


@costly_schedules
def test_stochastic_heun_is_of_weak_order_two(name):
    """For a churn of S/n, as in the paper: the added noise is exact, so what errs is Heun."""
    oracle = gaussian(SCHEDULES[name], mean=MEAN)
    coarse, fine = (
        errors(oracle, StochasticHeun(churn=8 / n), LogSNRGrid(1e-3, 0.999)(SCHEDULES[name], n + 1)) for n in (50, 100)
    )
    assert fine[0].abs().max() < coarse[0].abs().max() / 2**1.85
    assert fine[0].abs().max() < 0.02 and fine[1] < 1e-13


@pytest.mark.parametrize("inside", [False, True])
def test_churn_is_a_step_back_into_the_noise(inside):
    """Where S_tmin <= σ/α <= S_tmax the noise grows by 1 + γ in ratio, and nowhere else; S_noise scales what is added."""
    schedule, t, s = SCHEDULES["VP"], time(0.4), time(0.3)
    oracle = gaussian(schedule, mean=MEAN)
    ratio = (-schedule.log_snr(t) / 2).exp().item()
    window = {"ratio_min": ratio * (0.99 if inside else 1.01), "ratio_max": ratio * 1.02}
    plain, churned, inflated = (
        affine(oracle, StochasticHeun(churn=churn, inflate=inflate, **window), t, s)[2].abs()
        for churn, inflate in ((0.0, 1.0), (0.2, 1.0), (0.2, 1.5))
    )
    assert plain.max() < 1e-6  # a step back to t itself, but for rounding
    if inside:
        back = schedule.time(schedule.log_snr(t) - 2 * torch.log1p(time(0.2)))
        _, q = oracle.sde.transition(t, back)
        _, heun, _ = affine(oracle, StochasticHeun(churn=0.0), back, s)
        torch.testing.assert_close(churned, heun.abs() * q * oracle.noise_spectrum[0].sqrt(), rtol=1e-10, atol=0)
        torch.testing.assert_close(inflated, 1.5 * churned, rtol=1e-12, atol=0)
    else:
        assert churned.max() == 0 and inflated.max() == 0


@every_step
@pytest.mark.parametrize("name", rarely(NOISE_ENDS))
def test_from_pure_noise_to_pure_data(name, step):
    """From t = 1 to t = 0, where α = 0 or σ = 0, on a grid uniform in t: finite, and converging."""
    oracle = gaussian(SCHEDULES[name], mean=MEAN)

    def error(n):
        return max(
            e.abs().max().item()
            for e in errors(oracle, STOCHASTIC[step], UniformGrid(0.0, 1.0)(SCHEDULES[name], n + 1))
        )

    if step in NEEDS_SIGNAL and name in SIGNAL_ENDS:
        with pytest.raises(InputError, match="t_max < 1"):
            error(10)
    else:
        coarse, fine = error(50), error(200)
        assert fine < 0.1 and fine < coarse / 4**0.7


# ------------------------------------------------------------------------------------------------ cases exact at any step
JUMPS = [(0.999, 0.01), (0.6, 0.5), (0.3, 1e-3)]


@pytest.mark.parametrize("jump", JUMPS)
@every_schedule
def test_for_a_point_mass_one_ancestral_step_is_exact(name, jump):
    """x̂ is the truth, and x_s given x_t is Gaussian: the mean and variance of conditioning x_s on x_t = a x_s + q ξ."""
    oracle, (t, s) = Gaussian(SDE(SCHEDULES[name]), torch.zeros(1, 4, dtype=F64), MEAN), map(time, jump)
    (alpha_t, sigma_t), (alpha_s, sigma_s), (a, _) = SCHEDULES[name](t), SCHEDULES[name](s), oracle.sde.transition(s, t)
    gain = a * sigma_s**2 / sigma_t**2  # Cov[x_s, x_t] / Var[x_t]
    constant, signal, noise = affine(oracle, Ancestral(), t, s)
    torch.testing.assert_close(signal.real, gain.expand(4), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(noise.abs() ** 2, (sigma_s**2 - gain * a * sigma_s**2).expand(4), rtol=1e-10, atol=0)
    torch.testing.assert_close(constant[0].real / 4, (alpha_s - gain * alpha_t) * MEAN, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("jump", JUMPS)
@every_schedule
def test_for_a_point_mass_every_ddim_carries_the_marginal(name, jump, eta):
    oracle = Gaussian(SDE(SCHEDULES[name]), torch.zeros(1, 4, dtype=F64), MEAN)
    variance, mean = errors(oracle, DDIM(eta), torch.tensor(jump, dtype=F64))
    assert variance.abs().max() < 1e-11 and mean < 1e-11


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("name", ["VP", "Cosine", "Nichol"])
def test_for_unit_white_data_the_upper_variance_is_exact(name, jump):
    """Under α² + σ² = 1 nothing is known of x_s but x_t: the reverse kernel is the forward one (Ho et al. 2020, sec. 3.2)."""
    oracle, (t, s) = Gaussian(SDE(SCHEDULES[name]), torch.ones(1, 4, dtype=F64)), map(time, jump)
    a, q = oracle.sde.transition(s, t)
    _, signal, noise = affine(oracle, Ancestral(upper=True), t, s)
    torch.testing.assert_close(signal.real, a.expand(4), rtol=1e-11, atol=0)
    torch.testing.assert_close(noise.abs(), q.expand(4), rtol=1e-12, atol=0)


@every_schedule
def test_ancestral_sampling_is_ddim_with_eta_one(name):
    oracle = gaussian(SCHEDULES[name], mean=MEAN)
    times = torch.tensor(
        [1.0, 0.7, 0.3, 0.01, 0.0] if name in SIGNAL_ENDS else [0.999, 0.7, 0.3, 0.01, 1e-3], dtype=F64
    )
    x = oracle.marginal((2, 1, 8), times[0], generator=keys(2))
    ancestral, ddim = (
        sample(oracle, x, times, step, denoise=False, generator=keys(2, seed=1))
        for step in (Ancestral(), DDIM(eta=1.0))
    )
    torch.testing.assert_close(ancestral, ddim, rtol=1e-9, atol=1e-11)  # √(σ_s² − w²) cancels


# -------------------------------------------------------------------------------------------------------------- Langevin
SIZE = 1024


def langevin(variance, exact, a, r):
    """The variance after a correction of white data in many dimensions, where ‖ξ‖²/‖score‖² is its mean Λ²/v, s = −x/Λ."""
    step = 2 * (a * r * exact) ** 2 / variance
    return (1 - step / exact) ** 2 * variance + 2 * step


def white(schedule):
    return Gaussian(SDE(schedule, White()), torch.full((1, SIZE), 0.5, dtype=F64))


def check(variance, expected, batch):
    """Within 4 standard errors, and the fluctuation of the norms in SIZE dimensions, of order 2/SIZE."""
    tolerance = 4 * (2 / (batch * SIZE)) ** 0.5 + 2 / SIZE
    assert abs(variance / expected - 1) < tolerance


@pytest.mark.parametrize("repeats", [1, 3, 60])
@pytest.mark.parametrize("name", ["VE", "VP", "Rectified"])
def test_langevin_restores_the_marginal(name, repeats):
    """From 1.5 times the spread towards that of the law, up to the factor 1 + (a r)² of a finite step."""
    oracle, r, batch, t, s = white(SCHEDULES[name]), 0.3, 32, time(0.4), time(0.35)
    a, _ = oracle.sde.transition(s, t)
    x = 1.5 * oracle.marginal((batch, 1, SIZE), t, generator=keys(batch))
    x = Langevin(r, repeats)(oracle, x, t, s, None, generator=keys(batch, seed=1))
    exact = oracle.variance(t)[0, 0]
    expected = 2.25 * exact
    for _ in range(repeats):
        expected = langevin(expected, exact, a, r)
    check(x.square().mean(), expected, batch)
    if repeats == 60:
        assert expected / exact == pytest.approx(1 + (a * r).item() ** 2, rel=1e-3)


@pytest.mark.parametrize("name", ["VE", "VP", "Rectified"])
def test_langevin_under_coloured_noise(name):
    """The stationary variance of each mode, to first order in the step ε and in the fluctuation of the norms it is made of.

    A constant step leaves Λ/(1 − ε C/2Λ). That ε grows with ‖ξ‖² adds 2 C/Σ C; that it grows with 1/‖score‖² makes the
    stationary law p ‖score‖² instead of p, which adds 2 (C²/Λ)/Σ (C²/Λ). The second order is the square of these, 0.24² = 0.06.
    """
    oracle, r, batch, t, s = gaussian(SCHEDULES[name], grid=(64,)), 0.2, 800, time(0.4), time(0.39)
    x = oracle.marginal((batch, 1, 64), t, generator=keys(batch))
    x = Langevin(r, repeats=100)(oracle, x, t, s, None, generator=keys(batch, seed=1))
    power = torch.fft.fft(x, norm="ortho")[:, 0].abs().square().mean(0)
    (a, _), exact, noise = oracle.sde.transition(s, t), oracle.variance(t)[0], oracle.noise_spectrum[0]
    square = noise**2 / exact
    step = 2 * (a * r) ** 2 * noise.sum() / square.sum()
    expected = 1 + 2 * noise / noise.sum() + 2 * square / square.sum()
    expected = exact * expected / (1 - step * noise / (2 * exact))
    error = (
        4 * torch.tensor([1.0, *[0.5**0.5] * 31, 1.0, *[0.5**0.5] * 31]) * (2 / batch) ** 0.5
    )  # real and complex modes
    assert ((power / expected - 1).abs() < error + 0.06).all()
    assert abs((power / exact).mean() / (expected / exact).mean() - 1) < 4 * (2 / batch / 64) ** 0.5 + 0.01


@pytest.mark.parametrize("correct_first", [True, False])
@pytest.mark.parametrize("name", ["VE", "VP", "Rectified"])
def test_predictor_and_corrector(name, correct_first):
    """Ten coarse steps leave reverse diffusion 50 to 200 % off; the corrector takes off most of it, as its recursion says."""
    oracle, r, batch, repeats = white(SCHEDULES[name]), 0.5, 32, 3
    times = LogSNRGrid(1e-2, 0.99)(SCHEDULES[name], 11)
    x = oracle.marginal((batch, 1, SIZE), times[0], generator=keys(batch))
    x = sample(
        oracle,
        x,
        times,
        ReverseDiffusion(),
        corrector=Langevin(r, repeats),
        correct_first=correct_first,
        denoise=False,
        generator=keys(batch, seed=1),
    )

    def correct(variance, level, below):
        for _ in range(repeats):
            variance = langevin(variance, oracle.variance(level)[0, 0], oracle.sde.transition(below, level)[0], r)
        return variance

    small = Gaussian(oracle.sde, torch.full((1, 1), 0.5, dtype=F64))  # the predictor acts on each value alone
    variance = alone = oracle.variance(times[0])[0, 0]
    for i in range(10):
        t, s = times[i], times[i + 1]
        _, signal, noise = (c.real[0] for c in affine(small, ReverseDiffusion(), t, s))
        if correct_first:
            variance = correct(variance, t, s)
        variance, alone = (signal**2 * v + noise**2 for v in (variance, alone))
        if not correct_first:
            variance = correct(variance, s, times[min(i + 2, 10)])
    check(x.square().mean(), variance, batch)
    exact = oracle.variance(times[-1])[0, 0]
    assert abs(variance - exact) < 0.6 * abs(alone - exact)
