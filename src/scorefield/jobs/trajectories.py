"""Sequences longer than the windows that a model knows, all times drawn together, and given what is known of some points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.batch import Batch
from scorefield.data.picture import save_grid
from scorefield.data.single import read_array
from scorefield.foundation.arithmetic import autocast_of
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.guidance import Guided, Measurement, Method
from scorefield.inverse import units_of
from scorefield.jobs.draws import PICTURED, Draws
from scorefield.jobs.outputs import write_array, write_times
from scorefield.model import Model
from scorefield.operators import Mask
from scorefield.run.runner import Job, Piece, Pieces, record_in
from scorefield.samplers import Sampler
from scorefield.samplers.joint import JointTimes


@dataclass(frozen=True, eq=False)
class Observed:
    """What is known along a sequence, the same for all: y = x + n at some points of some times, n white.

    Args:
        y: (times · variables, *grid) in data units, NaN where nothing is known.
        noise: standard deviation of n in data units, above 0.
        method: how p(y | x_t) is approximated.
    """

    y: Tensor
    noise: float
    method: Method

    @classmethod
    def read(cls, path: Path, shape: Sequence[int], times: int, noise: float | None, method: Method) -> Observed:
        """Of a .npy file (times, *grid) or (times, variables, *grid).

        Args:
            path: the file.
            shape: (variables, *grid) of one time.
            times: in a sequence.
            noise: standard deviation.
            method: how p(y | x_t) is approximated.
        """
        array, whole = read_array(path), (times, *shape)
        if array.shape not in (whole, (times, *shape[1:])) or array.size != np.prod(whole):
            sizes = ["×".join(map(str, size)) for size in (array.shape, whole)]
            raise InputError(
                f"{path} is {sizes[0]}, where {sizes[1]} is needed (times × variables × grid): NaN where nothing is known."
            )
        if array.dtype.kind not in "biuf":
            raise InputError(f"{path} holds {array.dtype}, where real numbers are needed: NaN where nothing is known.")
        y = torch.from_numpy(np.array(array, dtype=np.float64)).reshape(-1, *shape[1:])
        if bool(y.isinf().any()) or not bool(y.isfinite().any()):
            raise InputError(f"{path} needs finite values where something is known and NaN elsewhere.")
        if noise is None or not noise > 0:
            raise InputError("--observed needs the standard deviation of its noise, in the units of the data: --noise.")
        return cls(y, noise, method)

    @property
    def facts(self) -> dict[str, Any]:
        content = sha256(repr(tuple(self.y.shape)).encode() + self.y.numpy().tobytes()).hexdigest()
        return {"observed": content, "noise": self.noise, "method": repr(self.method)}

    def guide(self, prior: JointTimes, scale: Tensor, shift: Tensor) -> DenoiserProtocol:
        """p(x | y) of sequences, x = s z + b elementwise."""
        known, y = self.y.isfinite().to(scale), self.y[None].to(scale)
        measured = Measurement(Mask(known), y, self.noise).moved(scale, shift)
        return Guided(prior, measured, self.method)


@dataclass(frozen=True, eq=False)
class Trajectories(Job):
    """n sequences (times, variables, *grid) in data units: `samples.npy`, the times in `times.npz`, a picture, `job.json`.

    All times of a sequence are drawn together, by a model of windows of them (`JointTimes`). Sequence i depends on (seed, i) and
    on what it is given.

    Args:
        draws: of windows, as they would be drawn one by one; as many evaluated at once as it has samples in a chunk.
        window: times in one.
        times: in a sequence.
        given: what each window of some sequences is given, by their numbers, a batch of all windows, sequence by sequence.
        sequences: how many these are; the others are given the same over again.
        observed: what is known.
    """

    draws: Draws
    window: int
    times: int
    given: Callable[[Tensor], Mapping[str, Tensor]]
    sequences: int = 0
    observed: Observed | None = None

    def __post_init__(self) -> None:
        assert self._prior.window <= self.times  # else refused there
        if self.observed is not None and self.draws.model.mean is not None:
            raise InputError("--observed is for models without a mean of their own: leave it out.")

    @property
    def out(self) -> Path:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.draws.out

    @property
    def identity(self) -> dict[str, Any]:
        known = {} if self.observed is None else self.observed.facts
        return self.draws.identity | {"joint": self.times} | known

    @property
    def _prior(self) -> JointTimes:
        draws = self.draws
        return JointTimes(draws.denoiser or draws.model.generative, self.window, self.times, draws.chunk)

    @property
    def together(self) -> int:
        """How many sequences are drawn at once: as have about as many windows as a chunk has samples."""
        return max(1, self.draws.chunk // (self.times - self.window + 1))

    @property
    def sizes(self) -> Sequence[int]:
        return [min(self.together, self.draws.n - start) for start in range(0, self.draws.n, self.together)]

    @property
    def shape(self) -> tuple[int, ...]:
        """(variables, *grid) of one time."""
        channels, *grid = self.draws.shape
        return (channels // self.window, *grid)

    def compute(self, number: int) -> Piece:
        draws = self.draws
        rows = torch.arange(number * self.together, (number + 1) * self.together).clamp(
            max=draws.n - 1
        )  # always as many
        generator = Generators((draws.seed, int(row), Stream.SAMPLE) for row in rows)
        x = draw_together(
            draws.model, self._prior, generator, draws.shape[1:], draws.sampler, self.given(rows), self.observed
        )
        if not draws.is_finite(x.flatten(0, 1)):
            raise InputError(
                f"The sequences from {int(rows[0])} on are not finite: take another --grid or --sampler, or more --steps."
            )
        return {"x": x[: self.sizes[number]].numpy()}

    def assemble(self, pieces: Pieces, out: Path) -> None:
        out.mkdir()
        chunks = (piece["x"] for piece in pieces)
        write_array(out / "samples.npy", (self.draws.n, self.times, *self.shape), chunks)
        write_times(out / "times.npz", range(self.times), self.draws.n, self.sequences)
        shown = torch.from_numpy(pieces[0]["x"])
        save_grid(out / "samples.png", shown.flatten(0, 1)[:PICTURED])
        record_in(out, self.identity)

    def made_by(self) -> str | None:
        return self.draws.made_by()


@torch.no_grad()
def draw_together(
    model: Model,
    prior: JointTimes,
    generator: Generators,
    grid: Sequence[int],
    sampler: Sampler,
    cond: Mapping[str, Tensor],
    observed: Observed | None = None,
) -> Tensor:
    """Sequences (batch, times, variables, *grid) in data units, one for each stream of noise.

    Args:
        model: of windows.
        prior: of the sequences, by its denoiser.
        generator: one stream for each sequence.
        grid: points along each axis.
        sampler: how.
        cond: of each window, in data units, sequence by sequence.
        observed: what is known of each.
    """
    model.check_sampler(sampler)
    shape, windows = (model.shape[0], *grid), prior.times - prior.window + 1
    # Conditions as the network takes them; there is nothing to enter but them.
    _, given = model.enter(Batch(torch.zeros(len(generator) * windows, *shape), dict(cond)))
    denoiser: DenoiserProtocol = prior
    if observed is not None:
        scale, shift = (prior.series(each.expand(windows, *each.shape[1:])) for each in units_of(model, shape))
        denoiser = observed.guide(prior, scale, shift)
    size = (len(generator), shape[0] // prior.window * prior.times, *grid)
    like = torch.empty(0, device=model.device, dtype=model.precision)
    with autocast_of(model.drawn_in, model.device):
        z = sampler(denoiser, size, generator=generator, like=like, cond=given)
    return prior.series(model.leave(prior.windows(z), given)).unflatten(1, (prior.times, -1)).cpu()
