"""Completing on the command line: whole fields of incomplete ones, that the next prior trains on, and mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny
from scorefield.cli import main
from scorefield.datasets import Digits

pytestmark = pytest.mark.usefixtures("unchecked")
HOLES = "data: {class_path: Functions, init_args: {path: holes.npz, key: u, channel_axis: none, valid: 16}}\n"


def test_a_prior_of_incomplete_fields_draws_them_whole_and_the_next_one_trains_on_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    digits = Digits().load("train")
    x = np.concatenate([digits[i].x.numpy() for i in range(48)])
    known = np.random.default_rng(0).random(x.shape) > 0.4
    np.savez("holes.npz", u=np.where(known, x, np.nan).astype("f4"))
    (recipe := Path("holes.yaml")).write_text(tiny.RECIPE + HOLES)
    assert main(["train", str(recipe), "--out", "first", "--train.steps", "2", "--train.preview_every", "0"]) == 0
    words = ["complete", "first", "--steps", "3", "--out", "whole"]
    assert main(words) == 0
    assert "32 fields, of which" in capsys.readouterr().out
    drawn = np.load("whole/samples.npy")
    assert drawn.shape == (32, 1, 8, 8) and np.isfinite(drawn).all()
    rows = [i for i in range(48) if any(np.allclose(drawn[j, 0][known[i]], x[i][known[i]]) for j in range(32))]
    assert len(rows) == 32  # what was known is there to the bit
    assert main(words) == 0  # there already
    next_one = ["train", "holes.yaml", "--init", "first", "--out", "second", "--train.steps", "2"]
    data = [
        "--data",
        "Functions",
        "--data.path",
        "whole/samples.npy",
        "--data.valid",
        "8",
        "--data.channel_axis",
        "first",
    ]
    assert main([*next_one, *data]) == 0
    capsys.readouterr()
    assert main([*words, "--seed", "1"]) == 2
    assert "another --out" in capsys.readouterr().err
    np.savez("holes.npz", u=np.where(known, 16 - x, np.nan).astype("f4"))  # other fields under the same name
    assert main(words) == 2
    assert "another --out" in capsys.readouterr().err
    known[:, 2, 3] = False
    np.savez("holes.npz", u=np.where(known, x, np.nan).astype("f4"))
    assert main(["complete", "first", "--steps", "3", "--out", "none"]) == 2
    assert "1 of 64 elements are known in no field, the first at (0, 2, 3)" in capsys.readouterr().err
    assert not Path("none").exists()
