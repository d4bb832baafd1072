"""The programs in the documentation run, and do what is said of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_the_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    exec(compile(program, "README", "exec"), {})
    first, second = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines())
    assert second < first / 5 < 0.2


def test_the_program_on_guidance_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Measured again, samples of p(x | y) give y = 1 to within the prior's pull: 0.86, of variances 0.0625 and noise² 0.01."""
    programs = re.findall(r"```python\n(.*?)```", (README.parent / "docs" / "guidance.md").read_text(), flags=re.DOTALL)
    exec(compile("\n".join(programs), "guidance.md", "exec"), {})
    found = [float(number) for number in re.findall(r"tensor\(([\d.]+)", capsys.readouterr().out)]
    assert abs(found[0] - 0.0625 / 0.0725) < 0.03 and abs(found[1] - (0.0625 * 0.01 / 0.0725) ** 0.5) < 0.02
    assert abs(found[2] - 281) < 0.5  # by a network that has learnt nothing


def test_the_tasks_of_the_public_api_run(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (README.parent / "docs" / "api.md").read_text(), flags=re.DOTALL)
    done: dict[str, Any] = {}
    exec(compile(program, "api.md", "exec"), done)
    assert (done["rows"](done["x"]) - done["y"]).abs().max() < 0.5 and "'sigma_max': 38.0" in capsys.readouterr().out


def test_it_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120
