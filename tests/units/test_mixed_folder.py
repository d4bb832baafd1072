"""The whole road from a folder as people have it, by the command line alone: greys and colours, 8 and 16 bits, a broken file."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield.cli import main
from scorefield.data import Images
from scorefield.foundation.errors import InputError
from scorefield.metrics.features import train_classifier

CLASSES = ("big cat", "dog 2", "dog 10")
TINY = (
    *("--data.depth", "8", "--data.valid", "3", "--train.accelerator", "cpu", "--train.steps", "2"),
    *("--train.batch_size", "4", "--model.net.channels", "8", "--model.net.blocks", "1"),
    *("--model.net.multipliers", "[1,2]", "--model.net.attention", "[]", "--model.net.labels", "3"),
)


def folder(root: Path, n: int = 8, broken: tuple[str, ...] = ("dog 2/3.png",)) -> Path:
    """Class folders of noise: colours, greys, 16 bits, transparency; and files that were cut off."""
    draw = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = draw.integers(60 * label, 60 * label + 90, (8, 8, 4)).astype(np.uint8)
            kinds = (pixels[..., :3], pixels[..., 0], pixels[..., 0].astype(np.uint16) * 257, pixels[..., :3])
            Image.fromarray(pixels if (label, i) == (0, 0) else kinds[i % 4]).save(root / name / f"{i}.png")
    for name in broken:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) * 2 // 3])
    return root


def test_a_mixed_folder_goes_all_the_way(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    few = partial(train_classifier, steps=2, width=4)
    monkeypatch.setattr("scorefield.jobs.evaluation.reference.train_classifier", few)
    folder(tmp_path / "pets")

    def call(*arguments: str) -> tuple[str, str]:
        code = main(list(arguments))
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out, said.err

    what = "images of pets cannot be read and are left out: dog 2/3.png ("
    said, _ = call("check-data", "pets", "--data.depth", "8", "--data.valid", "3")
    assert what in said and "left out: 1 unreadable (dog 2/3.png)" in said and "2: dog 10 (" in said
    _, said = call("train", "images", "--out", "run", "--data.path", "pets", *TINY)
    assert said.count(what) == 1 and said.count("have an alpha channel, which is dropped: big cat/0.png") == 1
    call("train", "images", "--out", "run", "--data.path", "pets", *TINY, "--resume")
    call("sample", "run", "--label", "dog 10", "-n", "2", "--steps", "2", "--out", "drawn")
    record = json.loads((tmp_path / "drawn" / "job.json").read_text())
    assert (record["label"], record["class"]) == (2, "dog 10")
    call("evaluate", "run", "-n", "4", "--seeds", "1", "--steps", "2")
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(record["trained_on"]) == 64 and record["reference"]["manifest"] == record["trained_on"]
    call("report", "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "1 unreadable (dog 2/3.png)" in page and "2: dog 10 (8)" in page and record["trained_on"] in page
    (tmp_path / "pets" / "dog 2" / "3.png").unlink()
    assert main(["train", "images", "--out", "run", "--data.path", "pets", *TINY, "--resume"]) == 2
    assert "23 files, not 24" in capsys.readouterr().err


def test_a_network_without_classes_says_how_to_train_one(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "pets", broken=())
    assert main(["train", "images", "--out", "run", "--data.path", "pets", *TINY[:-2]]) == 0
    assert (
        "the data have 3 classes: to draw from one of them, train with --model.net.labels 3" in capsys.readouterr().err
    )
    for verb in (["sample", "--out", "drawn", "-n", "1"], ["evaluate", "-n", "2"]):
        assert main([verb[0], "run", *verb[1:], "--label", "dog 2"]) == 2
        assert (
            "knows no classes: leave out the label dog 2, or train with --model.net.labels 3" in capsys.readouterr().err
        )


@pytest.mark.parametrize("cut", [0, 200])
def test_few_unreadable_images_are_left_out_and_named(tmp_path: Path, cut: int) -> None:
    root = folder(tmp_path / "pets", broken=())
    whole = Images(root, valid=0, depth=8).load("train")
    bad = [root / "big cat" / "0.png", root / "dog 10" / "7.png"]  # also the first of all
    bad[0].write_bytes(b"")
    bad[0].write_bytes(bytes(cut))
    found = Images(root, valid=0, depth=8).load("train")
    assert len(found) == 23 and found.left_out == {"unreadable (big cat/0.png)": 1}
    assert f"1 of 24 images of {root} cannot be read and are left out: big cat/0.png (" in found.notes[0]
    rest = torch.arange(1, 24)
    assert torch.equal(found.gather(torch.arange(23)).x, whole.gather(rest).x)
    assert torch.equal(found.gather(torch.arange(23)).cond["label"], whole.gather(rest).cond["label"])
    bad[1].write_bytes(bytes(cut))
    with pytest.raises(
        InputError, match=r"2 of 24 images of .* cannot be read, such as big cat/0\.png \(.*remove them"
    ):
        Images(root, valid=0, depth=8).load("train")


def test_an_image_that_turns_out_to_be_broken_in_training_is_named(tmp_path: Path) -> None:
    fields = Images(folder(tmp_path / "pets"), valid=0, depth=8, cache_gib=0.0).load("train")
    assert len(fields) == 24 and not fields.left_out  # it begins as it should
    with pytest.raises(InputError, match=r"dog 2/3\.png of .* is not a readable image .*replace or remove it"):
        fields.gather(torch.arange(24))


def test_images_of_which_none_can_be_read_or_that_are_locked_are_refused(tmp_path: Path, monkeypatch) -> None:
    root = folder(tmp_path / "pets", n=1, broken=tuple(f"{name}/0.png" for name in CLASSES))
    with pytest.raises(InputError, match=r"is not a readable image|3 of 3 images of .* cannot be read"):
        Images(root, valid=0).load("train")
    root = folder(tmp_path / "more", broken=())

    def locked(path: Path, name: str) -> bytes:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr("scorefield.data.images.read", locked)
    with pytest.raises(InputError, match=r"big cat/0\.png of .* \(.*Permission denied"):
        Images(root, valid=0).load("train")
