"""The critic's distance is that of functions, on every grid, and a generator learnt against it finds the law."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from scorefield.core.denoiser import Denoiser, OneStep
from scorefield.core.noise import White
from scorefield.core.schedule import VP
from scorefield.core.sde import SDE
from scorefield.data import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses import Critic, Wasserstein
from scorefield.losses.adversarial import functional, norm
from scorefield.nn.network import Network

DOUBLE = torch.float64


class Weighed(Network):
    """F(u) = w(x) u(x), w(x) = a (1 + sin 2πx) along the last axis."""

    def __init__(self, a: float = 1.0, even: bool = False) -> None:
        super().__init__()
        self.a, self.even = nn.Parameter(torch.tensor(a, dtype=DOUBLE)), even

    def forward(self, x: Tensor, label: Tensor, cond: object = None) -> Tensor:
        places = (torch.arange(x.shape[-1], dtype=x.dtype) + 0.5) / x.shape[-1]
        shape = torch.ones_like(places) if self.even else 1 + torch.sin(2 * math.pi * places)
        return self.a * shape * x


class Affine(Network):
    """x = shift + e^scale ξ."""

    def __init__(self, shift: float = 0.0, scale: float = 0.0) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.tensor(v, dtype=DOUBLE) for v in (shift, scale))

    def forward(self, x: Tensor, label: Tensor, cond: object = None) -> Tensor:
        shift, scale = self.weights
        return shift + scale.exp() * x


class Pointwise(Network):
    """A perceptron of every value."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 1)).double()

    def forward(self, x: Tensor, label: Tensor, cond: object = None) -> Tensor:
        return self.layers(x.movedim(1, -1)).movedim(-1, 1)


def keys(n: int, seed: int = 0) -> Generators:
    return Generators((seed, index) for index in range(n))


def generator(net: Network) -> Denoiser:
    return Denoiser(net, SDE(VP(), White()), OneStep())


@pytest.mark.parametrize("grid", [(16,), (64,), (8, 32), (4, 6, 16)])
def test_the_derivative_has_the_norm_of_the_functional_on_every_grid(grid: tuple[int, ...]) -> None:
    """D(u) = ∫ w u has D' = w with ‖w‖² = a² (1 + 1/2)."""
    x = torch.randn(3, 1, *grid, dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(functional(Weighed(2.0), x, None, None).sum(), x)
    torch.testing.assert_close(norm(slope, None), torch.full((3,), 2 * math.sqrt(1.5), dtype=DOUBLE))


@pytest.mark.parametrize("masked", [False, True])
def test_the_best_linear_critic_is_that_of_the_closed_form(masked: bool) -> None:
    """Of a shift by m: −am + λ(a − 1)² is least at a = 1 + m/2λ, where the distance is told as a m."""
    m, strength = 0.7, 5.0
    mask = (torch.arange(8) < 5).expand(4, 1, 8).double() if masked else None
    x = torch.full((4, 1, 8), m, dtype=DOUBLE)
    batch = Batch(x if mask is None else x * mask, mask=mask)
    made = generator(Affine(0.0, -50.0))  # the function 0
    for a, expected in ((1 + m / (2 * strength), 0.0), (1.0, -m), (1.5, -m + strength)):
        critic = Weighed(a, even=True)
        loss = Critic(critic, strength)(made, batch, generator=keys(4)).mean()
        (slope,) = torch.autograd.grad(loss, critic.a)
        torch.testing.assert_close(slope, torch.tensor(expected, dtype=DOUBLE))
        found = Wasserstein(critic, strength)(made, batch, generator=keys(4))
        torch.testing.assert_close(found, torch.full((4,), a * m, dtype=DOUBLE))


def test_the_critic_leaves_the_generator_and_draws_other_noise() -> None:
    net, critic = Affine(), Pointwise()
    batch = Batch(torch.randn(4, 1, 8, dtype=DOUBLE))
    Critic(critic)(generator(net), batch, generator=keys(4)).sum().backward()
    assert all(weight.grad is None for weight in net.parameters())
    assert all(weight.grad is not None for weight in critic.parameters())


def test_a_generator_learnt_against_its_critic_finds_the_law() -> None:
    """N(0.8, 0.5²) of every value, from N(0, 1)."""
    net, critic = Affine(), Pointwise()
    loss, made = Wasserstein(critic, penalty=0.3), generator(net)
    steps = [torch.optim.Adam(part.parameters(), 2e-2, betas=(0.0, 0.9)) for part in (net, critic)]
    found = []
    for step in range(250):
        x = 0.8 + 0.5 * torch.randn(32, 1, 8, generator=torch.Generator().manual_seed(step), dtype=DOUBLE)
        for number, (part, optimiser) in enumerate([*3 * [(loss.adversary, steps[1])], (loss, steps[0])]):
            optimiser.zero_grad()
            part(made, Batch(x), generator=keys(32, 4 * step + number)).mean().backward()
            optimiser.step()
        found.append(torch.stack([*net.weights]).detach())
    shift, scale = torch.stack(found[-100:]).mean(0)
    assert abs(shift - 0.8) < 0.08 and abs(scale.exp() - 0.5) < 0.08


def test_what_is_logged_of_held_out_fields_is_proper() -> None:
    """It is least for the right law, whatever the critic."""
    x = 0.8 + 0.5 * torch.randn(4096, 1, 1, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    loss = Wasserstein(Pointwise()).held_out
    right, *wrong = (
        float(loss(generator(Affine(*law)), Batch(x), generator=keys(4096)).detach().mean())
        for law in ((0.8, math.log(0.5)), (0.4, math.log(0.5)), (0.8, 0.0), (0.8, math.log(0.2)))
    )
    assert right < min(wrong) - 0.01


def test_settings_that_are_none_are_refused() -> None:
    for wrong in ({"penalty": 0.0}, {"rounds": 0}):
        with pytest.raises(InputError, match="Wasserstein needs"):
            Wasserstein(Pointwise(), **wrong)
