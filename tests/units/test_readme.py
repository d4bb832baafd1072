"""The program in the README runs, and its solver is of second order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_the_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    exec(compile(program, "README", "exec"), {})
    first, second = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines())
    assert second < first / 5 < 0.2


def test_it_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120
