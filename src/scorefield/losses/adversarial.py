"""A generator learnt against a critic of its fields: the distance of two laws of functions as what a critic tells apart.

W₁(P, Q) = sup E D(x) − E D(X), x ~ Q and X ~ P, over functionals D with |D(u) − D(v)| ≤ ‖u − v‖ (Kantorovich and Rubinstein),
‖u‖² = (1/|Ω|) ∫ |u|². The bound holds where the functional derivative D'(u) has ‖D'(u)‖ ≤ 1; on a grid of N points it is N ∂D/∂u
(Rahman et al. 2022, Generative adversarial neural operators; the penalty of Gulrajani et al. 2017 in the norm of functions).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.sde import Field, expand_like
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.ensemble import EnergyScore, EnsembleScore
from scorefield.losses.loss import Adversary, Loss
from scorefield.nn.network import Network


@dataclass(frozen=True)
class Wasserstein(Loss):
    """D(x) − D(X), X = D(x_1; 1, cond) a draw in one evaluation of noise, whose mean estimates W₁: what a generator minimises.

    The critic D(u) = (1/|Ω|) ∫ F(u), F a network of one channel, is trained before each step of the generator, see `Critic`. A
    batch is shared out among its steps, and the generator draws as many fields as one of them has. What of held-out fields is
    logged is their energy score, which is proper: W₁ is what the critic of the moment sees of it.

    Args:
        critic: F; its channels are taken from the data. One with `coordinates` can weigh places differently.
        penalty: λ of its gradient.
        rounds: steps of the critic for each of the generator.
    """

    critic: Network
    penalty: float = 10.0
    rounds: int = 4
    one_step = True

    def __post_init__(self) -> None:
        if not self.penalty > 0 or self.rounds < 1:
            raise InputError(f"Wasserstein needs penalty > 0 and rounds >= 1, not {self.penalty:g} and {self.rounds}.")

    @property
    def adversary(self) -> Adversary:
        return Critic(self.critic, self.penalty, self.rounds)

    @property
    def held_out(self) -> Loss:
        return EnsembleScore([EnergyScore()])

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        drawn = draws(denoiser, batch, generator)
        return functional(self.critic, batch.x, batch.cond, batch.mask) - functional(
            self.critic, drawn, batch.cond, batch.mask
        )


@dataclass(frozen=True)
class Critic(Adversary):
    """D(X) − D(x) + λ (‖D'(u)‖ − 1)², u = εx + (1 − ε)X with ε uniform in (0, 1): what a critic minimises, X held fixed.

    Args:
        critic: F of D(u) = (1/|Ω|) ∫ F(u).
        penalty: λ.
        rounds: steps before each step of the generator.
    """

    critic: Network
    penalty: float = 10.0
    rounds: int = 1
    one_step = True

    @property
    def network(self) -> Network:
        return self.critic

    @property
    def steps(self) -> int:
        return self.rounds

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        part = expand_like(generator.rand((len(batch),), like=batch.x), batch.x)
        with torch.no_grad():
            drawn = draws(denoiser, batch, generator)
        between = (part * batch.x + (1 - part) * drawn).requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):  # the other ways to attend have no second derivative
            value = functional(self.critic, between, batch.cond, batch.mask)
            (slope,) = torch.autograd.grad(value.sum(), between, create_graph=True)
        size = self.penalty * (norm(slope, batch.mask) - 1).square()
        real, false = (functional(self.critic, x, batch.cond, batch.mask) for x in (batch.x, drawn))
        return false - real + size


def draws(denoiser: DenoiserProtocol, batch: Batch, generator: Generators) -> Field:
    """X of each sample, 0 where the fields of the batch are not known."""
    t = torch.ones((), dtype=torch.float64)
    noise = denoiser.sde.prior(batch.x.shape, t, generator=generator, like=batch.x)
    drawn = denoiser(noise, t, batch.cond)
    return drawn if batch.mask is None else drawn.where(batch.mask.bool(), 0.0)


def functional(critic: Network, x: Field, cond: Condition | None, mask: Tensor | None) -> Float[Tensor, " batch"]:
    """D(x) = (1/|Ω|) ∫ F(x) over the points that are known."""
    found = critic.evaluate(x, x.new_zeros(()), cond)
    if mask is None:
        return found.flatten(1).mean(1)
    known = mask.bool().any(1, keepdim=True).to(found)
    return (known * found).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)


def norm(slope: Field, mask: Tensor | None) -> Float[Tensor, " batch"]:
    """‖D'(u)‖ of ∂D/∂u on a grid, in L² of the domain, or of the part of it that is known."""
    points = slope[0, 0].numel() if mask is None else mask.bool().any(1).flatten(1).sum(1)
    return (points * slope.square().flatten(1).sum(1)).clamp(min=1e-12).sqrt()
