"""What was written before the rooms and names of today, runs, recipes and paths: all loads and gives the same numbers."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import scorefield
from often import each
from scorefield.cli import main
from scorefield.run.aliases import current_path, renewed
from scorefield.run.configuration import find_recipe, read_recipe
from scorefield.run.defaults import import_class
from scorefield.run.experiment import differences
from scorefield.run.loading import open_checkpoint
from scorefield.run.recipe import configuration_of, recipe_parser

HERE = Path(__file__).parent
RUNS = sorted(path.name for path in (HERE / "stored").iterdir())
RECIPES = sorted(path for path in (HERE / "recipes").rglob("*.yaml"))
CHEAPER = (
    "digits",
    "digits-classifier",
    "brain-t1-small",
    "t2m-edm",
    "precip-edm",
    "navier-stokes-window",  # which had not learnt what its window leaves open
    "cifar10-edm",  # which lacked its paper's augmentation, and has it
    "cifar10-edm-ncsnpp",
)  # the others are of no paper, and were made so
SHIPPED = [path for path in RECIPES if path.parent.name == "shipped" and path.stem not in CHEAPER]
CONFIGS = [HERE / "stored" / name / "config.yaml" for name in RUNS]
DOWNLOADS = ("scorefield.CIFAR10", "scorefield.CelebA", "scorefield.LSUN")


@pytest.fixture(autouse=True)
def in_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of data in the stored configurations are relative to it."""
    monkeypatch.chdir(HERE)


def same(found: torch.Tensor, expected: np.ndarray, facts: dict) -> None:
    """To 1e-6 of the largest value with the torch that they were made by, whose kernels differ between processors."""
    tolerance = 1e-6 if facts["versions"]["torch"] == torch.__version__.partition("+")[0] else 1e-4
    scale = max(float(np.nanmax(np.abs(expected))), 1e-6)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=tolerance * scale, equal_nan=True)


def read(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    folder = HERE / "stored" / name
    with np.load(folder / "expected.npz") as file:
        return json.loads((folder / "expected.json").read_text()), {key: file[key] for key in file.files}


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_gives_the_numbers_that_it_gave(name: str) -> None:
    run, (facts, stored) = HERE / "stored" / name, read(name)
    model, raw = scorefield.load(run), scorefield.load(run, ema=False)
    x_t, t = (torch.from_numpy(stored[key]) for key in ("x_t", "t"))
    assert open_checkpoint(run).checkpoint.sha256 == facts["weights"]
    if facts["classes"]:
        with torch.no_grad():
            same(model.denoiser(x_t, t), stored["logits"], facts)
            same(raw.denoiser(x_t, t), stored["logits_raw"], facts)
        return
    cond = {key: torch.from_numpy(stored[f"cond_{key}"]) for key in facts["cond"]}
    same(model.score(x_t, t, cond=cond), stored["score"], facts)
    same(raw.score(x_t, t, cond=cond), stored["score_raw"], facts)
    sampler = replace(model.sampler, steps=facts["steps"])
    assert repr(sampler) == facts["sampler"].replace("DPM2M", "DPMSolverPP2M").replace("Carry", "NoPredictor")
    same(model.sample(2, seed=0, sampler=sampler, cond=cond, chunk=2), stored["sample"], facts)


@pytest.mark.parametrize("name", [name for name in RUNS if "data" in read(name)[0]])
def test_the_data_of_a_stored_run_are_what_they_were(name: str) -> None:
    run, (facts, stored) = HERE / "stored" / name, read(name)
    model, fields = scorefield.load(run), open_checkpoint(run).source().load("valid")
    batch = fields.gather(torch.arange(2) % len(fields))
    same(batch.x, stored["data_x"], facts)
    if "data_prepared" in stored:
        same(model.prepare(batch).x, stored["data_prepared"], facts)
    for key, value in batch.cond.items():
        same(value, stored[f"cond_{key}"], facts)


@cache
def described(path: Path) -> dict:
    """A stored recipe as it is understood, with every default written out."""
    content = read_recipe(path)
    if "train" not in content or "data" not in content:
        content = {"train": {}, "data": "Digits"} | content  # of an imported run
    parser = recipe_parser(data_required=False)
    return yaml.safe_load(configuration_of(parser, parser.read_object(content, str(path))))


def without_tail(content: Any) -> Any:
    """A recipe without the bound on rain's tail, which leaves all values of the training data as they are."""
    if isinstance(content, dict):
        return {key: without_tail(value) for key, value in content.items()}
    if isinstance(content, list):
        kept = [
            one for one in content if not (isinstance(one, dict) and str(one.get("class_path", "")).endswith(".Tail"))
        ]
        return [without_tail(one) for one in kept]
    return content


@pytest.mark.parametrize("path", each([*RECIPES, *CONFIGS], 4), ids=lambda path: str(path.relative_to(HERE)))
def test_a_stored_recipe_parses_and_is_dumped_by_public_names(path: Path) -> None:
    """What is dumped is what `renewed` makes of it, so that a resumed run is compared by equal names."""
    assert described(path) == renewed(described(path))


@pytest.mark.parametrize("path", each(SHIPPED, 4), ids=lambda path: path.stem)
def test_a_shipped_recipe_of_before_means_what_the_shipped_one_means(path: Path) -> None:
    parser = recipe_parser()
    now = parser.read_object(without_tail(read_recipe(find_recipe(path.stem))), path.stem)
    found = [
        key
        for key, _, new in differences(described(path), yaml.safe_load(configuration_of(parser, now)), path.stem)
        if new is not None  # a null was not written down
        and (key, new) != (f"{path.stem}.train.precision", "auto")  # which takes bf16-mixed where that is fast
    ]
    if now.data.class_path in DOWNLOADS:  # where it names the data set, not images that were made of it
        found = [
            key for key in found if not re.fullmatch(r".*\.data\.(init_args\.)?(class_path|path|valid|category)", key)
        ]
    assert found == []


def test_a_stored_run_is_resumed_as_itself(tmp_path: Path) -> None:
    """Its configuration names classes by their old paths: it is not another run for that."""
    shutil.copytree("stored/digits", tmp_path / "run", ignore=shutil.ignore_patterns("expected.*", "resumed.json"))
    words = ["--resume", "--train.steps", "5", "--train.checkpoint_every", "5"]
    assert main(["train", "--out", str(tmp_path / "run"), *words]) == 0
    expected = json.loads(Path("stored/digits/resumed.json").read_text())["abs_sums"]
    tensors = open_checkpoint(tmp_path / "run").checkpoint.tensors
    for name, value in expected.items():
        # Keys have a bias without effect: Adam makes steps of the rounding in its gradient, which each kernel has its own of.
        rounding = 1e-3 if name.endswith("query_key_value.bias") else 0.0
        assert float(tensors[name].double().abs().sum()) == pytest.approx(value, rel=1e-4, abs=rounding), name


def test_every_path_of_before_that_a_configuration_may_name_leads_to_something() -> None:
    """The path that was dumped, the full path, and every package that had it in its `__all__`."""
    gone = []
    for old in (HERE / "paths.txt").read_text().splitlines()[1:]:
        try:
            import_class(current_path(old))
        except (ImportError, AttributeError):
            gone.append(old)
    assert not gone
