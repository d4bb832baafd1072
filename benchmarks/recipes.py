"""What every recipe costs here: benchmarks/recipes.md.

    python benchmarks/recipes.py [--out benchmarks/recipes.md] [--seconds 480] [--patience 120]

Each command is a process of its own: `scorefield train RECIPE --dry-run`, on one thread, without the data. Recipes with the
same network, grid and batch cost the same; the first of them is run, small grids first, until the seconds are used up.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from scorefield.run.configuration import read_recipe, recipes
from scorefield.run.defaults import import_class

ROOT = Path(__file__).parents[1]
TEXT = """# Cost of the recipes

`scorefield train RECIPE --dry-run`, on one thread, without the data: random images stand in for them. Where five steps take
more than 20 s, or a step more memory than there is, no whole step was made: its time lies on the line through those of smaller
batches, and its memory follows from what one sample keeps. Against real steps of smaller networks (DDPM and NCSN++ of 64
channels, NCSNv2 of 32, a batch of 16) such memory was within 3 %. Time that a step waited for a core is not counted. Recipes in
one row have the same network, grid and batch. Parameters are exact; those of the published programs are the same
(tests/units/run/test_recipes.py). "Not run": it took longer than the patience, or the seconds for all were used up.

| recipes | parameters | batch | grid | memory of a step | seconds a step | steps made |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

Made by `python benchmarks/recipes.py` in {seconds:.0f} s on {machine} under a load average
of {load:.1f}; torch {torch}, Python {python}.
"""


def groups() -> list[list[str]]:
    """The recipes of images that cost the same, those of small grids first; of digits, and of a shape that they state."""
    found: dict[str, list[str]] = {}
    for name, path in recipes().items():
        recipe = read_recipe(path)
        shape = recipe["model"].get("shape", [3, 8, 8] if name == "digits" else [])
        if len(shape) != 3 or shape[0] != 3:
            continue
        net = recipe["model"]["net"]
        arguments = {key: value for key, value in net["init_args"].items() if key not in ("dropout", "fourier_scale")}
        cost = net["class_path"], arguments, grid(name), recipe["train"]["batch_size"]
        found.setdefault(repr(cost), []).append(name)
    return sorted(found.values(), key=lambda names: (grid(names[0]), parameters(names[0])))


def grid(name: str) -> int:
    """Pixels along a side; digits have 8."""
    return read_recipe(recipes()[name])["model"].get("shape", [8])[-1]


def parameters(name: str) -> int:
    """How many the network has for images in colour."""
    net = read_recipe(recipes()[name])["model"]["net"]
    with torch.device("meta"):
        built = import_class(net["class_path"])(**net["init_args"], in_channels=3, out_channels=3)
    return sum(parameter.numel() for parameter in built.parameters())


def dry_run(name: str, patience: float) -> dict[str, str] | None:
    """What the command prints, by the words in front; None if it takes too long."""
    command = [sys.executable, "-m", "scorefield", "train", name, "--dry-run"]
    with tempfile.TemporaryDirectory() as empty:
        try:
            done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=True, timeout=patience)
        except subprocess.TimeoutExpired:
            return None
    lines = {line[:20].strip(): line[20:] for line in done.stdout.splitlines() if not line.startswith("note")}
    seconds = lines["seconds per step"].split()[0]
    if found := re.search(r"Alone, a step takes at most ([\d.e+]+) s", done.stdout):
        seconds = found[1]  # without the time that it waited for a core
    return lines | {"seconds": seconds, "made": "no" if "No step of the whole batch" in done.stdout else "yes"}


def row(names: list[str], patience: float) -> str:
    """One line of the table."""
    found = dry_run(names[0], patience) if patience > 0 else None
    batch, side = read_recipe(recipes()[names[0]])["train"]["batch_size"], grid(names[0])
    cells = [", ".join(names), f"{parameters(names[0]):,}", str(batch), f"{side}×{side}"]
    if found is None:
        cells += ["not run"] * 3
    else:
        cells[1] = found["parameters"]
        cells += [found["peak memory"], f"{float(found['seconds']):.3g}", found["made"]]
    print(" | ".join(cells), file=sys.stderr, flush=True)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "recipes.md")
    parser.add_argument("--seconds", type=float, default=480.0, help="for all together")
    parser.add_argument("--patience", type=float, default=120.0, help="for each")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    started = time.perf_counter()
    rows = []
    for names in groups():
        left = given.seconds - (time.perf_counter() - started)
        rows.append(row(names, min(left, given.patience)))
    seconds, load = time.perf_counter() - started, os.getloadavg()[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} {platform.machine()} cores with {memory:.0f} GiB"
    facts = {"torch": torch.__version__, "python": platform.python_version()}
    given.out.write_text(TEXT.format(rows="\n".join(rows), seconds=seconds, machine=machine, load=load, **facts))


if __name__ == "__main__":
    main()
