"""SIGTERM ends a program however it is received, and lets it clean up."""

from __future__ import annotations

import os
import signal
import time

import pytest

from scorefield.foundation.signals import Terminated, sigterm_interrupts


class Ending:
    """SIGTERM arrives while this is deleted, where Python forgets what is raised."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_termination_that_is_lost_in_a_destructor_is_raised_again() -> None:
    before, cleaned = signal.getsignal(signal.SIGTERM), False
    with pytest.raises(Terminated), sigterm_interrupts():
        ending = Ending()
        del ending
        try:
            for _ in range(100):
                time.sleep(0.05)
        finally:
            time.sleep(1.2)  # longer than until it would be raised again
            cleaned = True
    assert cleaned and signal.getsignal(signal.SIGTERM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_termination_that_a_library_turns_into_an_error_is_one() -> None:
    """What a handler raises within C code may come out as that library's own error, or as ours about the file that it reads."""
    with pytest.raises(Terminated) as raised, sigterm_interrupts():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        except Terminated:
            raise ValueError("not a whole file") from None
    assert isinstance(raised.value.__cause__, ValueError)
    with pytest.raises(ValueError, match="of its own"), sigterm_interrupts():
        raise ValueError("of its own")
