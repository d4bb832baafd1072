"""Bars: often on a terminal, seldom in a log, and there as lines."""

from __future__ import annotations

import io
import sys

import pytest
from tqdm import tqdm

from scorefield.foundation import progress as module
from scorefield.foundation.progress import OFTEN, SELDOM, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "seconds"), [(Terminal(), OFTEN), (io.StringIO(), SELDOM)], ids=["terminal", "log"])
def test_a_log_is_not_flooded(stream: io.StringIO, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress(unit="step", title="train", total=1000) as bar:
        assert bar.mininterval == seconds
        for _ in range(1000):
            bar.update()
            bar.set_postfix(loss="1", refresh=False)
    assert stream.getvalue().count("train:") <= 3  # the first, the last, and one on closing
    assert "1000/1000" in stream.getvalue()


def test_a_log_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """One each half minute of a clock that takes six seconds a step, none drawn over another, none twice."""
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(module, "tqdm", type("Clocked", (tqdm,), {}))
    with progress(unit="step", title="train", total=20) as bar:
        monkeypatch.setattr(bar, "_time", lambda: now[0])
        bar.start_t = bar.last_print_t = 0.0
        bar.miniters, bar.dynamic_miniters = 1, False
        for _ in range(20):
            now[0] += 6.0
            bar.update()
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue() and all(line.startswith("train: ") for line in lines)
    assert [line.split()[1] for line in lines] == ["0/20", "5/20", "10/20", "15/20", "20/20"]


def test_nothing_is_said_without_a_place_to_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with progress(unit="step", title="train", total=3) as bar:
        bar.update(3)
