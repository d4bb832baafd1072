"""A run on fields with vectors: sizes from the data, what a checkpoint holds, what is refused, and runs of before."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield
import tiny
from scorefield.foundation.errors import InputError
from scorefield.run.defaults import completed
from scorefield.run.experiment import differences
from scorefield.run.loading import open_checkpoint

RECIPE = """
model:
  sde: {schedule: EDM}
  net: {class_path: UNet, init_args: {channels: 8, multipliers: [1, 2]}}
  precondition: EDMPreconditioner
  normaliser: Standardise
data: {class_path: Arrays, init_args: {path: PATH, labels: c, valid: 8}}
train: {loss: Denoising, steps: 4, batch_size: 8, validate_on: 8, validate_every: 4, preview_every: 4,
        checkpoint_every: 2, log_every: 2, accelerator: cpu}
"""


def recipe(folder: Path, entries: int = 2) -> Path:
    draws = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    year = 2000 + draws.integers(0, 100, size=(40, entries)) + 0.5
    if not (folder / "data.npz").exists():
        np.savez(folder / "data.npz", x=draws.normal(size=(40, 8, 8)).astype("f4"), c=year)
    return tiny.recipe(folder, RECIPE.replace("PATH", str(folder / "data.npz")))


def train(folder: Path, out: Path, *, resume: bool = False, entries: int = 2, **overrides: object) -> scorefield.Model:
    return tiny.run.train(*tiny.settings(recipe(folder, entries), **overrides), out, resume=resume)


def test_the_length_of_vectors_is_taken_from_the_data_and_kept(tmp_path: Path) -> None:
    model = train(tmp_path, tmp_path / "run", entries=3)
    assert model.vector == model.denoiser.net.vector == 3
    opened = open_checkpoint(tmp_path / "run")
    assert opened.config["model"]["net"]["init_args"]["vector"] == 3
    assert opened.checkpoint.group("vector").keys() == model.vectors.state_dict().keys()
    loaded = scorefield.load(tmp_path / "run")
    with torch.no_grad():
        for part in loaded.denoiser.net.parameters():
            part.add_(0.1)
    x, year = torch.randn(2, 1, 8, 8), torch.full((2, 3), 2050.0)
    one, other = (loaded.score(x, 0.5, cond={"vector": v}) for v in (year, year + 50))
    assert one.isfinite().all() and not torch.equal(one, other)


def test_a_run_with_vectors_is_resumed_to_the_bit(tmp_path: Path) -> None:
    whole = train(tmp_path, tmp_path / "whole")
    train(tmp_path, tmp_path / "halves", train__steps=2)
    halves = train(tmp_path, tmp_path / "halves", resume=True)
    for (name, one), other in zip(whole.state_dict().items(), halves.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"model__net__vector": 3}, "model.net.vector is 3, but the data bring vectors of 2"),
        ({"model__net__vector": 2, "data__labels": "null"}, "bring no vectors"),
    ],
)
def test_a_network_of_other_vectors_than_the_data_have_is_refused(tmp_path: Path, overrides: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        train(tmp_path, tmp_path / "run", **overrides)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_network_that_takes_no_vectors_says_that_it_will_not_see_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parser, settings = tiny.settings(recipe(tmp_path), model__net="NCSNv2", model__net__channels=4)
    with caplog.at_level(logging.WARNING, "scorefield"):
        tiny.run.prepare(parser, settings)
    assert "does not take" in caplog.text


def test_the_class_of_a_run_of_before_may_have_new_arguments_of_default_value() -> None:
    stored = {"net": {"class_path": "scorefield.nn.UNet", "init_args": {"channels": 8}}, "shape": [1, 8, 8]}
    now = {"net": {"class_path": "scorefield.nn.UNet", "init_args": {"channels": 8, "vector": 0}}, "shape": [1, 8, 8]}
    assert differences(completed(stored, now), now, "model") == []
    now["net"]["init_args"] |= {"vector": 2}
    assert differences(completed(stored, now), now, "model") == [("model.net.init_args.vector", None, 2)]
    now["net"]["init_args"] |= {"vector": 0, "channels": 9}
    assert differences(completed(stored, now), now, "model") == [("model.net.init_args.channels", 8, 9)]
    other = {"class_path": "scorefield.nn.FNO", "init_args": {"vector": 0}}
    assert len(differences(completed(stored, {"net": other}), {"net": other}, "model")) > 1
