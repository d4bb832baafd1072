"""SIGTERM and SIGINT end a program however they are received, and let it clean up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from scorefield.foundation.signals import Terminated, deferred_signals, signals_interrupt

both = pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "SIGINT"]
)


class Ending:
    """A signal arrives while this is deleted, where Python forgets what is raised."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(0.01)


@both
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_is_lost_in_a_destructor_is_raised_again(number: int, raised: type[BaseException]) -> None:
    before, cleaned = signal.getsignal(number), False
    with pytest.raises(raised) as caught, signals_interrupt():
        ending = Ending(number)
        del ending
        try:
            for _ in range(100):
                time.sleep(0.05)
        finally:
            time.sleep(1.2)  # longer than until it would be raised again
            cleaned = True
    assert type(caught.value) is raised and cleaned and signal.getsignal(number) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@both
def test_an_error_that_took_the_place_of_an_interrupt_is_not_what_comes_out(
    number: int, raised: type[BaseException]
) -> None:
    """As in a library that raises its own error where Python code that it called was interrupted."""
    with pytest.raises(raised) as caught, signals_interrupt():
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)
        except BaseException:
            raise ValueError("not a whole file") from None
    assert type(caught.value) is raised
    with pytest.raises(ValueError, match="not a whole"), signals_interrupt():
        raise ValueError("not a whole file")


def test_a_second_interrupt_by_hand_cuts_cleaning_up_short() -> None:
    waited = False
    with pytest.raises(KeyboardInterrupt), signals_interrupt():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            waited = True
    assert not waited


@pytest.mark.parametrize("inside", [signals_interrupt, deferred_signals])
def test_a_signal_that_is_to_be_ignored_stays_so(inside: Callable) -> None:
    """A shell starts what runs in the background with SIGINT ignored: a Ctrl-C is not for it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with inside():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@both
def test_the_command_line_ends_with_the_code_of_the_signal(number: int, raised: type[BaseException]) -> None:
    """In a verb that had its interrupt turned into another error."""
    program = f"""
import os, sys, time
from scorefield import cli
def fail(*_):
    try:
        os.kill(os.getpid(), {int(number)})
        time.sleep(1)
    except BaseException:
        raise ValueError("half a file") from None
cli._run = fail
sys.exit(cli.main(["sample"]))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 128 + number and "Traceback" not in found.stderr and "interrupted" in found.stderr
