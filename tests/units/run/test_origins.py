"""Whoever reads a configuration sees which file, or what else, gave each of its values."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

import scorefield
import tiny
from scorefield.cli import main
from scorefield.run.configuration import fold, fold_bases, leaves_in, read_recipe, recipe_leaves, with_origin
from scorefield.run.recipe import annotated, configuration_of, recipe_parser

BASES = {
    "first.yaml": """
model:
  sde: {schedule: {class_path: scorefield.core.schedule.VP, init_args: {beta_min: 0.2, beta_max: 12.0}}}
  net: {class_path: scorefield.nn.NCSNpp, init_args: {channels: 8, blocks: 1, multipliers: [1, 2]}}
train: {steps: 5, batch_size: 16}
""",
    "second.yaml": """
model:
  net: {init_args: {channels: 16, dropout: 0.1}}
data: {class_path: scorefield.datasets.Digits}
""",
    "mine.yaml": """
base: [parts/score-sde.yaml, digits, first.yaml, second.yaml]
train: {steps: 7}
""",
}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in BASES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return Path("mine.yaml")


def described(path: Path, *words: str) -> tuple[str, dict[str, str]]:
    """The annotated text, and its comments by the dotted names of the values."""
    parser = recipe_parser()
    settings = parser.read(words, parser.read_object(read_recipe(path), str(path)))
    text = annotated(parser, settings, recipe_leaves(path), words)
    plain, comments = [], []
    for line in text.splitlines():
        value, _, comment = line.partition("  # ")
        plain.append(value)
        comments.append(comment)
    names = dict(leaves_in(with_origin(yaml.safe_load(text), "")))
    by_line = [comment for comment in comments if comment]
    assert len(by_line) == len(names)  # a comment for each value
    before = yaml.safe_load(configuration_of(parser, settings))
    assert yaml.safe_load("\n".join(plain)) == yaml.safe_load(text)
    assert {**before, "model": 0} == {**yaml.safe_load(text), "model": 0}  # the data fill the model in alone
    again = parser.read_object(yaml.safe_load(text), "again")
    assert configuration_of(parser, again) == "\n".join(plain) + "\n"
    return text, dict(zip(names, by_line, strict=True))


def test_each_value_has_the_file_that_gave_it_last(recipe: Path) -> None:
    _, origins = described(recipe)
    for name, origin in {
        "train.steps": "mine.yaml",
        "train.batch_size": "first.yaml",
        "train.log_every": "digits.yaml",
        "train.clip": "parts/score-sde.yaml",
        "train.keep": "default",
        "model.net": "first.yaml",
        "model.net.channels": "second.yaml",
        "model.net.multipliers": "first.yaml",
        "model.net.in_channels": "the data",
        "model.shape": "the data",
        "model.sde.schedule.beta_max": "first.yaml",
        "data": "second.yaml",
        "data.valid": "default",
    }.items():
        assert origins[name] == origin, name


def test_a_class_and_a_value_of_the_command_line_are_its_own(recipe: Path) -> None:
    words = ("--model.sde.schedule", "SubVP", "--train.steps=9", "--data.valid", "400", "--model.net.channels=32")
    _, origins = described(recipe, *words)
    given = ("model.sde.schedule", "train.steps", "data.valid", "model.net.channels")
    assert {origins[name] for name in given} == {"command line"} and origins["data"] == "second.yaml"
    assert origins["model.sde.schedule.beta_min"] == "default"  # the recipe's is of another class
    same = described(recipe, "--model.net=NCSNpp")[1]
    assert same["model.net"] == "command line" and same["model.net.dropout"] == "second.yaml"
    mapping = '{"class_path": "VP", "init_args": {"beta_min": 0.3}}'
    inside = described(recipe, "--model.sde.schedule", mapping)[1]
    assert inside["model.sde.schedule"] == inside["model.sde.schedule.beta_min"] == "command line"


def test_where_data_are_absent_their_sizes_stay_open(recipe: Path) -> None:
    _, origins = described(recipe, "--data", "Images", "--data.path", "gone")
    assert origins["model.net.in_channels"] == "default"


def test_the_verb_prints_them_and_a_run_keeps_the_name_of_what_it_took_its_model_from(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(recipe), "--print-config", "--origins", "--train.steps=3"]) == 0
    assert "steps: 3  # command line" in capsys.readouterr().out
    tiny.train(tmp_path / "t", tmp_path / "run", train__steps=1)
    assert main(["train", str(recipe), "--init", "run", "--print-config", "--origins"]) == 0
    out = capsys.readouterr().out
    assert "channels: 8  # run" in out and "steps: 7  # mine.yaml" in out
    assert main(["train", str(recipe), "--origins", "--out", "x"]) == 2
    assert "--print-config" in capsys.readouterr().err


def test_folding_is_that_of_plain_values() -> None:
    """Of the same class merged, of another afresh, whatever file named it."""
    a = {"net": {"class_path": "A", "init_args": {"x": 1, "y": [1]}}, "steps": 1}
    for b in (
        {"net": {"class_path": "A", "init_args": {"y": [2], "z": None}}},
        {"net": {"class_path": "B", "init_args": {"z": 3}}},
        {"net": {"init_args": {"x": {"deep": 1}}}, "steps": 2},
        {"net": "B"},
    ):
        folded = fold(with_origin(a, "a"), with_origin(b, "b"))
        assert {name: leaf.value for name, leaf in leaves_in(folded)} == {
            name: leaf.value for name, leaf in leaves_in(with_origin(fold(a, b), ""))
        }
    assert fold_bases({"base": "digits", "train": {"steps": 3}}, "mine")["train"]["steps"] == 3
    assert isinstance(recipe_parser().read_object(fold_bases({"base": "digits"}, "mine"), "mine"), Namespace)


def test_a_default_that_a_recipe_takes_back_stays_taken_back() -> None:
    """In what is printed, in what that is read back as, and so in what a run stores and is resumed with."""
    printed = scorefield.recipe("digits", **{"train.clip": None})
    assert printed["train"]["clip"] is None and scorefield.recipe(printed) == printed
    assert scorefield.recipe("digits")["train"]["clip"] == 1.0
