"""Likelihoods by the probability flow, and what goes with them: encoding, decoding, interpolation (Song et al. 2021, appendix D).

Along du/dφ = v the density obeys d log p(u)/dφ = −div v. So log p(u_0) = log p(u_1) + ∫ div v dφ, with the prior N(0, σ² C) at
the noisy end. The density is with respect to Lebesgue measure on the values of the grid; in function space there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.schedule import Schedule, levels
from scorefield.core.sde import Field
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.samplers.flow import angle, follow, of_rows, velocity
from scorefield.samplers.ode import State, integrate
from scorefield.samplers.probes import Probes, Rademacher

EDGE = 1e-5  # of a level beyond the ends, relatively: log p may be off by it times the dimension, 0.9 nats of 86,016 values


class FlowResult(NamedTuple):
    """Fields at the other end of the flow, and the denoiser's evaluations for each."""

    x: Tensor
    evaluations: Tensor


class Likelihood(NamedTuple):
    """log p(x) in nats, the latent of x, and the denoiser's evaluations for each."""

    nats: Tensor
    latent: Tensor
    evaluations: Tensor


@dataclass(frozen=True)
class ProbabilityFlow:
    """The flow between data x, at t_min, and its latent z ~ N(0, C), which is x_t/σ at t_max. All in model space.

    Args:
        tolerance: of a step: for the root mean square over a field of error/(1 + |value|), and for nats per dimension. The steps'
            errors add up, and the flow of a trained network spreads them: encoding and decoding again misses x by about 100
            times as much (a thousandth of the data's spread by default), for data whose denoiser is smooth by less than 10.
        probes: how the divergence is measured.
        ratio_min: the smallest σ/α, if the schedule goes so low; data are taken for x_t/α there.
        ratio_max: the largest σ/α, if the schedule goes so high; by default its own, up to infinity, where α = 0.
    """

    tolerance: float = 1e-5
    probes: Probes = field(default_factory=Rademacher)
    ratio_min: float = 1e-3
    ratio_max: float | None = None

    def __post_init__(self) -> None:
        if not (self.tolerance > 0 and 0 < self.ratio_min < (self.ratio_max or math.inf)):
            raise InputError(
                f"A probability flow needs tolerance > 0 and 0 < ratio_min < ratio_max, not {self.tolerance:g}, "
                f"{self.ratio_min:g} and {self.ratio_max}."
            )

    def ends(self, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """t_min and t_max, scalars in float64."""
        ratios = torch.tensor([self.ratio_min, self.ratio_max or math.inf], dtype=torch.float64)
        t_min, t_max = schedule.time(-2 * ratios.log())
        return t_min, t_max

    def from_level(self, schedule: Schedule, ratio: float) -> ProbabilityFlow:
        """The flow from a level σ/α on: its log p(y) is that of y = x + ratio · ξ, ξ ~ N(0, C), which is x_t/α there.

        Args:
            schedule: of the process.
            ratio: σ/α.

        Raises:
            InputError: no level of the schedule, or none below `ratio_max`.
        """
        low, high = levels(schedule)
        if not (1 - EDGE) * low <= ratio <= (1 + EDGE) * high:
            raise InputError(
                f"The noise is {ratio:.6g} in model space, and the process has levels from {low:.6g} to {high:.6g}: its flow "
                "knows densities at these alone, take particles (--particles 500) for another one."
            )
        return replace(self, ratio_min=ratio)

    def solver_error(self, dimension: int) -> float:
        """By how many nats the solver may err in log p of so many dimensions: 4 · tolerance · dimension.

        No bound, as the steps' errors add up, but what was never exceeded: from σ/α = 0.05 and 0.5 on, at tolerances of 1e-2 to
        1e-6, the error was at most 0.3 times tolerance · dimension of Gaussian laws and 3.9 times of a mixture, and of 86,016
        values of a trained network 0.6 times, at 1e-4. The error by probes is another one.
        """
        return 4 * self.tolerance * dimension

    @torch.no_grad()
    def encode(self, denoiser: DenoiserProtocol, x: Field, *, cond: Condition | None = None) -> FlowResult:
        """The latent of x."""
        t_min, t_max = self.ends(denoiser.sde.schedule)
        start = denoiser.sde.schedule.alpha(t_min) * x
        solution = follow(denoiser, start, t_min, t_max, cond, self.tolerance)
        return FlowResult(solution.state[0] / denoiser.sde.schedule.sigma(t_max), solution.evaluations)

    @torch.no_grad()
    def decode(self, denoiser: DenoiserProtocol, latent: Field, *, cond: Condition | None = None) -> FlowResult:
        """The x of a latent. A latent times a temperature below 1 gives more typical fields, above 1 rarer ones."""
        t_min, t_max = self.ends(denoiser.sde.schedule)
        start = denoiser.sde.schedule.sigma(t_max) * latent
        solution = follow(denoiser, start, t_max, t_min, cond, self.tolerance)
        return FlowResult(solution.state[0] / denoiser.sde.schedule.alpha(t_min), solution.evaluations)

    @torch.no_grad()
    def log_prob(
        self, denoiser: DenoiserProtocol, x: Field, *, generator: Generators, cond: Condition | None = None
    ) -> Likelihood:
        """log p(x) in nats, with probes drawn from the generator.

        Drift and divergence share one evaluation of the denoiser: the divergence is a vector-Jacobian product of it.
        """
        sde, dimension = denoiser.sde, denoiser.sde.noise.dimension(x.shape[1:])
        t_min, t_max = self.ends(sde.schedule)
        probes = torch.stack([sde.noise.within(z) for z in self.probes(x.shape, generator=generator, like=x)])

        def slope(rows: Tensor, phi: Tensor, state: State) -> State:
            v, divergence = with_divergence(denoiser, state[0], phi, of_rows(cond, rows), probes[:, rows])
            return v.to(state[0]), (divergence / dimension).to(state[1])

        alpha, radius_min, radius_max = sde.schedule.alpha(t_min), *(_radius(sde.schedule, t) for t in (t_min, t_max))
        start = ((alpha / radius_min) * x, _zeros(x))
        phi_min, phi_max = (angle(sde.schedule, t) for t in (t_min, t_max))
        with frozen(denoiser):
            solution = integrate(slope, start, phi_min, phi_max, self.tolerance)
        u, gained = solution.state
        x_t = radius_max * u
        scales = (alpha / radius_min).log() + radius_max.log()  # of x -> u at one end, and of u -> x_t at the other
        prior = sde.log_prior(x_t.to(gained.dtype), t_max.to(x.device))
        nats = prior + dimension * (gained + scales)
        return Likelihood(nats, x_t / sde.schedule.sigma(t_max), solution.evaluations)


def with_divergence(
    denoiser: DenoiserProtocol,
    u: Tensor,
    phi: Tensor,
    cond: Condition | None,
    probes: Float[Tensor, "probes batch *field"],
) -> tuple[Tensor, Tensor]:
    """v and the mean of zᵀ(∂v/∂u)z over the probes, from one evaluation of the denoiser."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        v = velocity(denoiser, u, phi, cond)
        total = torch.zeros(len(u), device=u.device, dtype=u.dtype)
        for number, z in enumerate(probes, 1):
            (product,) = torch.autograd.grad(v, u, z, retain_graph=number < len(probes))
            total = total + (product * z).flatten(1).sum(1)
    return v.detach(), total / len(probes)


@contextmanager
def frozen(denoiser: DenoiserProtocol) -> Iterator[None]:
    """No parameter asks for a gradient: none is computed, and nothing is kept for it."""
    parameters = [p for p in denoiser.parameters() if p.requires_grad] if isinstance(denoiser, nn.Module) else []
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def bits_per_dimension(nats: Tensor, quantum: float, dimension: int) -> Tensor:
    """−log₂ P(x)/D by log P(x) ≥ E[log p(x + q e) − log r(e)] + D log q, with r = 1 for e ~ U[0, 1) (Theis et al. 2016).

    Other laws of e are in `scorefield.samplers.dequantise`.

    Args:
        nats: log p in data units, less log r where it is not 0.
        quantum: q, the step between neighbouring values.
        dimension: D, values per field.
    """
    if not quantum > 0:
        raise InputError(
            "Bits per dimension are for quantised data, with quantum > 0: of continuous data take the nats."
        )
    return -(nats / dimension + math.log(quantum)) / math.log(2)


def interpolate(a: Field, b: Field, weight: Float[Tensor, " n"]) -> Float[Tensor, "n batch channels *grid"]:
    """From latents a (weight 0) to b (weight 1) along the sphere: sin((1−w)θ)/sin θ a + sin(wθ)/sin θ b, θ the angle between.

    A straight line would pass through latents shorter than any that the prior draws.
    """
    cosine = (a * b).flatten(1).sum(1) / (a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1))
    theta = cosine.clamp(-1, 1).acos().reshape(-1, *(1,) * (a.ndim - 1))
    w = weight.reshape(-1, *(1,) * a.ndim).to(a)
    near = theta.sin() < 1e-4  # parallel to the precision of acos: the line is the arc
    sine = theta.sin().where(~near, 1)
    first = torch.where(near, 1 - w, ((1 - w) * theta).sin() / sine)
    second = torch.where(near, w, (w * theta).sin() / sine)
    return first * a + second * b


def _radius(schedule: Schedule, t: Tensor) -> Tensor:
    return torch.hypot(*schedule(t))


def _zeros(x: Tensor) -> Tensor:
    """A sum of many small numbers, kept in float64 where the device has it."""
    return torch.zeros(len(x), device=x.device, dtype=torch.float32 if x.device.type == "mps" else torch.float64)
