"""What every verb says."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def say(message: str) -> None:
    """A line for people, apart from what is printed for programs."""
    print(f"scorefield: {message}", file=sys.stderr)


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Show what the library says, each message a line."""
    logger, handler = logging.getLogger("scorefield"), _Lines()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say("warning: " * (record.levelno >= logging.WARNING) + record.getMessage())
