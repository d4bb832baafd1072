"""log p(y) by the flow from the level of the noise on: against closed forms, against particles, and only where it is that."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from laws.cases import SCHEDULES, gaussian, keys, mixture, spectrum, time
from scorefield.core.denoiser import DenoiserProtocol, EDMPreconditioner
from scorefield.core.noise import GaussianField, MaskedField, Matern, Noise, White, runs_of
from scorefield.core.oracle import Gaussian, Mixture
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Batch, Centre, Normaliser, Standardise
from scorefield.evidence import log_evidence
from scorefield.foundation.errors import InputError
from scorefield.guidance import LogLikelihood, Measurement, PiGDM
from scorefield.inverse import weighed
from scorefield.model import Model
from scorefield.nn import UNet
from scorefield.operators import (
    Blur,
    Coarsen,
    Compose,
    Fourier,
    Identity,
    LinearOperator,
    Mask,
    Saturated,
    Scale,
    as_operator,
)
from scorefield.samplers import DPMSolverPP2M, EDMGrid, Exact, ProbabilityFlow, Rademacher, Sampler

F64 = torch.float64
FLOW = ProbabilityFlow(1e-6, Exact())
FIELD = GaussianField(Matern(0.3, 1.0, nugget=1e-2))
KINDS = ("VE", "VP", "EDM", "Rectified")
pytestmark = pytest.mark.usefixtures("unchecked")


def normal(y: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """log N(y; mean, covariance)."""
    return float(torch.distributions.MultivariateNormal(mean, covariance).log_prob(y))


def matrix(operator: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """A as a matrix, of fields of a shape."""
    eye = torch.eye(math.prod(shape), dtype=F64).reshape(-1, *shape)
    return operator(eye).flatten(1).T


def model(oracle: DenoiserProtocol, shape: tuple[int, ...], normaliser: Normaliser | None = None) -> Model:
    """A model in float64 whose prior is to be an oracle's."""
    net = UNet(shape[0], shape[0], spatial=len(shape) - 1, channels=4, multipliers=(1,))
    return Model(oracle.sde, net, EDMPreconditioner(), normaliser or scaled(1.0, 0.0, shape[0]), shape=shape).double()


def scaled(scale: float, shift: float, channels: int = 1) -> Normaliser:
    """x = scale z + shift."""
    normaliser = Centre(scale)
    normaliser.fit([Batch(torch.full((1, channels, 1, 1), shift))])
    return normaliser.double()


# ------------------------------------------------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("schedule", KINDS)
@pytest.mark.parametrize("noise", [White(), FIELD], ids=["white", "field"])
@pytest.mark.parametrize("level", [0.05, 0.7])
def test_of_a_gaussian_field_with_the_noise_of_the_process_it_is_exact(
    schedule: str, noise: Noise, level: float
) -> None:
    """y = x + σ ξ has the law N(mean, S + σ²C); to 1e-2 nats where α(1) > 0, and N(0, σ²C) is not quite the law at the end."""
    law = Gaussian(SDE(SCHEDULES[schedule], noise), spectrum((6,), 1.0, 0.5), mean=0.3)
    eye = torch.eye(6, dtype=F64)
    prior = torch.fft.ifft(law.spectrum * torch.fft.fft(eye[:, None])).real[:, 0]
    total = prior + level**2 * noise.covariance(eye[:, None])[:, 0]
    y = 0.3 + torch.randn(1, 1, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    measured = level if isinstance(noise, White) else GaussianField(Matern(0.3, 1.0, nugget=1e-2), variance=level**2)
    found = log_evidence(model(law, (1, 6)), Identity(), y, measured, repeats=2, flow=FLOW, prior=law)
    assert found.nats.tolist() == pytest.approx([normal(y[0, 0], law.mean.expand(6), total)] * 2, abs=2e-2)
    assert schedule != "Rectified" or float(found.nats[0]) == pytest.approx(
        normal(y[0, 0], law.mean.expand(6), total), abs=1e-3
    )


@pytest.mark.parametrize("schedule", KINDS)
def test_of_a_mixture_it_is_exact_at_every_level(schedule: str) -> None:
    law = mixture(SCHEDULES[schedule])
    y = torch.tensor([[[0.2, 0.4, -0.1]]], dtype=F64)
    for level in (0.1, 0.5, 3.0):
        total = law.variances + level**2
        log = law.log_weights - 0.5 * (
            (y - law.means).square().flatten(1).sum(1) / total + 3 * (2 * math.pi * total).log()
        )
        found = log_evidence(model(law, (1, 3)), Identity(), y, level, repeats=1, flow=FLOW, prior=law)
        assert float(found.nats) == pytest.approx(float(log.logsumexp(0)), abs=2e-2 if schedule == "VP" else 5e-3)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4, 1e-5])
def test_the_solver_errs_by_no_more_than_it_says(tolerance: float) -> None:
    for law, shape in (
        (mixture(SCHEDULES["VP"]), (1, 3)),
        (Gaussian(SDE(SCHEDULES["VP"]), spectrum((6,), 1.0, 0.5), mean=0.3), (1, 6)),
    ):
        y = torch.tensor([0.2, 0.4, -0.1], dtype=F64).repeat(2)[: shape[1]].reshape(1, *shape)
        for level in (0.05, 0.5):
            exact, found = (
                log_evidence(model(law, shape), Identity(), y, level, repeats=1, flow=flow, prior=law).nats
                for flow in (ProbabilityFlow(1e-8, Exact()), ProbabilityFlow(tolerance, Exact()))
            )
            assert float((found - exact).abs()) < ProbabilityFlow(tolerance).solver_error(shape[1])


def test_what_is_not_drawn_is_computed_once() -> None:
    law = gaussian(SCHEDULES["Rectified"], "white")
    asked = []

    class Counting(torch.nn.Module):
        """The law, and how many fields it is asked for."""

        sde = law.sde

        def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Tensor:
            asked.append(len(x_t))
            return law(x_t, t)

    y = law.marginal((1, 1, 8), time(0.2), generator=keys(1))
    for probes, count in ((Exact(), 1), (Rademacher(), 3)):
        asked.clear()
        flow = ProbabilityFlow(1e-3, probes)
        found = log_evidence(model(law, (1, 8)), Identity(), y, 0.3, repeats=3, flow=flow, prior=Counting())
        assert max(asked) == count and [len(value) for value in found] == [3, 3, 3]


# --------------------------------------------------------------------------------------------------- units, unitary operators
MAPS: dict[str, tuple[LinearOperator, float]] = {  # of fields of 2 channels
    "identity": (Identity(), 0.6),
    "factor": (Scale(torch.tensor(-5.0, dtype=F64)), 3.0),
    "permutation": (as_operator(lambda x: x.flip(-1).roll(1, -1), shape=(2, 2, 3)), 0.6),
    "Fourier": (Compose((Fourier(), Scale(torch.tensor(2.0, dtype=F64)))), 1.2),
}


@pytest.mark.parametrize("name", MAPS)
def test_units_and_unitary_maps_are_accounted_for(name: str) -> None:
    """x = 4 z + 10 with z Gaussian, y = A x + n: a density of y in data units, and not of z."""
    operator, noise = MAPS[name]
    shape = (2, 2, 3)
    law = Gaussian(SDE(SCHEDULES["Rectified"]), spectrum((2, 3), 1.0, 0.5), mean=0.3)
    inside = model(law, shape, scaled(4.0, 10.0, 2))
    a, flat = matrix(operator, shape), torch.eye(12, dtype=F64).reshape(12, *shape)
    prior = 16 * torch.fft.ifftn(law.spectrum * torch.fft.fftn(flat, dim=(-2, -1)), dim=(-2, -1)).real.flatten(1)
    mean = torch.full((12,), 4.0 * 0.3 + 10, dtype=F64)
    y = a @ (mean + 3 * torch.randn(12, dtype=F64, generator=torch.Generator().manual_seed(1)))
    found = log_evidence(
        inside, operator, y.reshape(1, *operator(flat).shape[1:]), noise, repeats=1, flow=FLOW, prior=law
    )
    exact = normal(y, a @ mean, a @ prior @ a.T + noise**2 * torch.eye(12, dtype=F64))
    assert float(found.nats) == pytest.approx(exact, abs=2e-3)


def test_the_noise_of_each_value_serves_where_it_makes_up_for_a_factor() -> None:
    """A = diag f and noise σ f: A C A* is a multiple of R, though neither of them is one of the identity."""
    law = mixture(SCHEDULES["Rectified"])
    factor = torch.tensor([2.0, -0.5, 4.0], dtype=F64)
    x = torch.tensor([[[0.2, 0.4, -0.1]]], dtype=F64)
    prior = model(law, (1, 3))
    plain = log_evidence(prior, Identity(), x, 0.4, repeats=1, flow=FLOW, prior=law).nats
    each = log_evidence(prior, Scale(factor), factor * x, 0.4 * factor.abs(), repeats=1, flow=FLOW, prior=law).nats
    assert float(each) == pytest.approx(float(plain - factor.abs().log().sum()), abs=1e-8)


def test_inside_a_region_it_is_that_of_what_is_known_there() -> None:
    """x = 0 and y of the region's noise alone: N(0, (1 + σ²) C) of the cells inside, whatever stands outside."""
    region = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 1]]).bool()
    noise = MaskedField((3, 3), runs_of(region.numpy()), length=0.4)

    class Known(torch.nn.Module):
        """E[x | x_t] of x ~ N(0, C): a multiple of x_t."""

        sde = SDE(SCHEDULES["Rectified"], noise)

        def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Tensor:
            alpha, sigma = self.sde.scales(t, x_t)
            return alpha / (alpha**2 + sigma**2) * x_t

    law = Known()
    inside = model(law, (1, 3, 3))
    y = torch.randn(1, 1, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    cells = matrix(noise.covariance, (1, 3, 3))[region.flatten()][:, region.flatten()]
    exact = normal(y[0, 0][region], torch.zeros(6, dtype=F64), (1 + 0.25) * cells)
    measured = MaskedField((3, 3), runs_of(region.numpy()), length=0.4, variance=0.25)
    part = Measurement(Mask(region.double()), y, torch.where(region, 0.5, torch.inf))
    assert part.as_noisy_field(White(), (1, 3, 3)) is None  # of white noise, which is everywhere
    for outside in (0.0, 7.0, math.nan):
        for operator in (Identity(), Mask(region.double())):
            given = y.where(region, outside)
            found = log_evidence(inside, operator, given, measured, repeats=1, flow=FLOW, prior=law)
            assert float(found.nats) == pytest.approx(exact, abs=2e-3)


# ------------------------------------------------------------------------------------------------ particles, probes, conditions
def test_particles_agree_where_they_count() -> None:
    means = torch.tensor([[1.5, 0.0, 1.0, 0.0], [-1.5, 0.5, 0.0, 1.0], [0.0, -2.0, -1.0, -1.0]], dtype=F64)
    law = Mixture(
        SDE(EDM()), means[:, None], torch.tensor([0.1, 0.2, 0.3], dtype=F64), torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    )
    prior, y = model(law, (1, 4)), torch.tensor([[[0.4, 0.3, 0.2, -0.5]]], dtype=F64)
    sampler = Sampler(60, DPMSolverPP2M(eta=1.0), EDMGrid(ratio_min=0.01))
    counted = [
        weighed(prior, Identity(), y, 0.5, particles=600, seed=s, sampler=sampler, method=PiGDM(), prior=law)
        for s in range(3)
    ]
    assert min(min(one.effective) for one in counted) > 50
    found = float(log_evidence(prior, Identity(), y, 0.5, repeats=1, flow=FLOW, prior=law).nats)
    mean = torch.tensor([one.log_evidence for one in counted], dtype=F64).logsumexp(0) - math.log(3)
    assert found == pytest.approx(float(mean), abs=0.1)


def test_probes_have_no_bias_and_each_repeat_its_own() -> None:
    law = gaussian(SCHEDULES["Rectified"], "coloured data")
    y = law.marginal((1, 1, 8), time(0.2), generator=keys(1))
    prior = model(law, (1, 8))
    exact = float(log_evidence(prior, Identity(), y, 0.3, repeats=1, flow=FLOW, prior=law).nats)
    found = log_evidence(
        prior, Identity(), y, 0.3, repeats=300, seed=1, flow=ProbabilityFlow(1e-4, Rademacher()), prior=law
    ).nats
    assert found.std() > 0.01
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / math.sqrt(300)


def test_a_condition_is_that_of_every_repeat() -> None:
    law = gaussian(SCHEDULES["Rectified"], "white")

    class Shifted(torch.nn.Module):
        """The law of `law` moved by what it is conditioned on."""

        sde = law.sde

        def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
            shift = cond["shift"][:, :, None]
            return shift + law(x_t - self.sde.scales(t, x_t)[0] * shift, t)

    y, shift = law.marginal((1, 1, 8), time(0.2), generator=keys(1)), torch.tensor([[2.0]], dtype=F64)
    prior = model(law, (1, 8))
    plain = log_evidence(prior, Identity(), y, 0.3, repeats=2, flow=FLOW, prior=law).nats
    moved = log_evidence(
        prior, Identity(), y + 2, 0.3, repeats=2, flow=FLOW, cond={"shift": shift}, prior=Shifted()
    ).nats
    torch.testing.assert_close(moved, plain, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- what it is not of
FIELDS = torch.zeros(1, 1, 2, 4, dtype=F64)
OTHERS = {
    "hidden pixels": Measurement(Mask(torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=F64)), FIELDS, 0.5),
    "missing values": Measurement(Identity(), FIELDS, torch.tensor([0.5, 0.5, math.inf, 0.5], dtype=F64)),
    "uneven noise": Measurement(Identity(), FIELDS, torch.tensor([0.5, 0.5, 0.4, 0.5], dtype=F64)),
    "coloured noise": Measurement(Identity(), FIELDS, FIELD),
    "blur": Measurement(Blur(0.5), FIELDS, 0.5),
    "averages": Measurement(Coarsen(2), FIELDS[..., :1, :2], 0.5),
    "no noise": Measurement(Identity(), FIELDS, 0.0),
    "nonlinear": Measurement(Saturated(3.0), FIELDS, 0.5),
    "any": LogLikelihood(lambda x: -x.square().flatten(1).sum(1)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_field_with_the_noise_of_the_process_is_refused(name: str) -> None:
    law = Gaussian(SDE(EDM()), spectrum((2, 4)))
    with pytest.raises(InputError, match="take `weighed`"):
        log_evidence(model(law, (1, 2, 4)), OTHERS[name], prior=law)


def test_white_noise_is_none_of_a_process_of_fields_or_of_uneven_channels() -> None:
    of_fields = Gaussian(SDE(EDM(), FIELD), spectrum((2, 4)))
    with pytest.raises(InputError, match="take `weighed`"):
        log_evidence(model(of_fields, (1, 2, 4)), Identity(), FIELDS, 0.5, prior=of_fields)
    uneven = Standardise().fit([Batch(torch.randn(9, 2, 2, 4) * torch.tensor([1.0, 3.0])[:, None, None])])
    law = Gaussian(SDE(EDM()), spectrum((2, 4)))
    prior, y = model(law, (2, 2, 4), uneven.double()), FIELDS.expand(1, 2, 2, 4)
    with pytest.raises(InputError, match="take `weighed`"):
        log_evidence(prior, Identity(), y, 0.5, prior=law)
    scale = (
        uneven.inverse(torch.ones(1, 2, 1, 1, dtype=F64)) - uneven.inverse(torch.zeros(1, 2, 1, 1, dtype=F64))
    ).abs()
    found = log_evidence(prior, Identity(), y, 0.5 * scale.expand_as(y), repeats=1, flow=FLOW, prior=law).nats
    inside = model(law, (2, 2, 4), scaled(1.0, 0.0, 2))
    plain = log_evidence(inside, Identity(), uneven(y), 0.5, repeats=1, flow=FLOW, prior=law).nats
    assert float(found) == pytest.approx(float(plain - 8 * scale.log().sum()), abs=1e-5)


@pytest.mark.parametrize(
    ("noise", "ok"),
    [
        (0.0019, False),
        (0.002 * (1 - 1e-4), False),
        (0.002, True),
        (80.0, True),
        (80.0 * (1 + 1e-4), False),
        (81.0, False),
    ],
)
def test_a_noise_beyond_the_levels_of_the_process_is_refused(noise: float, ok: bool) -> None:
    law = Gaussian(SDE(EDM(0.002, 80.0)), spectrum((2, 4), scale=0.5))
    prior = model(law, (1, 2, 4), scaled(3.0, 1.0))
    if ok:
        flow = ProbabilityFlow(1e-4, Exact())
        found = float(log_evidence(prior, Identity(), FIELDS, 3 * noise, repeats=1, flow=flow, prior=law).nats)
        variance = law.spectrum.expand(1, 2, 4) + noise**2
        modes = torch.fft.fftn((FIELDS[0] - 1) / 3, dim=(-2, -1), norm="ortho").abs().square()
        exact = float(-0.5 * (modes / variance + (2 * math.pi * variance).log()).sum() - 8 * math.log(3))
        assert found == pytest.approx(exact, abs=1e-2)
        return
    with pytest.raises(InputError, match=f"{noise:.6g} in model space, and the process has levels from 0.002 to 80"):
        log_evidence(prior, Identity(), FIELDS, 3 * noise, repeats=1, flow=FLOW, prior=law)
