"""Bars: often on a terminal, seldom in a log."""

from __future__ import annotations

import io
import sys

import pytest

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
