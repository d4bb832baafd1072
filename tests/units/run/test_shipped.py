"""Models that come with the package: packed from a run, found by name, never written to, each with its card."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from setuptools import Distribution

import scorefield
import tiny
from scorefield.cli import main
from scorefield.foundation.errors import InputError
from scorefield.run import shipped
from scorefield.run.loading import open_checkpoint, run_folder
from scorefield.run.shipped import CARD, CONFIG, WEIGHTS, pack, shipped_models

ROOT = Path(__file__).parents[3]
MOST = 12e6  # bytes of all weights together
SECTIONS = ("Data", "Licence", "Recipe", "Figures", "Intended use", "Limits")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    tiny.train(folder, folder / "run", train__steps=2, train__validate_every=2)
    return folder / "run"


@pytest.fixture
def models(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one model, `little`, and an empty working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(shipped, "_folder", lambda: tmp_path / "models")
    pack(open_checkpoint(run).checkpoint, tmp_path / "models" / "little")
    (tmp_path / "models" / "little" / CARD).write_text("# little: digits in two steps\n")
    return tmp_path / "models"


def test_what_is_packed_is_the_averaged_model_to_the_digits_of_bfloat16(run, models):
    before, after = scorefield.load(run), scorefield.load("little")
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 0.7])
    torch.testing.assert_close(after.denoise(x, t), before.denoise(x, t), rtol=0, atol=0.02)
    stored = open_checkpoint(Path("little")).checkpoint
    assert {x.dtype for n, x in stored.tensors.items() if x.ndim > 1 and n.startswith("net.")} == {torch.bfloat16}
    assert stored.facts["step"] == 2 and "precision" not in stored.facts  # which is one machine's
    assert not any(name.startswith(("optimiser.", "ema.")) for name in stored.tensors)
    assert (models / "little" / WEIGHTS).stat().st_size < 0.2 * next(
        run.glob("checkpoints/*2.safetensors")
    ).stat().st_size


def test_paths_of_the_machine_that_trained_it_are_left_out(run, models):
    opened = open_checkpoint(run).checkpoint
    config = {**opened.facts["config"], "data": {"init_args": {"paths": [str(models / "a.nii.gz")], "axes": [2]}}}
    pack(type(opened)(opened.tensors, {**opened.facts, "config": config}, ""), models / "other")
    assert yaml.safe_load((models / "other" / CONFIG).read_text())["data"]["init_args"] == {
        "paths": ["a.nii.gz"],
        "axes": [2],
    }


def test_its_name_is_enough_wherever_a_run_is_expected_and_nothing_is_written_beside_it(models, capsys):
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    assert main(["sample", "little", "-n", "2", "--out", "drawn"]) == 0
    assert main(["evaluate", "little", "--loss", "valid", "-n", "8", "--seeds", "1"]) == 0
    assert main(["report", "little"]) == 0
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == before
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["drawn", "little-results"]
    assert {"loss-valid.json", "report.html", "evaluation"} <= {path.name for path in Path("little-results").iterdir()}
    capsys.readouterr()
    assert main(["models"]) == 0 and re.search(r"little +0\.\d MB +digits in two steps", capsys.readouterr().out)
    assert main(["models", "little"]) == 0 and capsys.readouterr().out == "# little: digits in two steps\n"


def test_ones_own_run_of_that_name_wins_and_anything_else_of_that_name_is_said(run, models, caplog):
    Path("little").mkdir()
    with pytest.raises(InputError, match="hides the model of that name"):
        scorefield.load("little")
    Path("little").rmdir()
    Path("little").symlink_to(run)
    with caplog.at_level("INFO", "scorefield"):
        opened = open_checkpoint(Path("little"))
    assert opened.path.name == "step-00000002.safetensors" and run_folder(opened.path) == Path("little")
    assert "is your own" in caplog.text


def test_a_name_or_a_step_that_there_is_not_is_refused(models):
    for name, step, words in (("litle", None, "did you mean little"), ("little", 3, "step 2 alone")):
        with pytest.raises(InputError, match=words):
            open_checkpoint(Path(name), step)
    with pytest.raises(InputError, match="did you mean little"):
        scorefield.jobs.Models(name="litle").run()


def test_data_that_it_comes_without_are_asked_for(run, models):
    opened = open_checkpoint(run).checkpoint
    data = {"class_path": "scorefield.Arrays", "init_args": {"path": str(models / "gone.npy")}}
    config = {**opened.facts["config"], "data": data}
    pack(type(opened)(opened.tensors, {**opened.facts, "config": config}, ""), models / "other")
    with pytest.raises(InputError, match=r"comes without gone.npy.* give --data"):
        scorefield.jobs.Evaluate(run="other", loss="valid").run()


@pytest.mark.parametrize("folder", shipped_models().values(), ids=shipped_models())
def test_each_comes_with_its_configuration_and_a_card_of_all_that_one_has_to_know(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    opened = open_checkpoint(Path(folder.name))
    assert opened.config == yaml.safe_load((folder / CONFIG).read_text())
    text = (folder / CARD).read_text()
    assert text.startswith(f"# {folder.name}: ")
    assert [name for name in SECTIONS if f"\n## {name}\n" not in text] == []
    assert str(opened.checkpoint.facts["step"]) in text and not re.search(
        r"/(work|tmp|home|root)/", str(opened.checkpoint.facts)
    )
    opened.model(ema=True)


def test_all_of_them_are_small_and_the_wheel_holds_them():
    folders = shipped_models().values()
    assert sum((folder / WEIGHTS).stat().st_size for folder in folders) <= MOST
    distribution = Distribution({"src_root": str(ROOT)})
    distribution.parse_config_files([str(ROOT / "pyproject.toml")])
    package = ROOT / "src" / "scorefield"
    packed = {
        path.relative_to(package) for glob in distribution.package_data["scorefield"] for path in package.glob(glob)
    }
    for folder in folders:
        assert {Path("models", folder.name, name) for name in (WEIGHTS, CONFIG, CARD)} <= packed
