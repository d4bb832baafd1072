"""A fitted sampler is at least as near to the flow as the one it was fitted from, on noise that neither has seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from laws.cases import SCHEDULES, rarely
from scorefield.core.noise import GaussianField, Matern, White
from scorefield.core.oracle import Gaussian, Mixture
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.samplers import DDIM, DPMSolverPP2M, EDMGrid, Sampler
from scorefield.samplers.tuned import CorrectedMultistep, fit, tune

LIKE = torch.zeros((), dtype=torch.float64)
SHAPE = (1, 16)


def solver(denoiser, n: int, shape=SHAPE):
    def solve(sampler: Sampler, part: int) -> Tensor:
        keys = [(part, i) for i in range(n)]
        return sampler(denoiser, (n, *shape), generator=Generators(keys), like=LIKE)

    return solve, denoiser.sde.schedule


def gaussian(schedule, noise) -> Gaussian:
    mode = torch.fft.fftfreq(16, 1 / 16, dtype=torch.float64)
    return Gaussian(SDE(schedule, noise), (4 / (1 + mode**2))[None], mean=0.3)


def start(denoiser, sampler: Sampler, n: int) -> tuple[Tensor, Tensor]:
    """Where a sampler ends from noise of its own seed, and where the exact flow does from the same noise at t = 1."""
    top = sampler.grid(denoiser.sde.schedule, sampler.steps)[0]
    drawn = sampler(denoiser, (n, *SHAPE), generator=Generators([(99, i) for i in range(n)]), like=LIKE)
    noise = denoiser.sde.prior((n, *SHAPE), top, generator=Generators([(99, i) for i in range(n)]), like=LIKE)
    first = EDMGrid()(denoiser.sde.schedule, sampler.steps)[0]
    sigma, own = denoiser.sde.schedule.sigma(first), denoiser.sde.schedule.sigma(top)
    return drawn, denoiser.flow(noise * sigma / own, first, torch.zeros_like(first))


def error(denoiser, sampler: Sampler, n: int = 200) -> float:
    drawn, exact = start(denoiser, sampler, n)
    return float((drawn - exact).square().mean().sqrt())


@pytest.mark.parametrize("noise", [White(), GaussianField(Matern(0.2))], ids=["white", "field"])
@pytest.mark.parametrize("name", rarely(SCHEDULES))
def test_it_is_nearer_to_the_closed_form_than_the_default_on_fresh_noise(name: str, noise) -> None:
    denoiser = gaussian(SCHEDULES[name], noise)
    for steps in (2, 5):
        default = Sampler(steps, DPMSolverPP2M(), EDMGrid())
        tuned = tune(*solver(denoiser, 16), steps, rounds=5, fine=50)
        before, after = (error(denoiser, sampler) for sampler in (default, tuned.sampler))
        assert after <= before, (steps, before, after)
        if steps == 5:
            assert after < 0.5 * before and tuned.numbers == 8


def test_it_helps_where_the_flow_bends_for_every_field_differently() -> None:
    """A mixture in two dimensions, where the fine solution is all there is to fit to."""
    means = torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.5, -2.0]], dtype=torch.float64)[:, None]
    denoiser = Mixture(SDE(SCHEDULES["VE"]), means, torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64))
    tuned = tune(*solver(denoiser, 200, (1, 2)), 6, rounds=8, fine=200)
    assert tuned.error < 0.8 * tuned.before
    none = tune(*solver(denoiser, 50, (1, 2)), 6, rounds=0, fine=200)
    assert none.error == none.before and none.numbers == 0


def test_no_corrections_are_the_steps_that_they_stand_for() -> None:
    denoiser = gaussian(SCHEDULES["VP"], White())
    for value, step in ((1.0, DPMSolverPP2M()), (0.0, DDIM())):
        ones = Sampler(6, CorrectedMultistep([value] * 4), EDMGrid())
        known = replace(ones, step=step)
        torch.testing.assert_close(start(denoiser, ones, 4)[0], start(denoiser, known, 4)[0], rtol=1e-12, atol=1e-12)


def test_a_linear_problem_is_solved_in_a_round_and_no_round_makes_it_worse() -> None:
    matrix = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64)
    found = fit(lambda p: matrix @ (p - exact), torch.zeros(3, dtype=torch.float64), rounds=3)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)
    errors: list[float] = []
    fit(lambda p: (p**3 - p + 2).tanh() + p.abs(), torch.full((2,), 3.0).double(), 8, lambda _, e: errors.append(e))
    assert errors == sorted(errors, reverse=True)


def test_residuals_may_be_less_precise_and_may_depend_on_nothing() -> None:
    exact = torch.tensor([0.5, -0.3], dtype=torch.float64)
    found = fit(lambda p: (p - exact).float(), torch.zeros(2, dtype=torch.float64), rounds=3)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)
    assert torch.equal(fit(lambda p: torch.ones(5), exact, rounds=3), exact)


def test_what_cannot_be_tuned_is_refused() -> None:
    denoiser = gaussian(SCHEDULES["VP"], White())
    with pytest.raises(InputError, match="give 2 or more"):
        tune(*solver(denoiser, 1), 1)
    with pytest.raises(InputError, match="corrections for 2 steps"):
        Sampler(6, CorrectedMultistep([1.0]), EDMGrid())(
            denoiser, (1, *SHAPE), generator=Generators([(0, 0)]), like=LIKE
        )
