"""Datasets in the format of Hugging Face: made here, in every form in which they lie on a disk; nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield.data import CentreCrop, FieldDataset, HuggingFace
from scorefield.foundation.errors import AbsentDataError, InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), dtype=np.uint8)
LABELS = [0, 1] * 5


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = pytest.importorskip("datasets", reason="the extra scorefield[huggingface] is not installed")
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    module.disable_progress_bars()
    return module


def made(datasets, n: int = 10, **columns):
    pictures = [Image.fromarray(x) for x in PIXELS[:n]]
    kinds = {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    kinds |= {name: datasets.Image() for name in columns}
    return datasets.Dataset.from_dict({"img": pictures, "label": LABELS[:n], **columns}, datasets.Features(kinds))


def everything(fields: FieldDataset) -> torch.Tensor:
    return fields.gather(torch.arange(len(fields))).x


def saved(datasets, path: Path, form: str) -> Path:
    data = made(datasets)
    if form == "folder of images":
        for i, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
            file = path / ("cat", "dog")[label] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    elif form == "save_to_disk":
        data.save_to_disk(path)
    else:
        path.mkdir()
        data.to_parquet(path / "train-00000.parquet")
    return path


@pytest.mark.parametrize("cache", [2.0, 0.0])
@pytest.mark.parametrize("form", ["save_to_disk", "parquet", "folder of images"])
def test_pixels_and_classes_come_back_bitwise(datasets, tmp_path: Path, form: str, cache: float) -> None:
    source = HuggingFace(str(saved(datasets, tmp_path / "data", form)), valid=0, cache_gib=cache)
    fields = source.load("train")
    assert fields.classes == ("cat", "dog") and fields.quantum == 1 and fields.dtype == "uint8"
    batch = fields.gather(torch.arange(10))
    order = np.argsort(LABELS, kind="stable") if form == "folder of images" else np.arange(10)
    assert np.array_equal(batch.x.numpy(), PIXELS[order].transpose(0, 3, 1, 2))
    assert batch.cond["label"].tolist() == np.array(LABELS)[order].tolist()


def test_splits_are_the_datasets_own_or_drawn(datasets, tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": made(datasets), "test": made(datasets, 3)})
    parts.save_to_disk(tmp_path / "data")
    own = HuggingFace(str(tmp_path / "data"), valid="test")
    assert (len(own.load("train")), len(own.load("valid"))) == (10, 3)
    drawn = HuggingFace(str(tmp_path / "data"), valid=4)
    train, valid = everything(drawn.load("train")), everything(drawn.load("valid"))
    assert (len(train), len(valid)) == (6, 4)
    assert {x.sum().item() for x in torch.cat((train, valid))} == {float(x.sum()) for x in PIXELS}
    with pytest.raises(InputError, match=r"no split dev: give train and valid out of train, test"):
        HuggingFace(str(tmp_path / "data"), valid="dev").load("valid")


def test_images_are_cropped_resized_and_grey_as_asked(datasets, tmp_path: Path) -> None:
    made(datasets).save_to_disk(tmp_path / "data")
    crop = HuggingFace(str(tmp_path / "data"), valid=0, crop=CentreCrop(4, 4)).load("train")
    assert np.array_equal(crop[3].x, PIXELS[3, 1:5, 2:6].transpose(2, 0, 1))
    assert HuggingFace(str(tmp_path / "data"), valid=0, size=(3, 5), channels=1).load("train")[0].x.shape == (1, 3, 5)


def test_what_does_not_fit_is_named(datasets, tmp_path: Path) -> None:
    pictures = [Image.fromarray(x) for x in PIXELS]
    made(datasets, other=pictures).save_to_disk(tmp_path / "two")
    with pytest.raises(InputError, match=r"several columns for image, img, other: give one by image"):
        HuggingFace(str(tmp_path / "two")).load("train")
    assert HuggingFace(str(tmp_path / "two"), image="other", valid=0).load("train")[0].x.shape == (3, 6, 8)
    with pytest.raises(InputError, match=r"no column label of kind Image: its columns are img \(Image\)"):
        HuggingFace(str(tmp_path / "two"), image="label").load("train")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(InputError, match=r"no column of images: its columns are text"):
        HuggingFace(str(tmp_path / "text")).load("train")
    pictures[4] = Image.fromarray(PIXELS[4, :5])
    made(datasets, other=pictures).save_to_disk(tmp_path / "uneven")
    with pytest.raises(InputError, match=r"Row 4 is 5×8 but Row 0 is 6×8: give size"):
        HuggingFace(str(tmp_path / "uneven"), image="other", valid=0).load("train")
    with pytest.raises(AbsentDataError, match="gone"):
        HuggingFace(str(tmp_path / "gone")).load("train")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(AbsentDataError, match=r"pip install 'scorefield\[huggingface\]'"):
        HuggingFace("uoft-cs/cifar10").load("train")


def test_a_column_of_plain_labels_is_said_to_be_unused(datasets, tmp_path: Path) -> None:
    made(datasets).cast_column("label", datasets.Value("int64")).save_to_disk(tmp_path / "data")
    assert "label of" in HuggingFace(str(tmp_path / "data")).load("train").notes[0]
