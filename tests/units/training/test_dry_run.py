"""What a run will cost: counted where it can be, said where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from scorefield.cli import main
from scorefield.run import experiment as run
from scorefield.training import dry_run as rehearsal
from scorefield.training.dry_run import Kept, Probe, Rehearsal


def test_what_autograd_keeps_is_counted_once_and_without_the_weights() -> None:
    """exp keeps its result, which sin keeps, too; the matrix product keeps that of sin, and its weight, which is no cost."""
    layer = nn.Linear(10, 3, bias=False, dtype=torch.float64)
    x = torch.randn(7, 10, dtype=torch.float64, requires_grad=True)
    kept = Kept(layer.parameters())
    with torch.autograd.graph.saved_tensors_hooks(kept.count, lambda tensor: tensor):
        layer(x.exp().sin())
    assert kept.bytes == 2 * 7 * 10 * 8


def rehearse(folder: Path, **overrides: object) -> Rehearsal:
    return run.rehearse(*tiny.settings(tiny.recipe(folder), **overrides))


def test_a_small_run_is_rehearsed_by_real_steps(tmp_path: Path) -> None:
    found = rehearse(tmp_path)
    assert found.notes == () and found.seconds_per_step > 0 and found.memory_bytes > 0


def test_a_step_that_does_not_fit_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 samples at 1.25 × 0.8 MiB, where 3.5 MiB are left beside the moments, 1 + 3 fit: 4 micro-batches are needed."""
    mib, moments = 2**20, 2 * 4 * rehearse(tmp_path).parameters
    monkeypatch.setattr(rehearsal, "probe", lambda *_: Probe(0.5, round(0.8 * mib)))
    monkeypatch.setattr(rehearsal, "peak_memory", lambda _: 100 * mib)
    monkeypatch.setattr(rehearsal, "available_memory", lambda _: moments + 3.5 * mib)
    monkeypatch.setattr(rehearsal, "measured", lambda *_: pytest.fail("a step was made"))
    found = rehearse(tmp_path)
    assert abs(found.memory_bytes - (100 * mib + moments + 15 * mib)) < 100 and found.seconds_per_step == 16 * 0.5
    assert "accumulate at least 4 micro-batches" in found.notes[0]
    monkeypatch.undo()
    monkeypatch.setattr(rehearsal, "probe", lambda *_: Probe(10.0, mib))
    monkeypatch.setattr(rehearsal, "measured", lambda *_: pytest.fail("a step was made"))
    assert "more than 60 s" in rehearse(tmp_path).notes[0]


SMALL = ["--model.net.channels=8", "--model.net.blocks=1", "--train.batch_size=4", "--train.accelerator=cpu"]


def test_without_data_random_ones_stand_in_and_are_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "cifar10-ddpmpp-vp", "--dry-run", *SMALL, "--model.net.labels=10"]) == 0
    out = capsys.readouterr().out
    assert "Random fields of shape [3, 32, 32] stand in for the data. There is no folder or zip file cifar10" in out
    assert main(["train", "cifar10-ddpmpp-vp", "--dry-run", *SMALL, "--data=Digits"]) == 0
    assert "note" not in capsys.readouterr().out
    assert main(["train", "images", "--dry-run", "--model.shape=[]"]) == 2
    assert "give their shape: --model.shape" in capsys.readouterr().err
    (tmp_path / "cifar10").mkdir()
    assert main(["train", "cifar10-ddpmpp-vp", "--dry-run", *SMALL]) == 2  # data that are wrong are not absent
    assert "holds no images" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar10"]
    assert (
        main(["train", "cifar10-ddpmpp-vp", "--out=run", "--data.path=gone", *SMALL]) == 2
    )  # only a rehearsal does that
