"""Being asked to stop: a signal becomes a flag that the loop reads between steps."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):  # noqa: N818 - not an error
    """Training was asked to stop, and everything is saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} at step {step}")
        self.number, self.step = number, step


@contextmanager
def listening() -> Iterator[Callable[[], int]]:
    """Turn SIGINT and SIGTERM into a number to ask for, so that a step is never cut. A second SIGINT acts at once."""
    heard = [0]

    def hear(number: int, _: object) -> None:
        heard[0] = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: heard[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
