"""Signals: SIGTERM, which queues and containers send before they kill, ends a program as Ctrl-C does, so that it cleans up behind
it; and in training both become a flag that the loop reads between steps.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AGAIN = 1.0  # seconds after which a termination that went unheard is raised once more


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM arrives.

    An exception that is raised in a handler may be lost: Python prints and forgets what is raised within a destructor or the
    callback of a weak reference, and a library may catch it. So it is raised again every second until the block is being left;
    and an error that leaves the block after it is taken for what a library made of it.
    """
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return

    received = False

    def terminate(*_: object) -> None:
        nonlocal received
        received = True
        if repeats:
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        if not _leaving(sys.exception()):
            raise Terminated

    repeats = hasattr(signal, "setitimer")  # not on Windows
    numbers = (signal.SIGTERM, signal.SIGALRM) if repeats else (signal.SIGTERM,)
    before = {number: signal.signal(number, terminate) for number in numbers}
    try:
        yield
    except Exception as error:
        if received:
            raise Terminated from error
        raise
    finally:
        if repeats:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _leaving(error: BaseException | None) -> bool:
    """Whether a termination is on its way up, so that what runs is cleaning up."""
    while error is not None:
        if isinstance(error, Terminated):
            return True
        error = error.__context__
    return False


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
