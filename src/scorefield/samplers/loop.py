"""The loop: from the prior at t_max, step by step, to data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Size, Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.samplers.grid import EDMGrid, TimeGrid
from scorefield.samplers.langevin import Corrector
from scorefield.samplers.steps import Heun, Step

Callback = Callable[[int, Tensor, Tensor], None]  # (number of the level, t, x_t)


@torch.no_grad()
def sample(
    denoiser: DenoiserProtocol,
    x_1: Tensor,
    times: Tensor,
    predictor: Step,
    *,
    corrector: Corrector | None = None,
    correct_first: bool = True,
    denoise: bool = True,
    cond: Condition | None = None,
    generator: Generators,
    callback: Callback | None = None,
) -> Tensor:
    """Carry x_1, drawn at times[0], along the falling times to times[-1], and denoise it there.

    Args:
        denoiser: any denoiser.
        x_1: the start, (batch, channels, *grid).
        times: falling times in float64, (levels).
        predictor: the step between levels.
        corrector: a step that stays on a level, or none.
        correct_first: correct before predicting and before denoising, as Song's code does; his paper prints the reverse.
        denoise: return x̂(x, t_min), or what else the predictor ends with, at the cost of one evaluation, instead of x at t_min.
        cond: what the model is conditioned on.
        generator: one stream of draws per sample.
        callback: called with (level, t, x_t) at every level.
    """
    x, memory = x_1, None
    for level in range(len(times) - 1):
        t, s = times[level], times[level + 1]
        if callback is not None:
            callback(level, t, x)
        if corrector is not None and correct_first:
            x = corrector(denoiser, x, t, s, cond, generator=generator)
        x, memory = predictor(denoiser, x, t, s, cond, generator=generator, memory=memory)
        if corrector is not None and not correct_first:
            below = times[min(level + 2, len(times) - 1)]
            x = corrector(denoiser, x, s, below, cond, generator=generator)
    if callback is not None:
        callback(len(times) - 1, times[-1], x)
    if corrector is not None and correct_first and denoise:  # the denoising is the last prediction
        x = corrector(denoiser, x, times[-1], times[-1], cond, generator=generator)
    return predictor.finish(denoiser, x, times[-1], cond) if denoise else x


@dataclass(frozen=True)
class Sampler:
    """A complete recipe for sampling.

    Args:
        steps: steps from noise to data; the final denoising is one of them, so Heun takes 2·steps − 1 evaluations.
        step: the predictor.
        grid: the times.
        corrector: a step that stays on a level, or none.
        correct_first: correct before predicting, and before the final denoising.
        denoise: end with x̂(x, t_min).
    """

    steps: int = 18
    step: Step = field(default_factory=Heun)
    grid: TimeGrid = field(default_factory=EDMGrid)
    corrector: Corrector | None = None
    correct_first: bool = True
    denoise: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"A sampler needs steps >= 1, not {self.steps}.")

    def __call__(
        self,
        denoiser: DenoiserProtocol,
        shape: Sequence[int] | Size,
        *,
        generator: Generators,
        like: Tensor,
        cond: Condition | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Samples of the given shape (batch, channels, *grid), in model space, on the device of `like`."""
        times = self.grid(denoiser.sde.schedule, self.steps if self.denoise else self.steps + 1)
        x_1 = denoiser.sde.prior(shape, times[0], generator=generator, like=like)
        return sample(
            denoiser,
            x_1,
            times,
            self.step,
            corrector=self.corrector,
            correct_first=self.correct_first,
            denoise=self.denoise,
            cond=cond,
            generator=generator,
            callback=callback,
        )
