"""How the pieces of `sample` and `downscale` scale with processes that have the numbers of torchrun, each with one thread.

    python benchmarks/processes.py [--repeats 3] [--processes 1 2 4] [--work DIR]

Processes are forked from one that has loaded all libraries, so that start-up, which is the same for each, is in no figure. The
files of any number of processes are compared with those of one, byte by byte. Markdown is printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
import yaml

from scorefield.cli import main as scorefield

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import launched
import tiny
import weather

LIBRARIES = ("scorefield.jobs.sample", "scorefield.climate.downscaling", "scorefield.cli.parsing", "h5netcdf", "xarray")


def prepared(folder: Path) -> dict[str, list[str]]:
    """The verbs as they are called, without where to write."""
    tiny.train(folder, folder / "digits", train__steps=1, train__validate_every=1, train__checkpoint_every=1)
    fine = weather.save(weather.dataset(40), folder / "fine.nc")
    recipe = folder / "weather.yaml"
    recipe.write_text(yaml.safe_dump(weather.recipe(weather.described(fine))))
    assert scorefield(["train", str(recipe), "--out", str(folder / "weather")]) == 0
    return {
        "sample": ["sample", str(folder / "digits"), "-n", "1024", "--chunk", "64", "--steps", "18"],
        "downscale": [
            *["downscale", str(folder / "weather"), "test", "--members", "16", "--chunk", "8"],
            *["--steps", "18", "--reach", "50"],
        ],
    }


def timed(words: Sequence[str], out: Path, count: int, said: Path) -> tuple[float, float, float, list[int]]:
    """Wall time, the CPU time of all and of the busiest process, in seconds, and how many pieces each computed."""
    said.mkdir()
    since, files = time.perf_counter(), [said / str(rank) for rank in range(count)]
    begun = [
        launched.start([*words, "--out", str(out)], numbers, file)
        for numbers, file in zip(launched.ranks(count), files, strict=True)
    ]
    ended = [os.wait4(process.pid or 0, 0) for process in begun]
    wall = time.perf_counter() - since
    assert not any(status for _, status, _ in ended), [file.read_text() for file in files]
    cpu = [used.ru_utime + used.ru_stime for _, _, used in ended]
    return wall, sum(cpu), max(cpu), [len(launched.computed([file])) for file in files]


def content(out: Path) -> dict[str, bytes]:
    files = [out] if out.is_file() else sorted(path for path in out.rglob("*") if path.is_file())
    return {path.name.replace(out.name, ""): path.read_bytes() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="processes-"))
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for name in LIBRARIES:
        import_module(name)
    print("| | processes | wall, s | CPU, s | of the busiest | 1 to busiest | pieces of each |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for verb, words in prepared(work).items():
        found: dict[int, list[tuple[float, float, float, list[int]]]] = {count: [] for count in arguments.processes}
        suffix, one = ".nc" if verb == "downscale" else "", {}
        for repeat in range(arguments.repeats):
            for count in arguments.processes:  # in turns, since other programs come and go
                out = work / f"{verb}-{count}-{repeat}{suffix}"
                found[count].append(timed(words, out, count, work / f"said-{verb}-{count}-{repeat}"))
                one = one or content(out)
                assert content(out) == one, f"{out} differs"
        alone = statistics.median(most for _, _, most, _ in found[arguments.processes[0]])
        for count, rows in found.items():
            wall, cpu, most = (statistics.median(column) for column in list(zip(*rows, strict=True))[:3])
            shares = ", ".join(" + ".join(map(str, row[3])) for row in rows)
            print(
                f"| {verb} | {count} | {wall:.1f} | {cpu:.1f} | {most:.1f} | {alone / most:.2f} | {shares} |",
                flush=True,
            )
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
