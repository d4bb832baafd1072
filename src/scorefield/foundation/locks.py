"""Work shared by processes that do not talk: each claims a piece, and the system takes the claims of the dead back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

TAKEN = (BlockingIOError, PermissionError)  # what a lock that another process holds looks like


class ChunkLocks:
    """Numbered pieces of a job, each held by one process at a time.

    A claim is a lock on one byte of a file. It ends with the process that holds it, however that ends, and holds on every
    machine that shares the file system. Claims only save work: a result must be right without them, since not every file
    system has locks, and there every process is given every piece.

    Args:
        path: the file; made where it is missing, its folder too.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a+")  # what is shared must be readable

    @contextmanager
    def hold(self, number: int, *, wait: bool) -> Iterator[bool]:
        """Whether the piece is ours inside the block, where nobody shares it; `wait` until it is."""
        ours = self._lock(number, wait)
        try:
            yield ours
        finally:
            if ours:
                self._unlock(number)

    def each(self, numbers: Iterable[int]) -> Iterator[int]:
        """Every piece once, ours while the caller is at it: first those nobody is at, then those whose process may have died."""
        for wait in (False, True):
            left = []
            for number in numbers:
                with self.hold(number, wait=wait) as ours:
                    if ours:
                        yield number
                    else:
                        left.append(number)
            numbers = left

    def are_at_their_path(self) -> bool:
        """Whether the file that was opened is the one that lies there now."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except OSError:
            return False

    def share(self, number: int) -> None:
        """Hold a number together with others, until this is closed; wait while somebody holds it alone."""
        self._lock(number, True, shared=True)

    def close(self) -> None:
        """Give everything back."""
        self._file.close()

    def _lock(self, number: int, wait: bool, *, shared: bool = False) -> bool:
        if fcntl is None:
            return True
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(self._file, kind | (0 if wait else fcntl.LOCK_NB), 1, number)
        except TAKEN:
            return False
        except OSError:  # no locks here
            return True
        return True

    def _unlock(self, number: int) -> None:
        if fcntl is None or self._file.closed:
            return
        try:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)
        except OSError:
            return


OWNER = ".lock"


@contextmanager
def owned(folder: Path) -> Iterator[bool]:
    """Whether a folder is ours alone inside the block, and nobody else's who asks for it; made where it is missing.

    The sign of it, the file `.lock`, goes at the end, with folders that were made for it and are empty. That of a process that
    was killed stays, and holds nobody up.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    locks = ChunkLocks(folder / OWNER)
    with locks.hold(0, wait=False) as first:
        ours = first and locks.are_at_their_path()  # else their owner took them away after they were opened here
        try:
            yield ours
        finally:
            if ours:
                with suppress(OSError):
                    locks.path.unlink()
                for parent in made:
                    with suppress(OSError):
                        parent.rmdir()
    locks.close()
