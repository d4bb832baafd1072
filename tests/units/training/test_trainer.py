"""What the trainer promises about precision, validation and learning."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from scorefield.data.loader import Loader, Sequential
from scorefield.foundation import files
from scorefield.foundation.arithmetic import Machine, Seconds, autocast_of
from scorefield.foundation.errors import InputError
from scorefield.run.experiment import prepare
from scorefield.training import checkpoint as checkpoints
from scorefield.training import trainer
from scorefield.training.dry_run import peak_memory
from scorefield.training.loop import VALIDATION_EPOCH, Loop
from scorefield.training.state import State, launch


def make(folder: Path, **overrides: object) -> tuple[State, tiny.run.Experiment]:
    experiment = prepare(*tiny.settings(tiny.recipe(folder), **overrides))
    plan = experiment.trainer
    fabric = launch("cpu", 1, 1, plan.precision)
    return State(experiment.model, plan.optimiser, plan.ema, plan.seed, fabric), experiment


def test_low_precision_casts_neither_labels_nor_weights(tmp_path: Path) -> None:
    state, experiment = make(tmp_path, train__precision="bf16-mixed", model__net__dropout=0.0)
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    net = experiment.model.denoiser.net
    net.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].dtype, inputs[1].dtype)))
    low: list[Tensor] = []
    net.register_forward_hook(lambda _, __, output: low.append(output))
    batch = Loader(experiment.train, 16).batch(0)
    loss, _ = state.advance([batch], experiment.trainer.loss, clip=1.0, steps=10)
    assert seen == [(torch.float32, torch.float32)]
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    exact, same = make(tmp_path, model__net__dropout=0.0)
    reference, _ = exact.advance([batch], same.trainer.loss, clip=1.0, steps=10)
    assert loss == pytest.approx(float(reference), rel=0.02)  # bfloat16 has 8 bits


def test_validation_is_at_fixed_noise_whatever_the_batches(tmp_path: Path) -> None:
    state, experiment = make(tmp_path)
    denoiser = experiment.model.denoiser.eval()

    def losses(size: int) -> Tensor:
        batches = Sequential(experiment.valid, size, epoch=VALIDATION_EPOCH)
        with torch.no_grad():
            return torch.cat([state.loss(experiment.trainer.loss, denoiser, batch) for batch in batches])

    torch.testing.assert_close(losses(7), losses(500), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_it_learns_more_than_the_best_linear_denoiser(tmp_path: Path) -> None:
    """Of standardised white data a denoiser that knows only mean and variance has the loss 1: training beats it soon."""
    tiny.train(
        tmp_path, tmp_path / "run", train__steps=60, train__validate_every=60, train__optimiser__lr=3e-3, train__ema=0.9
    )
    (row,) = csv.DictReader((tmp_path / "run" / "logs" / "valid.csv").open())
    assert float(row["loss_ema"]) < 0.95


def test_held_out_data_that_are_not_finite_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loop, "_validation_loss", lambda *_: float("nan"))
    with pytest.raises(tiny.run.InputError, match="step 6: check the held-out data"):
        tiny.train(tmp_path, tmp_path / "run")


def test_what_other_systems_lack_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows opens no directory to flush it, and has no module `resource`."""
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(torch.device("cpu")) == 0
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a directory was opened"))
    with monkeypatch.context() as windows:
        windows.setattr(os, "name", "nt")
        files._flush(tmp_path)


def test_a_network_that_is_given_a_field_trains_draws_and_stops_as_any_other(tmp_path: Path) -> None:
    """Its pictures in training are of the fields that the held-out data bring."""
    given = {"data": "tiny.CoarseDigits", "model__net__cond_channels": 1, "train__steps": 2, "train__preview_every": 1}
    model = tiny.train(tmp_path, tmp_path / "run", **given)
    assert [path.name for path in sorted((tmp_path / "run" / "samples").iterdir())] == [
        "step-00000001.png",
        "step-00000002.png",
    ]
    with pytest.raises(InputError, match="conditioned on a field of 1 channels"):
        model.sample(2)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"model__net__labels": 9}, "9, but the data have 10 classes: give 10"),
        ({"model__net__labels": 3, "data": "tiny.CoarseDigits"}, "have no labels"),
        ({"model__net__cond_channels": 2}, "bring no field"),
        ({"model__net__in_channels": 2}, "the data have 1 channels"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(overrides: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        prepare(*tiny.settings(tiny.recipe(tmp_path), **overrides))


def test_a_network_of_levels_is_refused_where_it_is_given_other_labels(tmp_path: Path) -> None:
    given = {"model__net": "NCSN", "model__net__channels": 8, "model__net__levels": 20}
    with pytest.raises(InputError, match="from 0 to 19, and is given those from"):
        prepare(*tiny.settings(tiny.recipe(tmp_path), **given))
    table = {"model__precondition": "ScorePrediction", "model__precondition__label": "Index"}
    fitting = given | table | {"model__precondition__label__levels": 20}
    assert prepare(*tiny.settings(tiny.recipe(tmp_path), **fitting)).model.denoiser.net.label_range == (0, 19)


def test_the_checkpoint_with_the_least_validation_loss_is_not_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.1, 3.0, 0.3, 1.0, 0.2, 2.0, 0.4, 2.5])  # of the weights, which do not count, and of their average
    monkeypatch.setattr(Loop, "_validation_loss", lambda *_: next(losses))
    often = {"train__steps": 4, "train__keep": 1, "train__checkpoint_every": 1, "train__validate_every": 1}
    tiny.train(tmp_path, tmp_path / "run", **often, train__preview_every=9)
    assert checkpoints.steps(tmp_path / "run" / "checkpoints") == [2, 4]
    assert checkpoints.read(tmp_path / "run" / "best" / "loss.safetensors").facts["step"] == 2


def fake(monkeypatch: pytest.MonkeyPatch, machine: Machine, seconds: Seconds) -> None:
    """Another machine, whose trials end as they are wanted, once they have made their passes."""

    def trial(work: Any, batch: Any, device: torch.device, most: int, **_: object) -> Seconds:
        for precision in ("32-true", "bf16-mixed"):
            work(batch(min(2, most)), autocast_of(precision, device))
        return seconds

    monkeypatch.setattr(trainer, "machine_of", lambda _: machine)
    monkeypatch.setattr(trainer, "timed", trial)


def test_the_precision_that_was_chosen_is_stored_and_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A trial changes nothing: the weights of a run that made one are those of a run in the precision that it chose."""
    run, options = tmp_path / "run", {"train__steps": 1, "train__preview_every": 0, "train__validate_every": 0}
    fake(monkeypatch, Machine("new", True), Seconds(2.0, 1.0))
    tiny.train(tmp_path, run, train__precision="auto", **options)
    stored = checkpoints.read(checkpoints.path_of(run / "checkpoints", 1))
    assert stored.facts["precision"] == {"precision": "bf16-mixed", "kind": "new", "seconds": [2.0, 1.0]}
    assert stored.facts["config"]["train"]["precision"] == "auto"
    fake(monkeypatch, Machine("new", True), Seconds(1.0, 9.0))  # a trial would end otherwise now
    options["train__steps"] = 2
    tiny.train(tmp_path, run, resume=True, train__precision="auto", **options)
    again = checkpoints.read(checkpoints.path_of(run / "checkpoints", 2))
    assert again.facts["precision"] == stored.facts["precision"] and not caplog.messages
    tiny.train(tmp_path, tmp_path / "asked", train__precision="bf16-mixed", **options)
    asked = checkpoints.read(checkpoints.path_of(tmp_path / "asked" / "checkpoints", 2))
    assert all(torch.equal(again.tensors[name], value) for name, value in asked.tensors.items())
    assert "train.precision=bf16-mixed is slow here (new): 9 s" in caplog.text
    fake(monkeypatch, Machine("old", False), Seconds(1.0, 1.0))
    tiny.train(tmp_path, run, resume=True, train__precision="auto", **options | {"train__steps": 3})
    assert "auto was bf16-mixed (new" in caplog.text and "Here it is 32-true (old)" in caplog.text


def test_a_run_is_resumed_where_its_precision_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 that is asked for, and by auto on a machine of another kind."""
    options = {"train__steps": 1, "train__preview_every": 0, "train__validate_every": 0}
    for precision in ("bf16-mixed", "auto"):
        run = tmp_path / precision
        for step, kind in ((1, "one"), (2, "other")):
            fake(monkeypatch, Machine(kind, True), Seconds(2.0, 1.0))
            options |= {"train__steps": step, "train__precision": precision}
            tiny.train(tmp_path, run, resume=step > 1, **options)
        assert checkpoints.steps(run / "checkpoints")[-1] == 2


def test_what_is_compiled_is_for_training_alone_and_what_it_gives_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Validation and pictures, of other shapes, run as they are written. (The compiler itself is stood in for: it takes long.)"""
    from torch._dynamo import eval_frame

    calls: set[tuple[bool, str]] = set()

    def compiled(self: torch.nn.Module, *, dynamic: bool) -> None:
        assert not dynamic
        self.register_forward_pre_hook(lambda net, _: calls.add((net.training, eval_frame._stance.stance)))

    monkeypatch.setattr(torch.nn.Module, "compile", compiled)
    caplog.set_level("INFO", "scorefield")
    options = {"train__validate_every": 1, "train__preview_every": 2}
    tiny.train(tmp_path, tmp_path / "run", train__steps=2, train__compile=True, **options)
    compared = (True, "force_eager")
    assert calls == {(True, "default"), compared, (False, "force_eager")}
    assert any(message.startswith("compiling the network for batches of 16") for message in caplog.messages)
    assert any(message.startswith("compiled in ") and "pay" in message for message in caplog.messages)
