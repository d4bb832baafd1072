"""Sequences drawn field by field, each given the draws before it: members that are coherent in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.data.picture import save_grid
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.jobs.draws import PICTURED, Draws
from scorefield.jobs.outputs import write_array, write_times
from scorefield.run.runner import Job, Piece, Pieces, record_in


@dataclass(frozen=True, eq=False)
class Rollout(Job):
    """n sequences (steps, channels, *grid) in data units: `samples.npy`, the lead times in `times.npz`, a picture of the first
    members' last fields, `job.json`.

    Field k of sequence i depends on (seed, i, k) and on what it is given: the last fields of `draws.cond`, followed by those
    drawn so far. The first field is that of `draws` itself.

    Args:
        draws: those of the first field.
        steps: fields in a sequence.
        sequences: how many different ones they go on from.
    """

    draws: Draws
    steps: int
    sequences: int = 0

    def __post_init__(self) -> None:
        given = self.draws.condition
        if "field" not in given or given["field"].shape[1] % self.draws.shape[0]:
            raise InputError("A rollout goes on from fields like those it draws: give some by --given.")

    @property
    def out(self) -> Path:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.draws.out

    @property
    def identity(self) -> dict[str, Any]:
        return self.draws.identity | {"rollout": self.steps}

    @property
    def sizes(self) -> Sequence[int]:
        return self.draws.sizes

    def compute(self, number: int) -> Piece:
        draws, start = self.draws, number * self.draws.chunk
        rows = torch.arange(start, start + draws.chunk)  # the last chunk whole, as in `Model.chunks`
        cond = {name: value[rows.clamp(max=len(value) - 1)] for name, value in draws.condition.items()}
        found: list[Tensor] = []
        for step in range(self.steps):
            tail = (step,) if step else ()  # without for the first: the draws' own
            generator = Generators((draws.seed, int(row), *tail, Stream.SAMPLE) for row in rows)
            drawn = draws.model.draw(
                generator, draws.shape, sampler=draws.sampler, cond=cond, denoiser=draws.denoiser
            ).x.cpu()
            if not draws.is_finite(drawn):
                raise InputError(
                    f"Field {step + 1} of sequences {start} to {start + draws.sizes[number] - 1} is not finite: the sequences "
                    "diverge; take fewer, or a model that has seen more steps ahead."
                )
            found.append(drawn)
            cond["field"] = torch.cat((cond["field"][:, draws.shape[0] :], drawn.to(cond["field"])), dim=1)
        return {"x": torch.stack(found, dim=1)[: draws.n - start].numpy()}

    def assemble(self, pieces: Pieces, out: Path) -> None:
        out.mkdir()
        chunks = (piece["x"] for piece in pieces)
        write_array(out / "samples.npy", (self.draws.n, self.steps, *self.draws.shape), chunks)
        write_times(out / "times.npz", range(1, self.steps + 1), self.draws.n, self.sequences)
        save_grid(out / "samples.png", self.draws.first(pieces, PICTURED)[:, -1])
        record_in(out, self.identity)

    def made_by(self) -> str | None:
        return self.draws.made_by()
