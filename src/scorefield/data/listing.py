"""Which files of a folder or a zip are images, and into which splits their folders divide them."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
import struct
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

from scorefield.foundation.errors import AbsentDataError, InputError, brief
from scorefield.foundation.files import resolved
from scorefield.foundation.limits import IMAGE

# fmt: off
SUFFIXES = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp", ".tga",
    ".pgm", ".ppm", ".pbm", ".pnm", ".jp2", ".j2k",
}
# fmt: on
LISTS = ("dataset.json", "metadata.jsonl", "metadata.csv")  # what lists of labels are called
HIDDEN = (".", "__MACOSX")
SPLITS: Mapping[Literal["train", "valid", "test"], frozenset[str]] = {
    "train": frozenset(("train", "training")),
    "valid": frozenset(("valid", "val", "validation", "dev")),
    "test": frozenset(("test", "testing")),
}
PICTURES = frozenset(("image", "images", "img", "imgs"))
COMPANIONS = frozenset(
    (
        "mask",
        "masks",
        "label",
        "labels",
        "annotation",
        "annotations",
        "segmentation",
        "segmentations",
        "gt",
        "groundtruth",
    )
)
BLOCKS, BLOCK = (
    64,
    2**16,
)  # how many parts of files, of so many bytes, are read to tell whether their content is another


@dataclass(frozen=True)
class FileList:
    """The files that data come from.

    Attributes:
        root: the folder, the zip or the file.
        sizes: bytes of each file, by its name below the root; of a zip, with a checksum.
        left_out: how many others there are, by the reason why they are not read.
    """

    root: Path
    sizes: Mapping[str, tuple[int, ...]]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> FileList:
        """All files of a folder, the members of a zip or an .npz, or a single file, whatever they hold."""
        if path.is_dir():
            return cls(path, *files_below(path))
        if path.suffix.lower() in (".zip", ".npz"):
            with suppress(InputError):
                return cls(path, archive(path).sizes)
        return cls(path, {"": (path.stat().st_size,)})

    @property
    def digest(self) -> str:
        """SHA-256 of the names and sizes."""
        found = hashlib.sha256()
        for name in sorted(self.sizes):
            found.update(f"{name}\0{self.sizes[name]}\n".encode(errors="surrogateescape"))
        return found.hexdigest()

    @property
    def content(self) -> str:
        """SHA-256 of a bounded sample of their bytes, 64 parts of 64 KiB at most; files that cannot be read are left out."""
        found = hashlib.sha256()
        names = sorted(self.sizes)
        chosen = names if len(names) <= BLOCKS else [names[i * len(names) // BLOCKS] for i in range(BLOCKS)]
        for name in chosen if not self.root.is_file() or names == [""] else ():  # a zip has checksums
            try:
                with (self.root / name if name else self.root).open("rb") as file:
                    for start in parts(self.sizes[name][0], BLOCKS // len(chosen)):
                        file.seek(start)
                        found.update(file.read(BLOCK))
            except OSError:
                continue
        return found.hexdigest()

    @property
    def lists(self) -> str:
        """SHA-256 of all bytes of the lists of labels; empty where there are none, and for a zip, which has checksums."""
        names = [name for name in sorted(self.sizes) if name.rpartition("/")[2] in LISTS and self.root.is_dir()]
        found = hashlib.sha256()
        for name in names:
            with suppress(OSError), (self.root / name).open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest() if names else ""


def parts(size: int, count: int) -> list[int]:
    """Where so many blocks of a file begin, the first at its start and the last at its end."""
    last = max(size - BLOCK, 0)
    return sorted({last * i // max(count - 1, 1) for i in range(max(count, 1))})


@dataclass(frozen=True)
class ImageList:
    """The images of a folder or a zip.

    Attributes:
        files: the images, and what else there is.
        names: of all images, sorted as text.
        root: the folder that holds them all, relative to the path.
        lists: the names of the lists of labels that lie beside them.
        splits: the places in `names` of each split, where folders make splits.
        folders: of each image, from the one that holds all downwards, without that of its split.
    """

    files: FileList
    names: list[str]
    root: PurePosixPath
    lists: list[str]
    splits: Mapping[str, list[int]]
    folders: list[tuple[str, ...]]


def list_images(path: Path) -> ImageList:
    """The images below a folder, whose links are followed once, or in a zip; hidden ones are left out.

    Where the folders that hold all are called train and valid or test (or val, validation, dev, ...), they are splits.

    Raises:
        AbsentDataError: there is no such folder or file.
        InputError: it cannot be read, holds no images, or pictures beside their masks.
    """
    if path.is_dir():
        every, left_out = files_below(path)
    elif path.is_file():
        every, left_out = archive(path).sizes, Counter()
    else:
        raise AbsentDataError(f"There is no folder or zip file {path}: correct the path.")
    names, lists = [], []
    for name in every:
        last = name.rpartition("/")[2]
        suffix = posixpath.splitext(last)[1].lower()
        if is_hidden(name):
            left_out["hidden"] += 1
        elif suffix in SUFFIXES:
            names.append(name)
        elif last in LISTS:
            lists.append(name)
        else:
            left_out[suffix or "no suffix"] += 1
    if not names:
        what = f", but {counted(left_out)}" if left_out else ""
        raise InputError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))}){what}: correct the path."[:300])
    names.sort()
    root = common_folder(names)
    names, folders, splits = split_by_folders(names, root, left_out)
    check_companions(path, root, folders)
    used = {name: every[name] for name in (*names, *lists)}
    return ImageList(FileList(path, used, dict(left_out)), names, root, sorted(lists), splits, folders)


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder above it, is one that systems hide."""
    return name.startswith(HIDDEN) or any(f"/{mark}" in name for mark in HIDDEN)


def is_image(name: str) -> bool:
    """Whether a file is an image by its name, and not hidden."""
    return posixpath.splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)


def counted(counts: Mapping[str, int]) -> str:
    """Counts with their names, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], natural(item[0])))
    shown = ", ".join(f"{count} {name}" for name, count in ordered[:6])
    return shown + (f" and {sum(count for _, count in ordered[6:])} more" if len(ordered) > 6 else "")


def natural(text: str) -> tuple[tuple[str, tuple[int, str]], ...]:
    """A key that sorts numbers within names by their value: a2 before a10."""
    # Numbers are compared by the number of their digits and then as text: int() refuses thousands of digits.
    words = [*re.split(r"([0-9]+)", text), ""]
    pairs = zip(words[::2], words[1::2], strict=True)
    key = tuple((word, (len(digits.lstrip("0")), digits.lstrip("0"))) for word, digits in pairs)
    return (*key, (text, (0, "")))


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Different names, folder by folder, numbers within them by their value."""
    return sorted(set(names), key=lambda name: [natural(part) for part in name.split("/")])


def common_folder(names: Sequence[str]) -> PurePosixPath:
    """The folder that holds all files."""
    folders = {posixpath.dirname(name) for name in names}
    return PurePosixPath("" if "" in folders else posixpath.commonpath(folders))


def split_by_folders(
    names: list[str], root: PurePosixPath, left_out: Counter[str]
) -> tuple[list[str], list[tuple[str, ...]], dict[str, list[int]]]:
    """The names that are in a split (all, where there are no splits), their folders without it, and the places of each split.

    Both train/cat and cat/train are known. Files beside the folders of the splits are left out, and counted.
    """
    below = {folder: parts_below(folder, root) for folder in {posixpath.dirname(name) for name in names}}
    folders = [below[posixpath.dirname(name)] for name in names]
    for place in (0, -1):
        means = {parts: split_of(parts[place]) if parts else None for parts in below.values()}
        known = set(means.values()) - {None}
        if "train" not in known or len(known) < 2 or (place == -1 and None in means.values()):
            continue
        kept = [i for i, parts in enumerate(folders) if means[parts] is not None]
        if len(kept) < len(names):
            left_out[f"beside {', '.join(sorted(filter(None, known)))}"] += len(names) - len(kept)
        splits: dict[str, list[int]] = {}
        for number, i in enumerate(kept):
            splits.setdefault(str(means[folders[i]]), []).append(number)
        rest = [folders[i][1:] if place == 0 else folders[i][:-1] for i in kept]
        return [names[i] for i in kept], rest, splits
    return names, folders, {}


def parts_below(folder: str, root: PurePosixPath) -> tuple[str, ...]:
    """The folders between the one that holds all and one below it, itself included."""
    return PurePosixPath(folder).parts[len(root.parts) :]


def split_of(folder: str) -> str | None:
    """The split that the name of a folder means."""
    return next((split for split, known in SPLITS.items() if folder.lower() in known), None)


def check_companions(path: Path, root: PurePosixPath, folders: Sequence[tuple[str, ...]]) -> None:
    """Refuse pictures beside their masks, which would become one set of two classes."""
    for place in (0, -1):
        called = {parts[place] for parts in set(folders) if parts}
        pictures, masks = (sorted(name for name in called if name.lower() in known) for known in (PICTURES, COMPANIONS))
        if pictures and masks:
            where = path / root
            raise InputError(
                f"{where} holds {pictures[0]} beside {masks[0]}, which are no classes of one set: give the path of "
                f"{pictures[0]}, such as {where / pictures[0]}, unpacked."
            )


# ------------------------------------------------------------------------------------------------------- files and zips
def files_below(root: Path) -> tuple[dict[str, tuple[int, ...]], Counter[str]]:
    """The sizes of all files below a folder by their names, and what was left out.

    Folders that are links are followed once: real folders come first, then links in order of their names, and no folder is read
    twice. Hidden folders are not entered.
    """
    sizes: dict[str, tuple[int, ...]] = {}
    left_out: Counter[str] = Counter()
    above = {identity(folder) for folder in resolved(root).parents}
    seen: set[tuple[int, int]] = set()
    folders, links = deque([(root, "")]), deque[tuple[Path, str]]()
    while folders or links:
        folder, prefix = folders.popleft() if folders else links.popleft()
        if identity(folder) in above:
            left_out["link to a folder above"] += 1
            continue
        if identity(folder) in seen:
            left_out["link to a folder that is read already"] += 1
            continue
        seen.add(identity(folder))
        for entry in entries(folder):
            name = prefix + entry.name
            if is_loop(folder, entry):
                left_out["broken link"] += 1
            elif entry.is_dir():
                if entry.name.startswith(HIDDEN):
                    left_out["hidden folder"] += 1
                    continue
                (links if entry.is_symlink() else folders).append((folder / entry.name, f"{name}/"))
            elif entry.is_file():
                sizes[name] = (entry.stat().st_size,)
            else:
                left_out["broken link" if entry.is_symlink() else "no file"] += 1
    return sizes, left_out


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read ({brief(error)}): correct its permissions, or move it away."
        ) from error


def is_loop(folder: Path, entry: os.DirEntry[str]) -> bool:
    """Whether it is a link that leads to itself. Raises InputError where another cannot be followed."""
    try:
        entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return True
        raise InputError(
            f"{folder / entry.name} cannot be followed ({brief(error)}): correct its permissions, or move it away."
        ) from error
    return False


def identity(folder: Path) -> tuple[int, int]:
    """What identifies a folder, whatever its name."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def read(path: Path, name: str) -> bytes:
    """The bytes of one file in a folder or zip."""
    size = (path / name).stat().st_size if path.is_dir() else archive(path).sizes[name][0]
    if size > IMAGE:
        raise InputError(f"has {size / 2**30:.3g} GiB, which no image has: remove it.")
    return (path / name).read_bytes() if path.is_dir() else archive(path).read(name)


class Zip:
    """The files of a zip by their names, in which slashes separate folders.

    Its directory is read once, and is all that is kept. Each read opens it again (some 20 µs), and threads and processes
    share nothing.

    Attributes:
        places: of each file: where its header begins, its bytes as packed, the number of its method.
        sizes: of each file, in bytes, with its checksum.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as file:
                entries = file.infolist()
        except Exception as error:  # a damaged file raises almost any
            raise InputError(f"{path} is not a readable zip file ({brief(error)}): download it again.") from error
        self.places: dict[str, tuple[int, int, int]] = {}
        self.sizes: dict[str, tuple[int, ...]] = {}
        for entry in entries:
            name = entry.filename.replace("\\", "/")  # as some programs of Windows write them
            if name.endswith("/"):
                continue
            name = member_name(name)
            if entry.flag_bits & 1:
                raise InputError(
                    f"{path} is protected by a password, as {brief(name)} is: unpack it and give the folder."
                )
            if name in self.sizes:
                raise InputError(f"{path} holds two files of the name {brief(name)}: pack it again.")
            self.places[name] = (entry.header_offset, entry.compress_size, entry.compress_type)
            self.sizes[name] = (entry.file_size, entry.CRC)

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises EOFError or another error where they are damaged."""
        (offset, packed, method), (size, checksum) = self.places[name], self.sizes[name]
        with self.path.open("rb") as file:
            file.seek(offset)
            header = file.read(30)
            if len(header) < 30 or header[:4] != b"PK\x03\x04":
                raise EOFError(f"{self.path} is cut off or damaged")
            file.seek(sum(struct.unpack("<HH", header[26:])), os.SEEK_CUR)  # its name and more
            data = file.read(packed)
        if method == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        elif method != zipfile.ZIP_STORED:
            with zipfile.ZipFile(self.path) as archive:  # which few zips need, and which takes long
                return archive.read(next(i for i in archive.infolist() if i.header_offset == offset))
        if len(data) != size or zlib.crc32(data) != checksum:
            raise EOFError(f"{self.path} is cut off or damaged")
        return data


def member_name(name: str) -> str:
    """The name of a member of a zip or a tar below their root: a.png for ./a.png and /a.png."""
    return posixpath.normpath(name).lstrip("/")


def archive(path: Path) -> Zip:
    """A zip as it is now: one that is replaced is read again. InputError where it cannot be read."""
    found = path.stat()
    return _archive(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=8)
def _archive(path: Path, changed: int, size: int) -> Zip:
    return Zip(path)
