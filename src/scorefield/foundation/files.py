"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there takes its name at the end.

    Args:
        path: where the file is to appear.
        flush: wait until it is on the disk; without, a power cut may leave an empty file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # No two processes share it, not even two of one number on two machines.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_mask())  # as open() makes it: some libraries' files nobody else can read
        if flush:
            _flush(temporary)
        temporary.replace(path)
        if flush:
            _flush(path.parent)  # the rename itself must survive a power cut
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _mask() -> int:
    """The permissions that this process withholds from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no directory
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
