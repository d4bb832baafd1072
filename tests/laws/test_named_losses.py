"""Losses as their papers write them, each from its own tables and formulas; importance sampling of likelihood weighting."""

import math

import pytest
import torch

from laws.cases import SCHEDULES, gaussian, keys
from laws.test_losses import U, Waves, mean_square, randn
from scorefield.core.denoiser import Denoiser, EDMPreconditioner, EpsilonPrediction, Index, ScorePrediction, Times
from scorefield.core.schedule import VP, ddpm, geometric
from scorefield.core.sde import SDE
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.losses import (
    Denoising,
    ImportanceSampled,
    ImportanceSampledLikelihood,
    Likelihood,
    UniformLevels,
    UniformTime,
)
from scorefield.losses.denoising import half_sum_known, mean_known

F64 = torch.float64
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


def song_vp(t):
    return (-0.25 * t**2 * 19.9 - 0.5 * t * 0.1).exp()


SONGS = {  # mean and standard deviation of x_t, as their sde_lib has them
    "VE": lambda t: (torch.ones_like(t), 0.01 * (50 / 0.01) ** t),
    "VP": lambda t: (song_vp(t), (1 - song_vp(t) ** 2).sqrt()),
    "SubVP": lambda t: (song_vp(t), 1 - song_vp(t) ** 2),
}


# The losses of the ancestors, each written out from its own tables.
def test_the_discrete_loss_of_ddpm():
    """Ho et al. (2020), algorithm 1: k uniform in 0..N−1, ‖ε_θ(√ᾱ_k x + √(1 − ᾱ_k) ξ, k) − ξ‖², β linear from 1e-4 to 0.02."""
    levels, x = 1000, randn(16, 1, 5)
    denoiser = Denoiser(Waves(), SDE(ddpm(levels=levels)), EpsilonPrediction(Index(levels)))
    found = Denoising(UniformLevels(levels))(denoiser, Batch(x), generator=keys(16))

    draws = keys(16)
    k = (draws.rand((16,), like=x) * levels).long()
    product = (1 - torch.linspace(1e-4, 0.02, levels, dtype=F64)).cumprod(0)[k][:, None, None]
    noise = draws.randn(x.shape, like=x)
    output = denoiser.net(product.sqrt() * x + (1 - product).sqrt() * noise, k.double())
    torch.testing.assert_close(found, mean_square(output - noise), rtol=1e-7, atol=0)  # √(1 − ᾱ) loses four digits


@pytest.mark.parametrize("reduction", ["mean", "half_sum"])
def test_the_discrete_loss_of_smld(reduction):
    """Song and Ermon (2019), eq. 5, λ = σ²: i uniform, ‖σ_i s(x + σ_i ξ, i) + ξ‖², levels from the largest down."""
    levels, x = 10, randn(16, 1, 5)
    sde = SDE(geometric(0.01, 50.0, levels))
    denoiser = Denoiser(Waves(), sde, ScorePrediction(Index(levels, reverse=True)))
    found = Denoising(UniformLevels(levels), reduction=reduction)(denoiser, Batch(x), generator=keys(16))

    draws = keys(16)
    i = levels - 1 - (draws.rand((16,), like=x) * levels).long()
    sigma = torch.logspace(math.log10(50.0), -2, levels, dtype=F64)[i][:, None, None]
    noise = draws.randn(x.shape, like=x)
    score = denoiser.net(x + sigma * noise, i.double()) / sigma
    square = (sigma * score + noise).square().flatten(1)
    expected = square.mean(1) if reduction == "mean" else 0.5 * square.sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", SONGS)
def test_the_continuous_loss_of_song(name):
    """Song et al. (2021), eq. 7 with λ = σ²: t ~ U(1e-5, 1), ‖σ s + ξ‖², and half the sum, as their code has it."""
    x, sde = randn(16, 1, 5), SDE(SCHEDULES[name])
    denoiser = Denoiser(Waves(), sde, ScorePrediction(Times()))
    mean, half = (Denoising(reduction=r)(denoiser, Batch(x), generator=keys(16)) for r in ("mean", "half_sum"))

    draws = keys(16)
    t = (draws.rand((16,), like=x) * (1 - 1e-5) + 1e-5)[:, None, None]
    signal, std = SONGS[name](t)
    noise = draws.randn(x.shape, like=x)
    score = denoiser.net(signal * x + std * noise, 999 * t.flatten()) / std
    expected = (std * score + noise).square().flatten(1)
    torch.testing.assert_close(mean, expected.mean(1), rtol=1e-6, atol=0)  # 1 − exp(·) at small t
    torch.testing.assert_close(half, 0.5 * expected.sum(1), rtol=1e-6, atol=0)


# ---------------------------------------------------------------------------------------------- importance-sampled likelihood
@every_schedule
def test_important_times_have_the_density_g2_over_sigma2(name):
    """The quantile function t(u) obeys dt/du = Z σ²/g², by central differences; between the levels of a table λ is linear."""
    schedule, (t_min, t_max), h = SCHEDULES[name], (1e-3, 0.999), 1e-6
    law = ImportanceSampled(t_min, t_max)
    u = torch.tensor([0.0502, 0.3301, 0.6003, 0.9007], dtype=F64)
    t, slope = law(u, schedule), (law(u + h, schedule) - law(u - h, schedule)) / (2 * h)
    z = schedule.log_snr(torch.tensor(t_min, dtype=F64)) - schedule.log_snr(torch.tensor(t_max, dtype=F64))
    torch.testing.assert_close(slope * (schedule.diffusion(t) / schedule.sigma(t)) ** 2, z.expand(4), rtol=1e-4, atol=0)
    ends = law(torch.tensor([1.0, 0.0], dtype=F64), schedule)
    torch.testing.assert_close(ends, torch.tensor([t_max, t_min], dtype=F64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["VE", "VP", "SubVP", "Rectified"])
def test_important_times_leave_the_mean_of_the_likelihood_loss_and_shrink_its_variance(name):
    """The closed-form residual under both laws, by quadrature over u: the same mean, a twentieth of the variance."""
    oracle, (t_min, t_max) = gaussian(SCHEDULES[name], "coloured data"), (1e-3, 0.999)
    schedule, u = oracle.sde.schedule, (torch.arange(400_000, dtype=F64) + 0.5) / 400_000
    values = []
    for law, weight in (
        (UniformTime(t_min, t_max), Likelihood()),
        (ImportanceSampled(t_min, t_max), ImportanceSampledLikelihood(t_min, t_max)),
    ):
        t = law(u, schedule)
        sigma = schedule.sigma(t)[:, None, None]
        residual = (oracle.spectrum * sigma**2 / oracle.variance(t)).mean((1, 2))
        values.append(weight(schedule, t) * residual)
    plain, important = values
    assert important.mean() == pytest.approx(plain.mean().item(), rel=1e-3)  # the quadrature of 1/t from 1e-3 on
    if name == "VE":
        torch.testing.assert_close(important, plain)  # g²/σ² is constant: they are the same
    else:
        assert important.var() < 0.05 * plain.var()


def test_by_the_loss_itself_important_times_are_unbiased_and_quieter():
    """On draws of a network that is wrong: means agree within 4 standard errors of both, at a fraction of the variance."""
    n, x = 20_000, randn(20_000, 1, 4)
    denoiser, ends = Denoiser(Waves(), SDE(VP()), EDMPreconditioner()), (1e-3, 1.0)
    plain = Denoising(UniformTime(*ends), Likelihood())(denoiser, Batch(x), generator=keys(n))
    important = Denoising(ImportanceSampled(*ends), ImportanceSampledLikelihood(*ends))(
        denoiser, Batch(x), generator=keys(n, seed=1)
    )
    error = math.sqrt((plain.var() + important.var()) / n)
    assert abs(plain.mean() - important.mean()) < 4 * error
    assert important.var() < 0.2 * plain.var()


def test_important_times_without_end_raise():
    for name, ends in (("VP", (0.0, 1.0)), ("Rectified", (1e-3, 1.0)), ("Cosine", (0.0, 0.5))):
        with pytest.raises(InputError, match="infinite"):
            ImportanceSampled(*ends)(U, SCHEDULES[name])
    with pytest.raises(InputError, match="t_min < t_max"):
        ImportanceSampled(0.5, 0.5)


def test_reductions():
    error, mask = randn(3, 2, 4).square(), torch.tensor([1, 0, 1, 1])[None, None].expand(3, 1, 4)
    torch.testing.assert_close(half_sum_known(error, None), 4 * mean_known(error, None))
    torch.testing.assert_close(half_sum_known(error, mask), 3 * mean_known(error, mask))
    unknown = torch.where(mask == 0, torch.nan, error)
    torch.testing.assert_close(half_sum_known(unknown, mask), 3 * mean_known(error, mask))
