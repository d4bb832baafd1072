"""Draws of p(x | y) that are right: guided denoisers as proposals, corrected by weights (Wu et al. 2023; Doucet et al. 2001).

A sampler's step makes of a denoiser a kernel x_s = m(x_t, x̂) + w ξ, ξ ~ N(0, C): p(x_s | x_t) by the prior's x̂, and q(x_s | x_t)
by a guided x̂_y. N particles go by q, and carry the weights that lead to the law ∝ p(x_t, ..., x_0) p(y | x_0):

    W_s = W_t · p(x_s | x_t)/q(x_s | x_t) · ψ_s(x_s)/ψ_t(x_t),

with ψ_t for p(y | x_t), which decides only how much the weights vary, and ψ = p(y | x̂) at the end. Where they have become uneven,
particles are drawn anew by them; the product of the mean weights is an estimate of p(y) without bias (Del Moral 2004). As N
grows, all is exact for what the sampler's steps make of the prior; nothing depends on the method any more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.guidance import Guided, Method, Observation
from scorefield.guidance.observation import Comparison, Movable
from scorefield.samplers import Sampler, Step, sample

ADVICE = "take DPMSolverPP2M(eta=1) or DDIM(eta=1)"
DEFENSIVE = 0.03  # of the particles go by the prior's own kernel: p/q is then at most 1/0.03, whatever is proposed
EVEN = 0.5  # of N: with fewer effective particles they are drawn anew


@dataclass(frozen=True)
class Population:
    """Weighted draws of p(x | y).

    Attributes:
        x: the fields, (particles, channels, *grid).
        log_weights: of each, their exponentials add up to 1.
        log_evidence: of p(y), in nats; its exponential has no bias, for p(x) as the sampler's steps make it.
        effective: 1/Σ W² after each step, of N.
    """

    x: Float[Tensor, "particles channels *grid"]
    log_weights: Float[Tensor, " particles"]
    log_evidence: float
    effective: tuple[float, ...]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of what is known of each particle, (particles, *rest), by their weights."""
        return torch.tensordot(self.log_weights.exp().to(values), values, dims=1)

    def drawn(self, n: int, *, generator: Generators) -> Float[Tensor, "n channels *grid"]:
        """n of the particles by their weights, without weights."""
        return self.x[systematic(self.log_weights, n, generator)]


@dataclass(frozen=True)
class Particles:
    """Draws of p(x | y) by N weighted particles, one evaluation of denoiser and method each at every level.

    Where y is linear in x with Gaussian noise, its coordinates z go by a kernel of their own, that of N(A m(x_t), w² D) · ψ_s
    if x̂ were linear in z: narrower than the step's, which loses most particles where noise is small and values are many. That
    takes at most 2048 values, or an A C A* that is diagonal (masks, averages, Fourier samples of one coil). Others, nonlinear A
    and other likelihoods go by the method's kernel, and take more steps.
    3 % of the particles go by the prior's own kernel, so that p/q <= 1/0.03 whatever is proposed (Hesterberg 1995).

    Args:
        method: of the proposal.
        count: N.
        sampler: whose step is stochastic and evaluates the denoiser once: Ancestral, DDIM(eta > 0), DPMSolverPP2M(eta > 0),
            EulerMaruyama, ReverseDiffusion.
        pilot: draws of the prior, on the way of which it is seen how far x̂ is from x in each coordinate, r_t; ψ = p(y | x̂, r_t).
        chunk: how many are evaluated at once; all where it is 0.
        narrow: z has the narrower kernel.
    """

    method: Method
    count: int = 100
    sampler: Sampler = Sampler()
    pilot: int = 64
    chunk: int = 0
    narrow: bool = True

    def __post_init__(self) -> None:
        if self.count < 1 or self.chunk < 0 or self.pilot < 2:
            raise InputError("Particles needs count >= 1, chunk >= 0 and pilot >= 2.")
        if self.sampler.corrector is not None or not self.sampler.denoise:
            raise InputError("Particles go by steps alone and end with x̂: leave out the corrector, and denoise=False.")
        if self.sampler.step.jumps:
            raise InputError(f"{type(self.sampler.step).__name__} goes by more than x̂: {ADVICE}.")

    @torch.no_grad()
    def __call__(
        self,
        denoiser: DenoiserProtocol,
        measurement: Observation,
        shape: Size | tuple[int, ...],
        *,
        seed: int,
        like: Tensor,
        cond: Condition | None = None,
    ) -> Population:
        """The particles, in model space.

        Args:
            denoiser: E[x | x_t] of the prior.
            measurement: what is known of one field: a `Measurement` with noise, or any other `Observation`.
            shape: (channels, *grid) of x.
            seed: of all draws.
            like: their type and device.
            cond: what the prior is conditioned on, for one field: (1, ...).

        Raises:
            InputError: no noise, several fields, or a step that has no such kernel.
        """
        if not measurement.weighable:
            raise InputError(
                "Particles need what was measured of one field, and a noise > 0: weights compare likelihoods."
            )
        sde, step = denoiser.sde, self.sampler.step
        times = self.sampler.grid(sde.schedule, self.sampler.steps)
        compared = measurement.comparison(sde.noise, tuple(shape), like)
        spreads = self._spreads(denoiser, compared, tuple(shape), times, seed, like, cond)
        own = Generators((seed, index, Stream.PARTICLE) for index in range(self.count))
        again = Generators([(seed, 0, Stream.RESAMPLED)])
        x = sde.prior((self.count, *shape), times[0], generator=own, like=like)
        evaluate = _Evaluation(denoiser, measurement, compared, self, cond)
        here = evaluate(x, times[0], spreads[0])
        weights, evidence, effective = here.potential, 0.0, []
        memory: tuple[Any, Any, Any] = (None, None, None)
        for level in range(len(times) - 1):
            size = _effective(weights)
            if size < EVEN * self.count:
                evidence += float(weights.logsumexp(0)) - math.log(self.count)
                chosen = systematic(weights, self.count, again)
                x, here, weights = x[chosen], here.of(chosen), torch.zeros_like(weights)
                first, second, third = memory
                memory = _rows(first, chosen), _rows(second, chosen), _rows(third, chosen)
            kernel = _Kernel(sde, step, times[level], times[level + 1], own)
            movable = compared.movable if self.narrow else None
            x, ratio, memory = kernel(x, here, memory, compared, movable, spreads[level + 1])
            there = evaluate(x, times[level + 1], spreads[level + 1])
            weights = weights + ratio + there.potential - here.potential
            here = there
            effective.append(_effective(weights))
        weights = weights + compared.density(here.z, torch.zeros_like(spreads[-1])) - here.potential
        evidence += float(weights.logsumexp(0)) - math.log(self.count)
        effective.append(_effective(weights))
        return Population(here.prior, weights.log_softmax(0), evidence, tuple(effective))

    def _spreads(
        self,
        denoiser: DenoiserProtocol,
        compared: Comparison,
        shape: tuple[int, ...],
        times: Tensor,
        seed: int,
        like: Tensor,
        cond: Condition | None,
    ) -> Tensor:
        """r_t at each level, (levels, M), as draws of the prior have it: of how far x̂ was on their way from where they ended."""
        chunk = min(self.chunk or self.pilot, self.pilot)
        estimates: list[list[Tensor]] = [[] for _ in times]
        ends = []
        for start in range(0, self.pilot, chunk):
            rows = range(start, min(start + chunk, self.pilot))
            own = Generators((seed, index, Stream.PILOT) for index in rows)
            heard = _Heard(denoiser)
            given = _of_each(cond, len(rows))
            x_1 = denoiser.sde.prior((len(rows), *shape), times[0], generator=own, like=like)
            x = sample(heard, x_1, times, self.sampler.step, cond=given, generator=own)
            if len(heard.answers) != len(times):
                raise InputError(
                    f"{type(self.sampler.step).__name__} evaluates the denoiser several times a step, and particles need a "
                    f"kernel of one: {ADVICE}."
                )
            ends.append(compared.of(x))
            for level, estimate in zip(estimates, heard.answers, strict=True):
                level.append(compared.of(estimate))
        z = torch.cat(ends)
        found = torch.stack([compared.spread(z, torch.cat(level)) for level in estimates])
        if len(found) > 1:  # the last x̂ is the end itself: it is as far as the one before, for its noise
            ratio = denoiser.sde.schedule.log_snr(times[-2]) - denoiser.sde.schedule.log_snr(times[-1])
            found[-1] = found[-2] * float(ratio.exp())
        return found


def systematic(log_weights: Tensor, n: int, generator: Generators) -> Tensor:
    """Indices of n draws by weights, each as often as n times its weight but for rounding (Kitagawa 1996)."""
    offset = generator.rand((1,), like=log_weights.double())
    places = (torch.arange(n, dtype=torch.float64, device=offset.device) + offset) / n
    return torch.searchsorted(log_weights.double().softmax(0).cumsum(0), places).clamp(max=len(log_weights) - 1)


def _effective(log_weights: Tensor) -> float:
    return float(1 / log_weights.softmax(0).square().sum())


def _rows(memory: Any, chosen: Tensor) -> Any:
    """Of what a multistep method remembers, the part of some particles."""
    if isinstance(memory, tuple):
        return tuple(_rows(part, chosen) for part in memory)
    return memory[chosen] if isinstance(memory, Tensor) and memory.ndim else memory


def _of_each(cond: Condition | None, count: int) -> Condition | None:
    """What the prior is conditioned on for one field, for each of so many."""
    if cond is None:
        return None
    return {name: value.expand(count, *value.shape[1:]) for name, value in cond.items()}


@dataclass(frozen=True)
class _Level:
    """What is known of the particles at a level: x̂, x̂_y, z of x̂, and log ψ."""

    prior: Tensor
    guided: Tensor
    z: Tensor
    potential: Tensor

    def of(self, chosen: Tensor) -> _Level:
        return _Level(self.prior[chosen], self.guided[chosen], self.z[chosen], self.potential[chosen])


class _Heard:
    """A denoiser that remembers what it answered: a method evaluates it once."""

    def __init__(self, denoiser: DenoiserProtocol) -> None:
        self.denoiser, self.sde = denoiser, denoiser.sde
        self.answers: list[Tensor] = []

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        found = self.denoiser(x_t, t, cond)
        self.answers.append(found.detach())
        return found


class _Evaluation:
    """x̂, x̂_y and ψ of particles, so many at once."""

    def __init__(
        self,
        denoiser: DenoiserProtocol,
        measurement: Observation,
        compared: Comparison,
        particles: Particles,
        cond: Condition | None,
    ) -> None:
        self.heard, self.compared, self.cond = _Heard(denoiser), compared, cond
        self.guided = Guided(self.heard, measurement, particles.method)
        self.chunk = particles.chunk or particles.count

    def __call__(self, x_t: Tensor, t: Tensor, spread: Tensor) -> _Level:
        parts = [self._part(part, t) for part in x_t.split(self.chunk)]
        prior, guided, z = (torch.cat(found) for found in zip(*parts, strict=True))
        return _Level(prior, guided, z, self.compared.density(z, spread))

    def _part(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.heard.answers.clear()
        guided = self.guided(x_t, t, _of_each(self.cond, len(x_t))).detach()
        (prior,) = self.heard.answers
        return prior, guided, self.compared.of(prior)


class _Given:
    """A denoiser whose answer is known, and that counts how often it is asked."""

    def __init__(self, sde: SDE, answer: Tensor) -> None:
        self.sde, self.answer, self.asked = sde, answer, 0

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        self.asked += 1
        return self.answer


class _Fixed(Generators):
    """Hands out the same draw at every call, times a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def randn(self, shape: Any, *, like: Tensor) -> Tensor:
        probe = torch.randn(tuple(shape[1:]), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return (self.factor * probe).to(like).expand(tuple(shape)).clone()


@dataclass(frozen=True)
class _Narrow:
    """The law of z that takes the place of the step's own, N(centre, own): N(aim, variance)."""

    movable: Movable
    centre: Tensor
    own: Tensor
    aim: Tensor
    variance: Tensor

    def moved(self, z: Tensor) -> Tensor:
        """By what a field is to be moved whose z is of the step's own law."""
        wanted = self.aim + (self.variance / self.own).sqrt() * (z - self.centre)
        return self.movable.lift((wanted - z) / self.movable.variances)

    def change(self, z: Tensor) -> Tensor:
        """log of its density over the step's own."""
        before = -0.5 * ((z - self.centre).square() / self.own + self.own.log()).sum(1)
        return -0.5 * ((z - self.aim).square() / self.variance + self.variance.log()).sum(1) - before


class _Kernel:
    """x_s = m(x_t, x̂) + w ξ of a step from t to s."""

    def __init__(self, sde: SDE, step: Step, t: Tensor, s: Tensor, generator: Generators) -> None:
        self.sde, self.step, self.t, self.s, self.generator = sde, step, t, s, generator

    def __call__(
        self,
        x: Tensor,
        here: _Level,
        memory: tuple[Any, Any, Any],
        compared: Comparison,
        movable: Movable | None,
        spread: Tensor,
    ) -> tuple[Tensor, Tensor, tuple[Any, Any, Any]]:
        """Particles at s by the guided x̂, log p(x_s | x_t)/q(x_s | x_t), and what the step remembers."""
        none, zero = _Fixed(0.0), torch.zeros_like(x)
        prior, first = self._made(here.prior, x, none, memory[0])
        guided, second = self._made(here.guided, x, none, memory[1])
        noise, third = self._made(zero, zero, self.generator, memory[2])
        one = _Fixed(1.0)
        unit = self.sde.noise.sample(x[:1].shape, generator=one, like=x)
        first_one = _rows(memory[2], torch.tensor([0]))
        made, _ = self._made(zero[:1], zero[:1], one, first_one)
        width = float((made * unit).sum() / unit.square().sum())
        if not width > 0:
            raise InputError(
                f"{type(self.step).__name__} adds no noise, and particles are weighted by its density: {ADVICE}."
            )
        gap = (guided - prior) / width
        away = noise / width
        narrow = None
        if movable is not None:
            narrow = self._narrow(guided, prior, here, width, compared, movable, spread)
            away = away + narrow.moved(compared.of(guided + noise)) / width
        own = (self.generator.rand((len(x),), like=x) < DEFENSIVE).reshape(-1, *(1,) * (x.ndim - 1))
        away = torch.where(own, noise / width - gap, away)
        x_s = guided + width * away
        # log N(x_s; m_q) − log N(x_s; m_p) = ⟨away + ½ gap, C⁻¹ gap⟩, without the difference of large squares
        pulled = self.sde.noise.precision(gap.double())
        by_guided = ((away.double() + 0.5 * gap) * pulled).flatten(1).sum(1)
        if narrow is not None:
            by_guided = by_guided + narrow.change(compared.of(x_s))
        both = torch.logaddexp(by_guided + math.log(1 - DEFENSIVE), torch.full_like(by_guided, math.log(DEFENSIVE)))
        return x_s, -both, (first, second, third)

    def _narrow(
        self,
        guided: Tensor,
        prior: Tensor,
        here: _Level,
        width: float,
        compared: Comparison,
        movable: Movable,
        spread: Tensor,
    ) -> _Narrow:
        """The law N(z; A m, w² D) · N(y; ẑ + k (z − A m), 1 + r)."""
        alpha, sigma = (float(part) for part in self.sde.schedule(self.s))
        own = width**2 * movable.variances
        gain = (alpha * spread / (sigma**2 * movable.variances)).clamp(max=1) if sigma > 0 else torch.zeros_like(spread)
        variance = 1 / (1 / own + gain**2 / (1 + spread))
        aim = compared.of(prior) + variance * gain / (1 + spread) * (movable.y - here.z)
        return _Narrow(movable, compared.of(guided), own, aim, variance)

    def _made(self, answer: Tensor, x: Tensor, generator: Generators, memory: Any) -> tuple[Tensor, Any]:
        given = _Given(self.sde, answer)
        made, memory = self.step(given, x, self.t, self.s, None, generator=generator, memory=memory)
        if given.asked != 1:
            raise InputError(
                f"{type(self.step).__name__} evaluates the denoiser {given.asked} times a step, and particles need a kernel of "
                f"one: {ADVICE}."
            )
        return made, memory
