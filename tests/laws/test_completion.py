"""A prior from incomplete data: on Gaussian fields, expectation-maximisation finds mean and covariance; what is unseen is
refused.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from laws.cases import SCHEDULES, keys, spectrum, time
from scorefield.completion import completed, refuse_unseen
from scorefield.core.oracle import Gaussian
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.guidance import MomentMatching
from scorefield.samplers import DPMSolverPP2M, EDMGrid, Sampler

pytestmark = pytest.mark.usefixtures("unchecked")
DOUBLE = torch.float64
SAMPLER = Sampler(20, DPMSolverPP2M(), EDMGrid(ratio_min=0.005, ratio_max=40.0))
NOISE = 0.1


def seen(fields: int) -> tuple[Gaussian, Tensor, Tensor]:
    """Gaussian fields of 8 points, each point hidden with probability 0.4 and seen with noise."""
    law = Gaussian(SDE(SCHEDULES["EDM"]), spectrum((8,), 0.5, 1.0), mean=0.5)
    x = law.marginal((fields, 1, 8), time(0.0), generator=keys(fields, 1))
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(3), dtype=DOUBLE) > 0.4
    y = x + NOISE * torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)
    return law, torch.where(known, y, torch.nan), known


def maximised(x: Tensor, law: Gaussian) -> Gaussian:
    """The stationary Gaussian law of greatest likelihood."""
    mean = x.mean()
    power = torch.fft.fft(x - mean, norm="ortho").abs().square().mean((0, 1))
    return Gaussian(law.sde, power[None], mean=mean)


def iterated(fields: int, rounds: int) -> tuple[Gaussian, Gaussian]:
    law, y, known = seen(fields)
    guess = Gaussian(law.sde, torch.full((1, 8), 0.3, dtype=DOUBLE))
    for number in range(rounds):
        x = completed(
            guess,
            y,
            known,
            NOISE,
            method=MomentMatching(8, 1e-4),
            sampler=SAMPLER,
            generator=keys(fields, 100 + number),
        )
        guess = maximised(x, law)
    return law, guess


def test_the_spectrum_of_gaussian_fields_is_found_though_none_is_whole() -> None:
    law, found = iterated(400, 9)
    assert abs(float(found.mean) - 0.5) < 0.15
    assert float((found.spectrum / law.spectrum - 1).abs().max()) < 0.45
    assert float((found.spectrum / law.spectrum).log().mean().abs()) < 0.15


@pytest.mark.slow
def test_it_is_found_to_within_the_error_of_so_many_fields() -> None:
    """Of 4000 fields with 60 % known: a mode that is seen whole would have a relative error of √(2/4000) = 2 %."""
    law, found = iterated(4000, 20)
    assert abs(float(found.mean) - 0.5) < 0.05
    assert float((found.spectrum / law.spectrum - 1).abs().max()) < 0.15


def test_draws_of_incomplete_fields_have_the_law_of_whole_ones() -> None:
    """Under the right prior: what is drawn is what was hidden, in mean and covariance."""
    law, y, known = seen(1500)
    x = completed(law, y, known, NOISE, method=MomentMatching(8, 1e-4), sampler=SAMPLER, generator=keys(1500, 7))
    power = torch.fft.fft(x - 0.5, norm="ortho").abs().square().mean((0, 1))
    assert abs(float(x.mean()) - 0.5) < 0.05
    assert float((power / law.spectrum[0] - 1).abs().max()) < 0.15


def test_what_is_known_exactly_stays_and_what_no_field_shows_is_named() -> None:
    law, y, known = seen(20)
    x = completed(law, y, known, 0.0, sampler=SAMPLER, generator=keys(20, 7))
    torch.testing.assert_close(x[known], y[known])
    assert bool(x.isfinite().all())
    shown = torch.ones(1, 4, 4)
    refuse_unseen(shown)
    shown[0, 1, 2] = shown[0, 3, 3] = 0
    with pytest.raises(InputError, match=r"2 of 16 elements are known in no field, the first at \(0, 1, 2\)"):
        refuse_unseen(shown)
