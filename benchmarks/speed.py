"""Small versions of every figure of speed, as ratios to references in the same process; what became slower is told.

    python benchmarks/speed.py                        # all, appended to benchmarks/history.jsonl
    python benchmarks/speed.py --only step loader     # some
    python benchmarks/speed.py --no-record            # only compared

A ratio is the time of ours over that of a reference that this repository does not change: convolutions of the same number of
operations, the bare network, a library's plain road. The two are timed in turns, in seconds of the processor with one thread, and
the figure is the median over pairs. It is compared with the last entry of the same kind of machine (instruction set, versions of
Python and torch); what is more than 15 % slower is measured once more before it is told, and ends with code 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import scorefield as sf
from scorefield.data.batch import Batch
from scorefield.data.images import Images
from scorefield.data.loader import Loader
from scorefield.data.normalise import Identity
from scorefield.foundation.arithmetic import machine_of
from scorefield.foundation.random import Generators
from scorefield.guidance import Proximal
from scorefield.losses import Denoising
from scorefield.metrics.ensemble import fair_crps
from scorefield.model import Model
from scorefield.mri.coils import as_tensor
from scorefield.mri.masks import RandomLines
from scorefield.mri.posterior import Posterior
from scorefield.mri.scan import Scan
from scorefield.mri.simulated import simulate
from scorefield.nn import NCSNpp
from scorefield.samplers import DPMSolverPP2M, EDMGrid, ProbabilityFlow, Sampler
from scorefield.samplers.likelihood import Likelihood
from scorefield.training import Adam
from scorefield.training.state import State, launch

ROOT = Path(__file__).parents[1]
SOURCE = str(ROOT / "src")
sys.path.insert(0, str(ROOT / "tests"))
import weather  # noqa: E402 - small gridded data are those of the tests

HISTORY = ROOT / "benchmarks" / "history.jsonl"
SLOWER = 1.15  # times as long as in the last entry
PAIRS = 7
SIZE, BATCH, EVALUATIONS = 32, 8, 8
NET = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "dropout": 0.0}
Work = Callable[[], object]


class Pair(NamedTuple):
    """What is timed, and beside what."""

    ours: Work
    reference: Work
    clock: Callable[[], float] = time.process_time


class Figure(NamedTuple):
    """The median ratio over pairs, their quartiles, and the least seconds of ours."""

    ratio: float
    low: float
    high: float
    seconds: float


# -------------------------------------------------------------------------------------------------------------- figures
def network(channels: int = 3, size: int = SIZE) -> Model:
    """A model with random weights."""
    torch.manual_seed(0)
    net = NCSNpp(channels, channels, **NET)
    return Model(sf.SDE(sf.EDM()), net, sf.EDMPreconditioner(), Identity(), shape=(channels, size, size)).eval()


def bare(model: Model, n: int, times: int) -> Work:
    """Evaluations of the network alone."""
    x, t, given = torch.randn(n, *model.shape), torch.full((n,), 0.5), model.denoiser.net.cond_channels
    cond = {"field": torch.randn(n, given, *model.shape[1:])} if given else None

    @torch.no_grad()
    def work() -> None:
        for _ in range(times):
            model.denoiser(x, t, cond)

    return work


def convolutions(work: Work) -> Work:
    """As many operations as work has, in 3×3 convolutions of 64 channels."""
    with FlopCounterMode(display=False) as counter:
        work()
    last = torch.channels_last
    x, weight = (torch.randn(n, 64, size, size).contiguous(memory_format=last) for n, size in ((BATCH, SIZE), (64, 3)))
    times = max(1, round(counter.get_total_flops() / (2 * x.numel() * 64 * 9)))
    return lambda: [F.conv2d(x, weight, padding=1) for _ in range(times)]


def forward(_: Path) -> Pair:
    """The network, beside convolutions of the same number of operations."""
    work = bare(network(), BATCH, 2)
    return Pair(work, convolutions(work))


def step(_: Path) -> Pair:
    """The trainer's own step, beside convolutions of the same number of operations."""
    model = network().train()
    state = State(model, Adam(), 0.999, 0, launch("cpu", 1, 1, "32-true"))
    batch = Batch(torch.rand(BATCH, *model.shape), key=torch.arange(2 * BATCH).view(BATCH, 2))

    def work() -> None:
        state.advance([batch], Denoising(), clip=1.0, steps=1000)

    return Pair(work, convolutions(work))


def sampling(_: Path) -> Pair:
    """Draws, beside as many evaluations of the network alone."""
    model, sampler = network(), Sampler(EVALUATIONS, DPMSolverPP2M())
    return Pair(lambda: model.sample(BATCH, seed=0, sampler=sampler, chunk=BATCH), bare(model, BATCH, EVALUATIONS))


def likelihood(_: Path) -> Pair:
    """log p by the flow, beside as many evaluations of the network alone."""
    model, flow = network(1, 8), ProbabilityFlow(tolerance=0.1)
    x = torch.rand(BATCH, *model.shape)

    def work() -> Likelihood:
        return flow.log_prob(model.generative, x, generator=Generators((0, i) for i in range(BATCH)))

    return Pair(work, bare(model, BATCH, round(float(work().evaluations.double().mean()))))


def loader(folder: Path) -> Pair:
    """Batches of a folder of PNG files, beside Pillow alone on the same files."""
    files, rng = folder / "images", np.random.default_rng(0)
    files.mkdir()
    for i in range(512):
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(files / f"{i}.png")
    batches = Loader(Images(files, valid=1, cache_gib=0).load("train"), 64)
    paths = sorted(files.iterdir())[:256]
    return Pair(
        lambda: [batches.batch(i) for i in range(4)], lambda: np.stack([np.asarray(Image.open(p)) for p in paths])
    )


def downscaling(folder: Path) -> Pair:
    """`downscale`, files and all, beside as many evaluations of the network alone."""
    fine = weather.save(weather.dataset(48), folder / "fine.nc")
    settings, run = folder / "climate.yaml", folder / "climate"
    settings.write_text(yaml.safe_dump(weather.recipe(weather.described(fine))))
    sf.train(settings, out=run)
    names = count()

    def work() -> None:
        how = {"members": 8, "steps": EVALUATIONS, "reach": math.inf, "most": 4, "chunk": 8}
        sf.climate.Downscale(run=run, predictors="test", out=folder / f"{next(names)}.nc", **how).run()

    return Pair(work, bare(sf.load(run), 8, 4 * EVALUATIONS))


def reconstruction(_: Path) -> Pair:
    """Members of p(x | y) from the k-space of four coils, beside as many evaluations of the network alone."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, 64)] * 2, indexing="ij")
    found = simulate(np.where(x**2 + y**2 < 0.7, 1 + 0.5 * np.sin(6 * x), 0), coils=4)
    mask = torch.from_numpy(RandomLines(3.0, 11)((64, 64)))
    scan = Scan(as_tensor(found.kspace), mask, as_tensor(found.maps), found.noise)
    model, sampler = network(2, 64), Sampler(EVALUATIONS, DPMSolverPP2M(1.0), EDMGrid(ratio_min=0.005, ratio_max=3.0))
    posterior = Posterior(model, Proximal(0.35, 1.5, 30), sampler, 2)
    return Pair(lambda: posterior.draw(scan, 2), bare(model, 2, EVALUATIONS))


def crps(_: Path) -> Pair:
    """The fair CRPS of 50 members, beside one sort of them by numpy."""
    members, truth = torch.randn(50, 4, 64, 64), torch.randn(4, 64, 64)
    return Pair(lambda: fair_crps(members, truth), lambda: np.sort(members.numpy(), axis=0))


def starting(*words: str) -> Work:
    """A process of its own."""
    return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def of_processes() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def help_of_all(_: Path) -> Pair:
    """`scorefield --help`, beside the interpreter with nothing to do."""
    return Pair(starting("-m", "scorefield", "--help"), starting("-c", "pass"), of_processes)


def help_of_a_verb(_: Path) -> Pair:
    """`scorefield sample --help`, beside the import of torch."""
    return Pair(starting("-m", "scorefield", "sample", "--help"), starting("-c", "import torch"), of_processes)


FIGURES: dict[str, Callable[[Path], Pair]] = {
    "forward": forward,
    "step": step,
    "sampling": sampling,
    "likelihood": likelihood,
    "loader": loader,
    "downscaling": downscaling,
    "reconstruction": reconstruction,
    "crps": crps,
    "help": help_of_all,
    "help of sample": help_of_a_verb,
}


def measured(pair: Pair) -> Figure:
    """Times both in turns, after one call of each."""

    def seconds(work: Work) -> float:
        started = pair.clock()
        work()
        return pair.clock() - started

    seconds(pair.ours), seconds(pair.reference)
    pairs = [(seconds(pair.ours), seconds(pair.reference)) for _ in range(PAIRS)]
    low, ratio, high = statistics.quantiles([ours / reference for ours, reference in pairs], n=4)
    return Figure(*(round(number, 4) for number in (ratio, low, high, min(ours for ours, _ in pairs))))


# -------------------------------------------------------------------------------------------------------------- history
def machine() -> dict[str, str]:
    """What figures are compared within: the kind of processor, and the versions that decide about kernels."""
    return {
        "processor": f"{platform.machine()} {machine_of(torch.device('cpu')).kind}",
        "torch": torch.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def last(history: Path, kind: Mapping[str, str]) -> dict[str, list[float]]:
    """The last figure of each name from a kind of machine."""
    found: dict[str, list[float]] = {}
    for line in history.read_text(encoding="utf-8").splitlines() if history.exists() else ():
        entry = json.loads(line)
        if entry["machine"] == dict(kind):
            found |= entry["figures"]
    return found


def slower(now: Figure, before: list[float] | None) -> bool:
    return before is not None and now.ratio > SLOWER * before[0]


def compared(
    names: Iterable[str], before: Mapping[str, list[float]], folder: Path
) -> tuple[dict[str, Figure], list[str]]:
    """The figures, and the names of those that became slower: which were so twice."""
    found, worse = {}, []
    for name in names:
        place = folder / name.replace(" ", "-")
        place.mkdir()
        pair = FIGURES[name](place)
        found[name] = measured(pair)
        if slower(found[name], before.get(name)):
            found[name] = min(found[name], measured(pair))
            worse += [name] * slower(found[name], before.get(name))
        told = f"{before[name][0]:8.3f}" if name in before else "       -"
        ratio, low, high, seconds = found[name]
        print(f"{name:16s}{ratio:8.3f} ({low:.3f} to {high:.3f}){told} before  {1e3 * seconds:9.2f} ms", flush=True)
    return found, worse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=[*FIGURES])
    parser.add_argument("--history", type=Path, default=HISTORY)
    parser.add_argument("--no-record", action="store_true", help="compare, and append nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (SOURCE, os.environ.get("PYTHONPATH")))),
    }
    logging.getLogger("scorefield").setLevel(logging.ERROR)
    print(*machine().values(), sep=", ")
    with tempfile.TemporaryDirectory() as folder:
        found, worse = compared(arguments.only, last(arguments.history, machine()), Path(folder))
    if not arguments.no_record:
        entry = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "figures": found}
        with arguments.history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    if worse:
        raise SystemExit(f"More than 15 % slower than before, twice: {', '.join(worse)}.")


if __name__ == "__main__":
    main()
