"""Nothing is lost: a run that was killed, stopped, shared or divided ends with the weights of one that was not."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tiny
from scorefield.train import checkpoint as checkpoints


def last(folder: Path) -> checkpoints.Checkpoint:
    step = checkpoints.steps(folder / "checkpoints")[-1]
    return checkpoints.read(checkpoints.path_of(folder / "checkpoints", step))


def start(folder: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scorefield", "train", str(tiny.recipe(folder)), "--out", str(out), *arguments]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.time() + 120
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.time() < deadline
        time.sleep(0.01)


def assert_bitwise_equal(a: checkpoints.Checkpoint, b: checkpoints.Checkpoint) -> None:
    assert a.tensors.keys() == b.tensors.keys()
    assert not [name for name in a.tensors if not torch.equal(a.tensors[name], b.tensors[name])]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    tiny.train(folder, folder / "run")
    return folder / "run"


def test_killed_and_resumed_is_bitwise_the_uninterrupted_run(uninterrupted: Path, tmp_path: Path) -> None:
    process = start(tmp_path, tmp_path / "run")
    wait_for(checkpoints.path_of(tmp_path / "run" / "checkpoints", 5), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkpoints.steps(tmp_path / "run" / "checkpoints")[-1] < 12
    tiny.train(tmp_path, tmp_path / "run", resume=True)
    assert_bitwise_equal(last(uninterrupted), last(tmp_path / "run"))
    for name in ("train.csv", "valid.csv"):
        before, after = ([*csv.DictReader((run / "logs" / name).open())] for run in (uninterrupted, tmp_path / "run"))
        assert [(row["step"], row["loss"]) for row in before] == [(row["step"], row["loss"]) for row in after]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, uninterrupted: Path, tmp_path: Path) -> None:
    process = start(tmp_path, tmp_path / "run", "--train.steps", "100000", "--train.checkpoint_every", "100000")
    wait_for(tmp_path / "run" / "logs" / "train.csv", process)
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "--resume" in errors and "Traceback" not in errors
    (step,) = checkpoints.steps(tmp_path / "run" / "checkpoints")
    straight = tmp_path / "straight"
    tiny.train(straight, straight / "run", train__steps=step, train__checkpoint_every=100000)
    stopped, whole = last(tmp_path / "run"), last(straight / "run")
    assert_bitwise_equal(stopped, whole)


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    same = {"train__steps": 50, "model__net__dropout": 0.0, "train__checkpoint_every": 50}
    tiny.train(tmp_path, tmp_path / "one", **same)
    options = [part for key, value in same.items() for part in (f"--{key.replace('__', '.')}", str(value))]
    process = start(tmp_path, tmp_path / "two", *options, "--train.devices", "2")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    one, two = last(tmp_path / "one").tensors, last(tmp_path / "two").tensors
    for group in ("net", "ema"):
        names = [name for name in one if name.startswith(group)]
        difference = sum(float((one[n] - two[n]).double().square().sum()) for n in names)
        size = sum(float(one[n].double().square().sum()) for n in names)
        assert (difference / size) ** 0.5 <= 1e-5


def test_micro_batches_give_the_result_of_whole_ones(tmp_path: Path) -> None:
    same = {"train__steps": 10, "model__net__dropout": 0.0}
    tiny.train(tmp_path, tmp_path / "whole", **same)
    tiny.train(tmp_path, tmp_path / "parts", **same, train__accumulate=4)
    whole, parts = last(tmp_path / "whole").group("net"), last(tmp_path / "parts").group("net")
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_resuming_with_other_data_or_another_network_is_refused(uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(tiny.run.InputError, match=r"model\.net\.init_args\.channels = 8, not 16"):
        tiny.train(tmp_path, uninterrupted, resume=True, model__net__channels=16)
    with pytest.raises(tiny.run.InputError, match=r"data\.init_args\.valid = 500, not 400"):
        tiny.train(tmp_path, uninterrupted, resume=True, data__valid=400)


def test_a_finished_run_resumed_for_longer_equals_a_longer_run(uninterrupted: Path, tmp_path: Path) -> None:
    constant = {"train__optimiser__schedule": "Constant"}
    tiny.train(tmp_path, tmp_path / "run", train__steps=6, **constant)
    tiny.train(tmp_path, tmp_path / "run", train__steps=9, resume=True, **constant)
    tiny.train(tmp_path, tmp_path / "long", train__steps=9, **constant)
    assert_bitwise_equal(last(tmp_path / "run"), last(tmp_path / "long"))
