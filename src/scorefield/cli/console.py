"""What every verb says, and how much of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from scorefield.foundation.errors import InputError

VOLUME = {  # words that any verb takes, with what they mean and the least that is said
    "--quiet": ("say nothing but warnings and errors, and show no progress", logging.WARNING),
    "--verbose": ("say the settings, and how long each piece of the work takes", logging.DEBUG),
}
LONGEST = 280  # characters of an error, beside the name of the program


def say(message: str) -> None:
    """A line for people, apart from what is printed for programs, above a bar where there is one."""
    line = f"scorefield: {message}"
    if (bars := sys.modules.get("tqdm")) is None:
        print(line, file=sys.stderr)
    else:
        bars.tqdm.write(line, file=sys.stderr, nolock=True)


def volume_of(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """The level of what is to be said, and the arguments without the words that choose it."""
    given = [word for word in VOLUME if word in arguments]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other: give one of them.")
    return VOLUME[given[0]][1] if given else logging.INFO, [word for word in arguments if word not in VOLUME]


def one_line(error: BaseException) -> str:
    """What an error says, in one line of at most `LONGEST` characters; of more, the middle is left out."""
    text = " ".join(str(error).split())
    half = (LONGEST - 5) // 2
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or torch could not get the memory that they need."""
    words = ("not enough memory", "can't allocate memory", "out of memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


@contextmanager
def messages_on_stderr(level: int = logging.INFO) -> Iterator[None]:
    """Show what the library says from a level on, each message a line; where that is above INFO, others are to be silent too."""
    logger, handler = logging.getLogger("scorefield"), _Lines()
    before, propagate, disabled = logger.level, logger.propagate, logging.root.manager.disable
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    if level > logging.INFO:
        logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(disabled)
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagate


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say("warning: " * (record.levelno >= logging.WARNING) + record.getMessage())
