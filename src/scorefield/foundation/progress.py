"""Bars that show how far work is; there are none where the logger `scorefield` is set to warnings and above."""

from __future__ import annotations

import logging

from tqdm import tqdm


def progress(*, unit: str, title: str, total: int | None = None, initial: int = 0, shown: bool = True) -> tqdm:
    """A bar on stderr.

    Args:
        unit: what is counted.
        title: of the work.
        total: how many there are, if that is known.
        initial: how many are done.
        shown: whether there is anything to show, and this process is the one to show it.
    """
    shown = shown and logging.getLogger("scorefield").level <= logging.INFO
    return tqdm(total=total, initial=initial, unit=unit, desc=title, mininterval=1, disable=not shown)
