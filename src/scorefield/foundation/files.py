"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import SEEK_CUR, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Buffer

MACHINE = sha256(socket.gethostname().encode()).hexdigest()[:8]  # whose processes' numbers are known here
_swept: set[Path] = set()


def resolved(path: Path) -> Path:
    """Where a path leads. InputError where that is in a circle."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # Python calls a loop now the one, now the other
        raise InputError(f"{path} is a link that leads in a circle: give another path, or delete it.") from error


@contextmanager
def replacing(path: Path, *, flush: bool = True, beside: Path | None = None) -> Iterator[Path]:
    """A temporary path, where a file or a folder is to be written, which takes the name `path` at the end.

    Args:
        path: where it is to appear; a folder only where there is none, or an empty one.
        flush: wait until it is on the disk; without, a power cut may leave an empty file.
        beside: the folder of the temporary path, on the same file system; by default that of `path`.
    """
    path = resolved(path)  # a link stays one, and what it leads to is replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = beside or path.parent
    _sweep(folder)
    # No two processes share it, not even two of one number on two machines.
    name = f".{path.name}.{MACHINE}.{os.getpid()}-{secrets.token_hex(4)}.partial"
    temporary = folder / name
    try:
        yield temporary
        if temporary.is_file():
            temporary.chmod(0o666 & ~_mask())  # as open() makes it: some libraries' files nobody else can read
        if flush:
            _flush_all(temporary)
        temporary.replace(path)
        if flush:
            _flush(path.parent)  # the rename itself must survive a power cut
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def is_abandoned(temporary: Path) -> bool:
    """Whether the process that began a temporary path of `replacing` is not on this machine, so that it is never completed."""
    named = re.search(r"\.(\d+)-[0-9a-f]{8}\.partial$", temporary.name)
    if named is None:
        return False
    number = int(named[1])
    if number == os.getpid():  # of another process that had the same number: in a container it is always the same
        return True
    if os.name == "nt":  # where to ask is to end it
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class ErrorsKept(FileIO):
    """A file that raises what went wrong in writing when it is closed: HDF5 crashes where a write fails, as on a full disk."""

    error: OSError | None = None

    def write(self, data: Buffer) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
            self.seek(len(rest), SEEK_CUR)
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = error
        return self.tell() if size is None else size

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        if self.error is not None:
            raise self.error


def _sweep(folder: Path) -> None:
    """Once for each folder, delete what processes of this machine that were killed left half written in it."""
    if folder.absolute() in _swept:
        return
    _swept.add(folder.absolute())
    for path in folder.glob(f".*.{MACHINE}.*.partial"):
        if is_abandoned(path):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mask() -> int:
    """The permissions that this process withholds from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_all(path: Path) -> None:
    """Wait until a file, or all of a folder, is on the disk."""
    if path.is_dir() and hasattr(os, "sync"):
        os.sync()  # of thousands of files, faster than one after the other
        return
    for part in (*path.rglob("*"), path) if path.is_dir() else (path,):
        _flush(part)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no directory
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically, with ? for what of a file's name is no text."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def strict(value: Any) -> Any:
    """The same with null in place of numbers that JSON does not know, NaN and infinities."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record atomically as strict JSON."""
    write_text(path, json.dumps(strict(record), indent=2, allow_nan=False) + "\n")
