"""A sampler that is fitted to a run is kept with it, and drawn by where it is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tiny
from scorefield.foundation.errors import InputError
from scorefield.jobs import TuneSampler
from scorefield.jobs.sample import Sample
from scorefield.model import Model

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    options = {"train__steps": 12, "train__validate_every": 0, "train__preview_every": 0, "model__net__labels": 10}
    tiny.train(folder, folder / "run", **options)
    return folder / "run"


@pytest.fixture(scope="module")
def record(run: Path) -> dict[str, object]:
    verb = TuneSampler(run=run, steps=4, n=8, fine=16, rounds=2)
    found = verb.run()
    assert "4 steps" in verb.table(found)
    return found


def test_it_is_kept_with_what_it_is_worth(run: Path, record: dict[str, object]) -> None:
    assert json.loads((run / "tuned" / "steps-4.json").read_text()) == record
    assert record["error"] <= record["untuned"] and len(record["times"]) == 4 and len(record["corrections"]) == 2
    assert all(np.diff(record["times"]) < 0)


def test_it_draws_where_it_is_asked_for_and_says_so(run: Path, record: dict[str, object], tmp_path: Path) -> None:
    words = {"run": run, "n": 3, "steps": 4, "label": "each"}
    plain = Sample(out=tmp_path / "plain", **words).run()
    tuned = Sample(out=tmp_path / "tuned", tuned=True, **words).run()
    assert float((plain - tuned).abs().max()) > 0
    assert str(record["times"][1]) in json.loads((tmp_path / "tuned" / "job.json").read_text())["sampler"]


def test_what_does_not_go_together_is_refused(run: Path, record: dict[str, object], tmp_path: Path) -> None:
    for changes, reason in (
        ({"steps": 5}, "of 5 steps was tuned for the run; there are those of 4"),
        ({}, "give --steps"),
        ({"steps": 4, "denoise": False}, "none of the others"),
        ({"steps": 4, "ema": False}, "tuned for other weights"),
    ):
        with pytest.raises(InputError, match=reason):
            Sample(run=run, n=1, tuned=True, out=tmp_path / "no", **changes).run()
        assert not (tmp_path / "no").exists()
    for words, reason in (({"steps": 1}, "nothing to tune"), ({"steps": 9, "fine": 16}, "not finer")):
        with pytest.raises(InputError, match=reason):
            TuneSampler(run=run, **words)
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    for changes in (
        {"times": 3},
        {"times": ["a", "b", "c", "d"]},
        {"times": [0.9, 0.2, 0.4, 0.1]},
        {"times": [0.9, 0.5]},
        {"corrections": [1.0]},
        {"corrections": [1.0, float("nan")]},
        {"model": None},
    ):
        (damaged / "tuned" / "steps-4.json").write_text(json.dumps(record | changes))
        with pytest.raises(InputError, match="holds no tuned sampler"):
            Sample(run=damaged, n=1, steps=4, tuned=True, out=tmp_path / "no").run()
    shutil.rmtree(damaged / "tuned")
    (damaged / "tuned").touch()
    with pytest.raises(InputError, match="is a file, no folder"):
        TuneSampler(run=damaged, steps=4, n=2, fine=16, rounds=1).run()


def test_fields_are_drawn_as_many_at_once_as_are_wanted(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, draw = [], Model.draw
    monkeypatch.setattr(Model, "draw", lambda self, g, *a, **w: (sizes.append(len(g)), draw(self, g, *a, **w))[1])
    found = [TuneSampler(run=run, steps=3, n=5, fine=8, rounds=1, chunk=chunk).run() for chunk in (2, 5)]
    assert {*sizes} == {1, 2, 5} and found[0]["times"] == pytest.approx(found[1]["times"], rel=1e-3)


@pytest.mark.slow
def test_a_shipped_model_is_tuned_into_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = TuneSampler(run="digits", steps=5).run()
    assert found["error"] < 0.9 * found["untuned"]
    assert (tmp_path / "digits-results" / "tuned" / "steps-5.json").is_file()
    tuned = Sample(run="digits", n=4, steps=5, tuned=True, out=tmp_path / "drawn").run()
    assert tuned.shape == (4, 1, 8, 8)
