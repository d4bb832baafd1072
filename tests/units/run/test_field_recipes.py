"""The noises of the recipes of functions suit their data: as rough at least, with levels that cover every band."""

from __future__ import annotations

from pathlib import Path

import pytest

from scorefield.cli import main

pytest.importorskip("neuralop")


def test_the_noise_of_volcanoes_covers_them() -> None:
    assert main(["suggest", "volcano-grf", "--data.n", "32", "--data.valid", "8"]) == 0


def test_the_noise_of_terrain_covers_it(data_folder: Path) -> None:
    path = data_folder / "functions" / "srtm3_volcano_tiles_dev8.npz"
    assert main(["suggest", "terrain-grf", "--data.path", str(path), "-n", "64"]) == 0


def test_the_noise_of_turbulence_covers_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of fewer sequences than the recipe's, in larger steps."""
    numbers = {"sequences": 6, "valid": 1, "frames": 5, "spin_up": 7.0, "step": 0.05, "cache": tmp_path / "flow.npz"}
    words = ["suggest", "navier-stokes-window", *(f"--data.sequences.{key}={value}" for key, value in numbers.items())]
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--wiener"]) == 0
    printed = capsys.readouterr()
    assert "class_path: Wiener" in printed.out and "no power law" in printed.err
