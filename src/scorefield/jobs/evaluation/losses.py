"""The loss of a split of the data as a job: what training minimises, on fields and under noise that stay the same."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.loader import fetch
from scorefield.data.source import Split
from scorefield.foundation.arithmetic import autocast_of
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.jobs.options import check_shape
from scorefield.metrics.figures import summary
from scorefield.model import Model
from scorefield.run.runner import JOB, Job, Piece, Pieces, digest
from scorefield.training.loop import versions
from scorefield.training.plan import Plan
from scorefield.training.validation import VALIDATION_EPOCH, losses_of


@dataclass(frozen=True, eq=False)
class Losses(Job):
    """The loss of at most n fields under several draws of times and noise, as one JSON file.

    Field i in draw r has the times and the noise that training validates with in its epoch of validation + r: they depend on the
    run's seed, i and r alone, never on the checkpoint. So the first draw of the held-out data is what the log of the run says.

    Args:
        out: the file.
        model: with the weights that are evaluated.
        plan: how it was trained.
        fields: the split.
        split: its name.
        n: at most so many fields, evenly spread over the split.
        draws: of times and noise for each field.
        chunk: fields at once.
        facts: which weights these are.
    """

    out: Path
    model: Model
    plan: Plan
    fields: FieldDataset
    split: Split
    n: int
    draws: int
    chunk: int = 64
    facts: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse fields that the model has no loss of."""
        first = self.fields.gather(self.indices[:1])
        check_shape(first.x.shape[1:], self.model)
        net = self.model.denoiser.net
        for name, needed in (("field", net.cond_channels), ("label", net.labels)):
            if needed and name not in first.cond:
                raise InputError(
                    f"The network is conditioned on a {name}, which these fields come without: give its own data."
                )

    @cached_property
    def indices(self) -> Tensor:
        """The fields that are evaluated, rising."""
        count = min(self.n, len(self.fields))
        return torch.from_numpy(np.linspace(0, len(self.fields) - 1, count).round().astype(np.int64))

    @cached_property
    def parts(self) -> list[tuple[int, Tensor]]:
        """The draw and the fields of each piece."""
        return [(draw, part) for draw in range(self.draws) for part in self.indices.split(self.chunk)]

    @cached_property
    def facts_of_data(self) -> dict[str, Any]:
        """Which fields they are."""
        content = self.fields.content(self.indices, self.chunk)
        return {"split": self.split, "n": len(self.indices), "of": len(self.fields), "data_sha256": content}

    @cached_property
    def identity(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        made_by = {"loss": repr(self.plan.loss.held_out), "seed": self.plan.seed, "precision": self.plan.precision}
        return self.facts_of_data | made_by | {"draws": self.draws, "chunk": self.chunk, "model": dict(self.facts)}

    @property
    def sizes(self) -> Sequence[int]:
        return [len(part) for _, part in self.parts]

    @torch.no_grad()
    def compute(self, number: int) -> Piece:
        draw, indices = self.parts[number]
        key = torch.stack((indices, torch.full_like(indices, VALIDATION_EPOCH + draw)), dim=1)
        batch: Batch = fetch(self.fields, key, (), self.plan.seed)
        autocast = autocast_of(self.plan.precision, self.model.device)
        denoiser = self.model.denoiser
        found = losses_of(self.plan.loss.held_out, denoiser, self.model, batch, seed=self.plan.seed, autocast=autocast)
        return {"loss": found.double().cpu().numpy()}

    def assemble(self, pieces: Pieces, out: Path) -> None:
        each = np.concatenate([piece["loss"] for piece in pieces]).reshape(self.draws, -1)
        means = each.mean(0)
        error = float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else math.nan
        figure = summary([float(value) for value in each.mean(1)]) | {"standard_error": error}
        record = self.identity | {"figures": {f"{self.split}_loss": figure}, "seeds": list(range(self.draws))}
        write_json(out, record | {"versions": versions(), JOB: digest(self.identity)})


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """A line for each checkpoint: the loss with its standard error over fields, and how far the draws are apart."""
    first = records[0]
    how = f"{first['draws']} draw{'s' * (first['draws'] > 1)} of times and noise"
    lines = [f"loss of {first['n']} of {first['of']} fields of {first['split']}, {how}"]
    for row in records:
        figure = row["figures"][f"{row['split']}_loss"]
        mean, error, spread = (
            math.nan if figure[name] is None else figure[name] for name in ("mean", "standard_error", "std")
        )
        draws = "" if math.isnan(spread) else f"   (std of the draws {spread:.2g})"
        lines.append(f"  step {row['model']['step']:<10}{mean:10.5g} ± {error:.2g}{draws}")
    return "\n".join(lines)


def by_step(records: Sequence[Mapping[str, Any]]) -> str:
    """Comma-separated values with a row per checkpoint."""
    text = io.StringIO()
    names = ("step", "n", "draws", "loss", "standard_error", "std_of_draws", "weights", "data_sha256")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in records:
        figure = row["figures"][f"{row['split']}_loss"]
        values = [figure[name] for name in ("mean", "standard_error", "std")]
        writer.writerow(
            [row["model"]["step"], row["n"], row["draws"], *values, row["model"]["weights"], row["data_sha256"]]
        )
    return text.getvalue()
