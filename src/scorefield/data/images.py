"""Images in a folder or a zip, read at their own depth: what is stored with 16 bits stays 16 bits."""

from __future__ import annotations

import os
import posixpath
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath

import torch
from PIL import Image
from torch import Tensor

from scorefield.data.decode import Channels, Conversion, Crop, Decoder, Depth, Filter, ImageFields, Pages
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.source import Source, Split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.limits import IMAGE

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm"}


@dataclass(frozen=True)
class Images(Source):
    """Images in a folder or a zip file, sub-folders included; colours 0-255, 16-bit greys 0-65535, 1-bit images 0-1.

    Where the images lie in several folders, each folder (relative to the one that holds all) is a class. Transparency
    is dropped, and said. Images of several sizes need `size`.

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

    def load(self, split: Split) -> FieldDataset:
        path = Path(self.path)
        names = list_images(path)
        labels, classes = classes_of(names)
        decoder = Files(path, names, self._conversion)
        if self.pages == "frames" and len(names) == 1:
            frames = ImageFields(decoder, torch.zeros(1, dtype=torch.int64), None, ()).kept(self.cache_gib)
            return Subset(frames, hold_out(len(frames), self.valid, self.seed, split))
        chosen = hold_out(len(names), self.valid, self.seed, split)
        return ImageFields(decoder, chosen, labels[chosen] if classes else None, classes).kept(self.cache_gib)

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


def list_images(path: Path) -> list[str]:
    """The sorted names of all images below a folder or in a zip, hidden ones left out."""
    if path.is_dir():
        files = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    elif path.is_file():
        files = archive(path, os.getpid()).namelist()
    else:
        raise AbsentDataError(f"There is no folder or zip file {path}: correct the path.")
    hidden = (".", "__MACOSX")
    names = [name for name in map(PurePosixPath, files) if not any(part.startswith(hidden) for part in name.parts)]
    images = sorted(str(name) for name in names if name.suffix.lower() in SUFFIXES)
    if not images:
        raise InputError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))}): correct the path.")
    return images


def classes_of(names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """A label per image and the names of the classes, which are the folders; no names if there is but one folder."""
    folders = [PurePosixPath(name).parent for name in names]
    classes = sorted(set(folders))
    if len(classes) == 1:
        return torch.zeros(len(names), dtype=torch.int64), ()
    root = PurePosixPath(posixpath.commonpath(classes)) if all(folder.parts for folder in classes) else PurePosixPath()
    label = {folder: i for i, folder in enumerate(classes)}
    return torch.tensor([label[folder] for folder in folders]), tuple(
        str(folder.relative_to(root)) for folder in classes
    )


def read(path: Path, name: str) -> bytes:
    """The bytes of one file in a folder or zip."""
    size = (path / name).stat().st_size if path.is_dir() else archive(path, os.getpid()).getinfo(name).file_size
    if size > IMAGE:
        raise InputError(f"has {size / 2**30:.3g} GiB, which no image has: remove it.")
    return (path / name).read_bytes() if path.is_dir() else archive(path, os.getpid()).read(name)


@lru_cache(maxsize=8)
def archive(path: Path, process: int) -> zipfile.ZipFile:
    """An open zip, one per process: a position in a file must not be shared across a fork."""
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # a damaged file raises almost any
        raise InputError(f"{path} is not a readable zip file ({brief(error)}): download it anew.") from error
