"""Ordinary differential equations, adaptively and sample by sample: the method of Dormand and Prince (1980), orders 5(4).

Every sample of a batch has its own position, step and acceptance; one that has arrived drops out, so no sample waits for
another's accuracy and the result of each does not depend on its company. A state is a tuple of tensors, each of which meets the
tolerance by itself: a single number beside a large field counts as much as the field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.sde import expand_like
from scorefield.foundation.errors import InputError

State = tuple[Tensor, ...]  # each (batch, ...)
Slope = Callable[[Tensor, Tensor, State], State]  # (numbers of the samples, their positions, their states) -> d state

NODES = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),  # the solution of order 5
)
ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)  # order 5 minus order 4
SMALLEST = 1e-10  # a step below this part of the way is no progress


@dataclass(frozen=True)
class Solution:
    """Where the samples arrived, and what it cost.

    Attributes:
        state: at the end.
        evaluations: of the slope per sample, (batch) int64.
        calls: of the slope, each for all samples that were still under way.
        sizes: the last step of each sample, a first guess to go on with, (batch).
    """

    state: State
    evaluations: Tensor
    calls: int
    sizes: Tensor


def integrate(
    slope: Slope, state: State, start: float, end: float, tolerance: float, *, sizes: Tensor | None = None
) -> Solution:
    """Follow d state/dφ = slope from start to end.

    Each step of each sample keeps the root mean square of error/(1 + |value|), for each part of its state, within the tolerance.

    Args:
        slope: (rows, φ, state) -> d state/dφ for the samples with those numbers, in the state's own precision.
        state: at the start.
        start: φ there.
        end: φ where to stop, before or after.
        tolerance: of one step.
        sizes: a first guess of the step, (batch).

    Raises:
        InputError: the slope is not finite, or the tolerance cannot be met in this precision.
    """
    if not tolerance > 0:
        raise InputError(f"The tolerance of an adaptive solver must be positive, not {tolerance}.")
    device, batch = state[0].device, len(state[0])
    rows = torch.arange(batch, device=device)
    position = torch.full((batch,), start, device=device, dtype=_precise(device))
    result, evaluations, calls = tuple(part.clone() for part in state), torch.ones_like(rows), 1
    first = slope(rows, position, state)
    sizes = _first_sizes(state, first, end - start) if sizes is None else sizes.clone()
    finished = sizes.clone()
    while len(rows):
        left = end - position
        last = sizes >= left.abs()
        h = torch.where(last, left, sizes * (1 if end > start else -1))
        new, after, error = _attempt(slope, rows, position, state, first, h, tolerance)
        evaluations[rows] += len(NODES) - 1
        calls += len(NODES) - 1
        good = error <= 1
        state, first = _choose(good, new, state), _choose(good, after, first)
        position = torch.where(good, torch.where(last, end, position + h), position)
        sizes = _next_sizes(sizes, h.abs(), error, last)
        if bool((~good & (sizes < SMALLEST * abs(end - start))).any()):
            raise InputError(
                f"The flow cannot be followed to a tolerance of {tolerance:g} in {first[0].dtype}: raise it."
            )
        done = good & last
        for whole, part in zip((*result, finished), (*state, sizes), strict=True):
            whole[rows[done]] = part[done]
        state, first = _rows(~done, state), _rows(~done, first)
        rows, position, sizes = rows[~done], position[~done], sizes[~done]
    return Solution(result, evaluations, calls, finished)


def _precise(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's has no other


def _first_sizes(state: State, first: State, way: float) -> Tensor:
    """A hundredth of the time in which a state would change as much as itself (Hairer et al. 1993, II.4), at most a tenth."""
    sizes = torch.full((len(first[0]),), abs(way) / 10, device=first[0].device, dtype=_precise(first[0].device))
    for value, change in zip(state, first, strict=True):
        speed = _rms(change / (1 + value.abs()))
        if not bool(torch.isfinite(speed).all()):
            raise InputError(
                "The probability flow is not finite where it starts: keep it away from α = 0 and from σ = 0."
            )
        sizes = sizes.minimum(0.01 / speed.clamp(min=1e-6))
    return sizes


def _next_sizes(sizes: Tensor, tried: Tensor, error: Tensor, last: Tensor) -> Tensor:
    """What would just have met the tolerance, with a margin; a last step, cut short, says little about that."""
    proposal = tried * (0.9 * error.clamp(min=1e-10) ** -0.2).clamp(0.2, 5)  # the error is of order 5
    accepted = torch.where(last, proposal.maximum(sizes), proposal)
    return torch.where(error <= 1, accepted, proposal.minimum(tried / 2))


def _attempt(
    slope: Slope, rows: Tensor, position: Tensor, state: State, first: State, h: Tensor, tolerance: float
) -> tuple[State, State, Tensor]:
    """The state after one step, the slope there, and the error over the tolerance; infinite where anything is not finite."""
    slopes, new = [first], state
    for node, weights in zip(NODES[1:], STAGES[1:], strict=True):
        new = tuple(part + _combine(weights, slopes, i, h) for i, part in enumerate(state))
        slopes.append(slope(rows, position + node * h, new))
    errors = []
    for i, (before, after) in enumerate(zip(state, new, strict=True)):
        errors.append(_rms(_combine(ERROR, slopes, i, h) / (1 + before.abs().maximum(after.abs()))))
    error = torch.stack(errors).amax(0) / tolerance
    return new, slopes[-1], error.where(torch.isfinite(error), torch.inf)


def _combine(weights: tuple[float, ...], slopes: list[State], part: int, h: Tensor) -> Tensor:
    total = sum(weight * each[part] for weight, each in zip(weights, slopes, strict=True) if weight)
    return expand_like(h.to(slopes[0][part].dtype), slopes[0][part]) * total


def _rms(x: Tensor) -> Tensor:
    """Root mean square per sample."""
    return x.reshape(len(x), -1).to(_precise(x.device)).square().mean(1).sqrt()


def _choose(good: Tensor, new: State, old: State) -> State:
    return tuple(torch.where(expand_like(good, a), a, b) for a, b in zip(new, old, strict=True))


def _rows(kept: Tensor, state: State) -> State:
    return tuple(part[kept] for part in state)
