"""How far work is: a bar on a terminal, a line now and then in a log; nothing where the logger `scorefield` is set to warnings
and above.
"""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

from tqdm import tqdm

OFTEN, SELDOM = 1.0, 30.0  # seconds between two looks of a bar on a terminal, and between two lines of a log
LINE = "{desc}: {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def progress(*, unit: str, title: str, total: int | None = None, initial: int = 0, shown: bool = True) -> tqdm:
    """A bar on stderr; where that is no terminal, a line every half minute, and one at either end.

    Args:
        unit: what is counted.
        title: of the work.
        total: how many there are, if that is known.
        initial: how many are done.
        shown: whether there is anything to show, and this process is the one to show it.
    """
    shown = shown and logging.getLogger("scorefield").level <= logging.INFO
    how: dict[str, Any] = {"mininterval": OFTEN}
    if sys.stderr is None or not sys.stderr.isatty():
        how = {"mininterval": SELDOM, "maxinterval": SELDOM, "file": _Lines(), "bar_format": LINE}
    return tqdm(total=total, initial=initial, unit=unit, desc=title, disable=not shown, **how)


class _Lines(io.TextIOBase):
    """What a bar draws over itself, as lines of a log: each once."""

    def __init__(self) -> None:
        self._last = ""

    def write(self, text: str, /) -> int:
        line = text.strip()
        if line and line != self._last and sys.stderr is not None:
            sys.stderr.write(line + "\n")
            self._last = line
        return len(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()
