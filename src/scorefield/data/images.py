"""Images in a folder or a zip, read at their own depth: what is stored with 16 bits stays 16 bits."""

from __future__ import annotations

import os
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import ArrayFields, Fields
from scorefield.data.source import Source, Split, hold_out
from scorefield.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm"}
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile, NotImplementedError)
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # grey values of more than 8 bits


@dataclass(frozen=True)
class Images(Source):
    """Images in a folder or a zip file, sub-folders included; colours 0-255, 16-bit greys 0-65535, 1-bit images 0-1.

    Where the images lie in several folders, each folder (relative to the one that holds all) is a class. Transparency
    is dropped. Images of several sizes need `size`.

    Args:
        path: a folder or a .zip file.
        channels: 1 for grey or 3 for colour; that of the first image by default.
        size: (height, width) to resize to, antialiased, the aspect ratio not kept; 1-bit images become grey 0-255.
        valid: how many are held out (integer) or which fraction (float).
        seed: draws which ones are held out.
        cache_gib: images that take up to this many GiB are decoded once and kept; more than that, on the fly.
    """

    path: Path
    channels: Literal[1, 3] | None = None
    size: tuple[int, int] | None = None
    valid: int | float = 0.1
    seed: int = 0
    cache_gib: float = 2.0

    def load(self, split: Split) -> Fields:
        path = Path(self.path)
        names = list_images(path)
        labels, classes = classes_of(names)
        decoder = Decoder(path, names[0], self.channels, self.size)
        chosen = hold_out(len(names), self.valid, self.seed, split)
        fields = ImageFields(decoder, [names[i] for i in chosen.tolist()], labels[chosen] if classes else None, classes)
        return fields.decoded() if decoder.first.nbytes * len(chosen) <= self.cache_gib * 2**30 else fields


class Decoder:
    """Reads images of one kind: that of the first one. Any other raises InputError."""

    def __init__(self, path: Path, first: str, channels: Literal[1, 3] | None, size: tuple[int, int] | None) -> None:
        self.path, self.name, self.size = path, first, size
        self.channels = channels
        self.first = self.decode(first)
        self.channels = 3 if self.first.ndim == 3 else 1

    def __call__(self, name: str) -> np.ndarray:
        """One image as (height, width) or (height, width, 3)."""
        image, first = self.decode(name), self.first
        if image.shape != first.shape:
            sizes = " but ".join(
                f"{name} is {a.shape[0]}×{a.shape[1]}" for name, a in ((name, image), (self.name, first))
            )
            raise InputError(
                f"Images of {self.path} differ in size, {sizes}: give size (height, width) to resize them."
            )
        if image.dtype != first.dtype:
            raise InputError(
                f"{name} of {self.path} is {image.dtype} but {self.name} is {first.dtype}: convert to one depth."
            )
        return image

    def decode(self, name: str) -> np.ndarray:
        try:
            with Image.open(BytesIO(read(self.path, name))) as image:
                check_depth(image)
                return self._convert(ImageOps.exif_transpose(image))
        except InputError as error:
            raise InputError(f"{name} of {self.path} {error}") from None
        except BROKEN as error:
            raise InputError(
                f"{name} of {self.path} is not a readable image ({error}): replace or remove it."
            ) from error

    def _convert(self, image: Image.Image) -> np.ndarray:
        if image.mode in DEEP_MODES:
            array = np.asarray(image if self.size is None else resize_deep(image, self.size))
            return np.stack([array] * 3, axis=-1) if self.channels == 3 else array
        if self.size is not None and image.mode == "1":
            image = image.convert("L")
        grey = image.mode in ("1", "L", "LA", "La") if self.channels is None else self.channels == 1
        if image.mode != "1" or not grey:
            image = image.convert("L" if grey else "RGB")
        if self.size is not None:
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BICUBIC)
        return np.asarray(image)


class ImageFields(Fields):
    """Images that are decoded when they are gathered."""

    def __init__(self, decoder: Decoder, names: list[str], labels: Tensor | None, classes: tuple[str, ...]) -> None:
        self.decoder, self.names, self.labels, self.classes = decoder, names, labels, classes
        self.dtype = str(decoder.first.dtype)
        self.quantum = 0.0 if decoder.first.dtype.kind == "f" else 1.0

    def __len__(self) -> int:
        return len(self.names)

    def gather(self, indices: Tensor) -> Batch:
        rows = np.stack([self.decoder(self.names[i]) for i in indices.tolist()]).astype(np.float32)
        rows = rows[:, None] if rows.ndim == 3 else np.moveaxis(rows, -1, 1)
        cond = {} if self.labels is None else {"label": self.labels[indices]}
        return Batch(torch.from_numpy(np.ascontiguousarray(rows)), cond)

    def decoded(self) -> Fields:
        """The same fields, all decoded now and kept in memory at their own depth."""
        array = np.empty((len(self), *self.decoder.first.shape), self.decoder.first.dtype)

        def fill(i: int) -> None:
            array[i] = self.decoder(self.names[i])

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(len(self))))
        labels = None if self.labels is None else self.labels.numpy()
        return ArrayFields(array, "none" if array.ndim == 3 else "last", labels, self.classes, str(self.decoder.path))


def check_depth(image: Image.Image) -> None:
    """Refuse images whose depth pillow would silently cut to 8 bits, such as 16-bit colour."""
    tiles = getattr(image, "tile", ())  # of an image file; others have none
    raw = str(tiles[0][3]) if tiles else ""
    if "16" in raw and image.mode not in DEEP_MODES:
        raise InputError("has 16-bit colours, of which only 8 bits would be read: save it as .npy.")


def resize_deep(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize grey values of more than 8 bits in floating point, within the range they had."""
    array = np.asarray(image)
    small = np.asarray(Image.fromarray(array.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    small = small.clip(array.min(), array.max())
    return small if array.dtype.kind == "f" else np.rint(small).astype(array.dtype)


def list_images(path: Path) -> list[str]:
    """The sorted names of all images below a folder or in a zip, hidden ones left out."""
    if path.is_dir():
        files = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    elif path.is_file():
        files = archive(path, os.getpid()).namelist()
    else:
        raise InputError(f"There is no folder or zip file {path}: correct the path.")
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
    return (path / name).read_bytes() if path.is_dir() else archive(path, os.getpid()).read(name)


@lru_cache(maxsize=8)
def archive(path: Path, process: int) -> zipfile.ZipFile:
    """An open zip, one per process: a position in a file must not be shared across a fork."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is not a readable zip file ({error}): download it anew.") from error
