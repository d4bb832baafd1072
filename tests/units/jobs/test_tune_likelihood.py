"""A head that is fitted to a run is kept with it, and measures likelihoods in as many evaluations as it has steps."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import tiny
from scorefield.data import Arrays
from scorefield.foundation.errors import InputError
from scorefield.jobs import Likelihood, TuneLikelihood
from scorefield.jobs.likelihood_heads import path_of
from scorefield.samplers import TruncatedNormal

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("head")
    tiny.train(folder, folder / "run", train__steps=60, train__validate_every=0, train__preview_every=0)
    verb = TuneLikelihood(run=folder / "run", steps=4, n=60, tolerance=1e-2, epochs=1)
    found = verb.run()
    error = f"± {found['spread'] / 6**0.5:.2f} nats from the solver"  # of the six of 60 that are held out
    assert (
        "4 evaluations" in verb.table(found) and error in verb.table(found) and abs(found["bias"]) < found["dimension"]
    )
    return folder / "run"


def test_it_measures_nearly_what_the_solver_does_in_its_evaluations(run: Path, tmp_path: Path) -> None:
    words = {"run": run, "n": 40, "repeats": 1}
    few = Likelihood(out=tmp_path / "few.json", evaluations=4, **words).run()
    many = Likelihood(out=tmp_path / "many.json", tolerance=1e-3, **words).run()
    assert few["evaluations"] == {"mean": 4, "max": 4} and many["evaluations"]["mean"] > 20
    assert math.isclose(few["bits_per_dimension"]["mean"], many["bits_per_dimension"]["mean"], abs_tol=0.1)
    assert "LearnedLikelihood(steps=4" in few["flow"] and few["indices"] == many["indices"]
    again = Likelihood(out=tmp_path / "few.json", evaluations=4, **words).run()
    assert again == few and json.loads((tmp_path / "few.json").read_text()) == few


def test_what_cannot_be_is_refused(run: Path, tmp_path: Path) -> None:
    for words, reason in (
        ({"evaluations": 8}, "No head for 8 evaluations"),
        ({"evaluations": 4, "ema": False}, "fitted to other weights"),
    ):
        with pytest.raises(InputError, match=reason):
            Likelihood(run=run, out=tmp_path / "no.json", **words).run()
        assert not (tmp_path / "no.json").exists()
    for words, reason in (({"steps": 1}, "2 steps or more"), ({"n": 5}, "give 20 or more")):
        with pytest.raises(InputError, match=reason):
            TuneLikelihood(run=run, **words)
    with pytest.raises(InputError, match="leave out --resolutions"):
        Likelihood(run=run, evaluations=4, resolutions=(8,), out=tmp_path / "no.json")
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    place = next((damaged / "tuned").glob("likelihood-*.safetensors"))
    place.write_bytes(place.read_bytes()[:-8])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        Likelihood(run=damaged, evaluations=4, out=tmp_path / "no.json").run()


def test_fields_of_another_shape_and_too_few_are_refused(run: Path, tmp_path: Path) -> None:
    """A head has pooled over the grid, so that it would take any, and be wrong."""
    for shape, reason in (((400, 1, 16, 16), "those of 1×8×8"), ((15, 1, 8, 8), "fields to fit to and to check")):
        np.save(tmp_path / "fields.npy", np.random.default_rng(0).random(shape, np.float32))
        data = Arrays(tmp_path / "fields.npy")
        with pytest.raises(InputError, match=reason):
            TuneLikelihood(run=run, steps=3, data=data).run()
        if shape[0] > 100:
            with pytest.raises(InputError, match=reason):
                Likelihood(run=run, evaluations=4, data=data, out=tmp_path / "no.json").run()
    assert not (run / "tuned" / "likelihood-3.safetensors").exists() and not (tmp_path / "no.json").exists()


def test_more_states_than_memory_are_refused_before_they_are_solved(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}[name])
    with pytest.raises(
        InputError, match=r"What 60 fields are on their way to noise, --n 60 with --steps 3,.*: take less"
    ):
        TuneLikelihood(run=run, steps=3, n=60).run()


def test_what_is_kept_tells_how_many_fields_there_were(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "fields.npy", np.random.default_rng(0).random((40, 1, 8, 8), np.float32))
    data = Arrays(tmp_path / "fields.npy")
    assert TuneLikelihood(run=run, steps=2, epochs=1, data=data).run()["fields"] == len(data.load("train")) < 40


def test_noise_that_is_a_field_is_refused(tmp_path: Path) -> None:
    options = {"train__steps": 2, "train__validate_every": 0, "train__preview_every": 0}
    noise = {"model__sde__noise": "GaussianField", "model__sde__noise__density": "Matern"}
    tiny.train(tmp_path, tmp_path / "run", **options, **noise, model__sde__noise__density__length=0.2)
    with pytest.raises(InputError, match="noise is a field"):
        TuneLikelihood(run=tmp_path / "run", n=20).run()


def test_networks_with_conditions_are_refused(tmp_path: Path) -> None:
    options = {"train__steps": 2, "train__validate_every": 0, "train__preview_every": 0, "model__net__labels": 10}
    tiny.train(tmp_path, tmp_path / "run", **options)
    with pytest.raises(InputError, match="nothing but the noise level"):
        TuneLikelihood(run=tmp_path / "run", n=20).run()
    assert not path_of(tmp_path / "run" / "checkpoints" / "step-00000002.safetensors", 8).exists()


def test_a_head_is_for_data_dequantised_as_its_own(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "run"
    shutil.copytree(run, mine)
    law = TruncatedNormal(0.2)
    TuneLikelihood(run=mine, steps=4, n=60, tolerance=1e-2, epochs=1, dequantisation=law).run()
    words = {"run": mine, "n": 40, "repeats": 1, "dequantisation": law}
    few = Likelihood(out=tmp_path / "few.json", evaluations=4, **words).run()
    many = Likelihood(out=tmp_path / "many.json", tolerance=1e-3, **words).run()
    assert math.isclose(few["bits_per_dimension"]["mean"], many["bits_per_dimension"]["mean"], abs_tol=0.1)
    with pytest.raises(InputError, match=r"dequantised by TruncatedNormal\(width=0.2\), not by Uniform"):
        Likelihood(out=tmp_path / "other.json", evaluations=4, run=mine).run()
    with pytest.raises(InputError, match=r"dequantised by Uniform\(\), not by Truncated"):
        Likelihood(out=tmp_path / "other.json", evaluations=4, run=run, dequantisation=law).run()
