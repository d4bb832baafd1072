"""Training in two processes is training in one: weights, averages, what the optimiser keeps, logs and checkpoints."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

import pair
import tiny
from scorefield.run.loading import load
from scorefield.training import checkpoint as checkpoints
from scorefield.training.state import State

pytestmark = pytest.mark.slow

ALIKE = {
    "train__steps": 12,
    "train__accumulate": 2,
    "train__clip": 0.1,
    "train__checkpoint_every": 6,
    "train__ema": 0.5,
}
ALIKE |= {"train__validate_every": 6, "train__validate_on": 33, "train__preview_every": 0, "train__log_every": 6}
ALIKE |= {"train__optimiser__schedule": "Constant", "train__optimiser__eps": 1e-3}
FSDP = {"train__strategy": "fsdp"}
SHORT = {"train__steps": 4, "train__validate_every": 0}
LOW = SHORT | {"train__precision": "bf16-mixed"}
BAD = SHORT | {"train__log_every": 1}


def stored(folder: Path, step: int) -> checkpoints.Checkpoint:
    return checkpoints.read(checkpoints.path_of(folder / "run" / "checkpoints", step))


def as_far_as(folder: Path, other: Path, step: int) -> None:
    """A run that was stopped at a step."""
    shutil.copytree(folder, other)
    checkpoints.drop_after(other / "run" / "checkpoints", step)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: `one` in one process, `low` in bfloat16, `skipped` without its third step, and what two made of them."""
    folder = tmp_path_factory.mktemp("runs")
    tiny.train(folder / "one", folder / "one" / "run", **ALIKE)
    tiny.train(folder / "exact", folder / "exact" / "run", **ALIKE | SHORT)
    tiny.train(folder / "low", folder / "low" / "run", **ALIKE | LOW | {"train__accumulate": 4})
    loss = State.loss
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(State, "loss", lambda self, *a, **o: loss(self, *a, **o) * (torch.nan if self.step == 2 else 1))
        tiny.train(folder / "skipped", folder / "skipped" / "run", **ALIKE | BAD)
    as_far_as(folder / "one", folder / "taken-up", 6)
    wanted: dict[str, dict[str, Any]] = {
        "ddp": {},
        "fsdp": FSDP | {"train__preview_every": 12},
        "taken-up": FSDP | {"resume": True},
        "low-fsdp": FSDP | LOW,
        "skipped-ddp": BAD | {"bad": True},
        "skipped-fsdp": FSDP | BAD | {"bad": True},
    }
    pair.train(folder, {name: ALIKE | options for name, options in wanted.items()})
    return folder


def assert_the_same(one: checkpoints.Checkpoint, other: checkpoints.Checkpoint, tolerance: float = 1e-6) -> None:
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        found = other.tensors[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), name
        torch.testing.assert_close(found, tensor, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", ["ddp", "fsdp", "taken-up"])
def test_two_processes_make_the_checkpoint_of_one(name: str, runs: Path) -> None:
    """With dropout, micro-batches and clipping; `taken-up` is a checkpoint of one process, resumed by two."""
    one = stored(runs / "one", 12)
    assert_the_same(one, stored(runs / name, 12))
    start = stored(runs / "one", 6).tensors
    moved = [float((one.tensors[key] - start[key]).abs().max()) for key in start if key.startswith("net.")]
    assert median(moved) > 1e-4  # so that the tolerance says something


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_logs_are_those_of_one(name: str, runs: Path) -> None:
    def rows(run: str, table: str, columns: tuple[str, ...]) -> list[list[float]]:
        with (runs / run / "run" / "logs" / table).open() as file:
            return [[float(row[column]) for column in columns] for row in csv.DictReader(file)]

    for table, columns in (
        ("train.csv", ("step", "loss", "gradient_norm")),
        ("valid.csv", ("step", "loss", "loss_ema")),
    ):
        torch.testing.assert_close(rows(name, table, columns), rows("one", table, columns), rtol=1e-5, atol=1e-6)


def test_one_process_resumes_what_two_with_shares_began(runs: Path, tmp_path: Path) -> None:
    as_far_as(runs / "fsdp", tmp_path / "on", 6)
    tiny.train(tmp_path / "on", tmp_path / "on" / "run", resume=True, **ALIKE)
    assert_the_same(stored(runs / "one", 12), stored(tmp_path / "on", 12))
    assert load(runs / "fsdp" / "run").sample(2, seed=0).isfinite().all()
    assert (runs / "fsdp" / "run" / "samples" / "step-00000012.png").is_file()


def test_shares_are_computed_in_the_precision_that_is_asked_for(runs: Path) -> None:
    """bfloat16 in the products alone: nearer to one process in that precision, on as small parts, than this is to float32."""
    low, other, exact = (stored(runs / name, 4).tensors for name in ("low", "low-fsdp", "exact"))
    weights = [name for name in low if name.startswith("net.")]
    assert {other[name].dtype for name in weights} == {torch.float32}

    def apart(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> float:
        return sum(float((one[name] - two[name]).square().sum()) for name in weights) ** 0.5

    assert apart(low, other) < 0.2 * apart(low, exact)


@pytest.mark.parametrize("name", ["skipped-ddp", "skipped-fsdp"])
def test_all_leave_out_a_step_in_which_one_has_a_loss_that_is_not_finite(name: str, runs: Path) -> None:
    """Also where its gradient would be finite."""
    assert_the_same(stored(runs / "skipped", 4), stored(runs / name, 4))
    with (runs / name / "run" / "logs" / "train.csv").open() as file:
        assert [row["skipped"] for row in csv.DictReader(file)][-1] == "1"


def test_a_step_sends_gradients_and_nothing_else(runs: Path) -> None:
    """But the tenth, in which they ask each other for signals; shares of weights are sent, too, and the norm of the gradient."""
    one, other, tenth = json.loads((runs / "ddp" / "calls.json").read_text())
    assert one == other == {"c10d::allreduce_": 1} and tenth == {"c10d::allreduce_": 2}
    one, other, tenth = json.loads((runs / "fsdp" / "calls.json").read_text())
    assert one.keys() == {"c10d::allreduce_", "c10d::_allgather_base_", "c10d::_reduce_scatter_base_"}
    assert one == other and one["c10d::allreduce_"] == 1 and tenth == one | {"c10d::allreduce_": 2}
