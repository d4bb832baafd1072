"""`--vector 0.3,1.2` of every verb that draws: what it means, what is recorded, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield
import tiny
from scorefield.cli import main

RECIPE = """
model:
  sde: {schedule: EDM}
  net: {class_path: UNet, init_args: {channels: 8, multipliers: [1, 2]}}
  precondition: EDMPreconditioner
  normaliser: Standardise
data: {class_path: Arrays, init_args: {path: PATH, labels: c, valid: 8}}
train: {steps: 40, batch_size: 16, ema: 0.5, optimiser: {class_path: Adam, init_args: {lr: 5.0e-3, schedule: Constant}},
        validate_on: 8, validate_every: 40, preview_every: 1000, checkpoint_every: 40, log_every: 40, accelerator: cpu}
"""
DROPPED = '[{"class_path": "scorefield.data.DropLabel", "init_args": {"probability": 0.3}}]'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with vectors and the null vector, one without the null vector, one without vectors."""
    folder, draws = tmp_path_factory.mktemp("vectors"), np.random.default_rng(0)
    c = np.stack((2000 + 100 * draws.random(64), draws.random(64)), axis=1)
    x = ((c[:, 0] - 2050) / 30)[:, None, None] + 0.1 * draws.normal(size=(64, 8, 8))
    np.savez(folder / "data.npz", x=x.astype("f4"), c=c)
    text = RECIPE.replace("PATH", str(folder / "data.npz"))
    for name, overrides in (
        ("free", {"train__augment": DROPPED}),
        ("sure", {"train__steps": 2}),
        ("plain", {"train__steps": 2, "data__labels": "null"}),
    ):
        tiny.run.train(*tiny.settings(tiny.recipe(folder / f"recipe-{name}", text), **overrides), folder / name)
    return folder


def drawn(run: Path, out: Path, *arguments: str) -> np.ndarray:
    words = ["sample", str(run), "-n", "4", "--chunk", "4", "--steps", "4", "--out", str(out), *arguments]
    assert main(words) == 0
    return np.load(out / "samples.npy")


def held_out(runs: Path) -> scorefield.FieldDataset:
    return scorefield.Arrays(runs / "data.npz", labels="c", valid=8).load("valid")


def test_samples_are_drawn_at_the_numbers_that_are_asked_for(runs: Path, tmp_path: Path) -> None:
    """In the units of the data: the same as by cond in Python, recorded, and others at other numbers."""
    found = drawn(runs / "free", tmp_path / "a", "--vector", "2090.5,0.2")
    model, year = scorefield.load(runs / "free"), torch.tensor([[2090.5, 0.2]], dtype=torch.float64)
    sampler = replace(model.sampler, steps=4)
    expected = model.sample(4, sampler=sampler, cond={"vector": year.expand(4, -1)}, chunk=4)
    np.testing.assert_array_equal(found, expected.numpy())
    assert json.loads((tmp_path / "a" / "job.json").read_text())["vector"] == [2090.5, 0.2]
    other = drawn(runs / "free", tmp_path / "b", "--vector", "2010,0.2")
    assert found.mean() - other.mean() > 0.3
    words = ["sample", str(runs / "free"), "-n", "4", "--chunk", "4", "--steps", "4", "--out", str(tmp_path / "a")]
    assert main([*words, "--vector", "2090.5,0.2"]) == 0  # there already
    assert main([*words, "--vector", "2090.5,0.3"]) == 2  # another job


def test_the_weight_of_guidance(runs: Path, tmp_path: Path) -> None:
    free, year = runs / "free", ("--vector", "2090,0.5")
    own, one = drawn(free, tmp_path / "own", *year), drawn(free, tmp_path / "one", *year, "--guidance", "1")
    none, zero = drawn(free, tmp_path / "none"), drawn(free, tmp_path / "zero", *year, "--guidance", "0")
    more = drawn(free, tmp_path / "more", *year, "--guidance", "3")
    np.testing.assert_allclose(one, own, atol=1e-4)
    np.testing.assert_allclose(zero, none, atol=1e-4)
    assert more.mean() > own.mean() + 0.1
    assert "vector" not in json.loads((tmp_path / "none" / "job.json").read_text())


def test_the_vectors_of_data_are_taken_where_those_are_asked_for(runs: Path, tmp_path: Path) -> None:
    given, model = drawn(runs / "sure", tmp_path / "given", "--given", "valid"), scorefield.load(runs / "sure")
    cond = {"vector": held_out(runs).gather(torch.arange(4)).cond["vector"]}
    expected = model.sample(4, sampler=replace(model.sampler, steps=4), cond=cond, chunk=4)
    np.testing.assert_array_equal(given, expected.numpy())


@pytest.mark.parametrize(
    ("run", "arguments", "words"),
    [
        ("free", ["--vector", "2090"], "vectors of 2 numbers"),
        ("free", ["--vector", "2090,0.1,3"], "vectors of 2 numbers"),
        ("free", ["--vector", "nan,0.1"], "not nan"),
        ("free", ["--vector", "a,b"], "vector"),
        ("free", ["--guidance", "2"], "--vector"),
        ("sure", [], "say which by --vector, 2 numbers"),
        ("sure", ["--vector", "2090,0.1", "--guidance", "2"], "DropLabel"),
        ("plain", ["--vector", "0.1"], "takes no vector"),
        ("plain", ["--vector", "0.1", "--guidance", "2"], "knows no classes or vectors"),
    ],
)
def test_what_cannot_be_drawn_is_named(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str, arguments: list[str], words: str
) -> None:
    assert main(["sample", str(runs / run), "-n", "2", "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and len(error) < 310
    assert not (tmp_path / "out").exists()


def test_a_restoration_is_one_at_the_numbers(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8))
    words = ["restore", str(runs / "sure"), str(tmp_path / "x.npy"), "--degrade", "--task", "superres"]
    words += ["--task.factor", "2", "--samples", "2", "--steps", "2", "--noise", "0.1", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "say which by --vector" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--vector", "2090,-1e-1"]) == 0
    assert json.loads((tmp_path / "out" / "job.json").read_text())["vector"] == [2090, -0.1]


def test_an_evaluation_draws_at_the_vectors_of_the_held_out_data(runs: Path) -> None:
    words = ["evaluate", str(runs / "sure"), "-n", "8", "--chunk", "8", "--steps", "2", "--seeds", "1"]
    assert main(words) == 0
    record = json.loads((runs / "sure" / "metrics.json").read_text())
    assert record["model"]["given"] == "valid" and "vector" not in record
    assert main([*words, "--vector=2050,0.5"]) == 0
    record = json.loads((runs / "sure" / "metrics.json").read_text())
    assert record["vector"] == [2050, 0.5] and "given" not in record["model"]


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_a_likelihood_is_given_the_vectors_of_its_data(runs: Path, tmp_path: Path) -> None:
    words = ["likelihood", str(runs / "free"), "-n", "2", "--repeats", "1", "--probes", "Exact", "--tolerance", "1e-2"]
    assert main([*words, "--out", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    model, batch = scorefield.load(runs / "free"), held_out(runs).gather(torch.tensor(found["indices"]))
    flow = scorefield.ProbabilityFlow(1e-2, probes=scorefield.samplers.Exact())
    told, free = (model.log_prob(batch.x, cond=cond, flow=flow).nats for cond in (batch.cond, None))
    nats = torch.tensor(found["nats_per_field"], dtype=torch.float64)[:, 0]
    torch.testing.assert_close(nats, told.double(), rtol=1e-4, atol=1e-2)
    assert (told - free).abs().min() > 0.1
