"""Losses that never see a clean field: their means are errors that only who knows it could tell; what they are least for."""

import math

import pytest
import torch
from torch import nn

from laws.cases import gaussian, keys, mixture
from scorefield.core.denoiser import Denoiser, EDMPreconditioner
from scorefield.core.schedule import EDM, VP, Tabulated, time_of_noise
from scorefield.core.sde import SDE, expand_like
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses import (
    SNR,
    SURE,
    Ambient,
    Denoising,
    EDMWeight,
    FiniteDifference,
    Hutchinson,
    LogNormal,
    Sum,
    SUREScore,
    TimeDistribution,
    UniformLevels,
    UniformTime,
    Unweighted,
)
from scorefield.losses.sure import above
from scorefield.nn import NCSNv2
from scorefield.nn.network import Network

F64 = torch.float64
DRAWS = 10_000
DERIVATIVES = {"difference": FiniteDifference(), "backward": Hutchinson()}
every_derivative = pytest.mark.parametrize("derivative", DERIVATIVES.values(), ids=DERIVATIVES)


class Waves(Network):
    """Any smooth function of x and label that mixes the pixels and the channels."""

    def forward(self, x, label, cond=None):
        return (x.roll(1, -1) + 0.3 * x + 0.2 * x.flip(1)).sin() + 0.1 * expand_like(label, x).cos()


class Quick(Generators):
    """One stream for a whole batch: where thousands of samples are averaged, a generator for each is all the cost."""

    def __init__(self, seed):
        self._generator = torch.Generator().manual_seed(seed)

    def randn(self, shape, *, like):
        return torch.randn(tuple(shape), generator=self._generator, dtype=like.dtype)

    def rand(self, shape, *, like):
        return torch.rand(tuple(shape), generator=self._generator, dtype=like.dtype)


def noisy(x, noise, seed=5):
    """y = x + σ n, σ a number or one per sample."""
    noise = torch.as_tensor(noise, dtype=x.dtype).expand(len(x))
    return Batch(x + expand_like(noise, x) * Quick(seed).randn(x.shape, like=x), noise=noise)


def mean_within(values, expected=0.0, errors=3.0):
    """Whether the mean of independent values is what is expected, within some standard errors."""
    return abs(float(values.detach().mean()) - expected) < errors * float(values.std()) / math.sqrt(len(values))


# ---------------------------------------------------------------------------------------------------------- identities
@every_derivative
@pytest.mark.parametrize("schedule", [EDM(), VP()], ids=["EDM", "VP"])  # VP: α < 1 at the time that stands for σ
def test_the_mean_of_sure_is_the_error_that_only_who_knows_the_truth_can_compute(schedule, derivative):
    x = mixture(VP()).marginal((DRAWS, 1, 3), torch.tensor(0.0, dtype=F64), generator=Quick(1)).repeat(1, 2, 1)
    batch = noisy(x, 0.2 + 0.3 * torch.rand(DRAWS, dtype=F64, generator=torch.Generator().manual_seed(0)))
    denoiser = Denoiser(Waves(), SDE(schedule), EDMPreconditioner(0.5))
    values, denoised = SURE(derivative, SNR()).with_denoised(denoiser, batch, generator=Quick(2))
    truth = batch.noise**-2 * (denoised - x).square().flatten(1).mean(1)  # SNR: 1/σ_w²
    assert mean_within(values - truth)
    residual = batch.noise**-2 * (denoised - batch.x).square().flatten(1).mean(1) - 1
    assert not mean_within(residual - truth, errors=30)  # without the divergence it is not


def test_a_mask_hides_what_is_unknown_from_the_estimate_too():
    x = torch.randn(DRAWS, 2, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=F64).expand(DRAWS, 1, 4)
    batch = noisy(x, 0.4)
    batch = Batch(batch.x, noise=batch.noise, mask=mask)
    denoiser = Denoiser(Waves(), SDE(EDM()), EDMPreconditioner(0.5))
    values, denoised = SURE().with_denoised(denoiser, batch, generator=Quick(2))
    assert mean_within(values - (denoised - x).square()[..., mask[0, 0] > 0].flatten(1).mean(1))


@every_derivative
def test_complex_fields_are_two_channels(derivative):
    """For h(y) = F⁻¹ g F y with complex gains, the mean over probes is the complex formula with the trace 2 Re Σ g."""
    gain = torch.randn(6, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    y = torch.randn(1, 2, 6, dtype=F64, generator=torch.Generator().manual_seed(2))

    class Complex(nn.Module):
        sde = SDE(EDM())

        def forward(self, x_t, t, cond=None):
            h = torch.fft.ifft(torch.fft.fft(torch.complex(x_t[:, 0], x_t[:, 1])) * gain)
            return torch.stack((h.real, h.imag), 1)

    n, noise = DRAWS, 0.3
    batch = Batch(y.expand(n, -1, -1), noise=torch.full((n,), noise, dtype=F64))
    values, denoised = SURE(derivative).with_denoised(Complex(), batch, generator=Quick(2))
    residual = torch.view_as_complex((denoised[0] - y[0]).T.contiguous())
    expected = (residual.abs().square().sum() - 6 * 2 * noise**2 + 2 * noise**2 * 2 * gain.real.sum()) / 12
    assert mean_within(values, float(expected))


def test_the_divergence_does_not_depend_on_how_it_is_found():
    """Two steps and the backward pass agree within 2 %, under autocast too, where the network alone is far off."""
    torch.manual_seed(0)
    denoiser = Denoiser(NCSNv2(2, 2, channels=8), SDE(EDM()), EDMPreconditioner(0.5))
    batch = Batch(0.5 * torch.randn(8, 2, 16, 16), noise=torch.full((8,), 0.1))
    t = time_of_noise(EDM(), batch.noise)
    with torch.no_grad():
        residual = (denoiser(batch.x, t) - batch.x).square().flatten(1).mean(1)

    def divergences(*ways):
        values = [SURE(way).error(denoiser, batch, t, generator=keys(8))[0].detach() for way in ways]
        return [(value - residual + 0.01).mean() / 0.02 for value in values]

    def products(step):
        z = keys(8).rademacher(batch.x.shape, like=batch.x)
        return FiniteDifference(step)(lambda y: denoiser(y, t), batch.x, z, batch.noise)[1].detach()

    ways = (FiniteDifference(1e-2), FiniteDifference(2e-3), Hutchinson())
    (exact,) = divergences(Hutchinson())
    with torch.autocast("cpu", torch.bfloat16):
        found = divergences(*ways)
        rough = products(2e-3)
    assert abs(exact) > 0.05  # of something worth comparing
    for value in (*found, *divergences(*ways)):
        torch.testing.assert_close(value, exact, rtol=0.02, atol=0)
    precise = products(2e-3)
    assert (rough - precise).norm() > 0.2 * precise.norm()  # what autocast would have made of it


def test_a_samples_loss_depends_on_its_own_key_and_noise_alone():
    x = torch.randn(5, 2, 8, dtype=F64, generator=torch.Generator().manual_seed(0))
    batch = noisy(x, torch.linspace(0.1, 0.5, 5))
    denoiser = Denoiser(Waves(), SDE(EDM()), EDMPreconditioner(0.5))
    scheme = SUREScore(Denoising(LogNormal(), EDMWeight()))
    for loss in (SURE(), SURE(Hutchinson()), Ambient(LogNormal(1.0)), scheme, Sum([SURE(), Ambient(LogNormal(1.0))])):
        together = loss(denoiser, batch, generator=keys(5))
        alone = [
            loss(denoiser, Batch(batch.x[i : i + 1], noise=batch.noise[i : i + 1]), generator=Generators([(0, i)]))
            for i in range(5)
        ]
        torch.testing.assert_close(torch.cat(alone), together, rtol=1e-11, atol=0)


# ------------------------------------------------------------------------------- what they are least for: Gaussian data
class Filter(nn.Module):
    """x̂ = F⁻¹ g_k F x_t with free gains for each level of a table and each frequency: all that Gaussian data ask for."""

    def __init__(self, schedule, modes):
        super().__init__()
        self.sde = SDE(schedule)
        self.gain = nn.Parameter(torch.full((len(schedule), modes // 2 + 1), 0.3, dtype=F64))

    def forward(self, x_t, t, cond=None):
        level = self.sde.schedule.index(t).round().long()
        return torch.fft.irfft(torch.fft.rfft(x_t) * self.gain[level][:, None], n=x_t.shape[-1])

    def prior(self):
        """For each level the spectrum C of which the gains α C/(α²C + σ²) are those of E[x | x_t]."""
        alpha, sigma = self.sde.schedule.alphas[:, None], self.sde.schedule.sigmas[:, None]
        return (sigma**2 * self.gain / (alpha * (1 - alpha * self.gain))).detach()


class Upper(TimeDistribution):
    """Uniform over the entries of a table but the first."""

    def __init__(self, levels):
        self.levels = levels

    def __call__(self, u, schedule):
        return (1 + (u * (self.levels - 1)).floor().clamp(max=self.levels - 2)) / (self.levels - 1)


GROUPS, MODES = 12, 8
NOISE = 0.5
TABLES = {
    "VE": Tabulated([1.0, 1.0, 1.0], [NOISE, 0.8, 1.5]),
    "VP": Tabulated([0.8, 0.6, 0.5], [0.4, 0.7, 0.9]),  # σ/α = 0.5 at first
}


def fit(schedule, loss, data, group, n=4000):
    """The gains for which a loss is least over n noisy draws: Newton's steps, of which a quadratic takes one, and what is learnt
    on what was denoised another.
    """
    x = data.marginal((n, 1, MODES), torch.tensor(0.0, dtype=F64), generator=Quick(100 + group))
    batch, denoiser = noisy(x, NOISE, 200 + group), Filter(schedule, MODES)
    for _ in range(3):
        value = loss(denoiser, batch, generator=Quick(group)).mean()
        (slope,) = torch.autograd.grad(value, denoiser.gain, create_graph=True)
        rows = [torch.autograd.grad(s, denoiser.gain, retain_graph=True)[0].flatten() for s in slope.flatten()]
        curvature = torch.stack(rows)
        seen = curvature.diagonal() > 1e-12  # a level that a loss does not train stays where it was
        step = torch.zeros(curvature.shape[0], dtype=F64)
        step[seen] = torch.linalg.solve(curvature[seen][:, seen], slope.detach().flatten()[seen])
        with torch.no_grad():
            denoiser.gain -= step.view_as(denoiser.gain)
    return denoiser


def fitted(schedule, loss, quantity):
    """A quantity of independent fits: mean and standard error."""
    data = gaussian(VP(), "coloured data")
    found = torch.stack([quantity(fit(schedule, loss, data, group)) for group in range(GROUPS)])
    return found.mean(0), found.std(0) / math.sqrt(GROUPS), data.spectrum[0, : MODES // 2 + 1]


def close(mean, error, expected):
    assert ((mean - expected).abs() < 4.5 * error).all(), (mean, error, expected)  # 15 gains, 11 degrees of freedom


@pytest.mark.parametrize("table", TABLES)
def test_the_sure_denoiser_is_that_of_wiener(table, unchecked):
    """E[x | y] = C(C + σ_w²)⁻¹ y."""
    mean, error, C = fitted(TABLES[table], SURE(), lambda d: d.sde.schedule.alphas[0] * d.gain[0].detach())
    expected = C / (C + NOISE**2)
    close(mean, error, expected)
    assert (error < 0.02).all()  # so that a gain of C/(C + 2σ_w²), say, would be told from it


@pytest.mark.parametrize("table", TABLES)
def test_the_score_learnt_on_denoised_fields_is_that_of_a_smaller_covariance(table, unchecked):
    """C(C + σ_w²)⁻¹C, as the documentation says."""
    loss = SUREScore(Denoising(Upper(3), SNR()), ramp=0)
    mean, error, C = fitted(TABLES[table], loss, lambda d: d.prior()[1:])
    close(mean, error, C * C / (C + NOISE**2))
    assert (C - mean > 5 * error).all()


@pytest.mark.parametrize("both", [False, True], ids=["alone", "with SURE"])
@pytest.mark.parametrize("table", TABLES)
def test_ambient_training_recovers_the_covariance_of_what_was_never_seen(table, both, unchecked):
    ambient = Ambient(UniformLevels(3), SNR())
    loss = Sum([ambient, SURE(weight=SNR())]) if both else ambient
    mean, error, C = fitted(TABLES[table], loss, lambda d: d.prior()[0 if both else 1 :])
    close(mean, error, C)
    assert (4 * error < C - C * C / (C + NOISE**2)).all()  # not that of denoised fields


def test_the_score_term_is_weighted_in_over_the_epochs():
    x = torch.randn(6, 1, 8, dtype=F64, generator=torch.Generator().manual_seed(0))
    noise = noisy(x, 0.3)
    epochs = torch.tensor([0, 1, 2, 4, 9, 2**31])
    batch = Batch(noise.x, noise=noise.noise, key=torch.stack((torch.arange(6), epochs), 1))
    denoiser = Denoiser(Waves(), SDE(EDM()), EDMPreconditioner(0.5))
    score = Denoising(LogNormal(), Unweighted())

    def value(ramp):
        return SUREScore(score, ramp=ramp)(denoiser, batch, generator=keys(6))

    first = SURE()(denoiser, batch, generator=keys(6))
    second = value(0) - first
    torch.testing.assert_close(value(4) - first, second * torch.tensor([0, 0.25, 0.5, 1, 1, 1], dtype=F64))


def test_the_score_term_leaves_the_denoiser_alone():
    """What was denoised is data to it: its gradient has no part in how it was."""
    denoiser, batch = Filter(TABLES["VE"], 8), noisy(torch.randn(50, 1, 8, dtype=F64), NOISE)
    loss = SUREScore(Denoising(Upper(3), SNR()), ramp=0)
    (whole,) = torch.autograd.grad(loss(denoiser, batch, generator=Quick(2)).sum(), denoiser.gain)
    (alone,) = torch.autograd.grad(SURE(weight=SNR())(denoiser, batch, generator=Quick(2)).sum(), denoiser.gain)
    torch.testing.assert_close(whole[0], alone[0])
    assert (whole[1:] != 0).all() and (alone[1:] == 0).all()


def test_a_law_of_t_above_a_time_is_the_law_given_that():
    u = (torch.arange(4000, dtype=F64) + 0.5) / 4000
    law, schedule = LogNormal(-1.0, 1.5), EDM()
    least = time_of_noise(schedule, torch.full((4000,), 0.3, dtype=F64))
    t, whole = above(law, u, least, schedule), law(u, schedule)
    expected = whole[whole > least[0]]
    quantiles = torch.linspace(0.01, 0.99, 50, dtype=F64)
    torch.testing.assert_close(t.quantile(quantiles), expected.quantile(quantiles), rtol=2e-3, atol=0)
    levels = above(UniformLevels(5), u, torch.full_like(u, 0.5), schedule)  # strictly above the third of five
    assert levels.unique().tolist() == [0.75, 1.0]
    with pytest.raises(InputError, match="no times"):
        above(UniformTime(0.1, 0.5), u, torch.full_like(u, 0.6), schedule)


# ------------------------------------------------------------------------------------------------------------- figures
def test_the_logged_errors_are_those_of_the_truth():
    """For the exact denoiser of Gaussian data, from noisy fields alone."""
    n, noise = 4000, 0.5
    oracle, data = gaussian(EDM(0.01, 10.0), "coloured data"), gaussian(VP(), "coloured data")
    x = data.marginal((n, 1, 8), torch.tensor(0.0, dtype=F64), generator=Quick(1))
    batch = noisy(x, noise)
    denoised = oracle(batch.x, time_of_noise(oracle.sde.schedule, batch.noise))
    error, found = (denoised - x).norm(), {}
    assert [figure.name for figure in Sum([Ambient(), SURE()]).figures] == ["noise_nrmse", "image_nrmse"]
    for figure in Ambient().figures:
        square, power = figure(oracle, batch, generator=Quick(2))
        found[figure.name] = float((square.sum() / power.sum()).sqrt())
    # the sums of 4000 estimates of 8 values each: 2 % apart from what they estimate
    assert found == {
        "noise_nrmse": pytest.approx(float(error / (batch.x - x).norm()), rel=0.05),
        "image_nrmse": pytest.approx(float(error / x.norm()), rel=0.05),
    }


# -------------------------------------------------------------------------------------------------------------- refusals
def test_what_the_losses_refuse():
    denoiser, x = Denoiser(Waves(), SDE(EDM(0.01, 10.0)), EDMPreconditioner(0.5)), torch.randn(3, 2, 4)
    for loss in (SURE(), Ambient(), SUREScore()):
        with pytest.raises(InputError, match=r"scorefield\.data\.Measured"):
            loss(denoiser, Batch(x), generator=keys(3))
        with pytest.raises(InputError, match=r"no level of the schedule, which has those from 0\.01 to 10"):
            loss(denoiser, Batch(x, noise=torch.tensor([0.1, 0.1, 1e-3])), generator=keys(3))
        with pytest.raises(InputError, match="white"):
            loss(gaussian(EDM(), "coloured both", (4,)), Batch(x, noise=torch.full((3,), 0.1)), generator=keys(3))
    with pytest.raises(InputError, match="epsilon > 0"):
        FiniteDifference(0.0)
    with pytest.raises(InputError, match="factor for each"):
        Sum([SURE()], [1.0, 2.0])


def test_dropout_drops_the_same_in_both_evaluations():
    torch.manual_seed(0)
    drop = nn.Dropout(0.5)
    y, z = torch.randn(4, 1, 64), torch.ones(4, 1, 64)
    _, product = FiniteDifference()(drop, y, z, torch.full((4,), 0.1))
    torch.testing.assert_close(product, torch.where(product.abs() < 1, 0.0, 2.0).to(product), rtol=1e-3, atol=1e-3)
    assert 0.3 < float((product > 1).float().mean()) < 0.7
    before = torch.get_rng_state()
    FiniteDifference()(drop, y, z, torch.full((4,), 0.1))
    assert not torch.equal(before, torch.get_rng_state())  # and the next step drops others
