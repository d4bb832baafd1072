"""The norm of a denoising loss: under field noise the ε-loss in function space, for the same minimiser."""

import pytest
import torch

from laws.cases import Periodic, keys
from laws.test_losses import Waves, mean_square, randn
from scorefield.core.denoiser import Denoiser, EpsilonPrediction
from scorefield.core.noise import Exponential, Free, GaussianField, Matern, Neumann, White
from scorefield.core.schedule import VE, VP
from scorefield.core.sde import SDE, expand_like
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.losses import SNR, Denoising, Mahalanobis, ScorePower, SquaredError, UniformTime

TIMES = UniformTime(0.01, 0.99)
FIELDS = {name: GaussianField(Matern(0.3), boundary) for name, boundary in (("neumann", Neumann()), ("free", Free()))}
FIELDS["periodic"] = GaussianField(Matern(0.3))


def loss(noise, x, mask=None, **arguments):
    return Denoising(TIMES, **arguments)(
        Denoiser(Waves(), SDE(VP(), noise), EpsilonPrediction()), Batch(x, mask=mask), generator=keys(len(x))
    )


def test_under_field_noise_the_default_is_the_loss_of_white_noise_behind_it():
    """ξ = C^½ z: the mean over modes of |ẑ − z|², ẑ = C^−½ ε̂."""
    noise, x = FIELDS["periodic"], randn(4, 1, 6, 5)
    sde, draws = SDE(VP(), noise), keys(4)
    t = TIMES(draws.rand((4,), like=x), sde.schedule)
    x_t, xi = sde.perturb(x, t, generator=draws)
    modes = torch.fft.fftn(Waves()(x_t, EpsilonPrediction()(sde.schedule, t).label) - xi, dim=(-2, -1), norm="ortho")
    expected = (modes.abs() ** 2 / (30 * noise.eigenvalues((6, 5)))).flatten(1).mean(1)
    torch.testing.assert_close(loss(noise, x, weight=SNR()), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", ["periodic", "neumann"])
def test_of_a_function_the_norm_is_the_same_on_every_grid(name):
    """Up to the number of modes that its mean is over."""
    noise, k = FIELDS[name], 3.0
    found = []
    for n in (8, 16, 64):
        x = (torch.arange(n, dtype=torch.float64) + (0.5 if name == "neumann" else 0.0)) / n
        wave = (torch.pi * k * x * (1 if name == "neumann" else 2)).cos()[None, None, None] * torch.ones(1, 1, n, 1)
        found.append(Mahalanobis()(wave.double(), noise).sum())
    torch.testing.assert_close(torch.stack(found), found[0].expand(3), rtol=1e-9, atol=0)


def test_the_default_goes_by_the_noise_and_by_what_is_known():
    x = randn(4, 2, 6, 6)
    assert torch.equal(loss(White(), x), loss(White(), x, norm=SquaredError()))
    assert torch.equal(loss(FIELDS["free"], x), loss(FIELDS["free"], x, norm=SquaredError()))
    assert torch.equal(
        loss(Periodic(), x), loss(Periodic(), x, norm=SquaredError())
    )  # a noise that says nothing of itself
    for name in ("periodic", "neumann"):
        noise = FIELDS[name]
        assert torch.equal(loss(noise, x), loss(noise, x, norm=Mahalanobis()))
        assert not torch.allclose(loss(noise, x), loss(noise, x, norm=SquaredError()))
        mask = (randn(4, 1, 6, 6) > 0).double()
        assert torch.equal(loss(noise, x, mask), loss(noise, x, mask, norm=SquaredError()))
        with pytest.raises(InputError, match="take SquaredError"):
            loss(noise, x, mask, norm=Mahalanobis())
    with pytest.raises(InputError, match="no usable inverse"):
        loss(FIELDS["free"], x, norm=Mahalanobis())


def test_the_minimiser_does_not_depend_on_the_norm():
    """At the conditional mean the expected loss is stationary: mean over draws of ⟨direction, gradient⟩, 4 standard errors."""
    noise, n = GaussianField(Exponential(0.2)), 4000
    sde, t = SDE(VP(), noise), torch.tensor(0.4, dtype=torch.float64)
    draws = keys(n)
    x = GaussianField(Matern(0.4)).sample((n, 1, 4, 4), generator=draws, like=torch.empty(0, dtype=torch.float64))
    from laws.test_oracles import Gaussian

    oracle = Gaussian(sde, 16 * GaussianField(Matern(0.4)).eigenvalues((4, 4))[None])
    x_t, _ = sde.perturb(x, t, generator=draws)
    direction = x_t.roll(1, -1) + 0.3 * x_t
    for norm in (SquaredError(), Mahalanobis()):
        base, up = oracle(x_t, t) - x, oracle(x_t, t) - x + 1e-3 * direction
        slope = (norm(up, noise) - norm(base, noise)).flatten(1).sum(1)
        second = norm(1e-3 * direction, noise).flatten(1).sum(1)
        slope = slope - second
        assert slope.mean().abs() < 4 * slope.std() / n**0.5


@pytest.mark.parametrize("power", [2.0, 1.0, 0.5, -1.0, -2.0])
def test_level_weights_are_powers_of_sigma_on_the_error_of_the_score(power):
    sde, x = SDE(VE()), randn(6, 1, 5)
    denoiser, draws = Denoiser(Waves(), sde, EpsilonPrediction()), keys(6)
    found = Denoising(TIMES, ScorePower(power))(denoiser, Batch(x), generator=keys(6))
    t = TIMES(draws.rand((6,), like=x), sde.schedule)
    x_t, noise = sde.perturb(x, t, generator=draws)
    _, sigma = sde.scales(t, x)
    error = sde.score(denoiser(x_t, t), x_t, t) + noise / sigma
    expected = sde.schedule.sigma(t) ** power * mean_square(error)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert expand_like(t, x).shape == (6, 1, 1)
