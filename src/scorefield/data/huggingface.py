"""Images of a dataset in the format of Hugging Face `datasets`: one of their hub, by its name, or one on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from scorefield.data.decode import Channels, Conversion, Crop, Decoder, Depth, Filter, ImageFields, Pages
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Source, Split, check_split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.lazy import require

Dataset = Any  # a datasets.Dataset, which this module must not need

LABELS = ("label", "labels", "class", "y")  # what columns of classes are called


@dataclass(frozen=True)
class HuggingFace(Source):
    """Images of a Hugging Face dataset, which needs the extra `scorefield[huggingface]`; none of its code is executed.

    Args:
        name: of a dataset on the hub, such as uoft-cs/cifar10; or a folder: of images, of Parquet files, or written by
            `save_to_disk`.
        subset: which of the dataset's configurations, where it has several.
        revision: the commit or tag of the dataset. Without one, what a name means may change.
        train: the split with the training data.
        valid: the split with the held-out data; or how many of the training data are held out (integer), or which
            fraction (float).
        image: the column with the images; by default the only one there is.
        label: the column with the classes; by default the only one there is, if there is one.
        channels: 1 for grey or 3 for colour; by default colour if any image is.
        crop: the part of each image that is used, before it is resized: CentreCrop, Square.
        size: (height, width) to resize to, the aspect ratio not kept; 1-bit images become grey 0-255.
        filter: how to resize; each is antialiased, "box" is the mean over areas.
        seed: draws which ones are held out.
        cache_gib: images that take up to this many GiB are decoded once and kept; more than that, on the fly.
        depth: 8 or 16 bits to bring all images to; by default they must be of one depth.
        pages: of files with several images, such as TIFF stacks: `first`, all as fields (`frames`; files are then what is held
            out), or as one field of three axes (`volume`). By default such files are refused.
    """

    name: str
    subset: str | None = None
    revision: str | None = None
    train: str = "train"
    valid: int | float | str = 0.1
    image: str | None = None
    label: str | None = None
    channels: Channels | None = None
    crop: Crop | None = None
    size: tuple[int, int] | None = None
    filter: Filter = "bicubic"
    seed: int = 0
    cache_gib: float = 2.0
    depth: Depth | None = None
    pages: Pages | None = None

    def files_read(self) -> list[Path]:
        return [Path(self.name)]  # which is none where it is the name of a dataset on the hub

    def load(self, split: Split) -> FieldDataset:
        check_split(split)
        splits = open_dataset(self.name, self.subset, self.revision)
        named = isinstance(self.valid, str)
        rows = _split(splits, str(self.valid) if named and split == "valid" else self.train, self.name)
        image = _column(rows, "Image", self.image, self.name)
        if image is None:
            raise InputError(f"{self.name} has no column of images: its columns are {_columns(rows)}.")
        label = _column(rows, "ClassLabel", self.label, self.name)
        chosen = torch.arange(len(rows))
        if not isinstance(self.valid, str):
            chosen = hold_out(len(rows), self.valid, self.seed, split)
        decoder = Rows(self.name, rows, image, self._conversion)
        labels, classes = (None, ()) if label is None else _labels(rows, label, self.name)
        fields = ImageFields(decoder, chosen, None if labels is None else labels[chosen], classes).kept(self.cache_gib)
        if label is None and (unused := [column for column in LABELS if column in rows.features]):
            fields.notes += (
                f"{unused[0]} of {self.name} is not used, for it is no ClassLabel: class_encode_column makes it one.",
            )
        return fields

    @property
    def _conversion(self) -> Conversion:
        return Conversion(self.channels, self.crop, self.size, self.filter, self.depth, self.pages)


class Rows(Decoder):
    """Images that are rows of a dataset."""

    def __init__(self, origin: str, rows: Dataset, column: str, convert: Conversion) -> None:
        super().__init__(origin, convert)
        self.rows, self.column = rows.select_columns([column]), column

    def open(self, index: int) -> Image.Image:
        image = self.rows[index][self.column]
        if image is None:
            raise ValueError("there is none")
        return image

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return f"Row {index}"


def open_dataset(name: str, subset: str | None, revision: str | None) -> Mapping[str, Dataset]:
    """The splits of a dataset by name. One that is not there raises AbsentDataError, one that cannot be read InputError."""
    datasets, errors = (
        require(module, name, "huggingface", AbsentDataError) for module in ("datasets", "datasets.exceptions")
    )
    try:
        if any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(name)
        else:
            found = datasets.load_dataset(name, subset, revision=revision)
    except (errors.DatasetNotFoundError, ConnectionError, FileNotFoundError) as error:
        raise AbsentDataError(
            f"The dataset {name} cannot be had ({brief(error)}): correct the name or the revision."
        ) from error
    except (errors.DatasetsError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"The dataset {name} cannot be read: {brief(error)}") from error
    return {"train": found} if isinstance(found, datasets.Dataset) else found


def _split(splits: Mapping[str, Dataset], split: str, name: str) -> Dataset:
    if split not in splits:
        raise InputError(f"{name} has no split {split}: give train and valid out of {', '.join(splits)}.")
    return splits[split]


def _columns(rows: Dataset) -> str:
    return ", ".join(f"{column} ({type(feature).__name__})" for column, feature in rows.features.items())


def _column(rows: Dataset, kind: str, given: str | None, name: str) -> str | None:
    """The column of a kind that is meant: the one given, or the only one; None where there is none."""
    found = [column for column, feature in rows.features.items() if type(feature).__name__ == kind]
    argument = "image" if kind == "Image" else "label"
    if given is None and len(found) > 1:
        raise InputError(f"{name} has several columns for {argument}, {', '.join(found)}: give one by {argument}.")
    if given is None:
        return found[0] if found else None
    if given not in found:
        raise InputError(f"{name} has no column {given} of kind {kind}: its columns are {_columns(rows)}.")
    return given


def _labels(rows: Dataset, column: str, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """The class of each row and the names of the classes."""
    labels = torch.tensor(rows.with_format(None)[column][:], dtype=torch.int64)
    if labels.numel() and int(labels.min()) < 0:
        raise InputError(f"{name} has rows without a class in {column}: take another split, or another source.")
    return labels, tuple(rows.features[column].names)
