"""A wrong call is refused in one line that a terminal shows whole: which key, which value, what belongs there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from often import each
from scorefield.cli import main
from scorefield.data import Source
from scorefield.datasets import Digits
from scorefield.foundation.errors import InputError
from scorefield.run.configuration import Parser, find_recipe, read_recipe
from scorefield.run.recipe import recipe_parser

OUT = "--out x"
CALLS = {  # what the line has to have
    "train digits --data fields.npy --out x": ["data: fields.npy is a file", "--data Arrays --data.path fields.npy"],
    "check-data nothere/": ["nothere/", "no file or folder"],
    "check-data nothere.npy": ["nothere.npy", "no file or folder"],
    "check-data nothere[1].npy": ["nothere[1].npy", "no file or folder"],
    "check-data Digit": ["Digit", "Did you mean Digits?"],
    "check-data brain-t1-small": ["brain-t1-small is a recipe", "brain-t1-small.yaml"],
    "check-data": ["data"],
    "check-data notes.yaml": ["notes.yaml", "class_path"],
    "evaluate run --data Digitz": ["Digitz", "Did you mean Digits?"],
    "evaluate run --data my_lab.Data": ["my_lab.Data", "cannot be imported"],
    "evaluate run --data gone.yaml": ["gone.yaml"],
    f"train digits {OUT} --train.step 3": ["--train.step.", "Did you mean --train.steps?"],
    f"train digits {OUT} --train.stepz 3": ["--train.stepz", "--train.steps"],
    f"train digits {OUT} --train.steps many": ["train.steps", "many", "a whole number"],
    f"train digits {OUT} --train.steps {'9' * 400}x": ["train.steps", "999..."],
    f"train digits {OUT} --train.steps": ["--train.steps needs a value"],
    f"train digits {OUT} --train.seed {10**23}": ["A seed is 1", "below 2^64"],
    f"train digits {OUT} --train.clip -1e-3": ["train.clip must be positive"],
    f"train digits {OUT} --model.shape [-1,8,8]": ["model.shape is [-1, 8, 8]", "at least 1"],
    f"train images {OUT} --dry-run --model.shape [1,-8,8]": ["model.shape is [1, -8, 8]", "at least 1"],
    f"train digits {OUT} --train.clip tight": ["train.clip", "tight", "a number or null"],
    f"train digits {OUT} --train.precision bf17": ["train.precision", "bf17", "bf16-mixed"],
    f"train digits {OUT} --train.augment flip": ["train.augment", "flip", "a list"],
    f"train digits {OUT} --train.augment [Flop]": ["train.augment", "Flop", "Did you mean Flip?"],
    f"train digits {OUT} --train.loss.weight os.system": ["train.loss.weight", "os.system", "not a Weight"],
    f"train digits {OUT} --train.optimiser.schedule.warmup soon": ["train.optimiser.schedule.warmup", "soon"],
    f"train digits {OUT} --train.optimiser.schedule Cosine": ["Cosine", "Did you mean CosineDecay?"],
    f"train digits {OUT} --model 3": ["model", "3"],
    f"train digits {OUT} --trian.steps 3": ["--trian.steps", "Did you mean --train.steps?"],
    f"train digits {OUT} --train.lr 1": ["--train.lr", "Did you mean --train.optimiser.lr?"],
    f"train digits {OUT} --tarin.optimiser.lr 1": ["--tarin.optimiser.lr", "Did you mean --train.optimiser.lr?"],
    f"train digits {OUT} --model.nett 3": ["--model.nett", "Did you mean --model.net?"],
    f"train digits {OUT} --model.net Netz": ["model.net", "Network Netz"],
    f"train digits {OUT} --model.net DPS": ["model.net", "Network DPS", "There are"],
    f"train digits {OUT} --model.net.chanels 4": ["model.net.chanels", "NCSNpp", "Did you mean channels?"],
    f"train digits {OUT} --model.net.channels big": ["model.net.channels", "big", "a whole number"],
    f"train digits {OUT} --model.sde.schedule VEE": ["model.sde.schedule", "VEE", "Did you mean VE?"],
    f"train digits {OUT} --model.sampler.corrector Heun": ["model.sampler.corrector", "Heun", "Langevin"],
    f"train digits {OUT} --data Arrays": ["Arrays needs path", "--data.path"],
    f"train digits {OUT} --data Arrays --data.pth a.npy": ["data.pth", "a.npy", "Did you mean path?"],
    f"train digits {OUT} --data.valid lots": ["data.valid", "lots"],
    f"train images {OUT} --data.crop.height 3": ["data.crop", "Crop", "height"],
    f"train digits more {OUT}": ["more"],
    f"train digits {OUT} --dry-runs": ["--dry-runs", "Did you mean --dry-run?"],
    f"train cordex-mlbench-edm {OUT} --data.predictors p.nc": ["data.predictors", "p.nc"],
    f"train nothing {OUT}": ["nothing", "scorefield recipes"],
    "sample run --out o --sampler Hoyn": ["sampler", "Hoyn"],
    "sample run --out o -n many": ["many", "a whole number"],
    "sample run": ["--out"],
    "recipes --all": ["--all"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "fields.npy", np.zeros(3))
    (tmp_path / "notes.yaml").write_text("train: {steps: 3}\n")
    (tmp_path / "digits-data.yaml").write_text("class_path: scorefield.datasets.Digits\ninit_args: {valid: 300}\n")
    (tmp_path / "mine.yaml").write_text("base: digits\ndata: {init_args: {valid: 200}}\n")
    return tmp_path


@pytest.mark.parametrize("call", each(CALLS, 3))
def test_a_wrong_call_is_one_short_line(call: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call.split()) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert not out and len(line) <= 300
    assert not any(word in line for word in ("Parser key", "Subtypes", "Namespace(", "<class", "typing.", "Expected"))
    for word in CALLS[call]:
        assert word in line, line
    assert not (folder / "x").exists() and not (folder / "o").exists()


def test_wrong_recipes_are_one_short_line(folder: Path) -> None:
    parser = recipe_parser()
    for key, value, words in (
        ("train", {"stepz": 3}, "Did you mean train.steps?"),
        ("train", {"steps": "many"}, "train.steps must be a whole number, not many"),
        (
            "model",
            {"net": {"class_path": "scorefield.nn.NCSNpp", "init_args": {"chanels": 4}}},
            "Did you mean channels",
        ),
        ("train", {"loss": 3}, "train.loss has to be a Loss, by class_path and init_args, but 3"),
        ("model", {"net": {"class_path": "nowhere.Net"}}, "No module named 'nowhere'"),
    ):
        content = read_recipe(find_recipe("digits"))
        with pytest.raises(InputError, match=re.escape(words)) as refused:
            parser.read_object({**content, key: {**content[key], **value}}, "mine.yaml")
        assert "\n" not in str(refused.value) and len(str(refused.value)) <= 300, str(refused.value)


def test_a_yaml_file_stands_for_a_class(folder: Path) -> None:
    """That it describes alone, or as a recipe has it; shipped recipes are known by their names."""
    parser = Parser.named("test")
    parser.add_argument("--data", type=Source | None, default=None)
    parser.add_argument("--out", type=Path)

    def data(*words: str) -> Source:
        return parser.instantiate(parser.read(words)).data

    assert data("--data", "digits-data.yaml") == data("--data=digits-data.yaml") == Digits(valid=300)
    assert data("--data", "mine.yaml") == Digits(valid=200) and data("--data=digits.yaml") == Digits()
    assert data("--data", "mine.yaml", "--data.valid", "100") == Digits(valid=100)
    assert parser.read(["--out", "mine.yaml"]).out == Path("mine.yaml")  # where a path belongs it is one


def test_an_optional_group_of_a_recipe_is_changed_value_by_value() -> None:
    parser = recipe_parser()
    base = parser.read_object(read_recipe(find_recipe("cordex-mlbench-edm")), "recipe")
    before = base.data.init_args.predictors.names
    found = parser.read(["--data.predictors.path", "p.nc"], base).data.init_args.predictors
    assert found.get("init_args", found).path == "p.nc" and found.get("init_args", found).names == before


def test_help_shows_no_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("sample", "likelihood"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert " at 0x" not in capsys.readouterr().out
