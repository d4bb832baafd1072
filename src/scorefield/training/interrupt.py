"""Stopping at a signal, which becomes a flag that the loop reads between steps."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):  # noqa: N818 - not an error
    """A signal stopped training, and everything is saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} at step {step}")
        self.number, self.step = number, step


@contextmanager
def deferred_signals() -> Iterator[Callable[[], int]]:
    """Inside, SIGINT and SIGTERM cut no step: the function that this gives returns the last one's number, or 0. A second SIGINT
    acts at once.
    """
    received = [0]

    def note(number: int, _: object) -> None:
        received[0] = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
