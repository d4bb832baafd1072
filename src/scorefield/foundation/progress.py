"""Bars that show how far work is; there are none where the logger `scorefield` is set to warnings and above."""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm

OFTEN, SELDOM = 1.0, 30.0  # seconds between two looks of a bar on a terminal, and between two lines of a log


def progress(*, unit: str, title: str, total: int | None = None, initial: int = 0, shown: bool = True) -> tqdm:
    """A bar on stderr; where that is no terminal, a line now and then.

    Args:
        unit: what is counted.
        title: of the work.
        total: how many there are, if that is known.
        initial: how many are done.
        shown: whether there is anything to show, and this process is the one to show it.
    """
    shown = shown and logging.getLogger("scorefield").level <= logging.INFO
    rarely = SELDOM if sys.stderr is None or not sys.stderr.isatty() else OFTEN
    return tqdm(total=total, initial=initial, unit=unit, desc=title, mininterval=rarely, disable=not shown)
