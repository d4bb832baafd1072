"""A longer look at image files: their sizes, modes, frames and transparency, and which are the same."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from scorefield.data.decode import BROKEN, is_deep
from scorefield.data.listing import ImageList, counted, read
from scorefield.foundation.errors import brief

UNREADABLE = (*BROKEN, Image.DecompressionBombError, MemoryError)


def survey(images: ImageList) -> tuple[list[str], list[str]]:
    """What the files are, by their heads alone, and what is odd about them; one line each."""
    path = images.files.root
    sizes, modes, frames = Counter[str](), Counter[str](), Counter[str]()
    transparent = list[str]()
    for name in images.names:
        try:
            with Image.open(path / name if path.is_dir() else BytesIO(read(path, name))) as image:
                size, mode = f"of {image.height}×{image.width}", f"{image.mode} of {depth(image)} bits"
                count, alpha = int(getattr(image, "n_frames", 1)), image.has_transparency_data
        except UNREADABLE:
            continue  # as the fields say
        sizes[size] += 1
        modes[mode] += 1
        frames[f"of {count} frames" if count > 1 else "single"] += 1
        transparent += [name] if alpha else []
    found = [f"{'sizes':<12}{counted(sizes)}", f"{'modes':<12}{counted(modes)}"]
    found += [f"{'frames':<12}{counted(frames)}"] if set(frames) - {"single"} else []
    warnings = [
        f"{len(names)} images {what}, such as {brief(names[0])}."
        for names, what in (
            (transparent, "are transparent in parts: their alpha is dropped"),
            (equal_files(path, images), "are the same as another, byte by byte"),
        )
        if names
    ]
    if set(frames) - {"single"}:
        warnings.append("Images of several frames: only the first of each is used.")
    return found, warnings


def depth(image: Any) -> int:
    """Bits of each channel as they are stored."""
    if image.mode == "1":
        return 1
    if image.mode.startswith("I;16") or is_deep(image):
        return 16
    return 32 if image.mode in ("I", "F") else 8


def equal_files(path: Path, images: ImageList) -> list[str]:
    """The images that are the same as one before them. Only files of one size are read."""
    groups: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in images.names:
        groups[images.files.sizes[name]].append(name)
    return [name for names in groups.values() if len(names) > 1 for name in repeated(path, names)]


def repeated(path: Path, names: Sequence[str]) -> list[str]:
    """The files whose bytes are those of one before them."""
    seen, found = set[bytes](), []
    for name in names:
        digest = hashlib.sha256(read(path, name)).digest()
        found += [name] if digest in seen else []
        seen.add(digest)
    return found
