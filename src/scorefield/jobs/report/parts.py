"""What a page of a report is made of: numbers in short and in full, lines of facts, pictures, curves."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from scorefield.data.arrays import BROKEN

WIDEST = 1200  # pixels of a picture; larger ones are scaled down
SMALL = 600  # pixels below which a picture is enlarged without blur


@dataclass(frozen=True)
class Value:
    """A number as people read it, and in full."""

    text: str
    exact: str

    @classmethod
    def of(cls, value: float | int | None) -> Value | None:
        """Three decimals, or three digits of what is smaller than 0.1; counts in full."""
        if value is None or isinstance(value, bool):
            return None
        if isinstance(value, int) or value.is_integer():
            return cls(f"{int(value):,}", repr(value))
        return cls(f"{value:,.3f}" if abs(value) >= 0.1 else f"{value:.3g}", repr(value))


@dataclass(frozen=True)
class Row:
    """A line of facts: text, or a number with its exact value."""

    name: str
    text: str
    exact: str | None = None

    @classmethod
    def of(cls, name: str, value: Any) -> Row:
        number = Value.of(value) if isinstance(value, float | int) else None
        return cls(name, str(value)) if number is None else cls(name, number.text, number.exact)


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with its words."""

    source: str
    alt: str
    caption: str
    width: int
    height: int

    @property
    def small(self) -> bool:
        """Whether its pixels should stay sharp when it is enlarged."""
        return self.width < SMALL

    @classmethod
    def read(cls, path: Path | BytesIO, alt: str, caption: str) -> Picture | None:
        """A picture file; None where there is none that can be read."""
        try:
            with Image.open(path) as image:
                shown = image.convert("RGB")
        except (*BROKEN, AttributeError, SyntaxError):
            return None
        if shown.width > WIDEST:
            shown = shown.resize((WIDEST, max(1, round(shown.height * WIDEST / shown.width))), Image.Resampling.LANCZOS)
        data = BytesIO()
        shown.save(data, format="PNG", optimize=True)
        return cls(f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}", alt, caption, *shown.size)


@dataclass(frozen=True)
class Curve:
    """A drawn curve with its words."""

    svg: Markup
    alt: str
    caption: str


def flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """The leaves of a record with their path in words."""
    if isinstance(value, Mapping):
        return [
            leaf for key, item in value.items() for leaf in flat(item, f"{name} · {words(key)}" if name else words(key))
        ]
    return [] if value is None else [(name, json.dumps(value) if isinstance(value, list | bool) else value)]


def words(key: Any) -> str:
    """A key as it is read."""
    text = str(key).replace("_", " ").replace("sha256", "SHA-256")
    return text[:1].upper() + text[1:]
