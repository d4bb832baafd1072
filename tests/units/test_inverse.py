"""Measurements in data units, as a model sees them."""

from __future__ import annotations

import logging

import pytest
import torch

from laws.cases import gaussian, keys, time
from laws.posterior import Exact
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.noise import GaussianField, Matern
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Batch, Normaliser, Standardise
from scorefield.foundation.errors import InputError
from scorefield.guidance import (
    DPS,
    Guided,
    LogLikelihood,
    Measurement,
    Method,
    MomentMatching,
    NoisyLikelihood,
    Observation,
    PiGDM,
    Poisson,
    Proximal,
)
from scorefield.inverse import InverseProblem, in_model_space, posterior, weighed
from scorefield.model import Model
from scorefield.nn import UNet
from scorefield.operators import Coarsen, Compose, Differentiable, Grey, Identity, Mask, Saturated, as_operator

F64 = torch.float64


def model(normaliser: Normaliser, shape: tuple[int, ...]) -> Model:
    net = UNet(shape[0], shape[0], spatial=len(shape) - 1, channels=4, multipliers=(1,))
    return Model(SDE(EDM()), net, EDMPreconditioner(), normaliser, shape=shape)


def test_a_measurement_in_data_units_is_used_as_such() -> None:
    """Data units x = s z + b per channel, z Gaussian: E[x | x_t, y] from the whole job is that of matrices for z."""
    grid, shape = (4, 2), (3, 4, 2)
    scale, shift = (torch.tensor(v, dtype=F64).reshape(3, 1, 1) for v in ([40.0, 2.0, 0.5], [280.0, -1.0, 3.0]))
    normaliser = Standardise()
    normaliser.scale, normaliser.shift = scale.flatten().float(), shift.flatten().float()
    prior = gaussian(EDM(), "coloured data", grid)
    truth = scale * prior.marginal((1, *shape), time(0.0), generator=keys(1)) + shift
    for operator in (Compose((Grey((0.2, 0.3, 0.5)), Coarsen(2))), Mask(torch.arange(2) > 0)):
        y = operator(truth)
        measurement = in_model_space(model(normaliser, shape), InverseProblem(operator, y.float(), 0.3))
        single = Gaussian(prior.sde, prior.spectrum.float())
        x_t = prior.marginal((2, *shape), time(0.3), generator=keys(2, 1))
        found = Guided(single, measurement, MomentMatching(50, 1e-6))(x_t.float(), time(0.3))

        class Rescaled:
            def __call__(self, z: torch.Tensor, operator=operator) -> torch.Tensor:
                return operator(scale * z)

        exact = Exact(prior, Rescaled(), shape, 0.3)
        expected = exact.denoise(x_t, time(0.3), y - operator(shift.expand(1, *shape)))
        torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=0)  # of single precision at 280 ± 40


STD = torch.tensor([0.3, 1.0, 2.0, torch.inf], dtype=F64)
KNOWN: dict[str, Observation] = {
    "one noise": Measurement(Coarsen(2), torch.full((1, 3, 2), 3.0, dtype=F64), 0.3),
    "each": Measurement(Identity(), torch.full((1, 3, 4), 3.0, dtype=F64), STD),
    "covariance": Measurement(
        Identity(), torch.full((1, 3, 4), 3.0, dtype=F64), GaussianField(Matern(0.3, nugget=0.1))
    ),
    "nonlinear": Measurement(Saturated(5.0), torch.full((1, 3, 4), 3.0, dtype=F64), 0.3),
    "counts": Poisson(Differentiable(lambda x: x.square()), torch.full((1, 3, 4), 3.0, dtype=F64), 2.0),
    "any": LogLikelihood(lambda x: -x.abs().flatten(1).sum(1)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_in_data_units_is_known_in_model_space(name: str) -> None:
    """The same density of y, whatever the units of z, and the same by the coordinates that particles compare."""
    normaliser = Standardise()
    normaliser.scale, normaliser.shift = torch.tensor([4.0, 2.0, 0.5]), torch.tensor([8.0, -1.0, 3.0])
    prior, known = model(normaliser, (3, 4)), KNOWN[name]
    z = torch.randn(5, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    inside = in_model_space(prior, known, (3, 4))
    expected = known.log_prob(prior.leave(z, {}))
    torch.testing.assert_close(inside.log_prob(z), expected, rtol=1e-5, atol=1e-4)
    compared = inside.comparison(prior.sde.noise, (3, 4), z)
    at = compared.of(z)
    torch.testing.assert_close(compared.density(at, at.new_zeros(at.shape[1])), expected, rtol=1e-5, atol=1e-4)


def test_a_normaliser_that_is_not_affine_is_refused() -> None:
    class Log(Normaliser):
        def fit(self, batches: list[Batch]) -> Normaliser:
            return self

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.log()

        def inverse(self, x: torch.Tensor) -> torch.Tensor:
            return x.exp()

        def log_det(self, x: torch.Tensor) -> torch.Tensor:
            return -x.log().flatten(1).sum(1)

    with pytest.raises(InputError, match="Log is not affine"):
        in_model_space(model(Log(), (1, 4)), InverseProblem(Identity(), torch.ones(1, 1, 4)))


def test_one_measurement_is_taken_at_a_time() -> None:
    with pytest.raises(InputError, match="one field"):
        posterior(model(Standardise(), (1, 4)), Identity(), torch.ones(2, 1, 4))


def test_particles_of_which_few_count_are_told_and_those_that_are_no_numbers_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "scorefield")
    normaliser = Standardise()
    normaliser.scale, normaliser.shift = torch.ones(1), torch.zeros(1)
    prior, y = model(normaliser, (1, 8)), torch.zeros(1, 1, 8)
    weighed(prior, Identity(), y, 0.1, method=PiGDM(), particles=4)
    assert "No more than" in caplog.text and "particles counted at some level: " in caplog.text
    torch.nn.init.constant_(next(prior.denoiser.parameters()), torch.nan)
    with pytest.raises(InputError, match="not finite"):
        weighed(prior, Identity(), y, 0.1, method=PiGDM(), particles=4)


@pytest.mark.parametrize("noise", [-1.0, float("inf"), float("nan")])
def test_what_is_no_standard_deviation_is_refused(noise: float) -> None:
    with pytest.raises(InputError, match="finite standard deviation"):
        posterior(model(Standardise(), (1, 4)), Identity(), torch.ones(1, 1, 4), noise)


@pytest.mark.parametrize("method", [DPS(), PiGDM(), MomentMatching(), Proximal(), NoisyLikelihood()], ids=repr)
def test_a_measurement_may_have_other_axes_than_a_field(method: Method) -> None:
    """Sums over an axis, as an operator of fields with one column and as a function without that axis."""
    prior, shape = gaussian(EDM(), "white", (4, 2)), (3, 4, 2)
    x_t, t = prior.marginal((2, *shape), time(0.3), generator=keys(2, 1)), torch.tensor([0.2, 0.3], dtype=F64)
    y = torch.ones(1, 3, 4, dtype=F64)
    flat = Measurement(as_operator(lambda x: x.mean(-1), shape), y, 0.3)
    column = Measurement(Coarsen((1, 2)), y[..., None], 0.3)
    found, expected = (Guided(prior, measurement, method)(x_t, t) for measurement in (flat, column))
    torch.testing.assert_close(found, expected)
