"""Every denoising loss is a weight on ‖x̂ − x‖²: the losses of the literature, one by one, and what they are least for."""

import math

import pytest
import torch
from torch import nn

from laws.cases import OFTEN, SCHEDULES, Draws, gaussian, keys, mixture, spectrum, time
from often import crossed
from scorefield.core.denoiser import (
    DataPrediction,
    Denoiser,
    EDMPreconditioner,
    EpsilonPrediction,
    FlowPrediction,
    ScorePrediction,
    VelocityPrediction,
)
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM, VP
from scorefield.core.sde import SDE, expand_like
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.losses.denoising import Denoising, mean_known
from scorefield.losses.holes import interpolated
from scorefield.losses.times import LogNormal, UniformLevels, UniformTime
from scorefield.losses.weights import SNR, EDMWeight, FlowMatching, Likelihood, Unweighted
from scorefield.nn.network import Network

F64 = torch.float64
INSIDE = UniformTime(0.01, 0.99)

U = (torch.arange(20_000, dtype=F64) + 0.5) / 20_000  # a time law is its quantiles


every_schedule = pytest.mark.parametrize("name", SCHEDULES)


class Waves(Network):
    """Any smooth function of x and label that mixes the pixels."""

    def forward(self, x, label, cond=None):
        return (x.roll(1, -1) + 0.3 * x).sin() + 0.1 * expand_like(label, x).cos()


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def mean_square(x):
    return x.square().flatten(1).mean(1)


# Each row: preconditioner, weight, and the loss of the paper from (F, x, ξ, x_t, α, σ, g), all shaped like x.
IDENTITIES = {
    "DDPM: ‖F − ξ‖²": (EpsilonPrediction(), SNR(), lambda F, x, noise, x_t, alpha, sigma, g: F - noise),
    "DSM: ‖σ s + ξ‖²": (
        ScorePrediction(),
        SNR(),
        lambda F, x, noise, x_t, alpha, sigma, g: sigma * (F / sigma) + noise,
    ),
    "Likelihood: g²‖s + ξ/σ‖²": (
        ScorePrediction(),
        Likelihood(),
        lambda F, x, noise, x_t, alpha, sigma, g: g * (F / sigma + noise / sigma),
    ),
    "Velocity: ‖F − v‖²": (
        VelocityPrediction(),
        EDMWeight(1.0),
        lambda F, x, noise, x_t, alpha, sigma, g: F - (alpha * noise - sigma * x) / (alpha**2 + sigma**2).sqrt(),
    ),
    "Flow: ‖F − (ξ − x)‖²": (
        FlowPrediction(),
        FlowMatching(),
        lambda F, x, noise, x_t, alpha, sigma, g: F - (noise - x),
    ),
    "Karras: ‖F − (x − c_skip x_t)/c_out‖²": (
        EDMPreconditioner(0.5),
        EDMWeight(0.5),
        lambda F, x, noise, x_t, alpha, sigma, g: (
            F - (sigma * x - 0.25 * alpha * noise) / (0.5 * (0.25 * alpha**2 + sigma**2).sqrt())
        ),
    ),
    "Regression: ‖F − x‖²": (DataPrediction(), Unweighted(), lambda F, x, noise, x_t, alpha, sigma, g: F - x),
}


@pytest.mark.parametrize("identity", IDENTITIES)
@every_schedule
def test_the_losses_of_the_literature(name, identity):
    precondition, weight, residual = IDENTITIES[identity]
    sde, x = SDE(SCHEDULES[name]), randn(6, 2, 3, 4)
    denoiser = Denoiser(Waves(), sde, precondition)
    loss = Denoising(INSIDE, weight)(denoiser, Batch(x), generator=keys(6))

    draws = keys(6)  # the same again, by hand
    t = INSIDE(draws.rand((6,), like=x), sde.schedule)
    x_t, noise = sde.perturb(x, t, generator=draws)
    c = precondition(sde.schedule, t)
    output = denoiser.net(expand_like(c.scale, x) * x_t, c.label)
    scales = (expand_like(scale, x) for scale in (*sde.schedule(t), sde.diffusion(t)))
    expected = mean_square(residual(output, x, noise, x_t, *scales))
    torch.testing.assert_close(loss, expected, rtol=1e-8, atol=0)  # x̂ − x cancels to σ/α >= 1e-4 of itself


def test_edms_own_loss():
    """Karras et al. (2022), table 1: λ(σ) ‖D(y + n; σ) − y‖² with λ = (σ² + σ_d²)/(σ σ_d)² and ln σ ~ N(−1.2, 1.2²)."""
    x, sigma_data = 0.5 * randn(8, 1, 5), 0.5
    denoiser = Denoiser(Waves(), SDE(EDM()), EDMPreconditioner(sigma_data))
    loss = Denoising(LogNormal(), EDMWeight(sigma_data))(denoiser, Batch(x), generator=keys(8))

    draws = keys(8)
    sigma = (-1.2 + 1.2 * torch.special.ndtri(draws.rand((8,), like=x))).exp()[:, None, None]
    y = x + sigma * draws.randn(x.shape, like=x)
    total = sigma**2 + sigma_data**2
    output = denoiser.net(y / total.sqrt(), (sigma.log() / 4).flatten())
    denoised = sigma_data**2 / total * y + sigma * sigma_data / total.sqrt() * output
    expected = (total / (sigma * sigma_data) ** 2).flatten() * mean_square(denoised - x)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)


class Shifted(nn.Module):
    """A denoiser moved away from another by a constant."""

    def __init__(self, denoiser, shift):
        super().__init__()
        self.denoiser, self.sde, self.shift = denoiser, denoiser.sde, shift

    def forward(self, x_t, t, cond=None):
        return self.denoiser(x_t, t, cond) + self.shift


WEIGHTS = {
    "SNR": SNR(),
    "Likelihood": Likelihood(),
    "Karras": EDMWeight(0.5),
    "Plain": Unweighted(),
    "FlowMatching": FlowMatching(),
}
TIME = UniformTime(0.1, 0.9)


@pytest.mark.parametrize(("name", "weight"), crossed(SCHEDULES, WEIGHTS, OFTEN))
def test_the_gaussian_oracle_has_the_least_loss_there_is(name, weight):
    """E w(t) tr Cov[x | x_t]/d, in closed form; a shift δ adds exactly E w(t) δ². Within 4 standard errors."""
    oracle, n = gaussian(SCHEDULES[name], "coloured data"), 2000
    schedule, loss = oracle.sde.schedule, Denoising(TIME, WEIGHTS[weight])
    data = gaussian(VP(), "coloured data")  # at t = 0 its marginal is the law of the data: σ(0) = 0
    batch = Batch(data.marginal((n, 1, 8), torch.tensor(0.0, dtype=F64), generator=keys(n, seed=1)))

    t = TIME(keys(n).rand((n,), like=batch.x), schedule)
    sigma = schedule.sigma(t)[:, None, None]
    residual = (oracle.spectrum * sigma**2 / oracle.variance(t)).mean((1, 2))  # per mode: S σ²/(α² S + σ²)
    weights = WEIGHTS[weight](schedule, t)
    values = loss(oracle, batch, generator=keys(n))
    excess = values - weights * residual  # given t, its mean is zero
    assert abs(excess.mean()) < 4 * excess.std() / math.sqrt(n)

    shift = 0.3
    gain = loss(Shifted(oracle, shift), batch, generator=keys(n)) - values - weights * shift**2
    assert abs(gain.mean()) < 4 * gain.std() / math.sqrt(n)
    assert (weights > 0).all()


@pytest.mark.parametrize(
    "change", [lambda x: 1.2 * x, lambda x: x + 0.1, lambda x: x.clamp(-1, 1)], ids=["more", "shift", "clamp"]
)
def test_a_mixtures_oracle_beats_its_neighbours(change):
    oracle, n = mixture(VP()), 4000
    batch = Batch(oracle.marginal((n, 1, 3), torch.tensor(0.0, dtype=F64), generator=keys(n, seed=1)))

    class Changed(Shifted):
        def forward(self, x_t, t, cond=None):
            return change(self.denoiser(x_t, t, cond))

    loss = Denoising(UniformTime(0.1, 0.9), Unweighted())
    gain = loss(Changed(oracle, None), batch, generator=keys(n)) - loss(oracle, batch, generator=keys(n))
    assert gain.mean() > 4 * gain.std() / math.sqrt(n)


def test_a_mask_hides_what_is_unknown():
    oracle, x = gaussian(VP(), "white"), randn(4, 2, 8)
    mask = (torch.rand(4, 1, 8, generator=torch.Generator().manual_seed(0)) < 0.6).double()
    mask[3] = 0  # nothing known of the last one
    oracle.spectrum = oracle.spectrum.expand(2, -1).clone()
    loss = Denoising(INSIDE, Unweighted())

    x.requires_grad_()
    values = loss(oracle, Batch(x, mask=mask), generator=keys(4))
    (gradient,) = torch.autograd.grad(values.sum(), x)
    hidden = mask.expand_as(x) == 0
    assert gradient[hidden].abs().max() < 1e-12  # white: the oracle mixes no pixels but by the rounding of its FFT
    assert (gradient[~hidden] != 0).all() and values[3] == 0

    other = torch.where(hidden, 7.0, x.detach())  # what is unknown has no say in the value either
    torch.testing.assert_close(
        loss(oracle, Batch(other, mask=mask), generator=keys(4)), values.detach(), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(("width", "least", "zero"), [(1, 1.25, 2.5), (4, 1.2, 1.3)], ids=["points", "boxes"])
def test_the_right_denoiser_has_nearly_the_least_loss_of_fields_with_holes(width, least, zero):
    """Of Gaussian fields with 40 % hidden. With 0 in the holes it has 3 times that of whole fields, and another one is learnt."""
    smooth = spectrum((16, 16), 2.0)
    oracle = Gaussian(SDE(EDM()), smooth / smooth.mean())
    x = oracle.marginal((48, 1, 16, 16), time(0.0), generator=keys(48, 1))
    places = torch.rand(48, 1, 16 // width, 16 // width, generator=torch.Generator().manual_seed(0)) > 0.4
    mask = places.repeat_interleave(width, -1).repeat_interleave(width, -2).to(F64)
    law = LogNormal(math.log(0.3), 0.3)

    def value(x, **how):
        return float(Denoising(law, Unweighted(), **how)(oracle, Batch(x, mask=mask), generator=keys(48, 2)).mean())

    whole, holes = value(x), value(x * mask, interpolate=True)
    assert holes < least * whole and value(x * mask) > zero * whole
    assert value(torch.where(mask > 0, x, 7.0), interpolate=True) == holes  # what is hidden has no say


@pytest.mark.parametrize("grid", [(37,), (9, 14), (5, 6, 7)], ids=str)
def test_unknown_elements_lie_between_the_known_ones_around_them(grid):
    """Constant fields stay, linear ones nearly, none leaves the range of what is known, and what is known stays bitwise."""
    line = torch.linspace(0, 1, grid[-1], dtype=F64).expand(2, 1, *grid)
    for share in (0.3, 0.8):
        mask = torch.rand(2, 1, *grid, generator=torch.Generator().manual_seed(1)) > share
        found = interpolated(torch.where(mask, line, torch.nan).nan_to_num(99.0), mask)
        assert torch.equal(found[mask], line[mask])
        for one, inside in zip(found, mask, strict=True):
            assert one.min() >= one[inside].min() and one.max() <= one[inside].max()
        assert share > 0.5 or (found - line).square().mean().sqrt() < 0.05
        assert (interpolated(torch.where(mask, torch.full_like(line, 3.0), 0), mask) - 3).abs().max() < 1e-12
    assert interpolated(line, torch.zeros(1)).abs().max() == 0  # nothing known


def test_mean_known_is_the_mean_over_what_is_known():
    error = randn(3, 2, 4).square().requires_grad_()
    mask = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]])[:, None]
    values = mean_known(error, mask)
    expected = torch.stack([error[0][:, [0, 2, 3]].mean(), error[1][:, [2]].mean(), torch.zeros((), dtype=F64)])
    torch.testing.assert_close(values, expected)
    (gradient,) = torch.autograd.grad(values.sum(), error)
    share = mask / torch.tensor([6, 2, 1])[:, None, None]
    torch.testing.assert_close(gradient, share.expand(3, 2, 4).double())
    unknown = torch.where(mask.expand_as(error) == 0, torch.nan, error)
    torch.testing.assert_close(mean_known(unknown, mask), values)
    torch.testing.assert_close(mean_known(error, None), mean_square(error.sqrt()))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_samples_loss_depends_on_its_own_key_alone(dtype):
    x = randn(5, 1, 8).to(dtype)
    denoiser, loss = Denoiser(Waves(), SDE(VP()), EDMPreconditioner()), Denoising(LogNormal(), EDMWeight())
    together = loss(denoiser, Batch(x), generator=keys(5))
    alone = torch.cat(
        [loss(denoiser, Batch(x[i : i + 1]), generator=generator) for i, generator in enumerate(each_key(5))]
    )
    torch.testing.assert_close(alone, together, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=0)
    assert together.dtype == dtype


def each_key(n):
    from scorefield.foundation.random import Generators

    return [Generators([(0, index)]) for index in range(n)]


# ----------------------------------------------------------------------------------------------------------- time laws


@every_schedule
def test_uniform_time(name):
    t = UniformTime(0.2, 0.6)(U, SCHEDULES[name])
    torch.testing.assert_close(t, 0.2 + 0.4 * U, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@every_schedule
def test_log_normal_noise(name, dtype):
    """log(σ/α) is normal up to the schedule's reach, where the rest of the mass lies."""
    schedule = SCHEDULES[name]
    t = LogNormal(-1.0, 1.5)(U.to(dtype), schedule).double()
    assert ((t >= 0) & (t <= 1)).all() and (t.diff() >= 0).all()
    reach = (-schedule.log_snr(torch.tensor([0.0, 1.0], dtype=F64)) / 2).tolist()
    expected = (-1.0 + 1.5 * torch.special.ndtri(U)).clamp(*reach)
    ratio = -schedule.log_snr(t) / 2
    # ndtri of a u rounded to ε: du/φ >= ε/φ(4) ~ 1e-3 at the ends in float32; time and λ as in their own test
    torch.testing.assert_close(ratio, expected, rtol=0, atol=3e-3 if dtype == torch.float32 else 1e-9)
    middle = slice(2000, 18_000)
    torch.testing.assert_close(ratio[middle], expected[middle], rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_log_normal_is_finite_at_the_ends_of_the_uniform(u):
    for dtype in (torch.float32, F64):
        assert 0 <= LogNormal()(torch.tensor(u, dtype=dtype), EDM()) <= 1


@pytest.mark.parametrize("levels", [2, 10, 232])
def test_uniform_levels(levels):
    """Every level equally often, exactly at its entry."""
    u = (torch.arange(levels * 50, dtype=F64) + 0.5) / (levels * 50)
    t = UniformLevels(levels)(u, VP())
    values, counts = t.unique(return_counts=True)
    torch.testing.assert_close(values, torch.linspace(0, 1, levels, dtype=F64), rtol=0, atol=1e-15)
    assert (counts == 50).all()
    assert UniformLevels(levels)(torch.tensor(1 - 2**-24), VP()) == 1  # float32: u N may round up to N


def test_a_drawn_batch_follows_its_time_law():
    """Through the loss's own draw: the Kolmogorov distance of 4000 draws stays below its 0.1 % critical value 1.95/√n."""
    n = 4000
    seen = []

    class Watch(nn.Module):
        sde = SDE(VP())

        def forward(self, x_t, t, cond=None):
            seen.append(t)
            return x_t

    Denoising(UniformTime(0.0, 1.0), Unweighted())(Watch(), Batch(torch.zeros(n, 1, 1, dtype=F64)), generator=keys(n))
    ordered, empirical = seen[0].sort().values, torch.arange(n + 1, dtype=F64) / n
    distance = torch.maximum((ordered - empirical[:-1]).abs(), (ordered - empirical[1:]).abs()).max()
    assert distance < 1.95 / math.sqrt(n)


@pytest.mark.parametrize("ends", [(-0.1, 1.0), (0.5, 0.5), (0.6, 0.4), (0.0, 1.1)])
def test_ends_that_are_no_times_raise(ends):
    with pytest.raises(InputError):
        UniformTime(*ends)


def test_draws_are_made_time_first():
    """One uniform draw, then the noise: what a training run promises to repeat."""
    x, seen = torch.zeros(2, 1, 3, dtype=F64), []

    class Watch(nn.Module):
        sde = SDE(VP())

        def forward(self, x_t, t, cond=None):
            seen.extend((x_t, t))
            return x_t

    u, z = torch.tensor([0.25, 0.75], dtype=F64), randn(2, 1, 3)
    Denoising(UniformTime(0.0, 1.0))(Watch(), Batch(x), generator=Draws(u, z))
    assert torch.equal(seen[1], u)
    torch.testing.assert_close(seen[0], VP().sigma(u)[:, None, None] * z)
