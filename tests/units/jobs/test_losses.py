"""The loss of a checkpoint is what training logs, on the same fields and noise for each, and says how sure it is."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from scorefield.cli import main
from scorefield.datasets import Digits
from scorefield.jobs.evaluate import Evaluate, steps_in
from scorefield.jobs.evaluation.losses import Losses
from scorefield.run.loading import open_checkpoint
from scorefield.training.log import read_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("losses")
    every = {
        "train__validate_every": 2,
        "train__checkpoint_every": 2,
        "train__preview_every": 100,
        "model__sampler__steps": 1,
    }
    tiny.train(folder, folder / "run", train__steps=6, train__validate_on=1000, data__init_args__valid=60, **every)
    return folder / "run"


@pytest.mark.usefixtures("unchecked")
def test_the_first_draw_is_what_the_log_of_training_says(run: Path) -> None:
    """Of both kinds of weights, at each step, though in batches of another size."""
    logged = {int(row["step"]): row for row in read_table(run / "logs" / "valid.csv")}
    for ema, column in ((True, "loss_ema"), (False, "loss")):
        found = Evaluate(run=run, loss="valid", checkpoints=("all",), seeds=1, chunk=37, ema=ema).run()
        assert [row["model"]["step"] for row in found] == [2, 4, 6]
        for row in found:
            figure, expected = row["figures"]["valid_loss"], float(logged[row["model"]["step"]][column])
            assert figure["mean"] == pytest.approx(expected, rel=1e-5) and row["n"] == row["of"]


def test_the_standard_error_is_that_of_the_fields(run: Path) -> None:
    """Of 2 draws, from the pieces themselves; another checkpoint has the same fields under the same noise."""
    one = Evaluate(run=run, loss="valid", n=50, seeds=2).run()
    opened = open_checkpoint(run)
    plan = opened.plan()
    job = Losses(Path(), opened.model(ema=True), plan, Digits(valid=60).load("valid"), "valid", 50, 2)
    each = np.concatenate([job.compute(number)["loss"] for number in range(len(job.parts))]).reshape(2, -1)
    figure = one["figures"]["valid_loss"]
    assert each.shape == (2, 50) and figure["values"] == pytest.approx(each.mean(1).tolist(), rel=1e-6)
    assert figure["standard_error"] == pytest.approx(each.mean(0).std(ddof=1) / math.sqrt(50), rel=1e-6)
    assert np.abs(each[0] - each[1]).min() > 0  # another draw is other noise
    other = replace(job, model=open_checkpoint(run, 2).model(ema=True))
    again = np.concatenate([other.compute(number)["loss"] for number in range(len(job.parts))]).reshape(2, -1)
    assert np.corrcoef(again[0], each[0])[0, 1] > 0.9 > np.corrcoef(again[0], each[1])[0, 1]


def test_one_checkpoint_and_a_range_are_written_and_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(run), "--loss", "train", "-n", "40", "--seeds", "2"]
    assert main([*command, "--step", "4"]) == 0
    said = capsys.readouterr().out
    record = json.loads((run / "loss-train.json").read_text())
    figure = record["figures"]["train_loss"]
    assert record["model"]["step"] == 4 and record["split"] == "train" and record["n"] == 40 < record["of"]
    assert f"{figure['mean']:.5g} ± {figure['standard_error']:.2g}" in said and "40 of" in said
    assert main([*command, "--checkpoints", "3:"]) == 0
    with (run / "loss-train-by-step.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["4", "6"] and float(rows[0]["loss"]) == figure["mean"]
    lines = (run / "evaluation" / "results.jsonl").read_text().splitlines()
    assert sum("train_loss" in line for line in lines) == 2  # step 4 was there
    assert not [path for path in run.rglob(".*") if path.is_file()]


@pytest.mark.usefixtures("unchecked")
def test_the_best_is_chosen_by_it_and_the_report_shows_samples_all_the_same(run: Path, tmp_path: Path) -> None:
    found = Evaluate(run=run, loss="valid", checkpoints=("all",), seeds=1, n=40).run()
    best = min(found, key=lambda row: row["figures"]["valid_loss"]["mean"])["model"]["step"]
    assert Evaluate(run=run, best="valid_loss:min").checkpoint.checkpoint.facts["step"] == best
    assert main(["report", str(run), "--out", str(tmp_path / "report.html"), "--draw", "false"]) == 0


def test_ranges_name_the_checkpoints_that_are_there() -> None:
    there = [2, 4, 6]
    assert steps_in("4", there) == [4] and steps_in("7", there) == [7]
    assert steps_in("2:4", there) == [2, 4] and steps_in(":5", there) == [2, 4] and steps_in("3:", there) == [4, 6]
    assert steps_in(":", there) == there


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (["--loss", "test"], "test"),
        (["--loss", "all"], "valid"),
        (["--loss", "valid", "--steps", "3"], "--steps"),
        (["--loss", "valid", "--label", "3"], "--label"),
        (["--loss", "valid", "--curve"], "--curve"),
        (["--loss", "valid", "--checkpoints", "7:9"], "2, 4, 6"),
        (["--loss", "valid", "--checkpoints", "a:b"], "1000:5000"),
        (["--loss", "valid", "--checkpoints", "all", "--step", "2"], "--step"),
    ],
)
def test_what_goes_not_with_it_is_refused_and_leaves_nothing(
    wrong: list[str], word: str, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.rglob("*"))
    capsys.readouterr()
    assert main(["evaluate", str(run), *wrong]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("scorefield: error: ") and word in line and len(line) <= 300
    assert sorted(run.rglob("*")) == before
