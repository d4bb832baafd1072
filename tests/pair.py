"""One of two processes that train together, as torchrun would start them: `python pair.py FOLDER NUMBER PORT`.

Each run in the folder's `runs.json` is trained; for each, the first process writes which collective calls some steps made.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

WATCHED = (4, 5, 10)  # steps of which collective calls are counted
HANGS = 600  # seconds: no expectation, but the end of processes that wait for each other


def train(folder: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Train runs in two processes, one after the other.

    Args:
        folder: where each run has its own, by its name.
        runs: overrides of the tiny recipe by the run's name; `resume` goes on with what the folder holds.
    """
    (folder / "runs.json").write_text(json.dumps(runs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [subprocess.Popen([sys.executable, __file__, folder, str(rank), str(port)]) for rank in range(2)]
    try:
        assert [process.wait(HANGS) for process in pair] == [0, 0]
    finally:
        for process in pair:
            process.kill()


def _work(folder: Path, rank: int, port: str) -> None:
    launcher = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in launcher.items()} | {"MASTER_ADDR": "127.0.0.1"}
    import torch

    import tiny
    from scorefield.training import loop, sharding
    from scorefield.training.state import State

    torch.set_num_threads(1)
    sharding.LEAST = 1  # so that several blocks are gathered one by one
    step, loss = loop.Loop._step, State.loss
    calls: list[Counter[str]] = []
    watched: list[Any] = []

    def finish() -> None:
        if watched:
            (profile := watched.pop()).stop()
            calls.append(Counter(event.name for event in profile.events() if event.name.startswith("c10d::")))

    def watching(self: loop.Loop, *arguments: Any) -> None:
        """From the beginning of a step to that of the next."""
        finish()
        if self.state.step + 1 in WATCHED:
            watched.append(torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]))
            watched[0].start()
        step(self, *arguments)

    def bad(self: State, *arguments: Any, **options: Any) -> torch.Tensor:
        """The second process has a loss that is not finite in step 3, whose gradient would be."""
        found = loss(self, *arguments, **options)
        return found + torch.inf if rank == 1 and self.step == 2 and torch.is_grad_enabled() else found

    loop.Loop._step = watching  # type: ignore[method-assign]
    for name, settings in json.loads((folder / "runs.json").read_text()).items():
        options = dict(settings)
        State.loss = bad if options.pop("bad", False) else loss  # type: ignore[method-assign]
        calls.clear()
        tiny.train(folder / name, folder / name / "run", resume=options.pop("resume", False), **options)
        finish()
        if rank == 0:
            (folder / name / "calls.json").write_text(json.dumps(calls))


if __name__ == "__main__":
    _work(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
