"""Nothing is lost: a run that was killed, stopped, shared or divided ends with the weights of one that was not."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import tiny
from often import seldom
from scorefield.cli import main
from scorefield.foundation.errors import InputError
from scorefield.foundation.signals import Stopped
from scorefield.training import checkpoint as checkpoints
from scorefield.training.loop import Loop
from scorefield.training.state import State

pytestmark = pytest.mark.usefixtures("unchecked")
HANGS = 600  # seconds: no expectation, but the end of a process that hangs


def last(folder: Path) -> checkpoints.Checkpoint:
    step = checkpoints.steps(folder / "checkpoints")[-1]
    return checkpoints.read(checkpoints.path_of(folder / "checkpoints", step))


def rows(run: Path) -> list[dict[str, str]]:
    return [*csv.DictReader((run / "logs" / "valid.csv").open())]


def start(folder: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scorefield", "train", str(tiny.recipe(folder)), "--out", str(out), *arguments]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + HANGS
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_bitwise_equal(a: checkpoints.Checkpoint, b: checkpoints.Checkpoint) -> None:
    assert a.tensors.keys() == b.tensors.keys()
    assert not [name for name in a.tensors if not torch.equal(a.tensors[name], b.tensors[name])]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    tiny.train(folder, folder / "run")
    return folder / "run"


def test_the_best_checkpoint_is_kept_where_a_kill_came_between_it_and_its_row(
    uninterrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    best = checkpoints.read(run / "best" / "loss.safetensors").facts["step"]
    (run / "best" / "loss.safetensors").unlink()
    tiny.train(tmp_path, run, resume=True)
    assert checkpoints.read(run / "best" / "loss.safetensors").facts["step"] == best


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, uninterrupted: Path, tmp_path: Path) -> None:
    process = start(tmp_path, tmp_path / "run", "--train.steps", "100000", "--train.checkpoint_every", "100000")
    wait_for(tmp_path / "run" / "logs" / "train.csv", process)
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 128 + number
    assert "--resume" in errors and "Traceback" not in errors
    (step,) = checkpoints.steps(tmp_path / "run" / "checkpoints")
    straight = tmp_path / "straight"
    tiny.train(straight, straight / "run", train__steps=step, train__checkpoint_every=100000)
    stopped, whole = last(tmp_path / "run"), last(straight / "run")
    assert_bitwise_equal(stopped, whole)


ALIKE = {"train__steps": 16, "train__checkpoint_every": 16, "train__preview_every": 0, "train__validate_every": 0}


def largest_difference(one: Path, other: Path) -> float:
    """Of any weight, or of the average of it."""
    a, b = last(one).tensors, last(other).tensors
    return max(float((a[name] - b[name]).abs().max()) for name in a if name.startswith(("net.", "ema.")))


@pytest.fixture(scope="module")
def in_one_batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in_one_batch")
    tiny.train(folder, folder / "run", **ALIKE)
    return folder / "run"


def words(options: Mapping[str, object]) -> list[str]:
    return [part for key, value in options.items() for part in (f"--{key.replace('__', '.')}", str(value))]


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(in_one_batch: Path, tmp_path: Path) -> None:
    """With dropout 0.1, as the recipe has it."""
    process = start(tmp_path, tmp_path / "two", *words(ALIKE), "--train.devices", "2")
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 0, errors
    assert largest_difference(in_one_batch, tmp_path / "two") <= 1e-6


@pytest.mark.slow
def test_torchrun_is_stopped_by_a_signal_and_the_same_call_goes_on_to_the_result_of_one(tmp_path: Path) -> None:
    options = ALIKE | {"train__steps": 60, "train__checkpoint_every": 60, "train__strategy": "fsdp"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    call = [*launcher, "-m", "scorefield", "train", str(tiny.recipe(tmp_path)), "--out", str(tmp_path / "two")]
    call += ["--resume", "--or-start", *words(options)]
    process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    wait_for(tmp_path / "two" / "logs" / "train.csv", process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=HANGS)
    assert errors.count("stopped by SIGTERM at step") == 1 and process.returncode != 0, errors
    assert 0 < last(tmp_path / "two").facts["step"] < 60
    done = subprocess.run(call, check=False, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    tiny.train(tmp_path, tmp_path / "one", **options)
    assert last(tmp_path / "two").facts["step"] == 60
    assert largest_difference(tmp_path / "one", tmp_path / "two") <= 1e-5


def test_one_call_starts_and_goes_on(tmp_path: Path) -> None:
    call = ["train", str(tiny.recipe(tmp_path)), "--out", str(tmp_path / "run"), "--resume", "--or-start"]
    options = {"train__preview_every": 0, "train__validate_every": 0, "train__checkpoint_every": 1}
    for steps in (1, 2):
        assert main([*call, *words(options | {"train__steps": steps})]) == 0
        assert last(tmp_path / "run").facts["step"] == steps
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    assert main([*call[:3], str(tmp_path / "other"), *call[4:]]) == 2


def test_micro_batches_give_the_result_of_whole_ones(in_one_batch: Path, tmp_path: Path) -> None:
    tiny.train(tmp_path, tmp_path / "parts", **ALIKE, train__accumulate=4)
    assert largest_difference(in_one_batch, tmp_path / "parts") <= 1e-6


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


@pytest.mark.parametrize(
    ("during", "step"),
    [("advance", 6), seldom("_validate", 6), seldom("advance", 12), seldom("_validate", 12), ("_preview", 12)],
)
def test_a_stop_at_a_validation_or_a_preview_is_answered_at_once_and_made_up_for(
    during: str, step: int, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = State if during == "advance" else Loop
    original = getattr(owner, during)

    def signalled(self: State | Loop, *arguments: object, **options: object) -> object:
        if self.step + 1 == step if isinstance(self, State) else self.state.step == step:
            signal.raise_signal(signal.SIGTERM)
        return original(self, *arguments, **options)

    out, picture = tmp_path / "run", tmp_path / "run" / "samples" / "step-00000012.png"
    with monkeypatch.context() as patched, pytest.raises(Stopped, match=f"SIGTERM at step {step}"):
        patched.setattr(owner, during, signalled)
        tiny.train(tmp_path, out)
    validated = [row["step"] for row in rows(out)]
    assert (str(step) in validated) == (during == "_preview")
    assert checkpoints.steps(out / "checkpoints")[-1] == step and not picture.exists()
    tiny.train(tmp_path, out, resume=True)
    assert rows(out) == rows(uninterrupted) and picture.exists()
    assert_bitwise_equal(last(uninterrupted), last(out))


def test_a_finished_run_resumed_does_nothing_twice(uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    picture = tmp_path / "run" / "samples" / "step-00000012.png"
    before = picture.stat().st_mtime_ns
    tiny.train(tmp_path, tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == rows(uninterrupted) and picture.stat().st_mtime_ns == before


def test_a_damaged_log_does_not_keep_a_run_from_going_on(uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    path = out / "logs" / "train.csv"
    header, first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([header, first, b'seven,"\xff,', b"\n\0\0\0\n8\n9,1,x,1,1,1\n", *others, b"\0\0"]))
    tiny.train(tmp_path, out, resume=True)
    assert path.read_bytes() == (uninterrupted / "logs" / "train.csv").read_bytes()


@pytest.mark.slow
def test_where_the_first_process_cannot_save_all_stop_with_one_line(tmp_path: Path) -> None:
    """Files are kept below 200 kB, which no checkpoint is: rather an error than processes that wait for each other."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); "
    arguments = ["train", str(tiny.recipe(tmp_path)), "--out", str(tmp_path / "run"), "--train.devices", "2"]
    program = limited + f"from scorefield.cli import main; sys.argv[1:] = {arguments}; sys.exit(main())"
    script = tmp_path / "limited.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=HANGS,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert any("File too large" in line for line in errors) and not [*tmp_path.rglob("*.partial")]


def test_a_batch_beyond_memory_is_refused_before_anything_is_written_and_one_beyond_the_data_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scorefield.training.dry_run.available_memory", lambda device: 2**30)
    with pytest.raises(InputError, match=r"train\.batch_size = 100000000 does not fit into memory.*train\.accumulate"):
        tiny.train(tmp_path, tmp_path / "run", train__batch_size=10**8)
    assert not (tmp_path / "run").exists()
    tiny.train(tmp_path, tmp_path / "run", train__batch_size=2000, train__steps=1, train__validate_every=0)
    assert any("2000, but there are" in line for line in caplog.messages)


def test_a_run_that_failed_before_its_first_checkpoint_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr("scorefield.training.loop.Loop._step", fail)
        with pytest.raises(MemoryError):
            tiny.train(tmp_path, run, train__steps=2)
    tiny.train(tmp_path, run, train__steps=1, train__seed=2)
    assert last(run).facts["step"] == 1
    for folder in (run, tmp_path / "mine"):  # a checkpoint is there; a configuration that no training began
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").touch()
        with pytest.raises(InputError, match="is not empty"):
            tiny.train(tmp_path, folder, train__steps=1)
