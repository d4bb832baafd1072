"""Images in a folder or a zip, read at their own depth: what is stored with 16 bits stays 16 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from scorefield.data.decode import Channels, Conversion, Crop, Decoder, Depth, Filter, ImageFields, Pages
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.image_labels import labels_of
from scorefield.data.image_survey import survey
from scorefield.data.listing import FileList, ImageList, list_images, read
from scorefield.data.source import Source, Split, hold_out
from scorefield.foundation.errors import InputError


@dataclass(frozen=True)
class Images(Source):
    """Images in a folder or a zip file, sub-folders included; colours 0-255, 16-bit greys 0-65535, 1-bit images 0-1.

    Folders train and valid or test are the splits, and `valid` and `seed` are not used. The classes are those of dataset.json
    (as StyleGAN and EDM have it) or of the column `label` of metadata.csv or .jsonl (as Hugging Face has it); else, where the
    images lie in several folders, the folders in natural order: 2 before 10. Links are followed, once. Transparency is dropped,
    and said. Images of several sizes need `size`.

    Args:
        path: a folder or a .zip file.
        channels: 1 for grey or 3 for colour; by default colour if any image is.
        crop: the part of each image that is used, before it is resized: CentreCrop, Square.
        size: (height, width) to resize to, the aspect ratio not kept; 1-bit images become grey 0-255.
        filter: how to resize; each is antialiased, "box" is the mean over areas.
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
        cache_gib: images that take up to this many GiB are decoded once and kept; more than that, on the fly.
        depth: 8 or 16 bits to bring all images to; by default they must be of one depth.
        pages: of files with several images, such as TIFF stacks: `first`, all as fields (`frames`; files are then what is held
            out), or as one field of three axes (`volume`). By default such files are refused.
        label: the column of metadata.csv or .jsonl that holds the class, if it is not `label`; numbers that are not all whole are
            vectors and no classes, and text of digits such as 007 is a name.
    """

    path: Path
    channels: Channels | None = None
    crop: Crop | None = None
    size: tuple[int, int] | None = None
    filter: Filter = "bicubic"
    valid: int | float = 0.1
    seed: int = 0
    cache_gib: float = 2.0
    depth: Depth | None = None
    pages: Pages | None = None
    label: str | None = None

    def files(self) -> list[FileList]:
        return [list_images(Path(self.path)).files]

    def load(self, split: Split) -> FieldDataset:
        images = list_images(Path(self.path))
        decoder = Files(images.files.root, images.names, self._conversion)
        if self.pages == "frames" and len(images.names) == 1:
            frames = ImageFields(decoder, torch.zeros(1, dtype=torch.int64), None, ()).kept(self.cache_gib)
            part = Subset(frames, hold_out(len(frames), self.valid, self.seed, split))
            part.files = images.files
            return part
        known = labels_of(images, self.label)
        chosen = self._chosen(images, split)
        labels = None if known.labels is None else known.labels[chosen]
        if labels is not None and bool((labels < 0).any()):
            labels = None  # a part to test on, without classes
        vector = None if known.vector is None else known.vector[chosen]
        fields = ImageFields(decoder, chosen, labels, known.classes, vector).kept(self.cache_gib)
        absent = {"named in a list but not there": known.unused} if known.unused else {}
        fields.files = replace(images.files, left_out={**images.files.left_out, **absent})
        fields.notes = (*fields.notes, *known.notes)
        return fields

    def survey(self) -> tuple[list[str], list[str]]:
        return survey(list_images(Path(self.path)))

    def _chosen(self, images: ImageList, split: Split) -> Tensor:
        """The images of a split: of its folder, where folders are splits; for want of valid, of test."""
        if not images.splits:
            return hold_out(len(images.names), self.valid, self.seed, split)
        folder = "test" if split == "valid" and "valid" not in images.splits else split
        if folder not in images.splits:
            raise InputError(f"{self.path} has no part {split!r} but {', '.join(images.splits)}: give one of them.")
        return torch.tensor(images.splits[folder])

    @property
    def _conversion(self) -> Conversion:
        return Conversion(self.channels, self.crop, self.size, self.filter, self.depth, self.pages)


class Files(Decoder):
    """Images that are files of a folder or a zip."""

    def __init__(self, path: Path, names: list[str], convert: Conversion) -> None:
        super().__init__(str(path), convert)
        self.path, self.names = path, names

    def open(self, index: int) -> Image.Image:
        return Image.open(BytesIO(read(self.path, self.names[index])))

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]
