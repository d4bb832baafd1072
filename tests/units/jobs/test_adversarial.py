"""A generator trained against a critic is a run like any other: resumed bit for bit, drawn, compared, and no density."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from scorefield.cli import main
from scorefield.run import experiment
from scorefield.run.recipe import recipe_parser
from scorefield.training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("unchecked")
NET = "{class_path: scorefield.NCSNpp, init_args: {channels: 4, multipliers: [1, 2], blocks: 1, attention: [], dropout: 0.1}}"
RECIPE = f"""
base: volcano-gano
model:
  net: {NET}
data:
  init_args: {{n: 8, size: 12, valid: 4}}
train:
  loss:
    init_args:
      critic: {NET}
      rounds: 2
  steps: 4
  batch_size: 8
  log_every: 1
  validate_every: 2
  validate_on: 4
  preview_every: 0
  checkpoint_every: 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adversarial")
    assert main(["train", str(tiny.recipe(folder, RECIPE)), "--out", str(folder / "run")]) == 0
    return folder / "run"


def stored(run: Path, step: int) -> checkpoints.Checkpoint:
    return checkpoints.read(checkpoints.path_of(run / "checkpoints", step))


def test_both_networks_and_both_optimisers_are_resumed_bit_for_bit(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    recipe = str(tiny.recipe(tmp_path, RECIPE))
    assert main(["train", recipe, "--out", str(again), "--train.steps", "3"]) == 0
    assert main(["train", recipe, "--out", str(again), "--resume"]) == 0
    a, b, before = stored(run, 4).tensors, stored(again, 4).tensors, stored(again, 3).tensors
    assert a.keys() == b.keys() and not [name for name in a if not torch.equal(a[name], b[name])]
    for group in ("net.", "critic.", "optimiser.exp_avg_sq.", "critic_optimiser.exp_avg_sq."):
        names = [name for name in a if name.startswith(group) and a[name].is_floating_point()]
        assert names and any(not torch.equal(a[name], before[name]) for name in names)
    assert {int(a[name]) for name in a if name.startswith("critic_optimiser.step")} == {8}  # two for each of four
    assert {int(a[name]) for name in a if name.startswith("optimiser.step")} == {4}


def test_a_critic_learns_as_a_whole_beside_a_model_of_which_vectors_alone_do(run: Path, tmp_path: Path) -> None:
    words = ["train", str(tiny.recipe(tmp_path, RECIPE)), "--train.optimiser", "Adam", "--train.steps", "3"]
    words += ["--train.optimiser.matrices", "false", "--train.optimiser.schedule.warmup", "1"]
    assert main([*words, "--init", str(run), "--out", str(tmp_path / "out")]) == 0
    first, last = (stored(tmp_path / "out", step).tensors for step in (1, 3))
    changed = {name for name in last if name in first and not torch.equal(first[name], last[name])}
    assert any(name.startswith("net.") for name in changed)
    assert not [name for name in changed if name.startswith("net.") and last[name].ndim > 1]
    assert [name for name in changed if name.startswith("critic.") and last[name].ndim > 1]


def test_a_critic_that_a_step_has_left_without_gradient_learns_in_the_next_training(tmp_path: Path) -> None:
    built = experiment.prepare(*tiny.settings(tiny.recipe(tmp_path, RECIPE), train__accelerator="cpu"))
    critic = built.trainer.loss.adversary.network
    critic.requires_grad_(False)
    state = built.trainer.launch(built.model)
    assert {id(weight) for weight in critic.parameters()} == {
        id(weight) for group in state.critic_optimiser.param_groups for weight in group["params"]
    }


def test_it_draws_and_is_compared_like_any_other(run: Path, tmp_path: Path) -> None:
    for name, chunk in (("a", "4"), ("b", "5")):
        call = ["sample", str(run), "-n", "5", "--chunk", chunk, "--resolution", "24", "--out", str(tmp_path / name)]
        assert main(call) == 0
    a, b = (np.load(tmp_path / name / "samples.npy") for name in "ab")
    assert a.shape == (5, 2, 24, 24) and np.allclose(a, b, atol=1e-4) and np.abs(a[0] - a[1]).max() > 0
    assert main(["evaluate", str(run), "-n", "4", "--comparison", "Phases", "--seeds", "1"]) == 0
    rows = [json.loads(line) for line in (run / "evaluation" / "results.jsonl").read_text().splitlines()]
    assert {"w_var", "w_skew", "w_total"} <= rows[-1]["figures"].keys()
    assert main(["evaluate", str(run), "--loss", "valid"]) == 0


@pytest.mark.parametrize(
    "words",
    [["likelihood", "{run}"], ["sample", "{run}", "-n", "1", "--steps", "3"],
     ["superres", "{run}", "{file}", "--resolution", "12"], ["restore", "{run}", "{fine}", "--task", "deblur"]],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_before_the_first_byte(
    words: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"{name}.npy" for name in ("file", "fine")}
    for path, size in zip(files.values(), (6, 12), strict=True):
        np.save(path, np.zeros((2, size, size), np.float32))
    command = [word.format(run=run, **files) for word in words]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "draws in one evaluation" in said[-1] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--train.batch_size", "7"], "cannot be shared among 2 steps"), (["--train.accumulate", "2"], "does not go with"),
     (["--model.precondition", "EDMPreconditioner"], "do not go together")],
)  # fmt: skip
def test_plans_without_sense_are_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(tiny.recipe(tmp_path, RECIPE))
    assert main(["train", recipe, *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_run_of_another_loss_is_not_gone_on_with(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, other = str(tiny.recipe(tmp_path, RECIPE)), str(tmp_path / "other")
    assert main(["train", recipe, "--out", other, "--train.loss", "EnsembleScore", "--train.steps", "1"]) == 0
    capsys.readouterr()
    assert main(["train", recipe, "--out", other, "--resume"]) == 2
    assert "holds no critic" in capsys.readouterr().err.strip().splitlines()[-1]


def test_classes_within_losses_are_known_by_their_short_names() -> None:
    """In a recipe that names all of them so."""
    parser = recipe_parser(data_required=False)
    time = {"class_path": "LogNormal", "init_args": {"mean": -1.0}}
    model = {
        "sde": {"schedule": {"class_path": "EDM"}},
        "net": {"class_path": "UNet", "init_args": {"channels": 4}},
        "precondition": {"class_path": "EDMPreconditioner"},
        "normaliser": {"class_path": "Standardise"},
    }
    train = {"loss": {"class_path": "Denoising", "init_args": {"time": time, "norm": {"class_path": "SquaredError"}}}}
    data = {"class_path": "Arrays", "init_args": {"path": "x.npy"}}
    found = parser.read_object({"model": model, "data": data, "train": train}, "test")
    assert found.train.loss.init_args.time.class_path.endswith("LogNormal")


def test_a_dry_run_tells_what_a_step_of_both_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its smaller batches have fewer fields than the critic has steps, and are seen again."""
    assert main(["train", str(tiny.recipe(tmp_path, RECIPE)), "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "seconds per step" in capsys.readouterr().out and not (tmp_path / "run").exists()


def test_a_slow_first_step_tells_what_the_whole_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = str(tiny.recipe(tmp_path, RECIPE))
    assert main(["train", recipe, "--out", str(tmp_path / "fast"), "--train.steps", "2"]) == 0
    assert "the first step took" not in capsys.readouterr().err
    monkeypatch.setattr("scorefield.training.loop.SLOW", 0.0)
    assert main(["train", recipe, "--out", str(tmp_path / "slow"), "--train.steps", "2"]) == 0
    assert capsys.readouterr().err.count("the first step took") == 1
