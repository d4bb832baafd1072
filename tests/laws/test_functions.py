"""Functions: samplers under field noise, Wiener's filter, grids finer than that of training, and levels from spectra."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch

import laws.matrix as sampling
from laws.cases import SCHEDULES, STOCHASTIC, Periodic, gaussian, keys, time
from laws.posterior import Exact
from laws.test_moments import errors as moment_errors
from scorefield.core.denoiser import Denoiser
from scorefield.core.flow_map import mean_denoised
from scorefield.core.noise import Exponential, Free, GaussianField, KernelField, Matern, Neumann, White, WhiteModes
from scorefield.core.noise import Periodic as Torus
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM, VP, geometric
from scorefield.core.sde import SDE
from scorefield.core.spectrum import RadialSpectrum, wavenumbers
from scorefield.core.wiener import Wiener
from scorefield.core.wiener import _spectra as of_wiener
from scorefield.foundation.errors import InputError
from scorefield.functions.spectrum_check import Bands, Suggestion, bands_of, check, spectrum_error, suggest
from scorefield.guidance import Guided, Measurement, Replacement
from scorefield.nn.network import Network
from scorefield.operators import CosineCoarsen, FourierCoarsen
from scorefield.samplers import (
    DDIM,
    BandLimited,
    Continued,
    EDMGrid,
    Extrapolate,
    Heun,
    Langevin,
    LogSNRGrid,
    NCSNLangevin,
    NoPredictor,
    Sampler,
    WienerBeyond,
    sample,
)
from scorefield.samplers.finer import _modes as of_beyond

F64 = torch.float64
NOISE = GaussianField(Matern(0.2, 1.0))
SPECTRUM = RadialSpectrum([0.2, 0.1, 0.03, 0.01, 0.004, 0.0015], 5.0)


class Zero(Network):
    def forward(self, x, label, cond=None):
        return torch.zeros_like(x)


class Waves(Network):
    def forward(self, x, label, cond=None):
        return (x.roll(1, -1) + 0.3 * x).sin()


def oracle(noise, grid, schedule=None, spectrum=SPECTRUM):
    return Gaussian(SDE(schedule or VP(), noise), math.prod(grid) * spectrum(wavenumbers(noise, grid))[None])


# ------------------------------------------------------------------------------------------ samplers under field noise
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("step", STOCHASTIC)
@pytest.mark.parametrize("name", ["VE", "VP", "Rectified"])
def test_stochastic_steps_are_of_weak_order_one_under_a_field(name, step):
    """Mean and variance of each mode by recursion, as for other noises."""
    law = gaussian(SCHEDULES[name], "field", mean=0.3)
    coarse, fine = (
        moment_errors(law, STOCHASTIC[step], LogSNRGrid(1e-3, 0.999)(SCHEDULES[name], n + 1)) for n in (100, 200)
    )
    assert fine[0].abs().max() < coarse[0].abs().max() / 2**0.85
    assert fine[1] < max(coarse[1] / 2**0.85, 1e-13)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.usefixtures("unchecked")
def test_annealed_langevin_under_a_field_errs_by_its_step_and_its_number():
    """Lim et al.'s sampler, x ← x + (ε_j/2) s + √ε_j ξ with ε_j = ε σ_j²/σ_L², per mode."""
    law, schedule = gaussian(SCHEDULES["NCSN"], "field", mean=0.3), SCHEDULES["NCSN"]
    method = sampling.METHODS["NoPredictor, NCSNLangevin"]
    variance, _ = sampling.errors(law, method, LogSNRGrid(0.0, 1.0)(schedule, 401))
    assert float(variance.abs().max()) < 1.5 * sampling.BIAS + 0.1


def test_in_the_very_last_step_there_may_be_no_noise():
    schedule = geometric(0.1, 10.0, 6)
    law, times = oracle(NOISE, (8,), schedule), LogSNRGrid(0.0, 1.0)(schedule, 6)
    x = torch.randn(1, 1, 8, dtype=F64, generator=torch.Generator().manual_seed(0))

    class Same(sampling.Impulses):  # zero but in the last draw
        def __init__(self, last):
            self.drawn, self.last = 0, last

        def randn(self, shape, *, like):
            self.drawn += 1
            return torch.full(tuple(shape), float(self.drawn == self.last), dtype=like.dtype)

    def end(quiet, last):
        corrector = NCSNLangevin(0.002, 2, quiet_end=quiet)
        return sample(
            law, x, times, NoPredictor(), corrector=corrector, correct_first=False, denoise=False, generator=Same(last)
        )

    assert torch.equal(end(True, 10), end(True, 0)) and not torch.equal(end(False, 10), end(False, 0))
    assert not torch.equal(end(True, 9), end(True, 0))  # the step before it has noise


# ------------------------------------------------------------------------------------------------------ Wiener's filter
@pytest.mark.parametrize("noise", [NOISE, WhiteModes(64), White(), GaussianField(Exponential(0.1), domain=(1.0, 2.0))])
@pytest.mark.parametrize("grid", [(8, 8), (12, 16)])
def test_of_gaussian_data_wieners_filter_is_the_denoiser(noise, grid):
    exact, t = oracle(noise, grid), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    x_t = exact.marginal((3, 1, *grid), t, generator=keys(3))
    ours = Denoiser(Zero(), exact.sde, Wiener(SPECTRUM, 64))
    torch.testing.assert_close(ours(x_t, t), exact(x_t, t), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.score(x_t, t), exact.score(x_t, t), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("noise", [NOISE, GaussianField(Matern(0.2), Neumann())])
def test_what_wieners_filter_leaves_to_a_network_has_unit_variance(noise):
    """Of input and target, on the grid of training; and the score belongs to the denoiser."""
    n, sde, t = 4000, SDE(VP(), noise), torch.tensor(0.4, dtype=F64)
    wiener = Wiener(SPECTRUM, 64)
    generator, like = keys(n), torch.empty(0, dtype=F64)
    gain = (64 * SPECTRUM(wavenumbers(noise, (8, 8)))).sqrt()
    x = noise.basis(2)[0].filter(generator.randn((n, 1, 8, 8), like=like), gain)
    x_t, _ = sde.perturb(x, t, generator=generator)
    seen = []

    class Spy(Zero):
        def forward(self, x, label, cond=None):
            seen.append(x)
            return torch.ones_like(x)

    skipped, with_one = Denoiser(Zero(), sde, wiener)(x_t, t), Denoiser(Spy(), sde, wiener)(x_t, t)
    assert float(seen[0].square().mean()) == pytest.approx(1, rel=0.02)
    basis, signal, level, _, data = wiener._modes(sde, x_t, t)
    target = basis.filter(x - skipped, (64 * data * level / (signal + level)).rsqrt())
    assert float(target.square().mean()) == pytest.approx(1, rel=0.02)
    assert not torch.equal(skipped, with_one)
    ours = Denoiser(Waves(), sde, wiener)
    torch.testing.assert_close(ours.score(x_t, t), sde.score(ours(x_t, t), x_t, t), rtol=1e-8, atol=1e-8)


def test_a_spectrum_is_measured_and_goes_on_as_a_power_law():
    law = RadialSpectrum([1.0, *(r**-3.0 for r in range(1, 32))], 3.0)
    grid = (48, 48)
    x = oracle(NOISE, grid, spectrum=law).marginal((64, 1, *grid), time(0.0), generator=keys(64))
    found = RadialSpectrum.measure(x, NOISE)
    assert len(found.bands) == 24 and found.exponent == pytest.approx(3.0, abs=0.1)
    torch.testing.assert_close(
        torch.tensor(found.bands[4:]), torch.tensor(law.bands[4:24]), rtol=0.1, atol=0
    )  # 28 modes and 64 fields: 3 times 3 %
    radii = torch.tensor([0.0, 1.0, 5.0, 31.0, 100.0], dtype=F64)
    torch.testing.assert_close(
        law(radii), torch.tensor([1.0, 1.0, 5**-3, 31**-3, 100**-3], dtype=F64), rtol=1e-9, atol=0
    )
    assert float(law(torch.tensor([2.5], dtype=F64))) == pytest.approx(2.5**-3)  # straight in logarithms


def test_bands_of_nothing_but_rounding_are_no_part_of_a_power_law():
    """Fields without a mean and without their last modes, as float32 or exactly."""
    law = RadialSpectrum([1.0, *(r**-3.0 for r in range(1, 24))], 3.0)
    radii = wavenumbers(NOISE, (48, 48))
    x = oracle(NOISE, (48, 48), spectrum=law).marginal((64, 1, 48, 48), time(0.0), generator=keys(64))
    x = NOISE.boundary.filter(x, ((radii > 0) & (radii < 16.5)).double())
    for fields in (x, x.float()):
        found = RadialSpectrum.measure(fields, NOISE)
        assert found.exponent == pytest.approx(3.0, abs=0.15) and not found.warning
        assert found.bands[0] == found.bands[-1] == pytest.approx(1e-12 * max(found.bands))
        assert bands_of(fields, NOISE).kept.tolist() == [False, *[True] * 16, *[False] * 7]
    steep = RadialSpectrum.measure(NOISE.boundary.filter(x, (-(radii**2) / 40).exp()), NOISE)
    assert "no power law" in steep.warning and "not fall" in RadialSpectrum([1.0, 1.0], -1.0).warning
    with pytest.raises(InputError, match="have no spectrum"):
        RadialSpectrum.measure(torch.zeros(2, 1, 16, 16), NOISE)
    with pytest.raises(InputError, match="three bands at least, and these have it in 0"):
        RadialSpectrum.measure(torch.ones(2, 1, 16, 16), NOISE)


def test_noises_without_modes_are_refused_by_name():
    for noise, name in ((KernelField([[0.0], [1.0]], Matern(0.1)), "KernelField"), (Periodic(), "Periodic")):
        with pytest.raises(InputError, match=name):
            RadialSpectrum.measure(torch.zeros(1, 1, 2), noise)
    with pytest.raises(InputError, match="take Periodic or Neumann"):
        RadialSpectrum.measure(torch.zeros(1, 1, 16), GaussianField(Matern(0.1), Free()))


# ------------------------------------------------------------------------------------------------------------ finer grids
@pytest.mark.parametrize("noise", [NOISE, GaussianField(Matern(0.2, 1.0), domain=(1.0, 2.0))])
def test_beyond_the_band_wieners_filter_is_exact_and_within_it_the_network_is(noise):
    exact, t = oracle(noise, (24, 24)), torch.tensor([0.1, 0.9], dtype=F64)
    x_t = exact.marginal((2, 1, 24, 24), t, generator=keys(2))
    torch.testing.assert_close(WienerBeyond(SPECTRUM)(exact, (8, 8))(x_t, t), exact(x_t, t), rtol=1e-9, atol=1e-11)
    nothing = WienerBeyond(SPECTRUM)(Denoiser(Zero(), exact.sde, Wiener(SPECTRUM, 1)), (24, 24))
    torch.testing.assert_close(nothing(x_t, t), exact(x_t, t), rtol=1e-9, atol=1e-11)
    for end in (0.0, 0.05, 0.1):  # of a flow map's jumps as well
        s = torch.tensor([end, 0.3], dtype=F64)
        jump = mean_denoised(WienerBeyond(SPECTRUM)(exact, (8, 8)), x_t, t, s)
        torch.testing.assert_close(jump, mean_denoised(exact, x_t, t, s), rtol=1e-9, atol=1e-11)
    assert Extrapolate()(exact, (8, 8)) is exact


def test_what_wieners_filter_is_made_of_is_made_once_for_a_grid():
    x, device = torch.randn(1, 1, 16, 16, dtype=F64), torch.device("cpu")
    beyond = WienerBeyond(SPECTRUM)(oracle(NOISE, (16, 16)), (8, 8))
    network = Denoiser(Zero(), beyond.sde, Wiener(SPECTRUM, 1))
    for denoiser, made in ((beyond, of_beyond), (network, of_wiener)):
        denoiser(x, time(0.5))
        before = made.cache_info()
        first = denoiser(x, time(0.5))
        assert made.cache_info().misses == before.misses and made.cache_info().hits > before.hits
        made.cache_clear()
        assert torch.equal(denoiser(x, time(0.5)), first)
    assert of_wiener(SPECTRUM, NOISE, (16, 16), device)[0] is of_wiener(SPECTRUM, NOISE, (16, 16), device)[0]


def test_wieners_filter_beyond_the_band_measures_what_it_is_not_told():
    x = NOISE.sample((64, 1, 16, 16), generator=keys(64), like=torch.empty(0, dtype=F64))
    assert WienerBeyond().fitted(lambda: x, NOISE) == WienerBeyond(RadialSpectrum.measure(x, NOISE))
    told = WienerBeyond(SPECTRUM)
    assert told.fitted(pytest.fail, NOISE) is told and Extrapolate().fitted(pytest.fail, NOISE) == Extrapolate()
    with pytest.raises(InputError, match="knows no spectrum"):
        WienerBeyond()(oracle(NOISE, (16, 16)), (8, 8))
    with pytest.raises(InputError, match="Wiener's filter has no form there"):
        WienerBeyond().fitted(lambda: x, GaussianField(Matern(0.1), Free()))


def spectrum_of(denoiser, grid, n=200):
    sampler = Sampler(32, Heun(), EDMGrid())
    x = sampler(denoiser, (n, 1, *grid), generator=keys(n), like=torch.empty(0, dtype=F64))
    return torch.fft.fftn(x, dim=(-2, -1), norm="forward").abs().square().mean((0, 1))


def test_without_noise_beyond_the_band_there_is_nothing_there_and_the_band_is_as_it_was():
    exact = oracle(NOISE, (16, 16), EDM(0.01, 40.0))
    limited, whole = BandLimited()(exact, (8, 8)), exact
    power, all_power = spectrum_of(limited, (16, 16)), spectrum_of(whole, (16, 16))
    k = torch.fft.fftfreq(16, 1 / 16).abs()
    outside = (k[:, None] > 4) | (k > 4)
    assert float(power[outside].max()) < 1e-12 * float(power.max()) < float(all_power[outside].min())
    inside = (k[:, None] < 4) & (k < 4)
    ratio = (power[inside] / SPECTRUM(wavenumbers(NOISE, (16, 16)))[inside]).mean()
    assert float(ratio) == pytest.approx(1, abs=4 / math.sqrt(200 * 49) + 0.02)  # and the error of 32 steps


@dataclass(frozen=True)
class RoughAndSmooth:
    """x = s g of a band, s one of two numbers for each field and g Gaussian of the spectrum S: by Bayes' rule, exact."""

    sde: SDE
    trained: tuple[int, ...]
    scales: tuple[float, float] = (0.4, 1.5)

    def __call__(self, x_t, t, cond=None):
        inside, data, values = of_beyond(SPECTRUM, self.sde.noise, self.trained, tuple(x_t.shape[2:]), x_t.device)
        alpha, sigma = (v.reshape(-1, 1, 1, 1) for v in self.sde.schedule(t))
        power = self.sde.noise.basis(2)[0].transform(x_t).abs().square()
        variances = [(alpha * s) ** 2 * data + sigma**2 * values for s in self.scales]
        logs = [-(inside * (power / v + v.log())).sum((1, 2, 3)) / 2 for v in variances]
        weights = torch.stack(logs).softmax(0)[..., None, None, None]
        gains = [alpha * s**2 * data / v for s, v in zip(self.scales, variances, strict=True)]
        return sum(w * self.sde.noise.basis(2)[0].filter(x_t, inside * g) for w, g in zip(weights, gains, strict=True))


@pytest.mark.parametrize("way", [Continued, WienerBeyond])
def test_a_rough_field_is_rough_beyond_the_band(way):
    """Its new modes have the power that the end of its band has; those of Wiener's filter have the mean of all."""
    grid, sde = (40, 40), SDE(EDM(0.005, 40.0), NOISE)
    inside, data, _ = of_beyond(SPECTRUM, NOISE, (20, 20), grid, torch.device("cpu"))
    whole = RadialSpectrum(
        SPECTRUM(torch.arange(10, dtype=F64)).tolist(), SPECTRUM.exponent
    )  # in all bands of training
    sampler = Sampler(24, Heun(), EDMGrid())
    denoiser = way(whole)(RoughAndSmooth(sde, (20, 20)), (20, 20))
    x = sampler(denoiser, (24, 1, *grid), generator=keys(24), like=torch.empty(0, dtype=F64))
    ratio = torch.fft.fftn(x, dim=(-2, -1), norm="forward").abs().square()[:, 0] / data
    own, new = (ratio * inside).sum((1, 2)) / inside.sum(), (ratio * (1 - inside)).sum((1, 2)) / (1 - inside).sum()
    assert own.min() < 0.3 and own.max() > 1.8  # both kinds
    error = (new / own).log().abs().max()
    assert error < 0.5 if way is Continued else error > 0.7


def test_gaussian_fields_are_continued_as_by_wieners_filter():
    """But for what the power of a few modes says of its mean."""
    exact, t = oracle(NOISE, (96, 96)), torch.tensor([0.02, 0.3, 0.9], dtype=F64)
    x_t = exact.marginal((3, 1, 96, 96), t, generator=keys(3))
    spectrum = RadialSpectrum(SPECTRUM(torch.arange(17, dtype=F64)).tolist(), SPECTRUM.exponent)
    power = Continued(spectrum)(exact, (32, 32))._power(
        exact(x_t, t), *of_beyond(spectrum, NOISE, (32, 32), (96, 96), torch.device("cpu"))[:2], *_levels(exact, t)
    )
    assert bool(((power - 1).abs() < 4 * math.sqrt(1 / 380)).all())  # of 380 modes, half of them independent
    found, wiener = (way(exact, (32, 32))(x_t, t) for way in (Continued(spectrum), WienerBeyond(spectrum)))
    assert float((found - wiener).norm() / wiener.norm()) < 0.02
    told = Continued(SPECTRUM)
    assert told.fitted(pytest.fail, NOISE) is told
    with pytest.raises(InputError, match="knows no spectrum"):
        Continued()(exact, (8, 8))


def _levels(law, t):
    alpha, sigma = (v.reshape(-1, 1, 1, 1) for v in law.sde.schedule(t))
    return alpha**2, sigma**2 * law.sde.noise.eigenvalues((96, 96))


class InCosines:
    """A Gaussian law with independent cosine modes, for `Exact`."""

    mean = torch.zeros(1, dtype=F64)

    def __init__(self, sde, grid):
        self.sde, self.spectrum = sde, math.prod(grid) * SPECTRUM(wavenumbers(sde.noise, grid))

    def _filter(self, x, gain):
        return self.sde.noise.basis(2)[0].filter(x, gain)


@pytest.mark.parametrize(
    ("boundary", "operator"),
    [
        (Neumann(), CosineCoarsen((6, 8), (3, 5))),
        (Torus(), FourierCoarsen((6, 8), (3, 5))),
        (Torus(), FourierCoarsen((6, 8), (4, 4))),  # whose last modes are sums of two
    ],
)
def test_known_modes_take_the_place_of_the_models_exactly_where_all_are_independent(boundary, operator):
    """Super-resolution: E[x | x_t, y] of Gaussian data in the noise's own modes, at every level."""
    grid, coarse, t = operator.fine, operator.coarse, torch.tensor([0.05, 0.5, 0.95], dtype=F64)
    sde = SDE(VP(), GaussianField(Matern(0.2), boundary))
    x_t, y = (keys(n, n).randn((n, 1, *size), like=t) for n, size in ((3, grid), (1, coarse)))
    prior, exact = Denoiser(Zero(), sde, Wiener(SPECTRUM, 48)), Exact(InCosines(sde, grid), operator, (1, *grid), 0.0)
    expected = torch.cat([exact.denoise(x, at, y) for x, at in zip(x_t.split(1), t, strict=True)])
    found = Guided(prior, Measurement(operator, y), Replacement())(x_t, t)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(operator(found), y.expand(3, -1, -1, -1), rtol=0, atol=1e-12)


def test_a_noise_on_points_has_no_band():
    with pytest.raises(InputError, match="take a GaussianField"):
        BandLimited()(oracle(White(), (8, 8)), (4, 4))


# ------------------------------------------------------------------------------------------------------- levels from data
BANDS = Bands(
    torch.tensor([4.0, 2.0, 0.5, 0.1, 0.02, 0.004], dtype=F64), torch.tensor([1.0, 0.8, 0.5, 0.2, 0.1, 0.05], dtype=F64)
)


def test_the_levels_drown_every_band_and_vanish_beside_it():
    found = suggest(BANDS)
    assert found.sigma_max == pytest.approx(math.sqrt(100 * 4.0))
    assert found.sigma_min == pytest.approx(math.sqrt(0.01 * 0.004 / 0.05))
    check(BANDS, SDE(EDM(0.999 * found.sigma_min, 1.001 * found.sigma_max)))
    with pytest.raises(InputError, match=r"In band 0 the largest noise has 25 times .*raise it to 20"):
        check(BANDS, SDE(EDM(found.sigma_min, 10.0)))
    with pytest.raises(InputError, match=r"In band 5 the smallest noise has 0.125 .*lower it to 0.0283"):
        check(BANDS, SDE(EDM(0.1, 100.0)))
    check(BANDS, SDE(VP(beta_max=40.0)))  # α(1) counts


def test_bands_in_which_the_data_have_nothing_but_rounding_ask_for_no_level():
    """A flow's mean vorticity is 0, and its last modes are cut off."""
    empty, last = torch.tensor([1e-18], dtype=F64), torch.tensor([0.03], dtype=F64)
    bands = Bands(torch.cat((empty, BANDS.data[1:], empty)), torch.cat((BANDS.noise, last)))
    assert bands.kept.tolist() == [False, *[True] * 5, False]
    assert suggest(bands) == suggest(Bands(BANDS.data[1:], BANDS.noise[1:]))
    found = suggest(bands)
    check(bands, SDE(EDM(0.999 * found.sigma_min, 1.001 * found.sigma_max)))


def test_what_is_left_of_a_mean_that_was_taken_away_asks_for_no_level():
    data = torch.cat((torch.tensor([1.7e-9], dtype=F64), BANDS.data[1:]))
    bands = Bands(data, BANDS.noise)
    assert not bands.kept[0] and suggest(bands) == suggest(Bands(BANDS.data[1:], BANDS.noise[1:]))
    assert Bands(BANDS.data * torch.tensor([0.01, 1, 1, 1, 1, 1], dtype=F64), BANDS.noise).kept.all()


def test_levels_that_miss_a_band_by_little_are_warned_of(caplog):
    """Other data of a kind have other spectra: by a factor of two at most levels serve them, too, and it is said by how much."""
    found = suggest(BANDS)
    for sde, words in (
        (SDE(EDM(1.06 * found.sigma_min, 1.001 * found.sigma_max)), "0.0112 of the variance"),
        (SDE(EDM(found.sigma_min, found.sigma_max / 1.2)), "69.4 times the variance"),
    ):
        caplog.clear()
        with caplog.at_level("WARNING", "scorefield"):
            check(BANDS, sde)
        assert words in caplog.text
    with pytest.raises(InputError, match="the smallest noise"):
        check(BANDS, SDE(EDM(1.5 * found.sigma_min, 1.001 * found.sigma_max)))


def test_a_noise_smoother_than_the_data_is_refused():
    with pytest.raises(InputError, match=r"smoother than the data: in band 5"):
        suggest(Bands(BANDS.noise, BANDS.data))
    x = GaussianField(Exponential(0.3)).sample((64, 1, 32, 32), generator=keys(64), like=torch.empty(0))
    with pytest.raises(InputError, match="at least as rough"):
        suggest(bands_of(x, GaussianField(Matern(0.3, 2.5))))
    found = suggest(bands_of(x, GaussianField(Exponential(0.3))))  # of the same law: S = λ
    assert found.sigma_max == pytest.approx(10, rel=0.3) and found.sigma_min == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize(("nugget", "rough"), [(0.0, 1.2), (1e-3, 1.0)])
def test_without_edges_the_bands_are_those_of_tapered_data_beside_the_density(nugget, rough):
    """Of data with the law of the noise itself S = λ."""
    noise = GaussianField(Exponential(0.1, nugget), Free())
    x = noise.sample((256, 1, 24, 24), generator=keys(256), like=torch.empty(0))
    data, level, *_ = bands_of(x, noise)
    # From band 4 on: below, the taper mixes bands of very different power. There are 24 modes and more, of which it leaves a half
    # independent: three times 1/√(256·12) is 5 %, and what it still mixes of |k|⁻³ is about 6/k² of the power, 7 % on average.
    torch.testing.assert_close((data / level)[4:], torch.ones(8, dtype=F64), rtol=0, atol=0.15)
    plain, *_ = bands_of(x, noise.on_torus())
    assert float((plain / level)[-1]) > rough  # edges, which a torus does not have; beside a nugget they are little


def test_the_surrogates_error_is_the_samplers_own():
    """DDIM by hand: one linear step after another for each band."""
    sde, sampler = SDE(EDM(0.01, 40.0)), Sampler(12, DDIM(), EDMGrid())
    times = EDMGrid()(sde.schedule, 12)
    sigma = sde.schedule.sigma(times)
    gain = sigma[0] * BANDS.noise.sqrt()
    for now, after in pairwise(sigma):
        keep = BANDS.data / (BANDS.data + now**2 * BANDS.noise)
        gain = gain * (keep + after / now * (1 - keep))
    gain = gain * BANDS.data / (BANDS.data + sigma[-1] ** 2 * BANDS.noise)
    torch.testing.assert_close(spectrum_error(BANDS, sde, sampler), (gain**2 / BANDS.data).log(), rtol=1e-9, atol=1e-12)
    coarse, fine = (spectrum_error(BANDS, sde, Sampler(n, Heun(), EDMGrid())).abs() for n in (16, 64))
    assert bool((fine[:4] < coarse[:4]).all()) and float(fine.max()) < 0.05


@pytest.mark.usefixtures("unchecked")
def test_annealed_langevin_needs_so_many_steps():
    """The spectrum is ahead by 2.2 ln(σ_1/σ_L)/(L T ε/σ_L²), less what its finite step adds; and the suggested step is good."""
    levels, repeats, found = 100, 5, Suggestion(20.0, 0.05)
    sde = SDE(geometric(found.sigma_min, found.sigma_max, levels))

    def error(step):
        corrector = NCSNLangevin(step, repeats)
        sampler = Sampler(levels, NoPredictor(), LogSNRGrid(0.0, 1.0), corrector, correct_first=True)
        return spectrum_error(BANDS, sde, sampler).abs().max()

    best = found.langevin_step(levels, repeats)
    rho = 2 * best / found.sigma_min**2
    assert rho == pytest.approx(math.sqrt(8.8 * math.log(400) / 500))
    assert float(error(best)) < 2 * math.sqrt(2.2 * math.log(400) / 500)
    assert float(error(best)) < min(float(error(8 * best)) if rho < 0.25 else math.inf, float(error(best / 8)))


def test_a_sampler_whose_steps_depend_on_x_has_no_closed_form():
    with pytest.raises(InputError, match="no closed form"):
        spectrum_error(BANDS, SDE(EDM()), Sampler(4, Heun(), corrector=Langevin(0.1)))


def test_what_a_mean_leaves_of_a_band_that_it_knows_is_rounding() -> None:
    """Beside the power before: of bands that are exactly known only float32's rounding is left."""
    data = BANDS.data.clone()
    data[1] = 1e-13 * 50
    assert Bands(data, BANDS.noise).kept[1] == (data[1] > 1e-12 * data.max())
    assert not Bands(data, BANDS.noise, before=50.0).kept[1] and Bands(data, BANDS.noise, before=50.0).kept[2:].all()
