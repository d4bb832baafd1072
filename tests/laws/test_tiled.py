"""A large domain in tiles: the same as in one piece for a denoiser that looks no further than the margin, and no seams."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from laws.cases import keys
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.samplers import Heun, Sampler
from scorefield.samplers.tiled import Tiled


class Local:
    """x̂ that sees a neighbourhood of 2 points and the condition there."""

    sde = SDE(EDM(0.02, 20.0))

    def __call__(self, x_t, t, cond=None):
        mean = F.avg_pool2d(F.pad(x_t, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        sigma = self.sde.schedule.sigma(t).to(x_t)
        return (mean.tanh() + cond["field"]) / (1 + sigma)


@pytest.mark.parametrize("shape", [(40, 52), (33, 16), (10, 12)])
def test_tiled_is_the_whole_for_a_local_denoiser(shape) -> None:
    cond = {"field": torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0))}
    sampler = Sampler(steps=6, step=Heun())
    whole, tiled = (
        sampler(denoiser, (2, 1, *shape), generator=keys(2), like=torch.empty(0), cond=cond)
        for denoiser in (Local(), Tiled(Local(), (16, 16), 3))
    )
    assert (whole - tiled).abs().max() < 1e-4 * whole.abs().max()


def test_no_peak_at_the_period_of_the_tiles() -> None:
    """A denoiser that is wrong at the edges of its tile: 1 there, 0 inside. What is left of it has no line in the spectrum."""

    class Edgy(Local):
        def __call__(self, x_t, t, cond=None):
            inner = F.pad(torch.zeros_like(x_t)[..., 3:-3, 3:-3], (3, 3, 3, 3), value=1.0)
            return x_t + inner

    x = torch.zeros(1, 1, 64, 64)
    seams = Tiled(Edgy(), (16, 16), 3)(x, torch.tensor(0.5)) - x
    assert seams[..., 3:-3, 3:-3].abs().max() == 0 and seams[..., 0, :].min() == 1


def test_weights_add_up_and_every_point_is_inside_a_tile() -> None:
    class One(Local):
        def __call__(self, x_t, t, cond=None):
            return torch.ones_like(x_t)

    constant = Tiled(One(), (9, 12), 2)
    assert torch.allclose(constant(torch.zeros(1, 2, 31, 40), torch.tensor(0.1)), torch.ones(1, 2, 31, 40))
    with pytest.raises(InputError, match="leave nothing"):
        Tiled(Local(), (8, 8), 4)
