"""CelebA as it is downloaded: its images in a zip or a folder, with the lists of attributes and parts."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from scorefield.data.archives import Archive, ArchiveSource, FileArchive
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Split
from scorefield.foundation.errors import AbsentDataError, InputError

log = logging.getLogger("scorefield")

PARTS = {"train": "0", "valid": "1", "test": "2"}
IMAGES = ("img_align_celeba.zip", "img_align_celeba", "img_align_celeba_png")
FOLDERS = (".", "Img", "Anno", "Eval", "..", "../Anno", "../Eval")  # as they are published


@dataclass(frozen=True)
class CelebA(ArchiveSource):
    """CelebA: 202 599 faces of 218×178, aligned and cropped, with 40 attributes each (Liu et al. 2015).

    The splits are those of its list of parts: 162 770 for training, 19 867 for validation, 19 962 for testing.

    Args:
        path: the folder as downloaded, with img_align_celeba.zip (or the folder img_align_celeba), list_eval_partition.txt
            and, for classes, list_attr_celeba.txt; also in the folders Img, Eval and Anno; lists may be .csv.
        attribute: the one whose absence (0) and presence (1) are the classes, such as Smiling; no classes by default.
        channels: 1 for grey or 3 for colour; by default in colour if any of 64 looked at is.
        crop: the part of each image that is used, before it is resized: CentreCrop, Square.
        size: (height, width) to resize to, the aspect ratio not kept.
        filter: how to resize; each is antialiased, "box" is the mean over areas.
        cache_gib: images that take up to this many GiB are decoded once and kept; more than that, on the fly.
    """

    path: Path
    attribute: str | None = None

    def load(self, split: Split) -> FieldDataset:
        path = Path(self.path)
        if not path.exists():
            raise AbsentDataError(f"There is no folder or zip file {path}: correct the path.")
        archive = _images(path)
        number = {PurePosixPath(archive.name(i)).stem: i for i in range(len(archive))}
        listed = dict(_partition(path))
        absent = [name for name in listed if name not in number]
        if absent:
            raise InputError(
                f"{archive.origin} lacks {len(absent)} of the {len(listed)} listed images, such as {absent[0]}: "
                "download or unpack it again."
            )
        if unlisted := len(number) - len(listed):
            log.warning("%s has %d images that are in no list: they are left out.", archive.origin, unlisted)
        chosen = sorted(number[name] for name, part in listed.items() if part == PARTS[split])
        if not chosen:
            raise InputError(
                f"list_eval_partition of {path} has no images for {split} ({PARTS[split]}): download it again."
            )
        if self.attribute is None:
            return self.fields(archive, torch.tensor(chosen))
        has = _attribute(path, self.attribute)
        if unknown := next((name for name in listed if name not in has), None):
            raise InputError(
                f"list_attr_celeba of {path} lacks {unknown}, which list_eval_partition has: download both again."
            )
        labels = torch.zeros(len(archive), dtype=torch.int64)
        labels[[number[name] for name in listed]] = torch.tensor([has[name] for name in listed])
        return self.fields(archive, torch.tensor(chosen), labels, (f"not {self.attribute}", self.attribute))


def _images(path: Path) -> Archive:
    """The images at a path, or where they are published below it."""
    places = [] if path.is_file() else [folder / name for folder in (path / "Img", path) for name in IMAGES]
    archive = FileArchive(next((place for place in places if place.exists()), path))
    if len(archive) == 0:
        raise InputError(f"{archive.origin} holds no images: give the folder with img_align_celeba.zip.")
    return archive


def _list(path: Path, name: str) -> Path:
    """A list that is published beside the images."""
    base = path if path.is_dir() else path.parent
    for folder in FOLDERS:
        for suffix in (".txt", ".csv"):
            if (place := base / folder / f"{name}{suffix}").is_file():
                return place
    raise InputError(f"There is no {name}.txt at {path}: download it into that folder; for other images use Images.")


def _rows(path: Path) -> Iterator[list[str]]:
    """The cells of each line, which are set apart by blanks or commas."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no list of text: download it again.") from error
    return (cells for line in lines if (cells := line.replace(",", " ").split()))


def _partition(path: Path) -> Iterator[tuple[str, str]]:
    """Images without their suffix, and the parts that they belong to."""
    file = _list(path, "list_eval_partition")
    for cells in _rows(file):
        if cells == ["image_id", "partition"]:
            continue
        if len(cells) != 2 or cells[1] not in PARTS.values():
            raise InputError(
                f"{file} has the line {' '.join(cells)[:60]!r}, not an image and 0, 1 or 2: download it again."
            )
        yield PurePosixPath(cells[0]).stem, cells[1]


def _attribute(path: Path, attribute: str) -> dict[str, int]:
    """Whether each image, without its suffix, has an attribute: 1 or 0."""
    file = _list(path, "list_attr_celeba")
    rows = _rows(file)
    head = next(rows, [])
    if len(head) == 1:  # the number of images
        head = next(rows, [])
    names = head[1:] if head[:1] == ["image_id"] else head
    if attribute not in names:
        close = difflib.get_close_matches(attribute, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"give one of {', '.join(names[:8])}, ..."
        raise InputError(f"{file} has no attribute {attribute!r}: {hint}")
    column = 1 + names.index(attribute)
    has: dict[str, int] = {}
    for cells in rows:
        if len(cells) != 1 + len(names) or cells[column] not in ("-1", "0", "1"):
            raise InputError(f"{file} has a broken line for {cells[0][:40]}: download it again.")
        has[PurePosixPath(cells[0]).stem] = int(cells[column] == "1")
    return has
