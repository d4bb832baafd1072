"""Nothing of the current folder runs unless a class path names it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from often import seldom
from scorefield.cli import main

SOURCE = Path(__file__).parents[2] / "src"
MINE = """
from pathlib import Path
Path('executed').touch()
import my_helper
from scorefield.datasets import Digits
class Mine(Digits):
    pass
"""


def planted(folder: Path) -> None:
    """A folder as it might be unpacked, with modules of the names that are imported, and some that may not be there."""
    names = (
        "yaml",
        "torch",
        "numpy",
        "h5py",
        "typing_extensions",
        "tensorboard",
        "datasets",
        "torch_fidelity",
        "photos",
    )
    for name in names:
        (folder / f"{name}.py").write_text("from pathlib import Path\nPath('executed').touch()\n")


@pytest.mark.parametrize(
    "words",
    [["recipes"], seldom(["check-data", "photos.zip"]), ["train", "digits", "--data", "photos.png", "--out", "run"]],
    ids=lambda words: words[0],
)
def test_modules_of_the_current_folder_are_not_found(words: list[str], tmp_path: Path) -> None:
    planted(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "scorefield", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if words == ["recipes"] else 2), done.stderr
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("how", ["word", "json", "recipe", "file"])
def test_a_class_of_the_current_folder_is_found_where_it_is_named(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    planted(tmp_path)
    module = f"my_lab_{how}"
    (tmp_path / f"{module}.py").write_text(MINE)
    (tmp_path / "my_helper.py").write_text("")
    (tmp_path / "data.yaml").write_text(f"class_path: {module}.Mine\n")
    (tmp_path / "mine.yaml").write_text(f"base: digits\ndata: {{class_path: {module}.Mine}}\n")
    words = {
        "word": ["train", "digits", "--data", f"{module}.Mine"],
        "json": ["train", "digits", f'--data={{"class_path": "{module}.Mine"}}'],
        "recipe": ["train", "mine.yaml"],
        "file": ["train", "digits", "--data", "data.yaml"],
    }[how]
    assert main([*words, "--print-config"]) == 0
    assert (tmp_path / "executed").exists() and sys.path[-1] == str(tmp_path)
    assert np.__file__ != str(tmp_path / "numpy.py")


def test_the_path_is_left_alone_where_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planted(tmp_path)
    before = list(sys.path)
    assert main(["recipes"]) == 0
    assert main(["check-data", "photos.npy"]) == 2
    assert sys.path == before and not (tmp_path / "executed").exists()
