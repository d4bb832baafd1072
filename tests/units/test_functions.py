"""Functions on the road of a user: field noise and neural operators from a recipe, kept in the checkpoint, on any grid."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import scorefield
import tiny
from scorefield import run
from scorefield.cli import main
from scorefield.errors import InputError
from scorefield.model import Model
from scorefield.noise import GaussianField, Matern, Neumann, White

pytest.importorskip("neuralop")
RECIPE = """
base: digits
model:
  sde:
    noise:
      class_path: GaussianField
      init_args:
        density: {class_path: Matern, init_args: {length: 0.2, smoothness: 1.5}}
        boundary: Neumann
        domain: [1.0, 2.0]
  net:
    class_path: FNO
    init_args: {channels: 8, modes: 8, layers: 2}
  sampler: {steps: 3, step: Heun}
train:
  steps: 6
  batch_size: 16
  validate_every: 6
  validate_on: 16
  preview_every: 6
  checkpoint_every: 3
  accelerator: cpu
"""
NOISE = GaussianField(Matern(0.2, 1.5), Neumann(), (1.0, 2.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("functions")
    run.train(*tiny.settings(tiny.recipe(folder, RECIPE)), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return scorefield.load(folder)


def test_the_noise_comes_back_with_the_checkpoint(model: Model) -> None:
    assert model.sde.noise == NOISE and model.sde.noise != White()


def test_what_was_trained_on_one_grid_is_sampled_on_others(model: Model) -> None:
    for shape in ((1, 8, 8), (1, 16, 16), (1, 9, 13)):
        x = model.sample(2, shape=shape, chunk=2)
        assert x.shape == (2, *shape) and bool(torch.isfinite(x).all())
    assert torch.equal(model.sample(3, chunk=2)[2], model.sample(5, chunk=2)[2])  # of its seed alone


def test_the_prior_is_the_field(model: Model) -> None:
    """At t = 1 the samples are σ C^½ z of the stored noise."""
    seen = []
    model.sample(2, chunk=2, callback=lambda level, t, x: seen.append(x) if level == 0 else None)
    from scorefield.model import SAMPLING
    from scorefield.random import Generators

    generator = Generators((0, index, SAMPLING) for index in range(2))
    expected = 40 * NOISE.sample((2, 1, 8, 8), generator=generator, like=torch.empty(0))
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-5)


def test_a_noise_that_does_not_fit_the_grid_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.recipe(folder.parent / "bad", RECIPE)
    code = main(
        ["train", str(recipe), "--out", str(folder.parent / "never"), "--model.sde.noise.domain", "[1.0,1.0,1.0]"]
    )
    error = capsys.readouterr().err
    assert (
        code == 2
        and "3 lengths, but the fields have 2 axes" in error
        and error.rstrip().splitlines()[-1].startswith("scorefield: error:")
    )
    with pytest.raises(InputError, match="band"):
        GaussianField(Matern(0.2), band=(0, 4))
