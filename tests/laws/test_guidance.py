"""Guided denoisers against E[x | x_t, y] in closed form, and what each promises of y and of its cost."""

import doctest
from itertools import pairwise

import pytest
import torch

import scorefield.guidance.measurement
from laws.cases import DETERMINISTIC, LAWS, SCHEDULES, SIGNAL_ENDS, STOCHASTIC, gaussian, keys, mixture, time
from laws.posterior import F64, Exact, affine_law, operators
from often import crossed, each
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM, VP, Rectified
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.guidance import (
    DPS,
    Autoguided,
    Classified,
    ClassifierFree,
    Guided,
    Measurement,
    MomentMatching,
    PiGDM,
    Replacement,
    Within,
)
from scorefield.guidance.posterior import conjugate_residuals
from scorefield.operators import Blur, Coarsen, Grey, Mask
from scorefield.samplers import Heun, LogSNRGrid, UniformGrid, sample

GRIDS = {"1d": (6,), "2d": (4, 6), "3d": (2, 2, 4)}
SOLVED = MomentMatching(iterations=200, tolerance=1e-9)
METHODS = {"Replacement": Replacement(), "DPS": DPS(), "PiGDM": PiGDM(), "MomentMatching": MomentMatching()}
STEPS = {name: step for name, (step, _) in DETERMINISTIC.items()} | STOCHASTIC


def draw(shape, seed=0, dtype=F64):
    return keys(shape[0], seed).randn(shape, like=torch.empty(0, dtype=dtype))


class Counted:
    """A denoiser that counts its evaluations."""

    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, 0

    @property
    def sde(self):
        return self.denoiser.sde

    def __call__(self, x_t, t, cond=None):
        self.calls += 1
        return self.denoiser(x_t, t, cond)


# ------------------------------------------------------------------------------------------------------ moment matching
@pytest.mark.parametrize(("grid", "law"), crossed(GRIDS, LAWS, GRIDS))
@pytest.mark.parametrize("name", ["VP", "EDM"])
@pytest.mark.usefixtures("unchecked")
def test_moment_matching_is_exact_for_gaussian_data(name, grid, law):
    """E[x | x_t, y] to 1e-4 for every operator, at every level, one time per sample; the measurement noisy or exact."""
    grid = GRIDS[grid]
    shape = (3, *grid)
    prior = gaussian(SCHEDULES[name], law, grid, mean=0.3)
    t = torch.tensor([0.02, 0.3, 0.6, 0.97], dtype=F64)
    x_t = prior.marginal((4, *shape), t, generator=keys(4))
    for label, operator in operators(grid).items():
        for noise in (0.1, 0.0) if label in ("Mask", "Grey", "Coarsen", "CosineCoarsen") else (0.1,):
            exact = Exact(prior, operator, shape, noise)
            measured = exact.measure()
            found = Guided(prior, measured, SOLVED)(x_t, t)
            expected = torch.cat([exact.denoise(x, at, measured.y) for x, at in zip(x_t.split(1), t, strict=True)])
            assert (found - expected).abs().max() < 1e-4, (label, noise)


def test_moment_matching_is_exact_in_single_precision_with_the_default_solver():
    """20 iterations and the default tolerance of 1e-3 of r, which is itself of the order of 1, leave 1e-3."""
    grid, shape = (4, 6), (3, 4, 6)
    prior = gaussian(EDM(), "coloured data", grid)
    exact = Exact(prior, Coarsen(2), shape, 0.1)
    measured = exact.measure()
    x_t = prior.marginal((2, *shape), time(0.4), generator=keys(2))
    single = Gaussian(prior.sde, prior.spectrum.float())
    given = Measurement(Coarsen(2), measured.y.float(), 0.1)
    found = Guided(single, given, MomentMatching(iterations=20))(x_t.float(), time(0.4))
    assert found.dtype == torch.float32
    assert (found - exact.denoise(x_t, time(0.4), measured.y)).abs().max() < 1e-3


def test_where_no_signal_is_left_the_posterior_mean_of_the_data_is_found():
    """At α = 0, x_t tells nothing: E[x | x_t, y] = E[x | y], though the formula divides by α. It is taken at α = 1e-3 σ."""
    prior = gaussian(Rectified(), "coloured data", (6,), mean=0.3)
    exact = Exact(prior, Coarsen(2), (3, 6), 0.1)
    measured = exact.measure()
    found = Guided(prior, measured, SOLVED)(draw((2, 3, 6)), time(1.0))
    mean, _ = exact.posterior(measured.y)
    assert (found - mean.reshape(3, 6)).abs().max() < 3e-3
    assert (found - prior.mean).abs().max() > 0.1


def test_pigdm_is_exact_for_white_data_of_its_own_variance():
    grid, shape = (4, 6), (3, 4, 6)
    prior = gaussian(VP(), "white", grid)  # of variance 0.5
    exact = Exact(prior, Blur(0.7), shape, 0.2)
    measured, t = exact.measure(), time(0.4)
    x_t = prior.marginal((2, *shape), t, generator=keys(2))
    found = Guided(prior, measured, PiGDM(sigma_data=0.5**0.5, iterations=100, tolerance=1e-9))(x_t, t)
    torch.testing.assert_close(found, exact.denoise(x_t, t, measured.y), atol=1e-6, rtol=0)


def test_the_solver_serves_each_sample_by_itself_whatever_its_matrix():
    """Positive, not symmetric, indefinite, and zero, for which nothing can be done; the residual never grows."""
    factor = draw((4, 8, 8))
    matrices = factor @ factor.mT + 0.1 * torch.eye(8, dtype=F64)
    matrices[1] += 0.3 * (factor[1] - factor[1].mT)
    matrices[2] -= 3.0 * torch.eye(8, dtype=F64)
    assert torch.linalg.eigvalsh(matrices[2])[0] < -1
    matrices[3] = 0
    b = draw((4, 8), seed=1)

    def solve(rows, iterations):
        return conjugate_residuals(lambda v: (matrices[rows] @ v[..., None])[..., 0], b[rows], iterations, 1e-12)

    found = solve([0, 1, 2, 3], 8)
    torch.testing.assert_close(found[:3], torch.linalg.solve(matrices[:3], b[:3]))
    assert not found[3].any()
    torch.testing.assert_close(solve([1], 8), found[1:2])
    left = [(b - (matrices @ solve([0, 1, 2, 3], n)[..., None])[..., 0]).norm(dim=1) for n in range(9)]
    assert all((after <= before + 1e-12).all() for before, after in pairwise(left))


# ------------------------------------------------------------------------------------------------------- every wrapper
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("method", "step"), crossed(METHODS, STEPS, METHODS))
def test_every_method_goes_with_every_step(method, step):
    """Finite from t = 1, or where the step needs some signal, from below, to t = 1e-3; under every kind of schedule."""
    grid = (4,)
    for schedule in (EDM(), Rectified()):
        prior = gaussian(schedule, "coloured both", grid)
        measured = Exact(prior, Coarsen(2), (3, *grid), 0.0).measure()
        t_max = 0.999 if "Euler" in step or "Reverse" in step else 1.0
        times = UniformGrid(1e-3, t_max)(schedule, 6)
        x_1 = prior.sde.prior((2, 3, *grid), times[0], generator=keys(2), like=prior.spectrum)
        guided = Guided(prior, measured, METHODS[method])
        x = sample(guided, x_1, times, STEPS[step], generator=keys(2, 1))
        assert x.isfinite().all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("step", each(STEPS, 2))
def test_moment_matching_has_the_posterior_mean_with_every_step(step):
    """A sampler that gets no noise follows the mean, as all is affine: E[x | y] but for the error of 40 steps, of which the
    worst method of first order leaves 6 % of the prior's standard deviation.
    """
    grid, shape = (4,), (3, 4)
    prior = gaussian(VP(), "coloured data", grid, mean=0.3)
    exact = Exact(prior, Grey(), shape, 0.1)
    measured = exact.measure()
    zero = torch.zeros(1, *shape, dtype=F64)

    class Silent(type(keys(1))):
        def randn(self, shape, *, like):
            return torch.zeros(tuple(shape), dtype=like.dtype)

    times = LogSNRGrid(1e-3, 0.999)(VP(), 41)
    found = sample(Guided(prior, measured, SOLVED), zero, times, STEPS[step], generator=Silent([]))
    mean, _ = exact.posterior(measured.y)
    assert (found[0].flatten() - mean).abs().max() < 0.06 * prior.spectrum.mean().sqrt()
    assert (mean - 0.3).abs().max() > 0.2  # which the prior's mean is not


@pytest.mark.parametrize("method", METHODS)
def test_the_denoiser_is_evaluated_once_per_step(method):
    prior = Counted(gaussian(VP(), "coloured data", (4,)))
    measured = Measurement(Coarsen(2), draw((1, 3, 2)))
    Guided(prior, measured, METHODS[method])(draw((2, 3, 4)), time(0.5))
    assert prior.calls == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_does_not_depend_on_its_batch(method):
    prior = gaussian(VP(), "coloured data", (4, 6))
    measured = Exact(prior, Blur(0.7), (3, 4, 6), 0.0).measure()
    if method == "Replacement":
        measured = Exact(prior, Coarsen(2), (3, 4, 6), 0.0).measure()
    guided = Guided(prior, measured, METHODS[method])
    t, x_t = torch.tensor([0.2, 0.9, 0.5], dtype=F64), draw((3, 3, 4, 6))
    together = guided(x_t, t)
    for i in range(3):
        torch.testing.assert_close(guided(x_t[i : i + 1], t[i : i + 1]), together[i : i + 1], rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------------------------- inpainting
@pytest.mark.parametrize("method", METHODS)
def test_hidden_pixels_cannot_influence_the_result(method):
    """Other values there, even NaN: the same samples, bit for bit."""
    prior, mask = gaussian(VP(), "coloured data", (4, 6)), Mask(torch.arange(6) % 3 > 0)
    y = draw((1, 3, 4, 6))
    times = LogSNRGrid(1e-3, 0.99)(VP(), 9)
    found = []
    for hidden in (0.0, 1e6, torch.nan):
        measured = Measurement(mask, torch.where(mask.known, y, hidden))
        guided = Guided(prior, measured, METHODS[method])
        x_1 = prior.sde.prior((2, 3, 4, 6), times[0], generator=keys(2), like=prior.spectrum)
        found.append(sample(guided, x_1, times, STOCHASTIC["Ancestral"], generator=keys(2, 1)))
    assert found[0].equal(found[1]) and found[0].equal(found[2])


@pytest.mark.usefixtures("unchecked")
def test_what_was_measured_without_noise_is_returned_as_it_is():
    """By every method, bit for bit: the posterior mean has what is known in its place at every level."""
    prior, mask = gaussian(VP(), "coloured data", (4, 6)), Mask(torch.arange(6) % 3 > 0)
    y = mask(draw((1, 3, 4, 6)))
    times = LogSNRGrid(1e-3, 0.99)(VP(), 17)
    x_1 = prior.sde.prior((2, 3, 4, 6), times[0], generator=keys(2), like=prior.spectrum)
    for method in (*METHODS.values(), SOLVED):
        guided = Guided(prior, Measurement(mask, y), method)
        x = sample(guided, x_1, times, Heun(), generator=keys(2, 1))
        assert mask(x).equal(y.expand_as(x)), method


def test_replacement_carries_the_measured_part_of_x_t_along_its_exact_law():
    """α_s y + σ_s ξ with the ξ it came with under DDIM: the noised measurement of Song et al., from the sample's own draws."""
    prior, mask = gaussian(VP(), "coloured data", (6,)), Mask(torch.arange(6) > 1)
    y, xi = mask(draw((1, 3, 6))), draw((2, 3, 6), seed=1)
    t, s = time(0.7), time(0.4)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = VP()(t), VP()(s)
    guided = Guided(prior, Measurement(mask, y), Replacement())
    x_s, _ = DETERMINISTIC["DDIM"][0](guided, alpha_t * y + sigma_t * xi, t, s, None, generator=keys(2), memory=None)
    torch.testing.assert_close(mask(x_s), mask(alpha_s * y + sigma_s * xi))


def test_measurements_that_make_no_sense_are_refused():
    prior, x = gaussian(VP(), "white", (4,)), draw((1, 3, 4))
    with pytest.raises(InputError, match="NaN"):
        Measurement(Coarsen(2), torch.full((1, 3, 2), torch.nan))
    with pytest.raises(InputError, match="standard deviation"):
        Measurement(Coarsen(2), x, -1.0)
    with pytest.raises(InputError, match="gives"):
        Measurement(Mask(torch.ones(5, 3, 4)), x)
    with pytest.raises(InputError, match="exact"):
        Guided(prior, Measurement(Mask(torch.ones(4)), x, 0.1), Replacement())(x, time(0.5))
    with pytest.raises(InputError, match="no projection"):
        Guided(prior, Measurement(Blur(), x), Replacement())(x, time(0.5))
    for build in (lambda: MomentMatching(0), lambda: PiGDM(0.0), lambda: DPS(0.0)):
        with pytest.raises(InputError):
            build()


# ------------------------------------------------------------------------------------------------- the law of samples
@pytest.mark.usefixtures("unchecked")
def test_of_all_methods_moment_matching_has_the_posterior_and_the_others_err_as_tabulated():
    """The best row of docs/guidance.md, with Heun: mean and covariance to 1 %. The means of the others are off by
    a tenth of the posterior's spread, and more.
    """
    prior, shape = gaussian(EDM(), "coloured data", (8,), mean=0.3), (1, 8)
    exact = Exact(prior, Mask(torch.arange(8) % 3 > 0), shape, 0.0)
    measured, times = exact.measure(), LogSNRGrid(0.0, 1.0)(EDM(), 65)
    expected_mean, expected = exact.posterior(measured.y)
    off = {}
    for method in (SOLVED, Replacement(), PiGDM()):
        mean, covariance = affine_law(Guided(prior, measured, method), times, Heun(), shape, 1)
        off[method] = float((mean - expected_mean).norm() / expected.trace().sqrt())
        off[method, "covariance"] = float((covariance - expected).norm() / expected.norm())
    assert off[SOLVED] < 0.01 and off[SOLVED, "covariance"] < 0.01
    assert min(off[Replacement()], off[PiGDM()]) > 0.1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("step", ["Heun", "Ancestral"])
def test_samples_by_moment_matching_have_the_posterior_mean_and_covariance(step):
    """The whole law of the samples, to the error of 64 steps over 21 units of log-SNR: of second order, or of first."""
    shape = (1, 8)
    prior = gaussian(EDM(), "coloured data", (8,), mean=0.3)
    exact = Exact(prior, Coarsen(2), shape, 0.2)
    measured = exact.measure()
    levels = 65
    times = LogSNRGrid(0.0, 1.0)(EDM(), levels)
    draws = levels if step == "Ancestral" else 1
    mean, covariance = affine_law(Guided(prior, measured, SOLVED), times, STEPS[step], shape, draws)
    expected_mean, expected = exact.posterior(measured.y)
    tolerance = 0.01 if step == "Heun" else 0.2
    assert (mean - expected_mean).norm() < tolerance * expected.trace().sqrt()
    assert (covariance - expected).norm() < tolerance * expected.norm()


# -------------------------------------------------------------------------------------------------------------- classes
class Told:
    """A denoiser that knows its class: x̂ = label·x_t, where −1 is none; it counts its evaluations."""

    sde = SDE(VP())
    calls = 0

    def __call__(self, x_t, t, cond=None):
        Told.calls += 1
        assert set(cond) == {"label", "vector"} and all(len(value) == len(x_t) for value in cond.values())
        assert t.ndim == 0 or len(t) == len(x_t)
        return cond["label"].reshape(-1, 1, 1) * x_t


@pytest.mark.parametrize("t", [time(0.5), torch.tensor([0.2, 0.5], dtype=F64)], ids=["one", "each"])
def test_classifier_free_guidance_extrapolates_in_one_evaluation(t):
    x_t, cond = draw((2, 1, 3)), {"label": torch.tensor([3, -1]), "vector": torch.zeros(2, 4)}
    for scale, factor in ((1.0, 3), (0.0, -1), (2.5, -1 + 2.5 * 4)):
        Told.calls = 0
        found = ClassifierFree(Told(), scale)(x_t, t, cond)
        torch.testing.assert_close(found[0], factor * x_t[0])
        torch.testing.assert_close(found[1], -x_t[1])  # the null class guides nowhere
        assert Told.calls == 1
    with pytest.raises(InputError, match="label"):
        ClassifierFree(Told())(x_t, t, None)


@pytest.mark.parametrize("name", [*SIGNAL_ENDS[:1], "VP", "EDM"])
def test_classifier_guidance_with_the_exact_classifier_is_the_denoiser_of_one_class(name):
    """Of a mixture, p(class | x_t) is known, and so is E[x | x_t, class]; label −1 gives E[x | x_t]."""
    both = mixture(SCHEDULES[name])
    t, x_t = torch.tensor([0.1, 0.4, 0.8], dtype=F64), draw((3, 1, 3))

    class Exactly:
        sde = both.sde

        def __call__(self, x_t, t, cond=None):
            alpha, sigma = (scale.reshape(-1, 1) for scale in both.sde.schedule(t))
            variance = alpha**2 * both.variances + sigma**2
            apart = (x_t[:, None, 0] - alpha[..., None] * both.means[:, 0]).square().sum(-1)
            return both.log_weights - 0.5 * apart / variance - 1.5 * variance.log()

    for label in (0, 1):
        spectrum = both.variances[label].expand(1, 3).clone()
        alone = Gaussian(both.sde, spectrum, both.means[label])
        found = Classified(both, Exactly())(x_t, t, {"label": torch.full((3,), label)})
        torch.testing.assert_close(found, alone(x_t, t), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(Classified(both, Exactly())(x_t, t, {"label": torch.full((3,), -1)}), both(x_t, t))


@pytest.mark.parametrize("name", ["VP", "EDM", "Rectified"])
def test_guidance_away_from_a_weaker_model_leads_on_in_the_direction_of_the_better(name):
    """w = 1 is the model, 0 the weaker one; and within an interval of noise alone."""
    good, weak = mixture(SCHEDULES[name]), gaussian(SCHEDULES[name], "white", (3,))
    t, x_t = torch.tensor([0.1, 0.4, 0.8], dtype=F64), draw((3, 1, 3))
    for scale in (0.0, 1.0, 2.5):
        found = Autoguided(good, weak, scale)(x_t, t)
        torch.testing.assert_close(found, scale * good(x_t, t) + (1 - scale) * weak(x_t, t))
    alpha, sigma = good.sde.schedule(t)
    guided, ratio = Autoguided(good, weak, 2.5), sigma / alpha
    middle = Within(guided, good, float(ratio[1]) * 0.9, float(ratio[1]) * 1.1)
    found = middle(x_t, t)
    assert torch.equal(found[::2], good(x_t, t)[::2]) and torch.equal(found[1], guided(x_t, t)[1])
    for i in range(3):
        assert torch.equal(middle(x_t, t[i]), (guided if i == 1 else good)(x_t, t[i]))
    with pytest.raises(InputError, match="low <= high"):
        Within(guided, good, 2.0, 1.0)


def test_a_classifier_of_another_law_is_refused():
    class Other(Told):
        sde = SDE(EDM())

    with pytest.raises(InputError, match="trained for"):
        Classified(mixture(VP()), Other())


def test_the_docstring_runs():
    failed, tried = doctest.testmod(scorefield.guidance.measurement)
    assert tried and not failed
