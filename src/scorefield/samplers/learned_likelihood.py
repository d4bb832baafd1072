"""Likelihoods in few evaluations: a path of a few steps from data to noise, and a learnt head for the divergence along each.

The probability flow in the angle φ (`scorefield.samplers.flow`) gives log p(x) = log p(u_1) + Σ_i ∫ div v dφ over intervals
between levels. What each adds is a number that depends on where the flow is when the interval begins. So a small network g_i(x_i)
learns it by least squares from the adaptive solver with Hutchinson's probes, whose noise the mean over fields removes (the
idea of F2D2, Ai et al. 2025, for a frozen denoiser). The path is that of a multistep method of second order, with levels
fitted to the same solver; by how much its end differs in log p(u_1), and what the flow does after it, is learnt with the last
interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.schedule import Schedule
from scorefield.core.sde import Field
from scorefield.foundation.random import Generators
from scorefield.samplers.flow import angle, of_rows
from scorefield.samplers.likelihood import Likelihood, ProbabilityFlow, frozen, with_divergence
from scorefield.samplers.ode import State, integrate
from scorefield.samplers.steps import Cond
from scorefield.samplers.tuned import CorrectedMultistep, fit

HIGHEST = 80.0  # σ/α where a path ends at the latest: of data of unit variance there is nothing left
NONE = 1e-12  # of an angle: there is no interval


class Path(NamedTuple):
    """Rising times, one more than steps, and the corrections of the steps after the first."""

    times: tuple[float, ...]
    corrections: tuple[float, ...]

    @torch.no_grad()
    def states(self, denoiser: DenoiserProtocol, x: Field, cond: Cond = None) -> list[Tensor]:
        """x_t at each time, from data x in model space: an evaluation for each but the last."""
        times = torch.tensor(self.times, dtype=torch.float64)
        found, memory, step = [denoiser.sde.schedule.alpha(times[0]) * x], None, CorrectedMultistep(self.corrections)
        nothing = Generators([(0, row) for row in range(len(x))])  # which it does not draw from
        for t, s in pairwise(times):
            x_s, memory = step(denoiser, found[-1], t, s, cond, generator=nothing, memory=memory)
            found.append(x_s)
        return found


class Truth(NamedTuple):
    """What an adaptive solver finds of fields.

    Attributes:
        gains: ∫ div v dφ over each interval and per dimension, (batch, steps).
        end: x_t at the last time.
        nats: log p(x) by the flow to its own end, which may be later.
    """

    gains: Tensor
    end: Tensor
    nats: Tensor


def first_path(schedule: Schedule, flow: ProbabilityFlow, steps: int) -> Path:
    """Equal steps in log σ/α between the ends of every path: those of a flow, as far as σ/α = 80."""
    lowest, highest = (-float(schedule.log_snr(t)) / 2 for t in flow.ends(schedule))
    highest = min(highest, math.log(HIGHEST))
    times = schedule.time(-2 * torch.linspace(lowest, highest, steps + 1, dtype=torch.float64))
    return Path(tuple(times.tolist()), (1.0,) * (steps - 1))


def solved(
    denoiser: DenoiserProtocol,
    x: Field,
    times: Sequence[float],
    flow: ProbabilityFlow,
    *,
    generator: Generators,
    cond: Condition | None = None,
) -> Truth:
    """The adaptive flow of data x in model space, interval by interval, and from the last time to its own end."""
    sde, dimension = denoiser.sde, denoiser.sde.noise.dimension(x.shape[1:])
    probes = torch.stack([sde.noise.within(z) for z in flow.probes(x.shape, generator=generator, like=x)])

    def slope(rows: Tensor, phi: Tensor, state: State) -> State:
        v, divergence = with_divergence(denoiser, state[0], phi, of_rows(cond, rows), probes[:, rows])
        return v.to(state[0]), (divergence / dimension).to(state[1])

    ends = [*(torch.tensor(t, dtype=torch.float64) for t in times), flow.ends(sde.schedule)[1]]
    radii = [torch.hypot(*sde.schedule(t)) for t in ends]
    u, sizes, gains, reached = sde.schedule.alpha(ends[0]) / radii[0] * x, None, [], []
    with frozen(denoiser):
        for phi, phi_end in pairwise(angle(sde.schedule, t) for t in ends):
            gained = torch.zeros(len(x), dtype=torch.float64, device=x.device)
            if phi_end > phi + NONE:
                solution = integrate(slope, (u, gained), phi, phi_end, flow.tolerance, sizes=sizes)
                (u, gained), sizes = solution.state, solution.sizes
            gains.append(gained)
            reached.append(u)
    nats = _log_prior(denoiser, x, radii[-1] * u, ends[0], ends[-1]) + dimension * torch.stack(gains).sum(0)
    return Truth(torch.stack(gains[:-1], dim=1), radii[-2] * reached[-2], nats)


def fit_path(denoiser: DenoiserProtocol, x: Field, end: Tensor, path: Path, rounds: int, cond: Cond = None) -> Path:
    """The path between the same ends whose own end is nearest to that of the flow, by damped least squares.

    Args:
        denoiser: whose flow.
        x: fields in model space.
        end: where the flow of each ends.
        path: to begin with.
        rounds: of fitting, at most.
        cond: what the fields are conditioned on.
    """
    schedule, steps = denoiser.sde.schedule, len(path.times) - 1
    levels = -schedule.log_snr(torch.tensor(path.times, dtype=torch.float64)) / 2
    span, scale = levels[-1] - levels[0], 1 / schedule.sigma(torch.tensor(path.times[-1], dtype=torch.float64))

    def of(p: Tensor) -> Path:
        shares = torch.cat((p.new_zeros(1), p[: steps - 1])).softmax(0).cumsum(0)[:-1]
        inner = schedule.time(-2 * (levels[0] + span * shares))
        return Path((path.times[0], *inner.tolist(), path.times[-1]), tuple(p[steps - 1 :].tolist()))

    shares = levels.diff().log()
    first = torch.cat((shares[1:] - shares[0], torch.tensor(path.corrections, dtype=torch.float64)))
    return of(fit(lambda p: (scale * (of(p).states(denoiser, x, cond)[-1] - end)).flatten(), first, rounds))


@dataclass(frozen=True, eq=False)
class LearnedLikelihood:
    """log p(x) by a path and a head, in as many evaluations of the denoiser as the path has steps, and as many of the head.

    Args:
        path: from data to noise.
        head: (u, c_noise) -> what each interval adds per dimension, (batch, steps), of which that which begins there counts; u is
            x_t/√(α² + σ²), c_noise a quarter of log σ/α.
        mean: of what each interval adds, (steps).
        scale: of its spread, (steps): the head's result is in parts of it.
        name: which one it is, for records.
    """

    path: Path
    head: nn.Module
    mean: Tensor
    scale: Tensor
    name: str = ""

    def __repr__(self) -> str:
        return f"LearnedLikelihood(steps={len(self.mean)}, name={self.name!r})"

    def ends(self, _: Schedule) -> tuple[Tensor, Tensor]:
        """The first time and the last one, scalars in float64."""
        first, last = (torch.tensor(self.path.times[place], dtype=torch.float64) for place in (0, -1))
        return first, last

    @torch.no_grad()
    def log_prob(
        self,
        denoiser: DenoiserProtocol,
        x: Field,
        *,
        generator: Generators | None = None,
        cond: Condition | None = None,
    ) -> Likelihood:
        """log p(x) in nats of fields in model space; nothing is drawn."""
        states = self.path.states(denoiser, x, cond)
        gains = torch.stack([self.gain(denoiser.sde.schedule, i, x_t) for i, x_t in enumerate(states[:-1])], dim=1)
        nats = log_end(denoiser, x, states[-1], self.path) + denoiser.sde.noise.dimension(x.shape[1:]) * gains.sum(1)
        sigma = denoiser.sde.schedule.sigma(torch.tensor(self.path.times[-1], dtype=torch.float64))
        count = torch.full((len(x),), len(self.mean), device=x.device)
        return Likelihood(nats, states[-1] / sigma.to(x), count)

    def gain(self, schedule: Schedule, number: int, x_t: Tensor) -> Tensor:
        """What an interval adds per dimension where the path is at x_t when it begins."""
        found = self.head(*seen(schedule, self.path.times[number], x_t))[:, number].double()
        return self.mean[number].to(found) + self.scale[number].to(found) * found


def seen(schedule: Schedule, time: float, x_t: Tensor) -> tuple[Tensor, Tensor]:
    """What a head is given."""
    t = torch.tensor(time, dtype=torch.float64)
    label = (-schedule.log_snr(t) / 8).to(x_t).expand(len(x_t))
    return (x_t / torch.hypot(*schedule(t))).to(x_t.dtype), label


def log_end(denoiser: DenoiserProtocol, x: Field, x_t: Tensor, path: Path) -> Tensor:
    """log p of the end of a path under the prior, with the scales between x and u at one end and u and x_t at the other."""
    first, last = (torch.tensor(path.times[place], dtype=torch.float64) for place in (0, -1))
    return _log_prior(denoiser, x, x_t, first, last)


def _log_prior(denoiser: DenoiserProtocol, x: Tensor, x_t: Tensor, first: Tensor, last: Tensor) -> Tensor:
    schedule = denoiser.sde.schedule
    scales = (schedule.alpha(first) / torch.hypot(*schedule(first))).log() + torch.hypot(*schedule(last)).log()
    prior = denoiser.sde.log_prior(x_t.double(), last.to(x_t.device))
    return prior + denoiser.sde.noise.dimension(x.shape[1:]) * scales.to(prior)


def goals(denoiser: DenoiserProtocol, x: Field, states: Sequence[Tensor], path: Path, truth: Truth) -> Tensor:
    """What the head is to give at each state: the flow's gains, and in the last what else there is to its density."""
    whole = (truth.nats - log_end(denoiser, x, states[-1], path)) / denoiser.sde.noise.dimension(x.shape[1:])
    before = truth.gains[:, :-1]
    return torch.cat((before, (whole - before.sum(1))[:, None]), dim=1)


class Learned(NamedTuple):
    """What was learnt, beside the head's weights.

    Attributes:
        mean: of what each interval adds, (steps).
        scale: of its spread, (steps).
        bias: the mean difference from the solver on fields that were held out, in nats.
        spread: the root mean square one, of which the solver's own probes are a part.
    """

    mean: Tensor
    scale: Tensor
    bias: float
    spread: float


def learn(
    head: nn.Module,
    schedule: Schedule,
    path: Path,
    states: Tensor,
    wanted: Tensor,
    *,
    dimension: int,
    epochs: int = 8,
    batch: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> Learned:
    """Fit a head by Adam to what it is to give; a tenth of the fields is held out.

    Args:
        head: as `LearnedLikelihood` has it, with a last layer that gives 0 at first.
        schedule: of the denoiser.
        path: whose states they are.
        states: x_t at the beginning of each interval, (steps, fields, channels, *grid).
        wanted: per dimension, (fields, steps).
        dimension: of a field.
        epochs: through all pairs of fields and intervals.
        batch: pairs at once.
        lr: the largest rate, which falls to 0 as a cosine.
        seed: of the order.
        progress: called with the number of an epoch and its mean loss, 1 for a head that gives 0.
    """
    steps, count = states.shape[:2]
    kept = count - max(count // 10, 1)
    mean = wanted[:kept].mean(0)
    scale = (wanted[:kept] - mean).square().mean(0).sqrt().clamp(min=1e-12)
    goal = ((wanted - mean) / scale).to(states.dtype)
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=1e-3)
    draws, total = torch.Generator().manual_seed(seed), epochs * math.ceil(steps * kept / batch)
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 0.5 + 0.5 * math.cos(math.pi * min(k / total, 1)))
    for epoch in range(epochs):
        losses = []
        for pairs in torch.randperm(steps * kept, generator=draws).to(states.device).split(batch):
            rows, places = pairs % kept, pairs // kept
            u, label = _seen_each(schedule, path, states, rows, places)
            error = head(u, label).gather(1, places[:, None])[:, 0] - goal[rows, places]
            optimiser.zero_grad()
            error.square().mean().backward()
            optimiser.step()
            decay.step()
            losses.append(float(error.detach().square().mean()))
        progress(epoch, sum(losses) / len(losses))
    head.eval().requires_grad_(False)
    found = LearnedLikelihood(path, head, mean, scale)
    late = torch.stack([found.gain(schedule, place, states[place, kept:]) for place in range(steps)], dim=1)
    error = dimension * (late - wanted[kept:]).sum(1)
    return Learned(mean, scale, float(error.mean()), float(error.square().mean().sqrt()))


def _seen_each(schedule: Schedule, path: Path, states: Tensor, rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """What a head is given at some pairs."""
    times = torch.tensor(path.times, dtype=torch.float64)
    radius = torch.hypot(*schedule(times)).to(states)[places]
    x_t = states[places, rows]
    label = (-schedule.log_snr(times) / 8).to(states)[places]
    return x_t / radius.view(-1, *(1,) * (x_t.ndim - 1)), label
