"""Completing incomplete fields as a job: one draw of each, to train the next prior on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from scorefield.completion import complete, refuse_unseen
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split, say_notes
from scorefield.foundation.errors import InputError
from scorefield.guidance import Method, MomentMatching
from scorefield.jobs.options import Drawing, check_shape
from scorefield.jobs.outputs import write_array
from scorefield.run.runner import Job, Piece, Pieces, check_out, made_by_folder, record_in, run_job
from scorefield.run.verb import NonNegative, Seed
from scorefield.samplers import Sampler


@dataclass(frozen=True, kw_only=True)
class Complete(Drawing):
    """Draw whole fields for those that are known in part, one for each: data to train the next prior on, by --init RUN. Again and
    again, that is expectation-maximisation: a prior from data none of which is whole.

    Args:
        data: the fields, NaN where they are not known (Functions); by default what the run was trained on.
        split: train, valid, or test where the source has such a part.
        noise: standard deviation of what is known, in data units.
        method: MomentMatching, PiGDM, DPS, or Replacement (for a noise of 0).
        seed: the draw of field i depends on (seed, i) alone: another one for each round.
        out: folder to write, samples.npy in it.
    """

    data: Source | None = None
    split: Split = "train"
    noise: NonNegative = 0.0
    method: Method = MomentMatching()
    seed: Seed = 0
    out: Path

    def check(self) -> None:
        check_out(self.out, folder=True)

    def run(self) -> dict[str, Any]:
        model, fields = self.model, self.source(self.data).load(self.split)
        say_notes(fields)
        check_shape(fields[0].x.shape, model)
        chunk = self.at_once(len(fields), model.shape[1:])
        facts = self.provenance | {"split": self.split} | ({} if self.data is None else {"data": repr(self.data)})
        job = Completion(self.out, self, fields, self.sampler_from(model.stepwise), chunk, facts)
        refuse_unseen(job.shown)
        run_job(job, unit="field", title="complete")
        return {"fields": len(fields), "known": float(job.shown.double().mean() / len(fields))}

    def table(self, found: dict[str, Any]) -> str:
        whole = self.out / "samples.npy"
        return (
            f"{found['fields']} fields, of which {found['known']:.1%} was known, drawn whole: {whole}\n"
            f"  the next prior: scorefield train RECIPE --init {self.folder} --data Functions --data.path {whole} "
            "--data.channel_axis first"
        )


@dataclass(frozen=True, eq=False)
class Completion(Job):
    """A draw of each field, as `samples.npy` in a folder.

    Args:
        out: the folder.
        verb: what is asked for.
        fields: the data.
        sampler: how to draw.
        chunk: fields at once.
        facts: what else decides the result.
    """

    out: Path
    verb: Complete
    fields: FieldDataset
    sampler: Sampler
    chunk: int
    facts: Mapping[str, Any]

    @cached_property
    def shown(self) -> torch.Tensor:
        """How many fields show each element."""
        total = torch.zeros(self.fields[0].x.shape, dtype=torch.long)
        for part in torch.arange(len(self.fields)).split(256):
            batch = self.fields.gather(part)
            total += len(part) if batch.mask is None else batch.mask.bool().expand(batch.x.shape).sum(0)
        return total

    @cached_property
    def identity(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        verb = self.verb
        found = {"noise": verb.noise, "method": repr(verb.method), "seed": verb.seed, "chunk": self.chunk}
        return {
            **self.facts,
            **found,
            "sampler": repr(self.sampler),
            "data_sha256": self.fields.content(torch.arange(len(self.fields))),
            "n": len(self.fields),
        }

    @property
    def sizes(self) -> list[int]:
        return [min(self.chunk, len(self.fields) - start) for start in range(0, len(self.fields), self.chunk)]

    def compute(self, number: int) -> Piece:
        indices = torch.arange(len(self.fields))[number * self.chunk :][: self.chunk]
        batch = self.fields.gather(indices)
        verb = self.verb
        x = complete(
            verb.model, batch, verb.noise, indices=indices, seed=verb.seed, method=verb.method, sampler=self.sampler
        )
        if not bool(x.isfinite().all()):
            raise InputError(
                "A field that was drawn is not finite: take another --sampler or --method, or more --steps."
            )
        return {"x": x.numpy()}

    def assemble(self, pieces: Pieces, out: Path) -> None:
        out.mkdir()
        write_array(out / "samples.npy", (len(self.fields), *self.fields[0].x.shape), (piece["x"] for piece in pieces))
        record_in(out, self.identity)

    def made_by(self) -> str | None:
        return made_by_folder(self.out) if (self.out / "samples.npy").is_file() else None
