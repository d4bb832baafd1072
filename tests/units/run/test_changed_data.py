"""A run knows what its data were made of, and does not go on with others unless that is accepted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield.cli import main
from scorefield.data import Arrays, Images, Noisy, Source, Tensors
from scorefield.data.manifest import Manifest
from scorefield.foundation.errors import InputError
from scorefield.run.loading import open_checkpoint
from scorefield.training import checkpoint as checkpoints

RECIPE = """
data: {{class_path: {source}, init_args: {{path: {path}, valid: 4}}}}
model:
  net:
    class_path: scorefield.nn.NCSNpp
    init_args: {{channels: 8, multipliers: [1], blocks: 1, attention: [], labels: {labels}}}
  sde: {{schedule: VE}}
  precondition: EDMPreconditioner
  normaliser: Standardise
train:
  loss: {{class_path: scorefield.losses.Denoising}}
  steps: 2
  batch_size: 4
  accelerator: cpu
  preview_every: 100
"""


def save(path: Path, seed: int, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def pictures(folder: Path) -> Path:
    for i in range(12):
        save(folder / str((1, 2, 10)[i % 3]) / f"{i}.png", i)
    return folder


def manifest(source: Source) -> Manifest:
    return source.manifest(source.load("train"), source.load("valid"))


def replaced(folder: Path) -> None:
    save(folder / "1" / "0.png", 99)


CHANGES = {
    "added": (lambda folder: save(folder / "1" / "99.png", 99), "10 training fields, not 9"),
    "removed": (lambda folder: (folder / "1" / "0.png").unlink(), "training fields"),
    "renamed": (lambda folder: (folder / "1" / "0.png").rename(folder / "1" / "00.png"), "names or sizes of files"),
    "another class": (lambda folder: (folder / "2").rename(folder / "fox"), "new: class fox; gone: class 2"),
    "moved": (lambda folder: (folder / "1" / "0.png").rename(folder / "2" / "0.png"), "3 fields of class 1, not 4"),
    "replaced": (replaced, "files"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files_are_noticed(tmp_path: Path, name: str) -> None:
    source = Images(pictures(tmp_path / "set"), valid=3)
    before = manifest(source)
    assert before.changes(manifest(source)) == [] and before.digest == manifest(source).digest
    change, message = CHANGES[name]
    change(tmp_path / "set")
    after = manifest(source)
    assert message in "; ".join(before.changes(after)) and before.digest != after.digest


def test_a_manifest_says_what_the_data_are_made_of(tmp_path: Path) -> None:
    (pictures(tmp_path / "set") / "notes.txt").write_text("words")
    found = manifest(Images(tmp_path / "set", valid=3))
    assert (found.train, found.valid, found.shape, found.dtype) == (9, 3, (1, 8, 8), "uint8")
    assert found.classes == ("1", "2", "10") and found.members == (4, 4, 4)
    assert found.files == 12 and found.left_out == {".txt": 1}
    assert found.bytes == sum(file.stat().st_size for file in (tmp_path / "set").rglob("*.png"))
    record = json.loads(json.dumps(found.record()))
    again = Manifest.read(record, "x")
    assert again is not None and again.changes(found) == [] and again.digest == found.digest == record["digest"]
    assert Manifest.read(None, "x") is None


@pytest.mark.parametrize("record", [[1], "x", {}, {"train": 1}])
def test_what_is_no_manifest_is_refused(record: object) -> None:
    with pytest.raises(InputError, match="no manifest"):
        Manifest.read(record, "x")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_other_numbers_of_the_same_size_are_noticed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    x = np.random.default_rng(0).standard_normal((40, 1, 16, 16))
    save_array = np.save if suffix == ".npy" else lambda path, x: np.savez(path, x=x)
    save_array(path, x)
    for source in (Arrays(path), Noisy(Arrays(path), 0.1)):
        save_array(path, x)
        before = manifest(source)
        assert before.changes(manifest(source)) == []
        other = x.copy()
        other[17, 0, 3, 3] += 1  # a single number
        save_array(path, other)
        assert before.changes(manifest(source))
        save_array(path, np.roll(x, 1, 0))
        assert before.changes(manifest(source))


def train(out: Path, *words: str) -> int:
    return main(["train", *words, "--out", str(out)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    pictures(tmp_path / "set")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(source="scorefield.data.Images", path=tmp_path / "set", labels=3))
    assert train(tmp_path / "run", str(recipe)) == 0
    return tmp_path / "run"


def test_a_run_is_not_resumed_on_changed_data(run: Path, tmp_path: Path, capfd) -> None:
    stored = open_checkpoint(run).manifest
    assert stored is not None and stored.classes == ("1", "2", "10")
    assert json.loads((run / "data.json").read_text()) == stored.record()
    more = ("--resume", "--train.steps", "4")
    CHANGES["another class"][0](tmp_path / "set")
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    assert train(run, *more) == 2
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert "new: class fox; gone: class 2" in said and "--accept-changed-data" in said and len(said) <= 300
    assert before == sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    assert train(run, *more, "--accept-changed-data") == 0
    assert "are accepted: new: class fox" in capfd.readouterr().err
    now = open_checkpoint(run).manifest
    assert now is not None and now.classes == ("1", "10", "fox") and open_checkpoint(run).checkpoint.facts["step"] == 4
    assert train(run, "--resume", "--train.steps", "5") == 0


def test_accepting_changed_data_needs_a_run_to_resume(tmp_path: Path, capfd) -> None:
    assert train(tmp_path / "run", "digits", "--accept-changed-data") == 2
    assert "goes with --resume" in capfd.readouterr().err


def test_an_array_that_was_replaced_is_noticed(tmp_path: Path, capfd) -> None:
    x = np.random.default_rng(0).standard_normal((24, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(source="scorefield.data.Arrays", path=tmp_path / "x.npy", labels=0))
    assert train(tmp_path / "run", str(recipe)) == 0
    np.save(tmp_path / "x.npy", 1e4 * x + 7)
    assert train(tmp_path / "run", "--resume", "--train.steps", "4") == 2
    assert "other content of files; other values" in capfd.readouterr().err


def forget(run: Path) -> None:
    """As a run of before, which has no manifest."""
    (run / "data.json").unlink()
    for path in (run / "checkpoints").glob("*.safetensors"):
        stored = checkpoints.read(path)
        facts = {name: value for name, value in stored.facts.items() if name != "data"}
        checkpoints.write(path, stored.tensors, facts)


def test_a_run_of_before_goes_on(run: Path, tmp_path: Path, capfd) -> None:
    forget(run)
    shutil.copytree(run, tmp_path / "same")
    assert train(run, "--resume", "--train.steps", "4") == 2  # its classes were numbered 1, 10, 2
    assert "1, 10, 2, and are now 1, 2, 10" in capfd.readouterr().err
    (tmp_path / "set" / "10").rename(tmp_path / "set" / "3")
    assert train(tmp_path / "same", "--resume", "--train.steps", "4") == 0
    assert open_checkpoint(tmp_path / "same").manifest is not None


def test_labels_that_are_permuted_are_noticed_among_many_files(tmp_path: Path) -> None:
    for i in range(70):  # more than are looked into
        save(tmp_path / f"{i:02}.png", 0)

    def write(step: int) -> None:
        rows = [f"{i:02}.png,{'ab'[(i + step) % 2]}" for i in range(70)]
        (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))

    write(0)
    before = manifest(Images(tmp_path, valid=6))
    assert before.changes(manifest(Images(tmp_path, valid=6))) == []
    old = Manifest.read({k: v for k, v in before.record().items() if k not in ("lists", "labels")}, "x")
    assert old is not None and old.changes(before) == []
    write(1)
    now = manifest(Images(tmp_path, valid=6))
    assert before.changes(now) == ["other content of lists of labels", "other labels of fields"]
    assert before.digest != now.digest and old.digest not in (before.digest, now.digest)


def test_other_vectors_are_noticed() -> None:
    x, vector = torch.zeros(8, 1, 4, 4), torch.arange(8.0)
    before = manifest(Tensors(x, valid=2, vector=vector))
    assert before.changes(manifest(Tensors(x, valid=2, vector=vector.flip(0)))) == ["other labels of fields"]
