"""A complete run of a few seconds, for tests of everything around the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split
from scorefield.datasets import Digits
from scorefield.model import Model
from scorefield.run import experiment as run
from scorefield.run.configuration import Parser, read_recipe
from scorefield.run.recipe import recipe_parser

RECIPE = """
base: digits
model:
  net:
    init_args: {channels: 8, multipliers: [1], blocks: 1, attention: [], dropout: 0.1}
  sampler: {steps: 4}
train:
  steps: 12
  batch_size: 16
  log_every: 2
  validate_every: 6
  validate_on: 32
  preview_every: 12
  checkpoint_every: 5
  accelerator: cpu
"""


def recipe(folder: Path, text: str = RECIPE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path


def settings(path: Path, **overrides: object) -> tuple[Parser, Namespace]:
    """A parser and its settings: `train__steps=4` overrides train.steps."""
    parser = recipe_parser()
    base = parser.read_object(read_recipe(path), str(path))
    arguments = [f"--{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return parser, parser.read(arguments, base)


def train(folder: Path, out: Path, *, resume: bool = False, **overrides: object) -> Model:
    return run.train(*settings(recipe(folder), **overrides), out, resume=resume)


class Coarse(FieldDataset):
    """Digits beside what is left of them on a grid twice as coarse: fields to be drawn given a field."""

    def __init__(self, digits: FieldDataset) -> None:
        self.digits = digits

    def __len__(self) -> int:
        return len(self.digits)

    def gather(self, indices: Tensor) -> Batch:
        batch = self.digits.gather(indices)
        coarse = torch.nn.functional.avg_pool2d(batch.x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return Batch(batch.x, {"field": coarse / 16}, key=batch.key)


@dataclass(frozen=True)
class CoarseDigits(Source):
    """`Coarse` fields of the digits."""

    def load(self, split: Split) -> FieldDataset:
        return Coarse(Digits().load(split))


class Paired(FieldDataset):
    """Fields x of an .npz, beside fields to be conditioned on if it has any; the same for training and validation."""

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays["x"])

    def gather(self, indices: Tensor) -> Batch:
        cond = {name: value[indices] for name, value in self.arrays.items() if name != "x"}
        return Batch(self.arrays["x"][indices], cond)


@dataclass(frozen=True)
class Pairs(Source):
    """`Paired` fields of a file."""

    path: Path

    def load(self, split: Split) -> FieldDataset:
        with np.load(self.path) as file:
            return Paired({name: torch.from_numpy(file[name]) for name in file.files})
