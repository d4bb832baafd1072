"""Classes by their names: what a label means, where the names stand, and what is refused."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scorefield
from scorefield.cli import main
from scorefield.foundation.errors import InputError
from scorefield.jobs.class_guidance import number_of
from scorefield.jobs.sample import Sample
from scorefield.run.verb import Count, _checked

RECIPE = """
data: {{class_path: scorefield.data.Images, init_args: {{path: {path}, valid: 4}}}}
model:
  net:
    class_path: scorefield.nn.NCSNpp
    init_args: {{channels: 8, multipliers: [1], blocks: 1, attention: [], labels: 3}}
  sde: {{schedule: VE}}
  precondition: EDMPreconditioner
  normaliser: Standardise
train:
  loss: {{class_path: scorefield.losses.Denoising}}
  steps: 1
  batch_size: 4
  accelerator: cpu
  preview_every: 100
"""


def test_a_name_comes_before_a_number(caplog) -> None:
    assert number_of("cat", ("dog", "cat")) == 1 and number_of("1", ("dog", "cat")) == number_of(1, ("dog", "cat")) == 1
    assert number_of("10", ("1", "2", "10")) == number_of(10, ("1", "2", "10")) == 2
    assert number_of("2", ("1", "2", "10")) == 1 and number_of("007", ("006", "007")) == 1
    assert number_of("2", ()) == 2 and number_of("each", ("cat",)) == "each" and number_of(None, ("cat",)) is None


@pytest.mark.parametrize(
    ("label", "names", "message"),
    [
        ("fox", ("dog", "cat"), "no class fox: the classes are 0 dog, 1 cat"),
        ("2", ("dog", "cat"), "no class 2: the classes are 0 dog, 1 cat"),
        ("fox", (), "give a number"),
        ("fox", ("x" * 200,) * 100, "no class fox"),
        ("-1", ("dog", "cat"), "no class -1"),
        ("1.5", ("dog", "cat"), "no class 1.5"),
    ],
)
def test_what_is_no_class_is_refused(label: str, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        number_of(label, names)
    assert len(str(caught.value)) <= 300


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    for i in range(12):
        path = folder / "set" / ("cat", "dog 10", "dog 9")[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    (folder / "recipe.yaml").write_text(RECIPE.format(path=folder / "set"))
    assert main(["train", str(folder / "recipe.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_samples_of_a_class_by_its_name(run: Path, tmp_path: Path, capfd) -> None:
    words = ["sample", str(run), "-n", "2", "--steps", "2"]
    for label, out in (("dog 10", "name"), ("2", "number"), ("each", "each")):
        assert main([*words, "--label", label, "--out", str(tmp_path / out)]) == 0
    name, number = (np.load(tmp_path / out / "samples.npy") for out in ("name", "number"))
    assert np.array_equal(name, number)
    record = json.loads((tmp_path / "name" / "job.json").read_text())
    assert record["label"] == 2 and record["class"] == "dog 10"
    assert json.loads((tmp_path / "each" / "job.json").read_text())["classes"] == ["cat", "dog 9", "dog 10"]
    assert main([*words, "--label", "fox", "--out", str(tmp_path / "fox")]) == 2
    assert "0 cat, 1 dog 9, 2 dog 10" in capfd.readouterr().err and not (tmp_path / "fox").exists()


def test_the_likelihood_of_a_class(run: Path, tmp_path: Path, capfd) -> None:
    words = ["likelihood", str(run), "--split", "train", "--repeats", "1", "--tolerance", "1e-1"]
    assert main([*words, "--label", "dog 9", "--out", str(tmp_path / "a.json")]) == 0
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["label"] == 1 and record["class"] == "dog 9" and 1 <= record["n"] <= 4
    assert main([*words, "--label", "fox", "--out", str(tmp_path / "b.json")]) == 2
    assert "no class fox" in capfd.readouterr().err
    # Fields without a class are taken for it.
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8), np.uint8))
    given = ["--data", "Arrays", "--data.path", str(tmp_path / "x.npy"), "--data.valid", "1"]
    assert main([*words, *given, "--label", "cat", "--out", str(tmp_path / "c.json")]) == 0
    assert json.loads((tmp_path / "c.json").read_text())["n"] == 2


def test_the_report_names_the_classes_and_the_data(run: Path, tmp_path: Path) -> None:
    assert main(["report", str(run), "--draw", "false", "--out", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert "0: cat (4), 1: dog 9 (4), 2: dog 10 (4)" in page and "Digest of the data" in page


def test_an_evaluation_says_that_the_data_have_changed(run: Path, tmp_path: Path, capfd) -> None:
    words = ["likelihood", str(run), "--repeats", "1", "--tolerance", "1e-1", "-n", "1"]
    assert main([*words, "--out", str(tmp_path / "a.json")]) == 0
    assert "have changed" not in capfd.readouterr().err
    extra = run.parent / "set" / "cat" / "99.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(extra)
    assert main([*words, "--out", str(tmp_path / "b.json")]) == 0
    extra.unlink()
    assert "the data have changed since the run was trained on them: 13 files, not 12" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("label", "names", "found"),
    [
        ("3", ("1", "2", "3", "10"), 2),  # a name comes first
        ("03", ("1", "2", "3", "10"), None),  # by its number it is 10
        ("1", ("01", "02", "03"), None),  # by its number it is 02
        ("1", ("00", "01"), 1),
        ("02", ("01", "02", "03"), 1),
        ("1", ("cat", "dog"), 1),
        ("2", ("cat", "dog"), None),
        ("7", (), 7),
    ],
)
def test_a_number_is_never_taken_for_nearly_the_name_of_another_class(
    label: str, names: tuple[str, ...], found: int | None
) -> None:
    if found is None:
        with pytest.raises(InputError, match=r"There is no class|nearly the name"):
            number_of(label, names)
    else:
        assert number_of(label, names) == found


def test_numbers_of_numpy_are_numbers() -> None:
    assert type(_checked("-n", np.int64(4), Count)) is int and type(_checked("--noise", np.float32(4), float)) is float


def test_what_is_no_path_is_no_run() -> None:
    """Without the checks of types that the tests have."""
    with pytest.raises(InputError, match="The run is None: give the path"):
        inspect.unwrap(scorefield.load)(None)
    with pytest.raises(InputError, match="The run is None: give the path"):
        Sample.__post_init__(object.__new__(Sample), None)
