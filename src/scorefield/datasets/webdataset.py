"""WebDataset: images in the tars of a data set, beside what belongs to them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.archives import ArchiveSource, RangeArchive, tar_members
from scorefield.data.fields import FieldDataset, check_labels
from scorefield.data.listing import FileList, is_image
from scorefield.data.source import Split, check_split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError

THREADS = 16  # that look at tars at once: they wait for the disk
LONGEST = 20  # bytes of the number of a class


@dataclass(frozen=True)
class WebDataset(ArchiveSource):
    """Images in uncompressed tars, where files of one name up to its first dot are a sample: 0001.jpg and 0001.cls.

    Args:
        path: a .tar; a folder of them; or a pattern such as train-{000..146}.tar or train-*.tar.
        valid: the same for the held-out data; or how many of `path` are held out (integer) or which fraction (float).
        image: how the images' names end, such as jpg or mask.png; by default that of all image files.
        label: how the names of the files with the class end, which hold a whole number; by default cls, where there are any.
        seed: draws which ones are held out.
        channels: 1 for grey or 3 for colour; by default in colour if any of 64 looked at is.
        crop: the part of each image that is used, before it is resized: CentreCrop, Square.
        size: (height, width) to resize to, the aspect ratio not kept.
        filter: how to resize; each is antialiased, "box" is the mean over areas.
        cache_gib: images that take up to this many GiB are decoded once and kept; more than that, on the fly.
    """

    path: str
    valid: int | float | str = 0.1
    image: str | None = None
    label: str | None = None
    seed: int = 0

    def load(self, split: Split) -> FieldDataset:
        check_split(split)
        parts = [self._index(path) for path in self._paths()]
        index = parts[split == "valid"] if len(parts) > 1 else parts[0]
        if isinstance(self.valid, str):
            chosen = torch.arange(len(index.archive))
        else:
            chosen = hold_out(len(index.archive), self.valid, self.seed, split)
        labelled = {part.labels is not None for part in parts}
        if labelled == {True, False}:
            raise InputError(
                f"Only one of {self.path} and {self.valid} has classes in .{self.label or 'cls'}: complete the other."
            )
        count = max(1 + int(part.labels.max()) if part.labels is not None else 0 for part in parts)
        return self.fields(index.archive, chosen, index.labels, tuple(map(str, range(count))))

    def files_read(self) -> list[Path]:
        return [shard for path in self._paths() for shard in list_shards(path)]

    def files(self) -> list[FileList]:
        return [shard_sizes(list_shards(path)) for path in self._paths()]

    def _paths(self) -> list[str]:
        return [self.path, self.valid] if isinstance(self.valid, str) else [self.path]

    def _index(self, path: str) -> Index:
        shards = list_shards(path)
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(lambda shard: scan(shard, self.image, self.label or "cls"), shards))
        places = [(i, *place) for i, samples in enumerate(found) for place in samples.places]
        names = [name for samples in found for name in samples.names]
        if not names:
            raise InputError(
                f"{path} holds no images{f' that end in .{self.image}' if self.image else ''}: correct the path."
            )
        archive = RangeArchive(path, shards, np.array(places, dtype=np.int64), names)
        classes = [label for samples in found for label in samples.labels]
        with_class = sum(label is not None for label in classes)
        if with_class == 0 and self.label is None:
            return Index(archive, None)
        if with_class < len(classes):
            missing = names[classes.index(None)]
            raise InputError(f"{path} has no .{self.label or 'cls'} for {missing}: complete or correct label.")
        return Index(archive, check_labels(np.array(classes), len(names), path))


@dataclass(frozen=True)
class Index:
    """The images of all tars, and their classes."""

    archive: RangeArchive
    labels: Tensor | None


@dataclass(frozen=True)
class Samples:
    """The images of one tar: offset and size, name, class."""

    places: list[tuple[int, int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)


def list_shards(path: str) -> list[Path]:
    """The tars that a path or pattern means, sorted."""
    place = Path(path)
    if place.is_dir():
        found = sorted(file for file in place.iterdir() if file.suffix == ".tar")
    elif place.is_file():
        found = [place]
    else:
        found = [Path(name) for pattern in braces(path) for name in sorted(glob.glob(pattern)) or [pattern]]  # noqa: PTH207
    absent = [file for file in found if not file.is_file()]
    if absent or not found:
        raise AbsentDataError(f"There is no {absent[0] if absent else f'.tar in {path}'}: correct the path.")
    return found


def shard_sizes(shards: list[Path]) -> FileList:
    """Tars by their names below the folder that holds them all."""
    root = Path(os.path.commonpath([shard.absolute().parent for shard in shards]))
    return FileList(root, {shard.absolute().relative_to(root).as_posix(): (shard.stat().st_size,) for shard in shards})


def braces(pattern: str) -> Iterator[str]:
    """A pattern for each number that a part such as {000..146} stands for."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if found is None:
        yield pattern
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield from braces(f"{pattern[: found.start()]}{number:0{len(found[1])}d}{pattern[found.end() :]}")


def scan(shard: Path, image: str | None, label: str) -> Samples:
    """The samples of a tar that have an image."""
    samples = Samples()
    place: dict[str, int] = {}  # of a sample's image in the lists
    classes: dict[str, int] = {}
    with shard.open("rb", buffering=0) as file:
        for member in tar_members(shard):
            folder, slash, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            key = f"{folder}{slash}{stem}"
            if ending == label:
                file.seek(member.offset)
                text = file.read(min(member.size, LONGEST)).strip()
                if not text.isdigit():
                    raise InputError(f"{member.name} of {shard} holds {text!r}, not a class's number: correct label.")
                classes[key] = int(text)
            elif ending == image or (image is None and is_image(member.name)):
                if key in place:
                    raise InputError(
                        f"{key} of {shard} has several images: give image, how the names of those wanted end."
                    )
                place[key] = len(samples.names)
                samples.places.append((member.offset, member.size))
                samples.names.append(member.name)
    samples.labels.extend(classes.get(key) for key in place)
    return samples
