"""What every verb says and takes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scorefield.run.configuration import Parser


def say(message: str) -> None:
    """A line for people, apart from what is printed for programs."""
    print(f"scorefield: {message}", file=sys.stderr)


def warn(message: str) -> None:
    """A line about what may be wrong."""
    say("warning: " + message)


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
        (warn if record.levelno >= logging.WARNING else say)(record.getMessage())


def run_parser(verb: str, description: str) -> Parser:
    """The parser of a verb that works on a run."""
    from scorefield.run.configuration import Parser

    parser = Parser.named(f"scorefield {verb}", description)
    parser.add_argument("run", type=Path, help="run folder or checkpoint file")
    parser.add_argument("--step", type=int, default=None, help="of which checkpoint; the last one by default")
    parser.add_argument("--ema", type=bool, default=True, help="use the averaged weights")
    parser.add_argument(
        "--trust", type=str, action="append", default=[], help="your own package that the run's configuration may name"
    )
    return parser
