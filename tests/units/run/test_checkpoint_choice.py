"""The checkpoint that a figure chooses: the best of those that are there and can be compared."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from scorefield.cli import main
from scorefield.foundation.errors import InputError
from scorefield.jobs.report.page import Report
from scorefield.run.checkpoint_choice import best_step
from scorefield.training.checkpoint import path_of

Choose = Callable[..., tuple[int, list[str]]]


def record(folder: Path, name: str, step: int, figures: dict[str, float], **changes: Any) -> None:
    """An evaluation as `scorefield evaluate` writes it, newer than those before."""
    facts = {"n": 100, "sampler": "Heun", "label": None, "reference": {"moments_sha256": "abc"}}
    found = {name: {"mean": value, "std": 0.1, "values": [value]} for name, value in figures.items()}
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, "figures": found, "model": {"step": step, "ema": True}, **changes}))
    os.utime(path, (step, step))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 20, 30 and 40, validated at 10 to 40, evaluated at 20 to 40."""
    for step in (20, 30, 40):
        path_of(tmp_path / "checkpoints", step).parent.mkdir(exist_ok=True)
        path_of(tmp_path / "checkpoints", step).touch()
    (tmp_path / "logs").mkdir()
    rows = ["step,samples,loss,loss_ema", "10,1,0.9,0.1", "20,2,0.8,0.4", "30,3,0.2,0.5", "40,4,0.3,0.6"]
    (tmp_path / "logs" / "valid.csv").write_text("\n".join(rows) + "\n")
    record(tmp_path, "evaluation/a/metrics.json", 20, {"fréchet": 3.0, "recall": 0.7, "train_accuracy": 0.2, "x": 1.0})
    record(tmp_path, "evaluation/b/metrics.json", 30, {"fréchet": 1.0, "recall": 0.9, "train_accuracy": 0.9, "x": 3.0})
    record(tmp_path, "metrics.json", 40, {"fréchet": 2.0, "recall": 0.5, "train_accuracy": 0.7, "x": 2.0})
    return tmp_path


@pytest.fixture
def choose(folder: Path, caplog: pytest.LogCaptureFixture) -> Choose:
    """The step of the best checkpoint, and what is said of it."""

    def chosen(best: str, *, ema: bool = True) -> tuple[int, list[str]]:
        caplog.clear()
        return best_step(folder, best, ema), list(caplog.messages)

    return chosen


@pytest.mark.parametrize(
    ("best", "step"),
    [("frechet", 30), ("Fréchet", 30), ("recall", 30), ("train_accuracy", 40), ("x:min", 20), ("x:max", 30)],
)
def test_each_figure_has_its_own_best(best: str, step: int, choose: Choose) -> None:
    assert choose(best) == (step, [])


def test_the_loss_is_that_of_the_weights_in_use(choose: Choose) -> None:
    assert choose("loss", ema=False) == (30, [])
    step, said = choose("loss")
    assert step == 20 and len(said) == 1 and "step 10" in said[0]  # pruned


def test_evaluations_of_another_average_of_the_weights_do_not_count(folder: Path, choose: Choose) -> None:
    other = {"step": 20, "ema": True, "ema_width": 0.1}
    record(folder, "evaluation/c/metrics.json", 20, {"fréchet": 0.1}, model=other)
    assert choose("frechet") == (30, [])
    assert best_step(folder, "frechet", True, 0.1) == 20
    with pytest.raises(InputError, match=r"no figures|has a recorded"):
        best_step(folder, "frechet", True, 0.05)


def test_a_loss_that_is_no_number_is_never_the_best(folder: Path, choose: Choose) -> None:
    rows = ["step,samples,loss,loss_ema", "20,2,nan,nan", "30,3,0.2,0.5", "40,4,inf,nan"]
    (folder / "logs" / "valid.csv").write_text("\n".join(rows) + "\n")
    assert choose("loss") == choose("loss", ema=False) == (30, [])


@pytest.mark.parametrize(
    "changes", [{"n": 99}, {"sampler": "DDIM"}, {"reference": {"moments_sha256": "x"}}, {"label": 3}]
)
def test_what_was_measured_otherwise_is_not_compared(changes: dict[str, Any], folder: Path, choose: Choose) -> None:
    record(folder, "evaluation/b/metrics.json", 30, {"fréchet": 1.0}, **changes)
    assert choose("frechet") == (40, [])


def test_other_weights_junk_and_numbers_that_are_none_are_passed_over(folder: Path, choose: Choose) -> None:
    record(folder, "evaluation/b/metrics.json", 30, {"fréchet": 1.0}, model={"step": 30, "ema": False})
    record(folder, "evaluation/c/metrics.json", 20, {"fréchet": float("nan")})
    for number, junk in enumerate((b"", b"{", b"[1]", b"\xff", b'{"figures": 1}', b'{"figures": {}, "model": []}')):
        (folder / "evaluation" / f"junk-{number}.json").write_bytes(junk)
    assert choose("frechet") == (40, [])
    assert choose("frechet", ema=False) == (30, [])


def test_what_cannot_be_chosen_is_refused(folder: Path) -> None:
    for best, words in (
        ("kid", "there are frechet, loss, recall"),
        ("x", "x:min or --best x:max"),
        ("recall:most", "no direction"),
        ("", "no checkpoint"),
    ):
        with pytest.raises(InputError, match=f"(?i){words}"):
            best_step(folder, best, True)
    with pytest.raises(InputError, match="one of them"):
        Report(run=folder, best="loss", step=20)
    with pytest.raises(InputError, match="no figures"):
        best_step(folder / "nowhere", "loss", True)


def test_the_chosen_checkpoint_is_sampled(tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny.train(tmp_path, run, train__steps=4, train__checkpoint_every=1, train__validate_every=1)
    lines = (run / "logs" / "valid.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[-3:]]  # of the checkpoints that are kept
    (run / "logs" / "valid.csv").write_text(
        "\n".join([lines[0], *(",".join([*row[:3], row[0]]) for row in rows)]) + "\n"
    )
    out = tmp_path / "s"
    sample = ["sample", str(run), "-n", "1", "--chunk", "1", "--steps", "2", "--out", str(out), "--best", "loss"]
    assert main(sample) == 0
    assert json.loads((out / "job.json").read_text())["step"] == 2
