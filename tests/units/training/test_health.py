"""A run cannot be spoiled: bad steps are left out, bad stretches undone, and what is saved is finite."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny
from often import rarely, seldom
from scorefield.foundation.errors import InputError
from scorefield.foundation.signals import Stopped
from scorefield.run.experiment import prepare
from scorefield.run.loading import load
from scorefield.training import checkpoint as checkpoints
from scorefield.training.health import FAR, FIRST, IN_A_ROW, RETURNS, Health
from scorefield.training.state import State

pytestmark = pytest.mark.usefixtures("unchecked")
NO_PICTURES = {"train__preview_every": 0}


def last(run: Path) -> checkpoints.Checkpoint:
    return checkpoints.read(checkpoints.path_of(run / "checkpoints", checkpoints.steps(run / "checkpoints")[-1]))


def assert_bitwise_equal(a: checkpoints.Checkpoint, b: checkpoints.Checkpoint) -> None:
    assert a.tensors.keys() == b.tensors.keys()
    assert not [name for name in a.tensors if not torch.equal(a.tensors[name], b.tensors[name])]
    unequal = {name for name in a.facts if a.facts[name] != b.facts[name]}
    assert not unequal, unequal


def spoil_gradient(monkeypatch: pytest.MonkeyPatch, where: Callable[[State], bool], value: float = math.inf) -> None:
    """Put a number into the gradient of some steps."""
    original = State._clip

    def clip(self: State, limit: float | None) -> Tensor:
        if where(self):
            next(parameter for parameter in self.module.parameters() if parameter.grad is not None).grad[0] = value
        return original(self, limit)

    monkeypatch.setattr(State, "_clip", clip)


def scale_loss(monkeypatch: pytest.MonkeyPatch, where: Callable[[State], bool], factor: float) -> None:
    """Multiply the loss of training at some steps."""
    original = State.loss

    def loss(self: State, *arguments: object, **options: object) -> Tensor:
        value = original(self, *arguments, **options)
        return factor * value if "seed" in options and where(self) else value

    monkeypatch.setattr(State, "loss", loss)


# ----------------------------------------------------------------------------------------------------------- one step
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_step_without_a_finite_gradient_changes_neither_weights_nor_moments(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[str, Tensor] = {}

    def at_fourth(state: State) -> bool:
        if state.step == 4:
            before.update({name: tensor.clone() for name, tensor in state.tensors().items()})
        return state.step == 4

    spoil_gradient(monkeypatch, at_fourth, value)
    tiny.train(tmp_path, tmp_path / "run", train__steps=5, train__validate_every=0, **NO_PICTURES)
    after = last(tmp_path / "run")
    names = [name for name in before if not name.startswith("ema.")]  # the average goes on towards the weights
    assert len(names) > 20 and all(torch.equal(before[name], after.tensors[name]) for name in names)
    assert all(tensor.isfinite().all() for tensor in after.tensors.values())
    assert after.facts["step"] == 5 and after.facts["health"]["skipped"] == 1


def test_an_optimiser_that_cannot_leave_out_a_step_by_itself_is_not_called(tmp_path: Path) -> None:
    experiment = prepare(*tiny.settings(tiny.recipe(tmp_path)))
    state = experiment.trainer.launch(experiment.model)
    state.optimiser._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    weights = {name: tensor.clone() for name, tensor in state.tensors().items() if name.startswith("net.")}
    state._update(state._optimiser, state.optimiser, torch.tensor(False))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in state.tensors().items() if name in weights)


def test_one_infinite_gradient_is_skipped_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoil_gradient(monkeypatch, lambda state: state.step == 8)
    with caplog.at_level(logging.WARNING, "scorefield"):
        tiny.train(tmp_path, tmp_path / "run", train__checkpoint_every=2, train__keep=1)
    assert "Step 9: its loss or gradient is not finite; 1 steps were left out so far" in caplog.text
    rows = [*csv.DictReader((tmp_path / "run" / "logs" / "train.csv").open())]
    assert [(row["step"], row["skipped"]) for row in rows][3:] == [("8", "0"), ("10", "1"), ("12", "1")]
    assert all(math.isfinite(float(row["loss"])) for row in rows)
    assert load(tmp_path / "run").sample(1).isfinite().all()


def test_a_run_with_a_skipped_step_resumes_bitwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_gradient(monkeypatch, lambda state: state.step in (2, 7))
    tiny.train(tmp_path, tmp_path / "whole", **NO_PICTURES)
    resumed = tmp_path / "resumed"
    stopped_at(monkeypatch, resumed, 4, lambda: tiny.train(tmp_path, resumed, **NO_PICTURES))
    tiny.train(tmp_path, resumed, resume=True, **NO_PICTURES)
    assert_bitwise_equal(last(tmp_path / "whole"), last(resumed))
    assert last(resumed).facts["health"]["skipped"] == 2


def stopped_at(monkeypatch: pytest.MonkeyPatch, run: Path, step: int, train: Callable[[], object]) -> None:
    """A training that is told to stop after a step, once."""
    original = State.advance

    def advance(self: State, *arguments: object, **options: object) -> object:
        found = original(self, *arguments, **options)
        if self.step == step:
            signal.raise_signal(signal.SIGTERM)
        return found

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(State, "advance", advance)
        train()
    assert checkpoints.steps(run / "checkpoints")[-1] == step


# ---------------------------------------------------------------------------------------------------------- a stretch
SHORT = NO_PICTURES | {"train__steps": 14, "train__validate_every": 0, "train__log_every": 7, "train__keep": 1}


def first_stream(first: int, last: int) -> Callable[[State], bool]:
    """Whether a step is between two, and the random numbers are still the first ones."""
    return lambda state: first <= state.step < last and state.draws == state.seed


@pytest.mark.parametrize(
    ("spoil", "first", "back", "steps"),
    [(spoil_gradient, 8, 5, 14), (lambda patch, where: scale_loss(patch, where, 1e7), FIRST + 3, FIRST, FIRST + 10)],
)
def test_a_bad_stretch_goes_back_and_on_with_other_random_numbers(
    spoil: Callable[..., None],
    first: int,
    back: int,
    steps: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(monkeypatch, first_stream(first, 100))
    with caplog.at_level(logging.WARNING, "scorefield"):
        tiny.train(tmp_path, tmp_path / "run", **SHORT | {"train__steps": steps})
    assert "going back from step" in caplog.text and f"to step {back}," in caplog.text
    health = last(tmp_path / "run").facts["health"]
    assert health["stream"] == 1 and health["in_a_row"] == 0 and health["good"] == steps // 5 * 5
    logged = [int(row["step"]) for row in csv.DictReader((tmp_path / "run" / "logs" / "train.csv").open())]
    assert logged == sorted({*range(7, steps + 1, 7), steps})
    assert checkpoints.steps(tmp_path / "run" / "checkpoints") == sorted({steps // 5 * 5, steps})


@pytest.mark.parametrize("stop", rarely([7, 10, 11], [10]))  # before it, within it, and after going back
def test_going_back_is_bitwise_resumable(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is stopped in between, with one checkpoint to keep: the one to go back to stays."""
    spoil_gradient(monkeypatch, first_stream(8, 100))
    tiny.train(tmp_path, tmp_path / "whole", **SHORT)
    resumed, original = tmp_path / "resumed", State.advance

    def advance(self: State, *arguments: object, **options: object) -> object:
        found = original(self, *arguments, **options)
        if self.step == stop and (stop < 11 or self.draws != self.seed):
            signal.raise_signal(signal.SIGTERM)
        return found

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(State, "advance", advance)
        tiny.train(tmp_path, resumed, **SHORT)
    tiny.train(tmp_path, resumed, resume=True, **SHORT)
    assert_bitwise_equal(last(tmp_path / "whole"), last(resumed))


def test_after_three_times_training_stops_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[int] = []

    def always(state: State) -> bool:
        if state.step == 8:
            streams.append(state.draws)
        return state.step >= 8

    spoil_gradient(monkeypatch, always)
    with pytest.raises(InputError, match=f"after going back to step 5 {RETURNS} times") as refused:
        tiny.train(tmp_path, tmp_path / "run", **SHORT)
    assert len(str(refused.value)) <= 300 and "\n" not in str(refused.value)
    assert len(streams) == len(set(streams)) == RETURNS + 1  # other numbers each time
    whole = last(tmp_path / "run")
    assert whole.facts["step"] == 5 and all(tensor.isfinite().all() for tensor in whole.tensors.values())
    monkeypatch.undo()
    tiny.train(tmp_path, tmp_path / "run", resume=True, **SHORT)  # what was wrong is mended: it goes on
    assert last(tmp_path / "run").facts["step"] == 14


def test_without_a_checkpoint_to_go_back_to_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_gradient(monkeypatch, lambda _: True)
    with pytest.raises(InputError, match="before its first checkpoint"):
        tiny.train(tmp_path, tmp_path / "run", **SHORT)
    assert not checkpoints.steps(tmp_path / "run" / "checkpoints")


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever made them so: here, something outside of the step."""
    original = State.advance

    def advance(self: State, *arguments: object, **options: object) -> object:
        found = original(self, *arguments, **options)
        if self.step == 10 and self.draws == self.seed:
            next(iter(self.ema.average.values()))[0] = math.inf
        return found

    monkeypatch.setattr(State, "advance", advance)
    tiny.train(tmp_path, tmp_path / "run", **SHORT)
    end = last(tmp_path / "run")
    assert end.facts["health"]["stream"] == 1 and checkpoints.all_finite(end.tensors.values())


# ----------------------------------------------------------------------------------------------------------- judgement
def test_losses_are_far_above_their_median_only_after_some_and_above_the_first() -> None:
    health = Health()
    assert not health.check(1e9, sound=True)  # nothing is known yet
    health = Health()
    for _ in range(FIRST):
        health.check(1.0, sound=True)
    for _ in range(200):
        health.check(1e-6, sound=True)
    assert not health.check(0.9, sound=True)  # a million times the median, but no worse than at the start
    assert not health.check(FAR * 1e-6, sound=True)
    assert health.check(3e7, sound=True) and health.in_a_row == 1
    assert not health.check(1e-6, sound=True) and health.in_a_row == 0
    for _ in range(IN_A_ROW - 1):
        health.check(math.nan, sound=False)
    assert not health.is_bad
    health.check(3e7, sound=True)
    assert health.is_bad and health.skipped == IN_A_ROW - 1


def test_losses_may_be_negative() -> None:
    health = Health()
    for number in range(300):
        assert not health.check(-5.0 + math.sin(number) * 4, sound=True)
    assert health.check(1e6, sound=True)


def test_what_is_remembered_survives_json() -> None:
    health = Health()
    for number in range(150):
        health.check(1 / (number + 1), sound=number % 50 != 49)
    health.saved(150)
    back = Health.from_facts(json.loads(json.dumps(health.facts())))
    assert back.facts() == health.facts()
    assert Health.from_facts({}).facts() == Health().facts()


# --------------------------------------------------------------------------------------------------------- to go on
@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    tiny.train(folder, folder / "run", **NO_PICTURES)
    return folder / "run"


def copied(run: Path, to: Path) -> Path:
    import shutil

    shutil.copytree(run, to)
    return to


def poisoned(path: Path) -> None:
    found = checkpoints.read(path)
    tensors = dict(found.tensors)
    name = next(name for name in tensors if name.startswith("ema.") and tensors[name].numel() > 1)
    tensors[name] = tensors[name].clone().index_fill_(0, torch.tensor([0]), math.nan)
    checkpoints.write(path, tensors, found.facts)


@pytest.mark.parametrize("spoil", [poisoned, lambda path: path.write_bytes(path.read_bytes()[:5000])])
def test_resuming_falls_back_to_the_last_checkpoint_that_can_be_used(
    spoil: Callable[[Path], object], finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = copied(finished, tmp_path / "run")
    spoil(checkpoints.path_of(run / "checkpoints", 12))
    with caplog.at_level(logging.WARNING, "scorefield"):
        tiny.train(tmp_path, run, resume=True, **NO_PICTURES)
    assert "Going on from step 10" in caplog.text
    assert_bitwise_equal(last(finished), last(run))
    assert len([*(run / "checkpoints").glob("*.unusable")]) == 1


def test_where_no_checkpoint_can_be_used_it_is_said_and_nothing_is_touched(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"No checkpoint of .* can be used.*step-00000012"):
        tiny.train(tmp_path, run, resume=True)
    assert checkpoints.steps(run / "checkpoints") == [5, 10, 12]


def test_weights_that_are_not_finite_are_not_sampled_from(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    poisoned(checkpoints.path_of(run / "checkpoints", 12))
    with pytest.raises(InputError, match=r"step-00000012.*not finite"):
        load(run)
    assert load(run, step=10).sample(1).isfinite().all()


def test_other_versions_are_said_in_one_line(finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = copied(finished, tmp_path / "run")
    path = checkpoints.path_of(run / "checkpoints", 12)
    found = checkpoints.read(path)
    with caplog.at_level(logging.WARNING, "scorefield"):
        tiny.train(tmp_path, run, resume=True)
    assert "was trained with" not in caplog.text
    facts = {**found.facts, "versions": {**found.facts["versions"], "torch": "1.0", "python": "2.7"}}
    checkpoints.write(path, found.tensors, facts)
    with caplog.at_level(logging.WARNING, "scorefield"):
        tiny.train(tmp_path, run, resume=True)
    (line,) = [record.getMessage() for record in caplog.records if "was trained with" in record.getMessage()]
    assert "torch 1.0, python 2.7" in line and f"torch {torch.__version__}" in line and "scorefield " not in line


def test_a_run_is_not_resumed_for_fewer_steps_than_it_made(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(InputError, match=r"at step 12 already: give --train\.steps 12 or more"):
        tiny.train(tmp_path, run, resume=True, train__steps=4)
    assert (run / "config.yaml").read_bytes() == before and not (run / ".lock").exists()


# -------------------------------------------------------------------------------------------------- one folder, one run
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"train__precision": "16-mixed"}, "needs a CUDA device"),
        seldom({"train__accelerator": "tpu"}, "cannot be used here"),
        seldom({"train__accelerator": "cuda"}, "cannot be used here"),
        ({"model__net__in_channels": 3}, "the data have 1 channels"),
        ({"data__valid": 10**6}, "leaves no training data"),
    ],
)
def test_a_refused_call_leaves_nothing_and_the_corrected_one_works(
    wrong: dict[str, object], words: str, tmp_path: Path
) -> None:
    if wrong.get("train__accelerator") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    run = tmp_path / "new" / "run"
    with pytest.raises(InputError, match=words):
        tiny.train(tmp_path / "recipe", run, **wrong)
    assert not (tmp_path / "new").exists()
    tiny.train(tmp_path / "recipe", run, train__steps=1, **NO_PICTURES)


def test_what_a_killed_training_left_half_written_is_removed(finished: Path, tmp_path: Path) -> None:
    run, gone = copied(finished, tmp_path / "run"), 2**22 + 1  # above the largest number that Linux gives to a process
    left = [
        *(run / name for name in (f".config.yaml.{gone}-01234567.partial", ".lock")),
        *(run / "checkpoints" / f".step-00000012.safetensors.{gone}-{n}1234567.partial" for n in range(2)),
        *(run / place / f".x.{gone}-01234567.partial" for place in ("logs", "best")),
    ]
    foreign = run / f".metrics.json.{gone}-01234567.partial"
    for path in (*left, foreign):
        path.write_bytes(b"x")
    tiny.train(tmp_path, run, resume=True)
    assert not [path for path in left if path.exists()] and foreign.exists()


def test_a_folder_with_leftovers_alone_is_as_good_as_an_empty_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in (f".config.yaml.{2**22 + 1}-01234567.partial", ".lock"):
        (run / name).touch()
    with pytest.raises(InputError, match="leave --resume out"):
        tiny.train(tmp_path, run, resume=True)
    tiny.train(tmp_path, run, train__steps=1, **NO_PICTURES)
    assert sorted(path.name for path in run.iterdir()) == ["best", "checkpoints", "config.yaml", "data.json", "logs"]


@pytest.mark.skipif(os.name == "nt", reason="no locks")
def test_two_trainings_do_not_share_a_folder(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    program = "import sys; from pathlib import Path; from scorefield.foundation.locks import owned\n"
    program += f"with owned(Path({str(run)!r})) as ours: print(ours, flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "True\n"
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(InputError, match="Another process is training in"):
        tiny.train(tmp_path, run, resume=True)
    assert sorted(path.name for path in run.iterdir()) == before
    other.kill()
    other.communicate()
    tiny.train(tmp_path, run, resume=True)  # a killed process holds nobody up
    assert not (run / ".lock").exists()


# --------------------------------------------------------------------------------------------------- nothing held out
def test_previews_and_validation_can_be_switched_off(tmp_path: Path) -> None:
    off = {"train__preview_every": 0, "train__validate_every": 0}
    tiny.train(tmp_path, tmp_path / "run", train__steps=3, **off)
    assert not (tmp_path / "run" / "samples").exists()
    assert not [*csv.DictReader((tmp_path / "run" / "logs" / "valid.csv").open())]


def test_all_data_can_be_trained_on(tmp_path: Path) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__steps=6, data__valid=0, train__preview_every=6)
    assert (tmp_path / "run" / "samples" / "step-00000006.png").is_file()
    assert not [*csv.DictReader((tmp_path / "run" / "logs" / "valid.csv").open())]
