"""What `check-data` says of a folder of images: names and counts of classes, files, sizes, modes, doubles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from scorefield.cli import main


def test_a_mixed_folder_is_described(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "set" / ("cat", "dog 10", "dog 9")[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 9, 3), np.uint8)).save(path)
    Image.fromarray(draw.integers(0, 256, (8, 9, 4), np.uint8)).save(tmp_path / "set" / "cat" / "clear.png")
    Image.fromarray(draw.integers(0, 256, (16, 9, 3), np.uint8)).save(tmp_path / "set" / "cat" / "large.png")
    frames = [Image.fromarray(draw.integers(0, 256, (8, 9), np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "set" / "cat" / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "set" / "cat" / "again.png").write_bytes((tmp_path / "set" / "cat" / "0.png").read_bytes())
    (tmp_path / "set" / "notes.txt").write_text("words")
    assert (
        main(
            [
                "check-data",
                "set",
                "--data.size",
                "[8,9]",
                "--data.channels",
                "3",
                "--data.valid",
                "2",
                "--data.pages",
                "first",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    for text in (
        "classes     3\n            0: cat (",
        "            1: dog 9 (",
        "            2: dog 10 (",
        "held out    2",
        "files       16, ",
        "left out: 1 .txt",
        "sizes       15 of 8×9, 1 of 16×9",
        "14 RGB of 8 bits",
        "1 RGBA of 8 bits",
        "frames      15 single, 1 of 3 frames",
        "1 images are transparent in parts: their alpha is dropped, such as cat/clear.png.",
        "1 images are the same as another, byte by byte, such as cat/again.png.",
        "only the first of each is used",
        "digest      ",
    ):
        assert text in said, (text, said)
