"""A complete run of a few seconds, for tests of everything around the training loop."""

from __future__ import annotations

from pathlib import Path

from scorefield import run
from scorefield.config import read_recipe
from scorefield.model import Model

RECIPE = """
base: digits
model:
  net:
    init_args: {channels: 8, blocks: 1, attention: [], dropout: 0.1}
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


def settings(path: Path, **overrides: object) -> tuple[run.Parser, run.Namespace]:
    """A parser and its settings: `train__steps=4` overrides train.steps."""
    parser = run.recipe_parser()
    base = parser.read_object(read_recipe(path), str(path))
    arguments = [f"--{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return parser, parser.read(arguments, base)


def train(folder: Path, out: Path, *, resume: bool = False, **overrides: object) -> Model:
    return run.train(*settings(recipe(folder), **overrides), out, resume=resume)
