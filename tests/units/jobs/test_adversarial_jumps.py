"""A flow map trained on against a critic of its draws is a run like any other: the recipe, resuming, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from scorefield.cli import main
from scorefield.losses import AdversarialJumps
from scorefield.training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("unchecked")
SMALL = """
train:
  steps: 4
  batch_size: 8
  log_every: 1
  validate_every: 2
  validate_on: 4
  preview_every: 0
  checkpoint_every: 1
"""
RECIPE = f"""
base: flow-map-adversarial
train:
  loss:
    init_args:
      critic:
        init_args: {{channels: 4, multipliers: [1, 2], dropout: 0.1}}
{SMALL.removeprefix(chr(10) + "train:" + chr(10))}"""
MODEL = "{class_path: scorefield.NCSNpp, init_args: {channels: 4, multipliers: [1, 2], blocks: 1, attention: [], dropout: 0.1}}"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    recipe = f"base: digits\nmodel:\n  net: {MODEL}{SMALL}".replace("checkpoint_every: 1", "checkpoint_every: 4")
    assert main(["train", str(tiny.recipe(folder, recipe)), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("map")
    words = ["train", str(tiny.recipe(folder, RECIPE)), "--init", str(digits), "--out", str(folder / "run")]
    assert main(words) == 0
    return folder / "run"


def stored(run: Path, step: int) -> dict[str, torch.Tensor]:
    return checkpoints.read(checkpoints.path_of(run / "checkpoints", step)).tensors


def test_map_and_critic_are_resumed_bit_for_bit(digits: Path, run: Path, tmp_path: Path) -> None:
    words = ["train", str(tiny.recipe(tmp_path, RECIPE)), "--out", str(tmp_path / "again")]
    assert main([*words, "--init", str(digits), "--train.steps", "4", "--train.checkpoint_every", "3"]) == 0
    for path in (tmp_path / "again" / "checkpoints").glob("*0004*"):
        path.unlink()
    assert main([*words, "--resume"]) == 0
    a, b, before = stored(run, 4), stored(tmp_path / "again", 4), stored(run, 3)
    assert a.keys() == b.keys() and not [name for name in a if not torch.equal(a[name], b[name])]
    for group in ("net.", "critic.", "critic_optimiser.exp_avg_sq."):
        names = [name for name in a if name.startswith(group) and a[name].is_floating_point()]
        assert names and any(not torch.equal(a[name], before[name]) for name in names)


def test_it_draws_by_jumps(run: Path, tmp_path: Path) -> None:
    assert main(["sample", str(run), "-n", "3", "--steps", "2", "--out", str(tmp_path / "out")]) == 0
    found = np.load(tmp_path / "out" / "samples.npy")
    assert found.shape == (3, 1, 8, 8) and np.isfinite(found).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train.accumulate", "2"], "does not go with train.accumulate"),
        (["--train.devices", "2"], "does not go with several processes"),
        (["--train.loss.rounds", "3"], "cannot be shared among 3 steps"),
        (["--train.loss.rounds", "8"], "compares 16 fields or more at once"),
        (["--train.loss.score.levels", "[0.5, 1.0]"], "train.loss.critic.classes 3"),
    ],
)
def test_plans_without_sense_are_refused(
    words: list[str], said: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(tiny.recipe(tmp_path, RECIPE))
    assert main(["train", recipe, "--init", str(digits), *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_critic_does_not_judge_the_pairs_that_it_was_just_trained_on(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the distillation, which draws before, both would have the same noise, the same kinds and the same draws."""
    seen: list[torch.Tensor] = []
    logit = AdversarialJumps.logit

    def kept(self: AdversarialJumps, x: torch.Tensor, kind: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach().clone())
        return logit(self, x, kind, level)

    monkeypatch.setattr(AdversarialJumps, "logit", kept)
    score = "      score: {class_path: scorefield.JumpScore, init_args: {distillation: null}}\n"
    alone = RECIPE.replace("      critic:", score + "      critic:")
    words = ["train", str(tiny.recipe(tmp_path, alone)), "--init", str(digits), "--out", str(tmp_path / "run")]
    assert main([*words, "--train.steps", "1", "--train.validate_every", "0"]) == 0
    assert len(seen) == 6 and not any(torch.equal(one, two) for one in seen[:4] for two in seen[4:])
