"""What a killed process left half written goes when the next one writes there; what another is at stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import sys, time
from pathlib import Path
from scorefield.foundation.files import replacing
with replacing(Path({path!r})) as temporary:
    temporary.mkdir() if {folder} else temporary.write_text("half")
    print("begun", flush=True)
    time.sleep(60)
"""
WRITE = (
    "from pathlib import Path; from scorefield.foundation.files import write_text; write_text(Path({path!r}), 'whole')"
)


def begin(path: Path, folder: bool) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BEGIN.format(path=str(path), folder=folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_leftovers_of_the_killed_go_and_those_of_the_living_stay(folder: bool, tmp_path: Path) -> None:
    killed, living = begin(tmp_path / "a[1].json", folder), begin(tmp_path / "b.json", folder)
    killed.kill()
    killed.wait()
    mine = tmp_path / ".notes.partial"
    mine.write_text("not ours to remove")
    subprocess.run([sys.executable, "-c", WRITE.format(path=str(tmp_path / "c.json"))], check=True)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 3 and left[0].startswith(".b.json.") and left[1:] == [mine.name, "c.json"], left
    living.kill()
    living.wait()
