"""A real Slurm on this host: the elements of an array and the tasks of a step share samples, and a training that Slurm stops and
queues again ends as one that nothing disturbed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import launched
import scorefield
import tiny
from scorefield.cli import main

SCRIPT = Path(__file__).with_name("slurm.sh")
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
PIECES = 12
RUNNING = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    if missing := [name for name in NEEDED if shutil.which(name, path=path) is None]:
        pytest.skip(f"Slurm is not installed: there is no {', '.join(missing)} (Debian: slurm-wlm, munge)")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons have to be started by root")
    folder = tmp_path_factory.mktemp("slurm")
    begun = subprocess.run([SCRIPT, "start", folder], check=False, capture_output=True, text=True, timeout=120)
    if begun.returncode:
        pytest.skip(f"Slurm does not start on this host: {' '.join(begun.stderr.split())[-600:]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", path)
        patch.setenv("PYTHONPATH", str(Path(scorefield.__file__).parents[1]))
        yield
        subprocess.run([SCRIPT, "stop", folder], check=True, timeout=120)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tiny.train(folder, folder / "run", train__steps=1, train__checkpoint_every=1, train__validate_every=1)
    return folder / "run"


@pytest.fixture(scope="module")
def one(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process draws."""
    out = tmp_path_factory.mktemp("one") / "out"
    assert main(sample(run, out)) == 0
    return content(out)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sample(run: Path, out: Path) -> list[str]:
    return ["sample", str(run), "-n", str(2 * PIECES), "--chunk", "2", "--steps", "20", "--out", str(out)]


def command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "scorefield", *arguments, "--verbose"]


def submit(folder: Path, lines: str, *options: str) -> str:
    """The number of a job whose script these lines are."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/bash\n{lines}\n")
    submitted = subprocess.run(
        ["sbatch", "--parsable", "--output", folder / "said-%a", "--open-mode=append", *options, script],
        check=True,
        capture_output=True,
        text=True,
    )
    return submitted.stdout.split(";")[0].strip()


def states_of(job: str) -> list[str]:
    """How often each element of a job was begun again, and how it is now."""
    shown = subprocess.run(["scontrol", "show", "job", job], check=True, capture_output=True, text=True).stdout
    return [
        f"{word} after {count}"
        for word, count in zip(re.findall(r"JobState=(\w+)", shown), re.findall(r"Restarts=(\d+)", shown), strict=True)
    ]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300  # no expectation: what hangs is ended
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("options", "launcher", "places"),
    [
        (["--array=0-2"], "", 3),
        (["--ntasks=2"], "srun --output={folder}/said-%t ", 2),
        (["--array=4,6", "--nodes=1", "--ntasks=2"], "srun --output={folder}/said-%a-%t ", 6),  # 4 to 6 times two
    ],
    ids=["array", "tasks", "array-of-tasks"],
)
def test_elements_and_tasks_share_the_pieces(
    options: list[str],
    launcher: str,
    places: int,
    slurm: None,
    run: Path,
    one: dict[str, bytes],
    tmp_path: Path,
) -> None:
    line = launcher.format(folder=tmp_path) + " ".join(command(sample(run, tmp_path / "shared")))
    job = submit(tmp_path, line, *options)
    wait_for(lambda: not RUNNING & {state.split()[0] for state in states_of(job)})
    said = list(tmp_path.glob("said-*"))
    assert set(states_of(job)) == {"COMPLETED after 0"}, [file.read_text() for file in said]
    assert launched.computed(said) == list(range(PIECES))
    spoken = re.findall(r"process (\d+) of (\d+):", " ".join(file.read_text() for file in said))
    assert len(spoken) > 1 and {int(of) for _, of in spoken} == {places} and len(set(spoken)) == len(spoken)
    assert content(tmp_path / "shared") == one


def test_a_training_that_is_queued_again_ends_as_one_that_was_not(slurm: None, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path)

    def train(out: str) -> list[str]:
        sizes = [f"--train.{name}=200" for name in ("steps", "checkpoint_every", "validate_every", "preview_every")]
        return ["train", str(recipe), "--out", str(tmp_path / out), *sizes]

    assert main(train("one")) == 0
    script = f"exec {' '.join(command(train('stopped')))} ${{SLURM_RESTART_COUNT:+--resume}}"
    job = submit(tmp_path, script, "--requeue")
    log = tmp_path / "stopped" / "logs" / "train.csv"
    wait_for(lambda: log.exists() and log.read_text().count("\n") > 2)
    subprocess.run(["scontrol", "requeue", job], check=True)
    wait_for(lambda: states_of(job) == ["COMPLETED after 1"])
    said = next(tmp_path.glob("said-*")).read_text()
    assert "stopped by SIGTERM at step" in said, said
    weights = [scorefield.load(tmp_path / name).state_dict() for name in ("one", "stopped")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
