"""Evidence on the command line: which of two priors a measurement came from, how sure that is, and mistakes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import tiny
from scorefield.cli import main
from scorefield.datasets import Digits
from scorefield.jobs.evidence import SURE, mean_of, table

pytestmark = pytest.mark.usefixtures("unchecked")


def test_the_mean_of_estimates_and_its_error_are_those_of_their_exponentials() -> None:
    values = np.array([0.5, 2.0, 1.0, 0.7])
    log, error = mean_of((np.log(values) - 900).tolist())  # far below what an exponential can hold
    assert log == pytest.approx(math.log(values.mean()) - 900)
    assert error == pytest.approx(values.std(ddof=1) / values.mean() / 2)
    assert mean_of([3.0]) == (3.0, None)


def test_estimates_of_which_one_is_far_above_the_others_do_not_seem_certain() -> None:
    rows = []
    for run, values in (("a", [-1516.0, -2834.0, -2587.0, -2346.0]), ("b", [-1530.0, -2100.0, -2700.0, -2500.0])):
        log, error = mean_of(values)
        assert error == pytest.approx(np.std(values, ddof=1))  # and not 1, the most that the mean's own says
        rows.append({"run": run, "log_evidence": log, "standard_error": error, "effective": 1.0})
    assert "not decided: by 14.00 ±" in table({"priors": rows})


def test_of_estimates_drawn_again_and_again_a_prior_seldom_beats_itself() -> None:
    generator = np.random.default_rng(0)
    for spread in (0.3, 0.8, 1.5, 5.0, 50.0):  # of log p(y): of estimates without bias, with skew
        wrong = 0
        for _ in range(400):
            (first, one), (second, other) = (mean_of(spread * generator.standard_normal(4)) for _ in "ab")
            wrong += abs(first - second) > SURE * math.hypot(one or math.inf, other or math.inf)
        assert wrong / 400 < 0.12  # four estimates each: Student's t of six degrees of freedom, 0.09 beyond 2


def test_a_verdict_is_given_where_the_difference_is_beyond_its_error() -> None:
    def told(ahead: float, error: float | None) -> str:
        rows = [
            {"run": name, "log_evidence": value, "standard_error": error, "effective": 9.0}
            for name, value in (("a", -10.0), ("b", -10.0 + ahead))
        ]
        return table({"priors": rows})

    assert "b explains it better: by 5.00 ± 1.41 nats" in told(5.0, 1.0)
    assert "not decided: by 2.00 ± 1.41 nats" in told(2.0, 1.0)
    assert "--repeats 2" in told(5.0, None)


def test_runs_are_compared_by_a_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, steps in (("a", 1), ("b", 3)):
        tiny.train(tmp_path / f"of-{name}", tmp_path / name, train__steps=steps, train__preview_every=0)
    np.save(tmp_path / "digit.npy", Digits().load("valid")[0].x.numpy())
    words = ["evidence", *(str(tmp_path / name) for name in ("a", "b", "digit.npy")), "--task", "superres"]
    words += ["--task.factor", "2", "--noise", "2", "--degrade", "--particles", "5", "--steps", "4", "--repeats", "3"]
    words += ["--out", str(tmp_path / "found.json")]
    assert main(words) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [Path(row["run"]).name for row in found["priors"]] == ["a", "b"]
    for row in found["priors"]:
        assert len(set(row["estimates"])) == 3 and row["log_evidence"] == pytest.approx(mean_of(row["estimates"])[0])
    told = capsys.readouterr()
    assert f"{found['priors'][1]['log_evidence']:.2f} ±" in told.out
    fewest = min(
        row["effective"] for row in found["priors"]
    )  # of 5 particles fewer than 5 count: said once, where and how few
    assert told.err.count("particles counted at some level") == 1
    assert f"No more than {fewest:.1f} particles counted at some level, in estimate " in told.err
    assert main(words) == 0  # there already
    assert main([*words, "--seed", "1"]) == 2
    assert "another --out" in capsys.readouterr().err
    words[-1] = str(tmp_path / "none.json")
    assert main([*words, "--noise", "0"]) == 2
    assert main(["evidence", str(tmp_path / "a"), "--task", "superres", "--noise", "1", "--out", words[-1]]) == 2
    assert not (tmp_path / "none.json").exists()
