"""Samples as a job: drawn in chunks of one size, so that each is the same whoever draws it, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.picture import save_grid
from scorefield.foundation.errors import InputError
from scorefield.jobs.options import Number
from scorefield.jobs.outputs import Pixels, write_array, write_pictures
from scorefield.jobs.vectors import Vector, check_vector
from scorefield.model import Model
from scorefield.run.runner import Job, Piece, Pieces, made_by_folder, record_in
from scorefield.samplers import Sampler

PICTURED = 64  # samples in the grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws(Job):
    """n samples in data units, as a folder: `samples.npy` or one PNG for each, a picture of the first, and `job.json`.

    Args:
        out: the folder.
        model: what to sample.
        sampler: how.
        n: how many.
        seed: sample i depends on (seed, i) alone.
        chunk: how many at once.
        label: the class, of a network with labels, or each in turn; by default the null class.
        denoiser: one to sample with instead of the model's own.
        classes: how many classes that denoiser knows, where the network does not.
        grid: another than that of the training data.
        cond: what the samples are conditioned on, a batch of n.
        pixels: black and white of the PNGs that are wanted instead of an array.
        vector: the numbers, of a network with vectors; by default those of `cond`, or the null vector.
        facts: what decides the samples, beside the arguments above: the weights, the denoiser, what `cond` is.
    """

    out: Path
    model: Model
    sampler: Sampler
    n: int
    seed: int = 0
    chunk: int = 64
    label: Number | None = None
    denoiser: DenoiserProtocol | None = None
    classes: int = 0
    grid: tuple[int, ...] = ()
    cond: Mapping[str, Tensor] | None = None
    pixels: Pixels | None = None
    vector: Vector | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.known
        if self.label is not None and not known:
            raise InputError(f"The network knows no classes: leave out the label {self.label}.")
        if isinstance(self.label, int) and not 0 <= self.label < known:
            raise InputError(f"There is no class {self.label}: give a label from 0 to {known - 1}.")
        check_vector(self.model, self.vector)
        self.model.check_cond(self.cond)
        if self.pixels is not None:
            self.pixels.check(self.shape)

    @property
    def known(self) -> int:
        """How many classes may be drawn from: those that network and classifier know and the data had; 0 without any."""
        return min(filter(None, (self.model.labels, self.classes, len(self.model.class_names))), default=0)

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *grid) of a sample."""
        return (self.model.shape[0], *self.grid) if self.grid else self.model.shape

    @property
    def condition(self) -> dict[str, Tensor]:
        """`cond` with the vector and the classes: sample i is of the class i modulo their number where each has its turn."""
        found = dict(self.cond or {})
        if self.vector is not None:
            found["vector"] = torch.tensor(self.vector, dtype=torch.float64).expand(self.n, -1)
        if self.label is None:
            return found
        label = torch.arange(self.n) % self.known if self.label == "each" else torch.full((self.n,), self.label)
        return found | {"label": label}

    def of_the_first(self, n: int) -> Draws:
        """The first n samples alone."""
        cond = None if self.cond is None else {name: value[:n] for name, value in self.cond.items()}
        return replace(self, n=min(n, self.n), cond=cond)

    @property
    def identity(self) -> dict[str, Any]:
        given = {"n": self.n, "seed": self.seed, "chunk": self.chunk, "shape": list(self.shape), "label": self.label}
        given |= {} if self.vector is None else {"vector": list(self.vector)}
        png = None if self.pixels is None else [self.pixels.low, self.pixels.high]
        return given | {"sampler": repr(self.sampler), "png": png} | dict(self.facts)

    @property
    def sizes(self) -> list[int]:
        return [min(self.chunk, self.n - start) for start in range(0, self.n, self.chunk)]

    def compute(self, number: int) -> Piece:
        start, options = number * self.chunk, (self.seed, self.sampler, self.shape, self.condition, self.chunk)
        x = next(self.model.chunks([start], self.n, *options, denoiser=self.denoiser))
        if not self.is_finite(x):
            raise InputError(
                f"Samples {start} to {start + len(x) - 1} are not finite: take another --grid or --sampler, or more --steps."
            )
        if self.pixels is not None:
            self.pixels.check_range(x)
        return {"x": x.numpy()}

    def is_finite(self, x: Tensor) -> bool:
        """Whether fields are finite wherever there is noise."""
        inside = self.model.sde.noise.support(x.shape[2:])
        return bool((x if inside is None else x[..., inside]).isfinite().all())

    def assemble(self, pieces: Pieces, out: Path) -> None:
        out.mkdir()
        chunks = (piece["x"] for piece in pieces)
        if self.pixels is None:
            write_array(out / "samples.npy", (self.n, *self.shape), chunks)
        else:
            write_pictures(out / "png", self.n, chunks, self.pixels)
        save_grid(out / "samples.png", self.first(pieces, PICTURED))
        record_in(out, self.identity)

    def first(self, pieces: Pieces, count: int) -> Tensor:
        """The first samples of those that are drawn."""
        numbers = range(-(-min(count, self.n) // self.chunk))
        return torch.from_numpy(np.concatenate([pieces[number]["x"] for number in numbers])[:count])

    def made_by(self) -> str | None:
        there = (self.out / "samples.npy").is_file() or len(list((self.out / "png").glob("*.png"))) == self.n
        return made_by_folder(self.out) if there else None


def read_samples(folder: Path) -> Tensor:
    """The samples of a folder, left on disk until they are used; writing to them changes no file."""
    return torch.from_numpy(np.load(folder / "samples.npy", mmap_mode="c", allow_pickle=False))


@torch.no_grad()
def count_evaluations(model: Model, sampler: Sampler, cond: Mapping[str, Tensor] | None = None) -> int:
    """Network evaluations per sample, counted."""
    calls = []
    hook = model.denoiser.register_forward_hook(lambda *_: calls.append(1))
    one = {name: value[:1] for name, value in model.taken(cond or {}).items()}
    shape = (model.shape[0], *one["field"].shape[2:]) if "field" in one else model.shape
    model.sample(1, sampler=sampler, chunk=1, shape=shape, cond=one)
    hook.remove()
    return len(calls)
