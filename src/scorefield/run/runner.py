"""The one way in which work is done: numbered pieces in a folder beside the result, put together once all are there.

A job has an identity, which is all that decides its result: digests of checkpoint and inputs, and settings. Its pieces lie in
`.NAME.parts` beside the result NAME, each written whole or not at all. Any number of calls, one after another or at once, on one
machine or on several that share the file system, finish it together; the result takes its name when it is complete and on the
disk. So a result that is there is whole, a call that was interrupted is completed by the same call, and a refused one leaves
nothing behind. Processes that are killed lose the piece they were at, which another takes over.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import textwrap
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import replacing, resolved, strict, write_json
from scorefield.foundation.launch import is_first, place_among_all
from scorefield.foundation.locks import ChunkLocks
from scorefield.foundation.progress import progress
from scorefield.run.verb import log

JOB = "scorefield_job"  # what a result calls the digest of the job that made it
RECORD = "job.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a disk, or an account on it, without room says
SETUP = 2**30  # the number of the lock on beginning and ending, above those of all pieces
PRESENT = SETUP + 1  # of the one that all share who are at work
LEAVING = (
    SETUP + 2
)  # of the one on leaving, one after another: of two who look at once, each would see the other at work
Piece = Mapping[str, np.ndarray]


class Job(ABC):
    """What is computed piece by piece, and what is made of the pieces.

    All that can be refused is refused before a job exists, and `identity` is all that decides the result. A piece is a mapping of
    names to arrays.

    Attributes:
        out: the result, a file or a folder.
    """

    out: Path

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What decides the result, as JSON has it."""

    @property
    @abstractmethod
    def sizes(self) -> Sequence[int]:
        """How many units of progress each piece is."""

    @abstractmethod
    def compute(self, number: int) -> Piece:
        """A piece, the same whoever computes it, and when."""

    @abstractmethod
    def assemble(self, pieces: Pieces, out: Path) -> None:
        """Write the result of all pieces at a temporary path, with `digest(identity)` where `made_by` finds it."""

    def made_by(self) -> str | None:
        """The digest of the job whose result is at `out`, or None for anything else; that of JSON by default."""
        return made_by_folder(self.out) if self.out.is_dir() else made_by_json(self.out)


class WholeJob(Job):
    """A result that is made at once, without pieces, by one process while others wait for it.

    Args:
        out: the result.
        identity: what decides it.
        write: makes it at a temporary path, with `digest(identity)` where `digest_in` finds it.
        digest_in: the digest of a result, or None for anything else, such as `made_by_folder`.
    """

    identity: Mapping[str, Any] = {}  # pyright: ignore[reportIncompatibleMethodOverride]
    sizes = ()  # pyright: ignore[reportAssignmentType]

    def __init__(
        self,
        out: Path,
        identity: Mapping[str, Any],
        write: Callable[[Path], object],
        digest_in: Callable[[Path], str | None],
    ) -> None:
        self.out, self.identity, self.write, self.digest_in = out, identity, write, digest_in

    def compute(self, number: int) -> Piece:
        raise IndexError(number)

    def assemble(self, pieces: Pieces, out: Path) -> None:
        self.write(out)

    def made_by(self) -> str | None:
        return self.digest_in(self.out)


class Pieces:
    """The pieces of a job on disk, each read when it is asked for, and its arrays when these are."""

    def __init__(self, folder: Path, digest: str, count: int) -> None:
        self.folder, self.digest, self._count = folder, digest, count

    def __len__(self) -> int:
        return self._count

    def path(self, number: int) -> Path:
        """The file of a piece. It names its job, so that no other takes it for its own."""
        return self.folder / f"piece-{number:06d}-{self.digest[:16]}.npz"

    def __iter__(self) -> Iterator[Piece]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Piece:
        return np.load(self.path(number), allow_pickle=False)

    def whole(self, number: int) -> bool:
        """Whether a piece is there and can be read."""
        try:
            with np.load(self.path(number), allow_pickle=False) as piece:
                return all(piece[name] is not None for name in piece.files)
        except Exception:  # whatever a broken file raises, it is made again
            return False

    def write(self, number: int, piece: Piece) -> None:
        """Write a piece, whole or not at all."""
        with replacing(self.path(number)) as temporary, temporary.open("wb") as file:
            np.savez(file, **{name: np.asarray(array) for name, array in piece.items()})  # pyright: ignore


def digest(identity: Mapping[str, Any]) -> str:
    """SHA-256 of what decides a result."""
    return sha256(json.dumps(strict(dict(identity)), sort_keys=True, default=str).encode()).hexdigest()


def made_by_json(out: Path) -> str | None:
    """The digest in a result that is a JSON file."""
    try:
        return json.loads(out.read_text(encoding="utf-8"))[JOB]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def made_by_folder(out: Path) -> str | None:
    """The digest in a result that is a folder, see `record_in`."""
    return made_by_json(out / RECORD)


def record_in(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write what decided a result into its folder."""
    write_json(folder / RECORD, {JOB: digest(identity), **identity})


def check_out(out: Path, *, folder: bool = False, advice: str = "give another --out") -> None:
    """Refuse a result that cannot be written there, before anything is computed.

    Args:
        out: where the result is to be.
        folder: whether it is a folder, which may exist if it is empty.
        advice: what to do about a place that cannot be written to.
    """
    place = resolved(out)
    if place == Path.cwd():
        raise InputError(f"{out} is the folder that the call comes from: give --out the name of another one.")
    above = next(path for path in place.parents if path.exists())
    if not above.is_dir():
        raise InputError(f"{above} is a file, no folder to write {out.name} in: {advice}.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{above} cannot be written to: {advice}.")
    if folder and out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give another --out.")
    if not folder and out.is_dir():
        raise InputError(f"{out} is a folder: give the name of a file.")


def parts_of(out: Path) -> Path:
    """The folder in which the pieces of a result lie until it is complete."""
    place = resolved(out)  # of a link, beside what it leads to
    return place.with_name(f".{place.name}.parts")


def is_free(out: Path) -> bool:
    """Whether nothing is there, or a folder with nothing in it."""
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def is_done(job: Job) -> bool:
    """Whether the result is there. InputError where something else is."""
    if is_free(job.out):
        return False
    if (found := job.made_by()) == digest(job.identity):
        return True
    what = "holds something else" if found is None else f"is the result of another job{_difference(job.out, job)}"
    raise InputError(f"{job.out} exists and {what}: give another --out, or delete it.")


def _difference(folder: Path, job: Job) -> str:
    """In what the job of a folder differs, where it says so."""
    try:
        before = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    now = json.loads(json.dumps(strict(dict(job.identity)), default=str))
    names = (name for name in {**before, **now} if name != JOB and before.get(name) != now.get(name))
    found = [f", with {name} = {_shown(before.get(name))}, not {_shown(now.get(name))}" for name in names]
    return found[0] + f", and {len(found) - 1} more" * (len(found) > 1) if found else ""


def _shown(value: object) -> str:
    return textwrap.shorten(brief(value), 60, placeholder=" ...")


def run_job(job: Job, *, unit: str, title: str) -> None:
    """Compute what a job lacks, and put its result together; nothing where the result is there.

    Args:
        job: the job.
        unit: what `sizes` counts, for the progress that is shown.
        title: of it.

    Raises:
        InputError: a place that holds something else, a disk that is full, what `compute` refuses.
    """
    if is_done(job):
        if (left := parts_of(job.out)).exists():  # by a call that was killed after the rename
            with suppress(OSError):
                _leave(_entered(left), left, unneeded=True)
        return
    pieces, order = Pieces(parts_of(job.out), digest(job.identity), len(job.sizes)), our_share_first(len(job.sizes))
    shown = bool(job.sizes) and is_first()  # one bar for processes that share a terminal
    with _at_work(job, pieces) as locks:
        with progress(total=sum(job.sizes), unit=unit, title=title, shown=shown) as bar:
            for number in locks.each(order):
                if is_free(job.out) and not pieces.whole(number):
                    with _timed(f"{title}, piece {number + 1} of {len(pieces)}, {job.sizes[number]} × {unit}"):
                        found = _computed(job, pieces, number)
                    with _writing(job.out):
                        pieces.write(number, found)
                bar.update(job.sizes[number])
        with locks.hold(SETUP, wait=True), _writing(job.out):
            if not is_done(job):
                with _timed(f"{job.out} from its pieces"):
                    _finish(job, pieces)


def _computed(job: Job, pieces: Pieces, number: int) -> Piece:
    """A piece. A job that refuses one will never be complete, and its others would stand in the way of the corrected call."""
    try:
        return job.compute(number)
    except InputError:
        for path in pieces.folder.glob("piece-*"):
            path.unlink(missing_ok=True)
        raise


@contextmanager
def _timed(what: str) -> Iterator[None]:
    """Say how long something took, for those who want to know."""
    since = time.perf_counter()
    yield
    log.debug("%s: %.3g s", what, time.perf_counter() - since)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """InputError where a file cannot be written, with what there is to do."""
    try:
        yield
    except OSError as error:
        advice = "free some space" if error.errno in FULL else "correct that"
        raise InputError(
            f"Cannot write {out} ({brief(error)}): {advice}, and call again to go on; what is complete is kept."
        ) from error


@contextmanager
def _at_work(job: Job, pieces: Pieces) -> Iterator[ChunkLocks]:
    """The folder of parts made this job's, or seen to be. The last process to leave it removes it, once the result is there, or
    where it holds no pieces.
    """
    made = [path for path in pieces.folder.parents if not path.exists()]
    with _writing(job.out):
        locks, complete = _entered(pieces.folder), False
    try:
        with locks.hold(SETUP, wait=True):
            path = pieces.folder / RECORD
            found = made_by_folder(pieces.folder)
            if path.exists() and found is not None and found != pieces.digest:
                raise InputError(
                    f"{pieces.folder} holds parts of another job{_difference(pieces.folder, job)}: "
                    "finish it by its own call, delete it, or give another --out."
                )
            with _writing(job.out):
                record_in(pieces.folder, job.identity)
        yield locks
        complete = True
    finally:
        _leave(locks, pieces.folder, unneeded=complete or not any(pieces.folder.glob("piece-*")))
        for path in [] if complete else made:
            with suppress(OSError):
                path.rmdir()


def _entered(folder: Path) -> ChunkLocks:
    """The locks of a folder of parts, which say that somebody is at work there. One that is just being removed is made again."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            locks = ChunkLocks(folder / ".locks")
        except FileNotFoundError:
            continue
        locks.share(PRESENT)
        if locks.are_at_their_path():
            return locks
        locks.close()


def _leave(locks: ChunkLocks, folder: Path, *, unneeded: bool) -> None:
    """Leave a folder of parts; the last one removes it if nobody needs it."""
    with locks.hold(LEAVING, wait=True):
        with locks.hold(PRESENT, wait=False) as alone:
            if alone and unneeded:
                shutil.rmtree(folder, ignore_errors=True)
        locks.close()


def _finish(job: Job, pieces: Pieces) -> None:
    """Make the result. Where there are no locks, another process may do so at the same time."""
    try:
        with replacing(job.out, beside=pieces.folder) as temporary:
            job.assemble(pieces, temporary)
    except OSError:
        if not job.out.exists() or job.made_by() != pieces.digest:
            raise


def our_share_first(count: int) -> list[int]:
    """The numbers below a count, in the order in which this process takes them: every W-th from its own number, as one of W; then
    those of the others, each of these from the end, where their owner comes last.
    """
    number, of = place_among_all()
    if of > 1:
        log.debug("process %d of %d: %d of %d pieces are its own", number + 1, of, len(range(number, count, of)), count)
    behind = {piece: (piece - number) % of for piece in range(count)}
    return sorted(behind, key=lambda piece: (behind[piece], -piece if behind[piece] else piece))
