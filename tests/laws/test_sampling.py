"""The loop: what it evaluates and in which order, and that a sample does not depend on its company."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from laws.cases import DETERMINISTIC, SCHEDULES, STOCHASTIC, gaussian, keys, mixture, time
from scorefield.core.schedule import EDM, VE, VP
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.samplers import (
    DDIM,
    Adaptive,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPP2M,
    Heun,
    Langevin,
    LogSNRGrid,
    NCSNLangevin,
    NoPredictor,
    ReverseDiffusion,
    Sampler,
    Step,
    StochasticHeun,
    UniformGrid,
    sample,
)
from scorefield.samplers.langevin import Corrector

F64 = torch.float64
LIKE = torch.empty(0, dtype=F64)


class Counted(nn.Module):
    """A denoiser that counts its evaluations and remembers their times and conditions."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.sde, self.seen = denoiser, denoiser.sde, []

    def forward(self, x_t, t, cond=None):
        self.seen.append((t.item(), cond))
        return self.denoiser(x_t, t)


CORRECTED = {"corrector": Langevin(0.16)}
BUDGETS = {  # evaluations for 18 steps that end with the final denoising
    "Heun": (Sampler(18, Heun()), 35),
    "StochasticHeun": (Sampler(18, StochasticHeun()), 35),
    "DPMSolverPP2M": (Sampler(18, DPMSolverPP2M()), 18),
    "DDIM": (Sampler(18, DDIM()), 18),
    "Ancestral": (Sampler(18, Ancestral()), 18),
    "corrected": (Sampler(18, ReverseDiffusion(), **CORRECTED), 36),
    "corrected after": (Sampler(18, ReverseDiffusion(), correct_first=False, **CORRECTED), 35),
    "corrected twice": (Sampler(18, ReverseDiffusion(), corrector=Langevin(0.16, repeats=2)), 54),
    "annealed": (Sampler(18, NoPredictor(), corrector=AnnealedLangevin(0.1, 5)), 91),
    "annealed after": (Sampler(18, NoPredictor(), corrector=AnnealedLangevin(0.1, 5), correct_first=False), 86),
    "without the final denoising": (Sampler(18, Ancestral(), denoise=False), 18),
    "one step": (Sampler(1, Heun()), 1),
}


@pytest.mark.parametrize("budget", BUDGETS)
def test_evaluations(budget):
    sampler, evaluations = BUDGETS[budget]
    denoiser = Counted(gaussian(EDM()))
    sampler(denoiser, (2, 1, 8), generator=keys(2), like=LIKE)
    assert len(denoiser.seen) == evaluations


def test_heun_falls_back_to_one_evaluation_at_the_ends():
    denoiser = Counted(gaussian(SCHEDULES["Rectified"]))
    x = keys(2).randn((2, 1, 8), like=LIKE)
    sample(denoiser, x, UniformGrid(0.0, 1.0)(denoiser.sde.schedule, 5), Heun(), denoise=False, generator=keys(2))
    assert [t for t, _ in denoiser.seen] == [1.0, 0.75, 0.5, 0.5, 0.25, 0.25]


@dataclass(frozen=True)
class Written(Step):
    """Does nothing but write down what it is asked."""

    name: str
    log: list

    def __call__(self, denoiser, x_t, t, s, cond, *, generator, memory):
        self.log.append((self.name, t.item(), s.item(), memory))
        return x_t, f"after {t.item()}"


@dataclass(frozen=True)
class WrittenCorrector(Corrector):
    """The same in a corrector's place."""

    log: list
    repeats: int = 1

    def __call__(self, denoiser, x_t, t, s, cond, *, generator):
        self.log.append(("correct", t.item(), s.item(), None))
        return x_t


@pytest.mark.parametrize("correct_first", [True, False])
def test_the_order_of_predictor_and_corrector(correct_first):
    """Song's code corrects, then predicts; his paper prints the reverse. The memory is the predictor's own."""
    log, times = [], torch.tensor([1.0, 0.5, 0.25, 0.0], dtype=F64)
    predictor, corrector = Written("predict", log), WrittenCorrector(log)
    x = torch.zeros(1, 1, 2, dtype=F64)
    sample(
        gaussian(VP(), grid=(2,)),
        x,
        times,
        predictor,
        corrector=corrector,
        correct_first=correct_first,
        generator=keys(1),
    )
    predictions = [
        ("predict", 1.0, 0.5, None),
        ("predict", 0.5, 0.25, "after 1.0"),
        ("predict", 0.25, 0.0, "after 0.5"),
    ]
    levels = [(1.0, 0.5), (0.5, 0.25), (0.25, 0.0), (0.0, 0.0)]  # the last level has none below it
    corrections = [("correct", t, s, None) for t, s in levels]
    pairs = (
        zip(corrections, predictions, strict=False) if correct_first else zip(predictions, corrections[1:], strict=True)
    )
    last = corrections[-1:] if correct_first else []  # before the final denoising, the last level's predictor
    assert log == [call for pair in pairs for call in pair] + last


def test_langevin_leaves_alone_what_has_no_score():
    """A network that has learnt nothing may give x̂ = x_t exactly: the rule r ‖ξ‖/‖score‖ then has no step."""

    class Same(nn.Module):
        sde = SDE(VE())

        def forward(self, x_t, t, cond=None):
            return x_t

    x = keys(2).randn((2, 1, 8), like=LIKE)
    assert torch.equal(Langevin(0.16)(Same(), x, time(0.5), time(0.4), None, generator=keys(2)), x)


@pytest.mark.parametrize("correct_first", [True, False])
@pytest.mark.parametrize("name", ["VP", "Rectified"])
def test_a_corrector_does_nothing_where_it_has_no_step_or_no_score(name, correct_first):
    """At α_t = 0 its step a is 0, and at σ_t = 0 there is nothing to correct: samples that end in data stay finite."""
    oracle, times = gaussian(SCHEDULES[name]), UniformGrid(0.0, 1.0)(SCHEDULES[name], 5)
    x = keys(2).randn((2, 1, 8), like=LIKE)
    arguments = {"corrector": Langevin(), "correct_first": correct_first, "denoise": False}
    assert sample(oracle, x, times, Ancestral(), generator=keys(2), **arguments).isfinite().all()
    for t, s in ((1.0, 0.5), (0.0, 0.0)):
        if name == "Rectified" or t == 0:
            corrected = Langevin()(oracle, x, time(t), time(s), None, generator=keys(2))
            assert torch.equal(corrected, x)


def test_what_the_callback_sees_and_what_is_returned():
    oracle, times, seen = Counted(gaussian(VP())), LogSNRGrid(1e-3, 1.0)(VP(), 6), []
    x = oracle.sde.prior((2, 1, 8), times[0], generator=keys(2), like=LIKE)
    end = sample(oracle, x, times, DDIM(), denoise=False, generator=keys(2))
    denoised = sample(
        oracle,
        x,
        times,
        DDIM(),
        cond={"vector": x},
        generator=keys(2),
        callback=lambda level, t, x_t: seen.append((level, t, x_t)),
    )
    assert [level for level, _, _ in seen] == list(range(6)) and [t for _, t, _ in seen] == list(times)
    assert torch.equal(seen[0][2], x) and torch.equal(seen[-1][2], end)
    assert torch.equal(denoised, oracle.denoiser(end, times[-1]))
    assert all(cond["vector"] is x for _, cond in oracle.seen[-6:])


def test_a_sampler_starts_from_its_prior_at_its_first_time():
    """On the EDM grid of a schedule without an end that is σ/α = 80, and not t = 1."""
    oracle, seen = gaussian(SCHEDULES["Rectified"]), []
    Sampler(5, DDIM())(oracle, (2, 1, 8), generator=keys(2), like=LIKE, callback=lambda *state: seen.append(state))
    t = time(80 / 81)
    torch.testing.assert_close(seen[0][1], t, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        seen[0][2], oracle.sde.prior((2, 1, 8), t, generator=keys(2), like=LIKE), rtol=1e-13, atol=0
    )


def test_a_sampler_without_steps_raises():
    with pytest.raises(InputError):
        Sampler(0)


STEPS = (
    {name: step for name, (step, _) in DETERMINISTIC.items()}
    | STOCHASTIC
    | {"StochasticHeun": StochasticHeun(churn=0.2)}
)
RECIPES = {name: Sampler(8, step) for name, step in STEPS.items()} | {
    "corrected": Sampler(8, ReverseDiffusion(), corrector=Langevin(0.3, repeats=2)),
    "corrected after": Sampler(8, Ancestral(), corrector=Langevin(0.3), correct_first=False),
    "DPMSolverPP2M(1)": Sampler(8, DPMSolverPP2M(1.0)),
    "annealed": Sampler(8, NoPredictor(), corrector=AnnealedLangevin(0.3, 2), correct_first=False),
    "annealed, NCSN": Sampler(8, NoPredictor(), corrector=NCSNLangevin(1e-5, 2), correct_first=False),
    "adaptive": Sampler(2, Adaptive(1e-3)),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("law", ["gaussian", "mixture"])
def test_a_sample_alone_is_the_same_as_in_company(law, recipe):
    oracle, shape = (gaussian(VE(), mean=0.3), (1, 8)) if law == "gaussian" else (mixture(VE()), (1, 3))
    together = RECIPES[recipe](oracle, (5, *shape), generator=keys(5), like=LIKE)
    for i in (0, 3):
        alone = RECIPES[recipe](oracle, (1, *shape), generator=Generators([(0, i)]), like=LIKE)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)


def test_batch_norms_make_a_sample_depend_on_its_company():
    oracle, sampler = gaussian(VE()), Sampler(8, ReverseDiffusion(), corrector=Langevin(0.3, batch_norms=True))
    together = sampler(oracle, (5, 1, 8), generator=keys(5), like=LIKE)
    alone = sampler(oracle, (1, 1, 8), generator=keys(1), like=LIKE)
    assert (alone[0] - together[0]).abs().max() > 1e-3


@pytest.mark.parametrize("step", DETERMINISTIC)
@pytest.mark.parametrize("name", ["VE", "SubVP", "EDM", "DDPM"])
@pytest.mark.usefixtures("unchecked")
def test_float32_loses_nothing_but_its_rounding(name, step):
    """Coefficients are computed in float64, from times in float64: 40 steps from σ = 80 to 0.002 err by some ε·80."""
    oracle, x = gaussian(SCHEDULES[name], mean=0.3), keys(2).randn((2, 1, 8), like=LIKE)
    times = LogSNRGrid(1e-3, 1.0)(oracle.sde.schedule, 41)
    x = oracle.sde.schedule.sigma(times[0]) * x.float().double()
    double = sample(oracle, x, times, DETERMINISTIC[step][0], generator=keys(2))
    single = sample(oracle.float(), x.float(), times, DETERMINISTIC[step][0], generator=keys(2))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=80 * 1.2e-7)


def test_the_whole_road_from_the_prior():
    """The default sampler, in float32: 18 levels of Heun. Mean and variance within 4 standard errors, and 2 % for 18 levels."""
    oracle, n = gaussian(EDM(), "coloured data", mean=0.3).float(), 1000
    x = Sampler()(oracle, (n, 1, 8), generator=keys(n), like=torch.empty(0))
    modes = torch.fft.fft(x - 0.3, norm="ortho")[:, 0]
    assert abs(x.mean() - 0.3) < 4 * (oracle.spectrum[0, 0] / 8 / n).sqrt()
    assert (modes.abs().square().mean(0) / oracle.spectrum[0] - 1).abs().max() < 4 * (2 / n) ** 0.5 + 0.02
