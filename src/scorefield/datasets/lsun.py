"""LSUN as it is downloaded: LMDB databases of encoded images, one for each category and part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image

from scorefield.data.archives import Archive, ArchiveSource
from scorefield.data.fields import FieldDataset
from scorefield.data.source import Split, check_split, hold_out
from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.lazy import require

DATA = "data.mdb"  # the file of a database, in a folder of the database's name


@dataclass(frozen=True)
class LSUN(ArchiveSource):
    """LSUN: scenes such as bedroom (3 033 042 images) and church_outdoor (126 227), 300 of each for validation (Yu et al. 2015).

    Needs the extra `scorefield[lsun]`. Any other LMDB database whose values are encoded images is read as well.

    Args:
        path: the folder with the unpacked databases, such as bedroom_train_lmdb and bedroom_val_lmdb; or one of them.
        category: the one that is used, such as bedroom; by default the only one there is.
        valid: how many images of the training database are held out (integer) or which fraction (float); by default none
            are, and the validation database counts.
        seed: draws which ones are held out.
        channels: 1 for grey or 3 for colour; by default in colour if any of 64 looked at is.
        crop: the part of each image that is used, before it is resized: CentreCrop, Square.
        size: (height, width) to resize to, the aspect ratio not kept.
        filter: how to resize; each is antialiased, "box" is the mean over areas.
        cache_gib: images that take up to this many GiB are decoded once and kept; more than that, on the fly.
    """

    path: Path
    category: str | None = None
    valid: int | float | None = None
    seed: int = 0

    def load(self, split: Split) -> FieldDataset:
        check_split(split)
        train = self._training()
        if self.valid is not None:
            archive = LMDBArchive(train)
            return self.fields(archive, hold_out(len(archive), self.valid, self.seed, split))
        if split == "train":
            archive = LMDBArchive(train)
        else:
            held_out = train.with_name(train.name.replace("_train_lmdb", "_val_lmdb"))
            if held_out == train or not (held_out / DATA).is_file():
                raise InputError(
                    f"{train} has no validation database beside it: download it, or give valid, the number to hold out."
                )
            archive = LMDBArchive(held_out)
        return self.fields(archive, torch.arange(len(archive)))

    def _training(self) -> Path:
        """The database with the training images."""
        path = Path(self.path)
        if not path.is_dir():
            fix = "unzip it, and give the folder" if path.is_file() else "correct the path"
            raise AbsentDataError(f"{path} is no folder of LMDB databases: {fix}.")
        if (path / DATA).is_file():
            return path
        suffix = "_train_lmdb"
        found = {
            folder.name.removesuffix(suffix): folder
            for folder in sorted(path.glob(f"*{suffix}"))
            if (folder / DATA).is_file()
        }
        if not found:
            raise InputError(
                f"{path} holds no CATEGORY{suffix} with a {DATA}: unzip the download there; for other images use Images."
            )
        if self.category is None and len(found) == 1:
            return next(iter(found.values()))
        if self.category not in found:
            raise InputError(f"{path} has {', '.join(found)}: give one of them as category, not {self.category}.")
        return found[self.category]


class LMDBArchive(Archive):
    """The values of an LMDB database, each an encoded image, in the order of their keys."""

    lock = Lock()  # a process may open a database but once at a time

    def __init__(self, path: Path) -> None:
        self.origin, self.path = str(path), path
        with self._values() as transaction:
            self.keys = np.array(list(transaction.cursor().iternext(keys=True, values=False)), dtype=np.bytes_)
        if len(self.keys) == 0:
            raise InputError(f"{path} holds no images: download it again.")

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, index: int) -> str:
        return bytes(self.keys[index]).decode("utf-8", "replace")

    def open(self, index: int) -> Image.Image:
        with self._values() as transaction:
            value = transaction.get(bytes(self.keys[index]))
        if value is None:
            raise EOFError("the database has changed")
        return Image.open(BytesIO(value))

    @contextmanager
    def _values(self) -> Iterator[Any]:
        """The database, opened for one read: a fork, a thread and a second archive of it must not meet an open one."""
        lmdb = require("lmdb", str(self.path), "lsun", AbsentDataError)
        with self.lock:
            try:
                with lmdb.open(str(self.path), readonly=True, lock=False, readahead=False) as database:
                    expected = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
                    if (self.path / DATA).stat().st_size < expected:  # reading on would end the process
                        raise InputError(f"{self.path / DATA} is cut off: unzip or download it again.")
                    with database.begin() as transaction:
                        yield transaction
            except lmdb.Error as error:
                raise InputError(
                    f"{self.path} is no LMDB database, or damaged ({brief(error)}): get it again."
                ) from error
