"""Signals: SIGTERM, which queues and containers send before they kill, ends a program as Ctrl-C does, so that it cleans up behind
it; and in training both become a flag that the loop reads between steps, and so does SIGUSR1, by which Slurm announces an end.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AGAIN = 1.0  # seconds after which an interrupt that went unheard is raised once more


STOPPING = (signal.SIGINT, signal.SIGTERM)
ANNOUNCING = (signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()  # Windows has none


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM arrives, and `KeyboardInterrupt` where SIGINT does.

    An exception that is raised in a handler may be lost: Python prints and forgets what is raised within a destructor or the
    callback of a weak reference, and a library may catch it, or raise an error of its own in its place. So it is raised again
    every second until the block is being left, and whatever the block is left by then, it is this interrupt that comes out.
    """
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    received: list[int] = []

    def interrupt(number: int, _: object) -> None:
        if number in STOPPING:
            received.append(number)
        if repeats:
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        by_hand = number == signal.SIGINT  # a second Ctrl-C cuts cleaning up short, too
        if received and (by_hand or not _leaving(sys.exception())):
            raise _interrupt_of(received[-1])

    repeats = hasattr(signal, "setitimer")  # not on Windows
    numbers = [*_handled(), *([signal.SIGALRM] if repeats else [])]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    except Exception as error:
        if received:
            raise _interrupt_of(received[-1]) from error
        raise
    finally:
        if repeats:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _handled() -> list[int]:
    """The signals that stop, without those that whoever started the program had it ignore, as a shell does in the background."""
    return [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]


def _interrupt_of(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


def _leaving(error: BaseException | None) -> bool:
    """Whether an interrupt is on its way up, so that what runs is cleaning up."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
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
    """Inside, SIGINT, SIGTERM and SIGUSR1 cut no step: the function that this gives returns the last one's number, or 0. A second
    SIGINT acts at once.
    """
    received = [0]

    def note(number: int, _: object) -> None:
        received[0] = number
        if signal.SIGINT in before:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.getsignal(number) for number in (*_handled(), *ANNOUNCING)}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: received[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
