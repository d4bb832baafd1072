"""One command line in several processes, each with the numbers that an engine would give it, and which pieces each computed."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Iterable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from scorefield.cli import main

Numbers = Mapping[str, str]
COMPUTED = re.compile(r", piece (\d+) of \d+, ")


def ranks(count: int) -> list[Numbers]:
    """As torchrun has them."""
    return [{"RANK": str(rank), "WORLD_SIZE": str(count)} for rank in range(count)]


def array(count: int) -> list[Numbers]:
    """As a job array of Slurm has them, 5, 7, 9 and so on."""
    last = 5 + 2 * (count - 1)
    facts = {"MIN": "5", "MAX": str(last), "STEP": "2", "COUNT": str(count)}
    elements = [facts | {"ID": str(task)} for task in range(5, last + 1, 2)]
    return [{f"SLURM_ARRAY_TASK_{name}": value for name, value in element.items()} for element in elements]


def start(arguments: Iterable[str], numbers: Numbers, said: Path) -> BaseProcess:
    """A process at work, and what it says in a file."""

    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ |= numbers
        with said.open("w") as sys.stderr:
            sys.exit(main([*arguments, "--verbose"]))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def together(arguments: Iterable[str], each: Iterable[Numbers], folder: Path) -> list[int]:
    """Run processes to their end, all of which have to end well; the pieces that they computed, a number for each time."""
    folder.mkdir()
    files = [folder / str(number) for number, _ in enumerate(each)]
    processes = [start(arguments, numbers, file) for numbers, file in zip(each, files, strict=True)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes), [file.read_text() for file in files]
    return computed(files)


def computed(files: Iterable[Path]) -> list[int]:
    """The numbers of the pieces that processes say they computed, from 0."""
    return sorted(int(number) - 1 for file in files for number in COMPUTED.findall(file.read_text()))
