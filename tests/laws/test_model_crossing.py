"""One way into model space and one way out: every method of a model agrees with the law that its data have in data units.

Per pixel c ~ N(0, 1) and x | c ~ N(0.9 c, 0.19), x in units of 100 + 50 · (that) and c in those of 1000 + 20 · (that), the
network exact: densities, latents, samples and denoising are known, whichever of the network and the mean knows of c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from often import crossed, rarely
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.residual import ConditionalMean
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Batch, Standardise
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.guidance import DPS, MomentMatching, NoisyLikelihood, PiGDM, Proximal, Replacement
from scorefield.inverse import posterior
from scorefield.losses import Denoising
from scorefield.model import Model
from scorefield.nn.network import Network
from scorefield.operators import Mask
from scorefield.samplers import Exact, ProbabilityFlow, Sampler

N, SHAPE = 3, (1, 2, 3)
LEFT = 0.19  # the variance of x given c, in units of that of x
NAN = float("nan")
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-4, torch.bfloat16: 0.03}
STEPS = 0.05  # the error of Heun's method, of a standard deviation


class ExactNetwork(Network):
    """F of `EDMPreconditioner` for x | c ~ N(slope · c, variance) in model space; c is its field, vector, or ±1 by its label."""

    def __init__(self, slope: float, variance: float, labels: int = 0, cond_channels: int = 0, vector: int = 0) -> None:
        super().__init__()
        self.labels, self.cond_channels, self.vector, self.variance = labels, cond_channels, vector, variance
        self.slope = torch.nn.Parameter(torch.tensor(slope))

    def forward(self, x: Tensor, label: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        assert x.dtype == self.slope.dtype and label.dtype in (torch.float32, torch.float64)
        cond = cond or {}
        c = torch.zeros_like(x)
        if self.cond_channels:
            assert cond["field"].dtype == x.dtype
            c = cond["field"]
        if self.vector:
            c = cond["vector"].reshape(-1, 1, 1, 1)  # in float32 at least, as networks embed it
        if self.labels:
            c = (2.0 * cond["label"] - 1).reshape(-1, 1, 1, 1)
        ratio = (4 * label).exp().reshape(-1, 1, 1, 1)
        of_x, of_c = (self.variance - 1), (1 + ratio**2).sqrt() * self.slope
        return (ratio / (self.variance + ratio**2) * (of_c * c + of_x * x)).to(x.dtype)


class LinearMean(ConditionalMean):
    """slope · c."""

    def __init__(self, slope: float, vector: int = 0) -> None:
        super().__init__()
        self.slope, self.vector = slope, vector

    def forward(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        c = cond["vector"].reshape(-1, 1, 1, 1) if self.vector else cond["field"]
        return self.slope * c.to(x).expand_as(x)


@dataclass(frozen=True)
class Case:
    """A model, conditions in data units, and c: of x | c, and of the part of it that the network has to know."""

    net: ExactNetwork
    mean: LinearMean | None
    cond: dict[str, Tensor]
    c: Tensor
    explained: float = 0.9  # by what is known, in data units: 0 for nothing

    def model(self, dtype: torch.dtype = torch.float32) -> Model:
        model = Model(
            SDE(EDM(0.002, 80.0)),
            self.net,
            EDMPreconditioner(),
            Standardise(),
            self.sampler,
            SHAPE,
            Standardise(),
            self.mean,
        )
        model.fit([four()])
        return model.to(dtype).eval()

    @property
    def sampler(self) -> Sampler:
        return Sampler(steps=40)

    @property
    def centre(self) -> Tensor:
        """E[x | c] in data units."""
        return 100 + 50 * self.explained * self.c.double().expand(N, *SHAPE)

    @property
    def spread(self) -> float:
        """The standard deviation of x | c in data units."""
        return 50 * math.sqrt(1 - self.explained**2)

    def inside(self, dtype: torch.dtype) -> tuple[Tensor, float]:
        """Mean and variance of the network's law, in model space."""
        return float(self.net.slope.detach()) * self.c.to(dtype).expand(N, *SHAPE), self.net.variance


def four() -> Batch:
    """A field whose mean and standard deviation, and those of what c leaves of it, are exactly those of the law."""
    c, rest = torch.tensor([1.0, 1, -1, -1]), torch.tensor([1.0, -1, 1, -1])
    x = 100 + 50 * (0.9 * c + math.sqrt(LEFT) * rest)
    known = 1000 + 20 * c
    return Batch(x.reshape(4, 1, 1, 1), {"field": known.reshape(4, 1, 1, 1), "vector": known.reshape(4, 1)})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(name: str) -> Case:
    c = draw(N, *SHAPE, seed=1)
    field = {"field": (1000 + 20 * c).float()}
    alike = c[:, :, :1, :1]  # of all pixels, which a vector says
    vector = {"vector": (1000 + 20 * alike).reshape(N, 1)}
    holes = torch.arange(6).reshape(SHAPE) % 3 == 0
    left = 0.35  # of the variance, by half of c
    cases = {
        "unconditional": lambda: Case(ExactNetwork(0.0, 1.0), None, {}, 0 * c, 0.0),
        "field": lambda: Case(ExactNetwork(0.9, LEFT, cond_channels=1), None, field, c),
        "label": lambda: Case(
            ExactNetwork(0.9, LEFT, labels=2),
            None,
            {"label": torch.tensor([0, 1, 0])},
            torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64).reshape(N, 1, 1, 1),
        ),
        "mean": lambda: Case(ExactNetwork(0.0, 1.0), LinearMean(0.9), field, c),
        "mean and field": lambda: Case(
            ExactNetwork(0.4 / math.sqrt(left), LEFT / left, cond_channels=1), LinearMean(0.5), field, c
        ),
        "vector": lambda: Case(ExactNetwork(0.9, LEFT, vector=1), None, vector, alike),
        "mean and vector": lambda: Case(
            ExactNetwork(0.4 / math.sqrt(left), LEFT / left, vector=1), LinearMean(0.5, vector=1), vector, alike
        ),
        "field with NaN": lambda: Case(
            ExactNetwork(0.9, LEFT, cond_channels=1),
            None,
            {"field": field["field"].masked_fill(holes, NAN)},
            c.masked_fill(holes, 0.0),  # what is not known is taken for its mean
        ),
    }
    return cases[name]()


NAMES = ["unconditional", "field", "label", "mean", "mean and field", "vector", "mean and vector", "field with NaN"]
everywhere = pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in NAMES for dtype in DTYPES],
    ids=lambda value: str(value).split(".")[-1],
)

rarely_everywhere = pytest.mark.parametrize(  # every name in one precision, each precision of some
    ("dtype", "name"), crossed(DTYPES, NAMES, DTYPES), ids=lambda value: str(value).split(".")[-1]
)


def x_of(case: Case, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Fields of the law in data units, and the standard normal numbers they are made of."""
    z = draw(N, *SHAPE, seed=seed)
    return (case.centre + case.spread * z).float(), z


def close(
    found: Tensor, expected: Tensor, case: Case, dtype: torch.dtype, times: float = 1.0, besides: float = 0.0
) -> None:
    """To some times the rounding of a precision and an error besides, in units of the spread of x."""
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    difference = (found.double() - expected.double()).abs().max() / case.spread
    assert difference < times * ROUNDING[dtype] + besides, float(difference)


@everywhere
def test_fields_enter_and_leave(name: str, dtype: torch.dtype) -> None:
    case = make(name)
    model, (x, z) = case.model(dtype), x_of(case)
    inside, given = model.enter(Batch(x, case.cond))
    mean, variance = case.inside(torch.float64)
    close(case.spread * inside, case.spread * (mean + math.sqrt(variance) * z), case, dtype, 0.3)
    close(model.leave(inside, given), x, case, dtype, 0.1)
    assert all(bool(value.isfinite().all()) for value in given.values())


@everywhere
def test_samples_have_their_law(name: str, dtype: torch.dtype) -> None:
    """The probability flow scales the noise that a sample starts from: each sample is known."""
    case = make(name)
    model = case.model(dtype)
    found = model.sample(N, seed=5, cond=case.cond, chunk=2)
    close(found, flowed(case, model), case, dtype, besides=STEPS)


def flowed(case: Case, model: Model, seed: int = 5) -> Tensor:
    """The samples of a seed: with x_t − m scaled by √(v + σ²) all the way, from x_1 = σ ξ on."""
    generator = Generators((seed, index, Stream.SAMPLE) for index in range(N))
    noise = generator.randn((N, *SHAPE), like=torch.empty(0, dtype=model.precision)).double()
    mean, variance = case.inside(torch.float64)
    start = 80 / math.sqrt(variance + 80**2)
    return case.centre + case.spread * (start * noise - mean * start / 80)


@everywhere
def test_scores_are_those_of_the_law_in_model_space(name: str, dtype: torch.dtype) -> None:
    case = make(name)
    x_t, (mean, variance) = draw(N, *SHAPE, seed=3), case.inside(torch.float64)
    model = case.model(dtype)
    for t in (torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64), 0.5):
        sigma = EDM(0.002, 80.0).sigma(torch.as_tensor(t, dtype=torch.float64)).reshape(-1, 1, 1, 1)
        expected = (mean - x_t) / (variance + sigma**2)
        close(case.spread * model.score(x_t, t, cond=case.cond), case.spread * expected, case, dtype, 5)


@pytest.mark.usefixtures("unchecked")
@rarely_everywhere
def test_densities_latents_and_fields_of_latents(name: str, dtype: torch.dtype) -> None:
    case = make(name)
    model, (x, z) = case.model(dtype), x_of(case)
    flow = ProbabilityFlow(1e-3 if dtype == torch.bfloat16 else 1e-6, Exact())
    normal = torch.distributions.Normal(case.centre, case.spread)
    found = model.log_prob(x, cond=case.cond, flow=flow)
    expected = normal.log_prob(x.double()).flatten(1).sum(1)
    assert (
        found.nats - expected
    ).abs().max() < 0.15  # of which most is what is left of m at the noisy end, where σ = 80
    mean, _ = case.inside(torch.float64)
    latent = z + mean / 80
    for each in (found.latent, model.encode(x, cond=case.cond, flow=flow)):
        close(case.spread * each, case.spread * latent, case, dtype, 5)
    close(model.decode(latent, cond=case.cond, flow=flow), x, case, dtype, 5)


@everywhere
def test_what_was_measured_with_white_noise_is_denoised(name: str, dtype: torch.dtype) -> None:
    case = make(name)
    noise = torch.tensor([5.0, 20.0, 40.0], dtype=torch.float64)
    share = (case.spread**2 / (case.spread**2 + noise**2)).reshape(N, 1, 1, 1)
    y = case.centre + 30 * draw(N, *SHAPE, seed=4)
    found = case.model(dtype).denoise(y.float(), noise, cond=case.cond, chunk=2)
    close(found, case.centre + share * (y - case.centre), case, dtype, 2)


KNOWN = torch.tensor([[True, True, False], [True, False, False]])
METHODS = {
    0.0: [Replacement(), DPS(), PiGDM(), MomentMatching()],
    0.1: [PiGDM(), MomentMatching(), Proximal(), NoisyLikelihood()],
}


def first(case: Case) -> Case:
    """The same for the first of its conditions alone."""
    c = case.c[:1].expand(N, *case.c.shape[1:])
    return Case(case.net, case.mean, {k: v[:1] for k, v in case.cond.items()}, c, case.explained)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", rarely(DTYPES, [torch.float32]), ids=str)
@pytest.mark.parametrize(("noise", "name"), crossed(METHODS, NAMES, METHODS))
def test_draws_given_a_measurement_have_it_and_the_rest_by_the_law(name: str, dtype: torch.dtype, noise: float) -> None:
    """Pixels are independent: one that was measured almost exactly is what was measured, another one as if nothing had been."""
    case = first(make(name))
    model = case.model(dtype)
    y = torch.where(KNOWN, case.centre[:1] + 2 * case.spread * draw(1, *SHAPE, seed=6).sign(), NAN).float()
    for method in METHODS[noise]:
        found = posterior(model, Mask(KNOWN), y, noise, method=method, n=N, seed=5, cond=case.cond)
        assert (found - y)[..., KNOWN].abs().max() < 0.01 * case.spread + (2 if noise else 0), method
        close(found.where(~KNOWN, 0), flowed(case, model).where(~KNOWN, 0), case, dtype, besides=STEPS)


@pytest.mark.usefixtures("unchecked")
@rarely_everywhere
def test_a_noisy_measurement_is_weighed_against_the_law(name: str, dtype: torch.dtype) -> None:
    """Moment matching is exact for Gaussian data: the flow scales the noise about the posterior mean."""
    case, noise = first(make(name)), 15.0
    model = case.model(dtype)
    y = (case.centre[:1] + 2 * case.spread).float()
    found = posterior(model, Mask(KNOWN), y, noise, n=N, seed=5, cond=case.cond)
    share = case.spread**2 / (case.spread**2 + noise**2)
    centre = case.centre + share * (y - case.centre)
    rest = (flowed(case, model) - case.centre) * math.sqrt(1 - share)
    assert ((found - centre - rest)[..., KNOWN].abs() < 0.08 * case.spread).all()


@pytest.mark.parametrize("name", ["unconditional", "field", "mean"])
def test_what_is_not_known_of_a_field_is_0_in_training(name: str) -> None:
    case = make(name)
    model, (x, _) = case.model(), x_of(case)
    mask = (torch.arange(6).reshape(SHAPE) % 2).expand(N, *SHAPE)
    whole, part = (model.enter(Batch(x.masked_fill(mask == 0, hole), case.cond, mask=mask))[0] for hole in (0.0, NAN))
    assert torch.equal(part, whole) and bool((part[mask == 0] == 0).all())
    assert torch.equal(part[mask == 1], model.enter(Batch(x, case.cond))[0][mask == 1])
    batch = model.prepare(Batch(x.masked_fill(mask == 0, NAN), case.cond, mask=mask))
    assert torch.equal(batch.x, part) and torch.equal(batch.mask, mask)
    assert bool(Denoising()(model.denoiser, batch, generator=Generators((0, i) for i in range(N))).isfinite().all())


def test_the_noise_of_what_is_learnt_from_is_in_units_of_what_the_mean_leaves() -> None:
    case = make("mean")
    x, _ = x_of(case)
    batch = case.model().prepare(Batch(x, case.cond, noise=torch.full((N,), 10.0)))
    torch.testing.assert_close(batch.noise, torch.full((N,), 10 / case.spread))
    with pytest.raises(InputError, match="mean"):
        make("mean").mean.subtract(Batch(x, case.cond, y=x))


def test_fields_with_values_that_are_not_known_have_no_density() -> None:
    case = make("field")
    x, _ = x_of(case)
    model, x = case.model(), x.index_fill(-1, torch.tensor([0]), NAN)
    for use in (model.log_prob, model.encode):
        with pytest.raises(InputError, match="known in part"):
            use(x, cond=case.cond)


def test_units_keep_their_digits_in_half_precision() -> None:
    """Temperatures of 280 K are 2 K apart in bfloat16."""
    model = make("field").model()
    before = {name: value.clone() for name, value in model.named_buffers()}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        model.to(dtype)
        assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
