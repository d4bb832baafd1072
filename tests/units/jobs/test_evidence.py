"""Evidence on the command line: which of two priors a measurement came from, how sure that is, and mistakes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scorefield
import tiny
from scorefield.cli import main
from scorefield.datasets import Digits
from scorefield.foundation.random import Generators, Stream
from scorefield.jobs import evidence
from scorefield.jobs.evidence import table
from scorefield.jobs.evidence_priors import SURE, Estimates, Flowing, difference, mean_of
from scorefield.operators import Identity
from scorefield.run.runner import Piece
from scorefield.samplers import ProbabilityFlow

pytestmark = pytest.mark.usefixtures("unchecked")


def test_the_mean_of_estimates_and_its_error_are_those_of_their_exponentials() -> None:
    values = np.array([0.5, 2.0, 1.0, 0.7])
    log, error = mean_of((np.log(values) - 900).tolist())  # far below what an exponential can hold
    assert log == pytest.approx(math.log(values.mean()) - 900)
    assert error == pytest.approx(values.std(ddof=1) / values.mean() / 2)
    assert mean_of([3.0]) == (3.0, None)


def test_estimates_of_which_one_is_far_above_the_others_do_not_seem_certain() -> None:
    both = []
    for values in ([-1516.0, -2834.0, -2587.0, -2346.0], [-1530.0, -2100.0, -2700.0, -2500.0]):
        log, error = mean_of(values)
        assert error == pytest.approx(np.std(values, ddof=1))  # and not 1, the most that the mean's own says
        both.append(Estimates(log, error, values))
    told = difference(*both)
    assert told["nats"] == pytest.approx(14) and not told["decided"]


def test_of_estimates_drawn_again_and_again_a_prior_seldom_beats_itself() -> None:
    generator = np.random.default_rng(0)
    for spread in (0.3, 0.8, 1.5, 5.0, 50.0):  # of log p(y): of estimates without bias, with skew
        wrong = 0
        for _ in range(400):
            (first, one), (second, other) = (mean_of(spread * generator.standard_normal(4)) for _ in "ab")
            wrong += abs(first - second) > SURE * math.hypot(one or math.inf, other or math.inf)
        assert wrong / 400 < 0.12  # four estimates each: Student's t of six degrees of freedom, 0.09 beyond 2


def test_what_the_probes_of_two_priors_have_in_common_is_no_error_of_the_difference() -> None:
    """Two priors 5 apart, by probes that move both by 100 together and by 1 each; a prior seldom beats itself."""
    generator = np.random.default_rng(0)
    found, wrong = [], 0
    for _ in range(400):
        both = 100 * generator.standard_normal(4)
        each = [both + shift + generator.standard_normal(4) for shift in (0, 5, 0)]
        a, b, c = (Estimates(float(values.mean()), 50.0, values.tolist(), paired=True) for values in each)
        found.append(difference(b, a)["decided"])
        wrong += difference(a, c)["decided"]
    assert (
        np.mean(found) > 0.9 and wrong / 400 < 0.08
    )  # Student's t of three degrees of freedom, 0.046 beyond what 2 is


def test_a_verdict_is_given_where_the_difference_is_beyond_its_error() -> None:
    def told(ahead: float, error: float | None) -> tuple[dict[str, Any], str]:
        values = {"a": -10.0, "b": -10.0 + ahead}
        rows = [{"run": run, "log_evidence": value, "standard_error": error} for run, value in values.items()]
        found = difference(*(Estimates(values[run], error, [values[run]]) for run in "ba"))
        whole = {"priors": rows, "differences": [{"first": "b", "second": "a"} | found]}
        return found, table(whole, ["9.0 effective"] * 2)

    found, text = told(5.0, 1.0)
    assert found["decided"] and found["margin"] == pytest.approx(SURE * found["standard_error"])
    assert "  b explains it better: by 5.00 ± 1.41 nats" in text
    found, text = told(2.0, 1.0)
    assert not found["decided"] and "whether b explains it better is not decided: by 2.00 ± 1.41 nats" in text
    found, text = told(5.0, None)
    assert found == {"nats": 5.0, "standard_error": None, "margin": None, "decided": False} and "--repeats 2" in text


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
    best, other = sorted(found["priors"], key=lambda row: -row["log_evidence"])
    (ahead,) = found["differences"]
    assert (ahead["first"], ahead["second"]) == (best["run"], other["run"])
    assert ahead["nats"] == pytest.approx(best["log_evidence"] - other["log_evidence"])
    assert ahead["standard_error"] == pytest.approx(math.hypot(best["standard_error"], other["standard_error"]))
    assert ahead["decided"] == (ahead["nats"] > ahead["margin"])
    assert f": by {ahead['nats']:.2f} ± {ahead['standard_error']:.2f} nats" in told.out
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


def test_of_a_whole_field_with_white_noise_the_flow_knows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, steps in (("a", 1), ("b", 3)):
        tiny.train(tmp_path / f"of-{name}", tmp_path / name, train__steps=steps, train__preview_every=0)
    x = Digits().load("valid")[0].x
    np.save(tmp_path / "digit.npy", x.numpy())
    runs, out = [str(tmp_path / name) for name in "ab"], tmp_path / "found.json"
    start = ["evidence", *runs, str(tmp_path / "digit.npy"), "--task", "denoise", "--noise", "2", "--degrade"]
    words = [*start, "--repeats", "3", "--tolerance", "1e-3", "--out", str(out)]
    assert main(words) == 0
    rows = json.loads(out.read_text())["priors"]
    y = x[None] + 2 * Generators([(0, 0, Stream.DEGRADE)]).randn((1, *x.shape), like=x)
    for row, run in zip(rows, runs, strict=True):
        found = scorefield.log_evidence(
            scorefield.load(run), Identity(), y, 2.0, repeats=3, flow=ProbabilityFlow(1e-3)
        ).nats.tolist()
        assert row["by"] == "flow" and row["estimates"] == pytest.approx(found, abs=1e-2)
        assert row["log_evidence"] == pytest.approx(np.mean(row["estimates"]))
        assert row["standard_error"] == pytest.approx(np.std(row["estimates"], ddof=1) / math.sqrt(3))
    three = [*words[:1], *runs, runs[0], *words[3:-1], str(tmp_path / "three.json")]  # the first prior twice
    assert main(three) == 0
    differences = json.loads((tmp_path / "three.json").read_text())["differences"]
    apart = np.subtract(rows[0]["estimates"], rows[1]["estimates"])  # by the same probes
    for one in differences:
        if one["first"] != one["second"]:
            assert one["nats"] == pytest.approx(abs(apart.mean())) and one["margin"] > SURE * one["standard_error"]
            assert one["standard_error"] == pytest.approx(apart.std(ddof=1) / math.sqrt(3))
        else:
            assert one["nats"] == 0 and not one["decided"]
    assert len(differences) == 2
    told = capsys.readouterr()
    assert f"explains it better than {differences[1]['second']}" in told.out
    assert told.out.count(f"(by the flow, {rows[0]['evaluations']:.0f} evaluations, ") >= 1 and not told.err.count(
        "partic"
    )

    whole, begun = Flowing.estimate, []

    def stopping(self: Flowing, repeat: int) -> Piece:
        if len(begun) == 4:
            raise KeyboardInterrupt
        begun.append(repeat)
        return whole(self, repeat)

    again = [*words[:-1], str(tmp_path / "again.json")]
    monkeypatch.setattr(Flowing, "estimate", stopping)
    assert main(again) == 130
    begun.clear()
    assert main(again) == 0 and len(begun) == 2  # what was there is not computed again
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(out.read_text())

    capsys.readouterr()
    for name, value in (("method", "DPS"), ("steps", "3"), ("sampler", "EulerMaruyama"), ("chunk", "1")):
        assert main([*start, f"--{name}", value, "--out", str(tmp_path / "none.json")]) == 2
        told = capsys.readouterr().err.strip()
        assert told.count("\n") == 0 and f"--{name} is of particles" in told and "--particles 500" in told
    for name, value in (("tolerance", "1e-3"), ("probes", "Exact")):
        assert main([*start, "--particles", "5", f"--{name}", value, "--out", str(tmp_path / "none.json")]) == 2
        told = capsys.readouterr().err.strip()
        assert told.count("\n") == 0 and f"--{name} is of the flow, and log p(y) is estimated by particles" in told
    assert main([*start[:-2], "1e-6", "--degrade", "--out", str(tmp_path / "none.json")]) == 2
    assert "the process has levels from" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()
    assert (
        main([*start, "--particles", "5", "--steps", "4", "--repeats", "1", "--out", str(tmp_path / "weighed.json")])
        == 0
    )
    row = json.loads((tmp_path / "weighed.json").read_text())["priors"][0]
    assert row["by"] == "particles" and row["effective"] <= 5


def test_the_flow_is_that_of_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    tiny.train(tmp_path, run, train__steps=3, train__preview_every=0, model__net__labels=10)
    x = Digits().load("valid")[0].x
    np.save(tmp_path / "digit.npy", x.numpy())
    start = ["evidence", str(run), str(tmp_path / "digit.npy"), "--task", "denoise", "--noise", "2"]
    start += ["--repeats", "1", "--tolerance", "1e-3"]
    found = {}
    for label in (3, 5):
        assert main([*start, "--label", str(label), "--out", str(tmp_path / f"{label}.json")]) == 0
        found[label] = json.loads((tmp_path / f"{label}.json").read_text())["priors"][0]["log_evidence"]
        given = {"repeats": 1, "flow": ProbabilityFlow(1e-3), "label": label}
        own = scorefield.log_evidence(scorefield.load(run), Identity(), x[None], 2.0, **given)
        assert found[label] == pytest.approx(float(own.nats), abs=1e-2)
    assert found[3] != found[5]
    assert main([*start, "--label", "each", "--out", str(tmp_path / "none.json")]) == 2
    assert "not each" in capsys.readouterr().err


def test_an_exact_divergence_is_found_once_and_decides_beyond_the_solver(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, steps in (("a", 1), ("b", 3)):
        tiny.train(tmp_path / f"of-{name}", tmp_path / name, train__steps=steps, train__preview_every=0)
    x = Digits().load("valid")[0].x
    np.save(tmp_path / "digit.npy", x.numpy())
    words = ["evidence", *(str(tmp_path / name) for name in ("a", "b", "digit.npy")), "--task", "denoise", "--noise"]
    words += ["9", "--tolerance", "1e-3", "--probes", "Exact", "--out", str(tmp_path / "found.json")]
    assert main(words) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    solver = ProbabilityFlow(1e-3).solver_error(x.numel())
    for row in found["priors"]:
        assert len(row["estimates"]) == 1 and row["standard_error"] == 0 and row["solver_error"] == solver
    (ahead,) = found["differences"]
    assert ahead["standard_error"] == 0 and ahead["margin"] == pytest.approx(2 * solver)
    assert ahead["decided"] == (ahead["nats"] > 2 * solver)
    assert f"{ahead['nats']:.2f} ± 0.00 nats (margin {2 * solver:.2f})" in capsys.readouterr().out
    assert main([*words, "--repeats", "1"]) == 0  # the same job, which is there


def test_a_difference_within_what_the_solver_errs_by_is_not_decided() -> None:
    a, b, c = (Estimates(value, 0.0, [value], solver=0.5) for value in (-10.0, -10.9, -11.1))
    assert not difference(a, b)["decided"] and difference(a, c)["decided"]
    d, e = (Estimates(value, 0.01, [value, value + 0.01], 0.5, paired=True) for value in (-10.0, -10.9))
    assert not difference(d, e)["decided"]


def test_why_the_flow_does_not_know_it_is_said_of_channels_of_unequal_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(0).standard_normal((40, 2, 8, 8)).astype(np.float32)
    data[:, 1] *= 3
    np.save(tmp_path / "data.npy", data)
    np.save(tmp_path / "y.npy", data[0])
    text = (
        tiny.RECIPE
        + f"data: {{class_path: scorefield.Functions, init_args: {{path: {tmp_path / 'data.npy'}, channel_axis: first}}}}"
    )
    small = {"train__steps": 1, "train__preview_every": 0, "train__validate_on": 4}
    tiny.run.train(*tiny.settings(tiny.recipe(tmp_path, text), **small), tmp_path / "run", resume=False)
    words = ["evidence", str(tmp_path / "run"), str(tmp_path / "y.npy"), "--noise", "1", "--repeats", "1"]
    words += ["--steps", "2"]
    monkeypatch.setattr(evidence, "PARTICLES", 5)
    capsys.readouterr()
    for number, (task, said) in enumerate(((["denoise"], 1), (["superres", "--task.factor", "2"], 0))):
        assert main([*words, "--task", *task, "--degrade", "--out", str(tmp_path / f"{number}.json")]) == 0
        assert capsys.readouterr().err.count("channels of unequal scale, so white noise of one strength") == said


@pytest.mark.parametrize("more", [[], ["--particles", "5", "--steps", "2"]], ids=["flow", "particles"])
def test_values_that_are_missing_are_refused_with_the_file_and_the_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__steps=1, train__preview_every=0)
    x = Digits().load("valid")[0].x.numpy()
    x[0, 2, 3] = math.nan
    np.save(tmp_path / "holes.npy", x)
    np.save(tmp_path / "known.npy", np.isfinite(x[0]).astype(np.uint8))
    words = ["evidence", str(tmp_path / "run"), str(tmp_path / "holes.npy"), "--noise", "2", "--repeats", "1"]
    words += ["--out", str(tmp_path / "found.json")]
    capsys.readouterr()
    assert main([*words, "--task", "denoise", *more]) == 2
    told = capsys.readouterr().err.strip()
    assert told.count("\n") == 0 and "holes.npy is NaN or infinite at 1 of 64 measured values" in told
    assert "--task inpaint --task.known" in told and "--region" in told
    fix = ["--task", "inpaint", "--task.known", str(tmp_path / "known.npy"), "--particles", "5", "--steps", "2"]
    assert main([*words, *fix]) == 0  # the fix is one
