"""What every verb says."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 280  # characters of an error, beside the name of the program


def say(message: str) -> None:
    """A line for people, apart from what is printed for programs."""
    print(f"scorefield: {message}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """What an error says, in one line of at most `LONGEST` characters; of more, the middle is left out."""
    text = " ".join(str(error).split())
    half = (LONGEST - 5) // 2
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or torch could not have the memory that was asked for."""
    words = ("not enough memory", "can't allocate memory", "out of memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


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
