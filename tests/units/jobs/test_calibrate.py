"""Calibration on the command line: what it finds, what it keeps with the run, and what restore makes of that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from scorefield.cli import main
from scorefield.datasets import Digits
from scorefield.metrics.image import interval_coverage

pytestmark = pytest.mark.usefixtures("unchecked")
TASK = ["--task", "superres", "--task.factor", "2", "--noise", "2", "--steps", "3", "-n", "4"]


def refused(capsys: pytest.CaptureFixture[str], words: list[str], *said: str) -> None:
    capsys.readouterr()
    assert main(words) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(told) == 1 and all(part in told[0] for part in said), told


def test_a_factor_is_found_kept_and_applied_to_the_same_posterior_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "found.json"
    tiny.train(tmp_path, run, train__steps=2, train__preview_every=0)
    np.save(tmp_path / "digit.npy", Digits().load("valid")[0].x.numpy())
    restore = ["restore", str(run), str(tmp_path / "digit.npy"), "--degrade", "--calibrated", *TASK]
    refused(capsys, [*restore, "--out", str(tmp_path / "none")], "scorefield calibrate RUN")
    words = ["calibrate", str(run), *TASK, "--fields", "10", "--out", str(out)]
    assert main(words) == 0
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    assert "10 fields, 4 draws of each" in said
    assert f"intervals times {found['factor']:.3f} hold 90% of fields such as these, and 99.0% of these 10" in said
    assert sum(found["ranks"]["counts"]) > 0 and len(found["ranks"]["counts"]) == 5
    assert len(found["error_by_spread"]) == 4 and np.shape(found["coverage_in_space"]) == (1, 8, 8)
    kept = json.loads((run / "calibrations.json").read_text())
    assert [row["factor"] for row in kept.values()] == [found["factor"]]
    assert main(words) == 0  # there already

    for name, more in (("wide", restore), ("plain", [word for word in restore if word != "--calibrated"])):
        assert main([*more, "--out", str(tmp_path / name)]) == 0
    wide, plain = (json.loads((tmp_path / name / "restoring.json").read_text()) for name in ("wide", "plain"))
    assert wide["factor"] == found["factor"] and "factor" not in plain
    members = torch.from_numpy(np.load(tmp_path / "wide/samples.npy"))
    assert torch.equal(members, torch.from_numpy(np.load(tmp_path / "plain/samples.npy")))
    truth = torch.from_numpy(np.load(tmp_path / "digit.npy"))[None]
    wider = members.mean(0) + found["factor"] * (members - members.mean(0))
    assert wide["coverage"] == pytest.approx(interval_coverage(wider, truth))
    spreads = (np.load(tmp_path / name / "std.npy") for name in ("wide", "plain"))
    np.testing.assert_allclose(next(spreads), found["factor"] * next(spreads), rtol=1e-5)

    data = ["--data", "Arrays", "--data.path", str(tmp_path / "own.npy"), "--data.channel_axis", "none"]
    fields = np.concatenate([Digits().load("valid")[i].x.numpy() for i in range(20)])
    np.save(tmp_path / "own.npy", fields)
    words = [*words[:-1], str(tmp_path / "own.json"), *data, "--split", "train"]
    assert main(words) == 0
    np.save(tmp_path / "own.npy", 16 - fields)  # other fields under the same name
    refused(capsys, words, "another --out")
    words = words[: words.index("--data")]

    far = {"far": {**next(iter(kept.values())), "noise": "9", "method": "another", "n": 5}}
    (run / "calibrations.json").write_text(json.dumps({**far, **json.loads((run / "calibrations.json").read_text())}))
    refused(capsys, [*restore, "--noise", "3", "--out", str(tmp_path / "none")], "differs in noise:")
    refused(capsys, [*restore, "--method", "DPS", "--out", str(tmp_path / "none")], "differs in method")
    refused(capsys, [*words[:-1], str(tmp_path / "x.json"), "--fields", "100000"], "--fields")
    refused(capsys, [*words[:-1], str(tmp_path / "x.json"), "-n", "2"], "below 3")
    for broken, said in (("[]", "no calibrations"), ('{"a": 1}', "no calibrations"), ("{", "no JSON")):
        (run / "calibrations.json").write_text(broken)
        refused(capsys, [*restore, "--out", str(tmp_path / "none")], said)
    assert not (tmp_path / "none").exists() and not (tmp_path / "x.json").exists()


def test_particles_are_calibrated_as_well_and_few_fields_give_no_factor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "found.json"
    tiny.train(tmp_path, run, train__steps=2, train__preview_every=0)
    words = ["calibrate", str(run), *TASK, "--particles", "6", "--method", "PiGDM", "--fields", "2", "--out", str(out)]
    assert main([*words, "--noise", "0.5"]) == 0
    assert json.loads(out.read_text())["factor"] is None and not (run / "calibrations.json").exists()
    told = capsys.readouterr().err
    assert "give --fields 9 or more" in told
    assert told.count("particles counted at some level, in field ") == 1 and "2 of 2" in told
