"""How much a verb says: --quiet nothing but warnings and errors, --verbose its settings and how long each piece takes."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from scorefield.cli import VERBS, main
from scorefield.cli.parsing import parser_of
from scorefield.foundation.progress import progress


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volume")
    tiny.train(folder, folder / "run", train__steps=1, model__sampler__steps=1)
    return folder / "run"


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(words) == code
    return capsys.readouterr()


def test_quiet_draws_and_says_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", str(run), "-n", "4", "--steps", "1"]
    loud = said(capsys, *words, "--out", str(tmp_path / "a"))
    assert "4 samples in" in loud[1] and "sample: 4/4" in loud[1]
    assert said(capsys, *words, "--out", str(tmp_path / "b"), "--quiet") == ("", "")
    assert (tmp_path / "b" / "samples.npy").read_bytes() == (tmp_path / "a" / "samples.npy").read_bytes()
    assert "4 samples in" in said(capsys, *words, "--out", str(tmp_path / "c"))[1]  # nothing of it stays


@pytest.mark.slow
def test_quiet_trains_in_silence_but_for_warnings(tmp_path: Path) -> None:
    """In a process of its own, with what other libraries say: of the precision, for one."""
    recipe = tiny.recipe(tmp_path)
    words = ["--train.steps=1", "--train.precision=bf16-mixed", "--model.sampler.steps=1", "--quiet"]
    words += ["--model.precondition.sigma_data=9"]
    command = [sys.executable, "-m", "scorefield", "train", str(recipe), "--out", str(tmp_path / "run"), *words]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [
        line for line in found.stderr.strip().splitlines() if "bf16-mixed is slow here" not in line
    ]  # on some machines
    assert found.returncode == 0 and found.stdout == "" and len(lines) == 1, lines
    assert "warning: The normalised data have standard deviation" in lines[0]


def test_quiet_still_says_errors_and_prints_what_was_asked_for(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, error = said(capsys, "sample", str(run / "nothing"), "--out", str(tmp_path / "x"), "--quiet", code=2)
    assert out == "" and error.startswith("scorefield: error: ") and error.count("\n") == 1
    out, error = said(capsys, "recipes", "--quiet")
    assert "digits" in out and error == ""


def test_verbose_says_settings_checkpoint_and_the_time_of_each_piece(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--verbose", str(run), "-n", "5", "--chunk", "2", "--steps", "1", "--out", str(tmp_path / "a")]
    lines = said(capsys, *words)[1].replace("\r", "\n").splitlines()
    text = "\n".join(lines)
    assert "scorefield: --seed: 0" in lines and "scorefield: --chunk: 2" in lines  # given or not
    assert re.search(r"checkpoint: .*step-00000001\.safetensors of step 1, weights [0-9a-f]{64}", text)
    assert len(re.findall(r"^scorefield: sample, piece \d of 3, [12] × sample: [\d.e-]+ s$", text, re.MULTILINE)) == 3
    assert re.search(r"^scorefield: sample took [\d.]+ s$", text, re.MULTILINE)


def test_verbose_training_says_its_configuration_and_each_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tiny.recipe(tmp_path)), "--out", str(tmp_path / "run"), "--train.steps=2", "--model.sampler.steps=1"]
    error = said(capsys, "train", *words, "--verbose")[1]
    assert "  batch_size: 16" in error and re.search(r"scorefield: train: step 2, samples 32, loss ", error)


def test_both_at_once_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, error = said(capsys, "demo", "--quiet", "--verbose", code=2)
    assert out == "" and error == "scorefield: error: --quiet and --verbose exclude each other: give one of them.\n"


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_names_them(verb: str) -> None:
    from importlib import import_module

    room, kind = VERBS[verb]
    text = parser_of(getattr(import_module(f"scorefield.{room}"), kind), verb).format_help()
    assert "--quiet" in text and "--verbose" in text


def test_bars_follow_the_logger_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("scorefield")
    for level, disabled in ((logging.NOTSET, False), (logging.INFO, False), (logging.WARNING, True)):
        monkeypatch.setattr(logger, "level", level)
        with progress(unit="step", title="x", total=1) as bar:
            assert bool(bar.disable) is disabled
    with progress(unit="step", title="x", total=1, shown=False) as bar:
        assert bar.disable
