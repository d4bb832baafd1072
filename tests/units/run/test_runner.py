"""The one way in which work is done, on a job that is nothing else: whole or not at all, by any number of processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorefield.foundation.errors import InputError
from scorefield.run.runner import (
    RECORD,
    Job,
    Piece,
    Pieces,
    WholeJob,
    _at_work,
    _entered,
    _leave,
    check_out,
    digest,
    made_by_folder,
    parts_of,
    record_in,
    run_job,
)


@dataclass(frozen=True)
class Squares(Job):
    """Squares of the numbers below a count, in a file or in a folder."""

    out: Path
    count: int = 6
    power: int = 2
    folder: bool = False
    seconds: float = 0.0
    refused: int = -1
    error: type[BaseException] = InputError
    done: list[int] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, Any]:
        return {"count": self.count, "power": self.power, "folder": self.folder}

    @property
    def sizes(self) -> list[int]:
        return [1] * self.count

    def compute(self, number: int) -> Piece:
        if number == self.refused:
            raise self.error("no such square")
        time.sleep(self.seconds)
        self.done.append(number)
        return {"x": np.array(number**self.power)}

    def assemble(self, pieces: Pieces, out: Path) -> None:
        found = np.array([piece["x"] for piece in pieces])
        if not self.folder:
            out.write_text(f"{digest(self.identity)}\n{found.tolist()}")
            return
        (out / "inside").mkdir(parents=True)
        np.save(out / "inside" / "x.npy", found)
        record_in(out, self.identity)

    def made_by(self) -> str | None:
        return made_by_folder(self.out) if self.folder else self.out.read_text().partition("\n")[0]


def run(job: Job) -> None:
    run_job(job, unit="square", title="squares")


forms = pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])


@forms
def test_a_result_is_made_once_and_by_its_job_alone(folder: bool, tmp_path: Path) -> None:
    job = Squares(tmp_path / "below" / "out", folder=folder)
    run(job)
    again = Squares(job.out, folder=folder)
    run(again)
    assert again.done == [] and [path.name for path in (tmp_path / "below").iterdir()] == ["out"]
    with pytest.raises(InputError, match=r"another job.*give another --out"):
        run(Squares(job.out, power=3, folder=folder))


@forms
@pytest.mark.parametrize("refused", [0, 3])
def test_a_refused_call_leaves_nothing(refused: int, folder: bool, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such square"):
        run(Squares(tmp_path / "a" / "b" / "out", folder=folder, refused=refused))
    assert list(tmp_path.iterdir()) == []


@forms
def test_what_is_complete_is_kept_and_not_taken_by_another_job(folder: bool, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Squares(tmp_path / "out", folder=folder, refused=3, error=KeyboardInterrupt))
    assert len(list(parts_of(tmp_path / "out").glob("piece-*"))) == 3 and not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="another job, with power = 2, not 3"):
        run(Squares(tmp_path / "out", folder=folder, power=3))
    broken = next(parts_of(tmp_path / "out").glob("piece-000001*"))
    broken.write_bytes(broken.read_bytes()[:-9])
    job = Squares(tmp_path / "out", folder=folder)
    run(job)
    assert job.done == [1, 3, 4, 5]


@forms
def test_something_else_is_never_written_over(folder: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir() if folder else out.write_text("mine")
    if folder:
        (out / "mine").write_text("mine")
    with pytest.raises(InputError, match="delete it"):
        run(Squares(out, folder=folder))
    assert ((out / "mine") if folder else out).read_text() == "mine"


@forms
def test_processes_at_once_all_end_well(folder: bool, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    jobs = [Squares(tmp_path / "out", count=20, folder=folder, seconds=0.01) for _ in range(3)]
    processes = [fork.Process(target=run, args=(job,)) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@forms
def test_a_killed_process_loses_its_piece_at_most(folder: bool, tmp_path: Path) -> None:
    job = Squares(tmp_path / "out", count=8, folder=folder, seconds=0.05)
    process = multiprocessing.get_context("fork").Process(target=run, args=(job,))
    process.start()
    while len(list(tmp_path.rglob("piece-*"))) < 3:
        time.sleep(0.002)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    kept = len(list(tmp_path.rglob("piece-*.npz")))
    run(job)
    assert len(job.done) <= 8 - min(kept, 3) and [path.name for path in tmp_path.iterdir()] == ["out"]


@forms
def test_one_that_leaves_takes_nothing_from_those_at_work(folder: bool, tmp_path: Path) -> None:
    """Neither before the first piece is there, nor once the result is: the last one out removes what is left."""
    job = Squares(tmp_path / "out", count=1, folder=folder, seconds=1.0)
    other = multiprocessing.get_context("fork").Process(target=run, args=(job,))
    other.start()
    parts = parts_of(job.out)
    while not (parts / RECORD).exists():
        time.sleep(0.002)
    pieces = Pieces(parts, digest(job.identity), 1)
    with pytest.raises(KeyboardInterrupt), _at_work(job, pieces):
        raise KeyboardInterrupt
    assert (parts / RECORD).exists() and (parts / ".locks").exists()
    other.join()
    assert other.exitcode == 0 and [path.name for path in tmp_path.iterdir()] == ["out"]


@forms
def test_coming_and_going_at_once_ends_well(folder: bool, tmp_path: Path) -> None:
    """Many that begin as others leave, some without having done a thing."""
    fork = multiprocessing.get_context("fork")

    def come_and_go(number: int) -> None:
        for turn in range(20):
            job = Squares(tmp_path / f"{turn // 5}", count=1, folder=folder, refused=-number)
            try:
                run(job)
            except InputError as error:
                assert "no such square" in str(error), error

    processes = [fork.Process(target=come_and_go, args=(number,)) for number in (0, 0, 1, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3"]


def test_of_two_that_leave_at_once_one_clears_up(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    turns, together, left = 100, fork.Barrier(2), fork.Value("i", 0)

    def enter_and_leave() -> None:
        for _ in range(turns):
            locks = _entered(tmp_path / "parts")
            together.wait()
            _leave(locks, tmp_path / "parts", unneeded=True)
            if together.wait() == 0:
                left.value += (tmp_path / "parts").exists()
            together.wait()

    processes = [fork.Process(target=enter_and_leave) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert left.value == 0 and [process.exitcode for process in processes] == [0, 0]


def test_a_link_in_a_circle_is_no_place_for_a_result(tmp_path: Path) -> None:
    (tmp_path / "me").symlink_to(tmp_path / "me")
    for out in (tmp_path / "me", tmp_path / "me" / "below"):
        with pytest.raises(InputError, match="leads in a circle"):
            check_out(out)


def test_a_result_without_pieces_is_made_once_or_leaves_nothing(tmp_path: Path) -> None:
    def job(name: str, write) -> WholeJob:
        return WholeJob(tmp_path / "below" / "out", {"name": name}, write, lambda out: out.read_text())

    def refuse(out: Path) -> None:
        out.write_text("half of it")
        raise InputError("no such thing")

    with pytest.raises(InputError, match="no such thing"):
        run(job("a", refuse))
    assert not list(tmp_path.iterdir())
    first = job("a", lambda out: out.write_text(digest({"name": "a"})))
    run(first)
    run(job("a", refuse))
    with pytest.raises(InputError, match="another job"):
        run(job("b", refuse))
    assert [path.name for path in first.out.parent.iterdir()] == ["out"]
