"""Posterior methods on a law with three modes, as they are and as proposals of weighted particles, against closed form.

    python benchmarks/posteriors.py [--seeds 40] [--out benchmarks/posteriors.md]

Four dimensions, two measured with noise. An error is the largest over the three weights of modes, root mean square over
seeds, of 4000 draws or particles over a quarter as many, with its standard error.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from scorefield.core.oracle import Mixture
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.foundation.files import write_text
from scorefield.foundation.random import Generators
from scorefield.guidance import DPS, Guided, Measurement, Method, MomentMatching, PiGDM
from scorefield.operators import Mask
from scorefield.particles import Particles
from scorefield.samplers import DPMSolverPP2M, EDMGrid, Sampler

MEANS = [[1.5, 0.0, 1.0, 0.0], [-1.5, 0.5, 0.0, 1.0], [0.0, -2.0, -1.0, -1.0]]
VARIANCES, WEIGHTS = [0.1, 0.2, 0.3], [0.5, 0.3, 0.2]
CASES = [([0.4, 0.3], 0.5), ([0.4, 0.3], 0.1), ([1.2, 0.0], 0.5)]  # what was measured, and the noise
METHODS: list[Method] = [DPS(), PiGDM(), MomentMatching()]
SAMPLER = Sampler(40, DPMSolverPP2M(eta=1.0), EDMGrid(ratio_min=0.01))
N = 4000  # draws of a method as it is
MARK = "<!-- what follows is kept -->"
Found = tuple[Tensor, float]  # weights of modes, log p(y)


def exact(law: Mixture, measured: list[float], noise: float) -> Found:
    y, means, total = torch.tensor(measured), law.means[:, 0, :2], law.variances[:, None] + noise**2
    log = law.log_weights - 0.5 * ((y - means) ** 2 / total + (2 * math.pi * total).log()).sum(1)
    return log.softmax(0), float(log.logsumexp(0))


def modes(law: Mixture, x: Tensor) -> Tensor:
    square = (x[:, None, 0] - law.means[:, 0]).square().sum(-1)
    return (law.log_weights - 0.5 * square / law.variances - 2 * law.variances.log()).softmax(1)


def row(name: str, run: Callable[[int], Found], truth: Found, seeds: int) -> str:
    started = time.process_time()
    found = [run(seed) for seed in range(seeds)]
    seconds = (time.process_time() - started) / seeds
    weights = torch.stack([part[0] for part in found])
    squares = (weights - truth[0]).square()
    error, place = squares.mean(0).sqrt().max(0)
    own = float(squares.std(0)[place] / math.sqrt(seeds) / (2 * error))
    evidence = torch.tensor([part[1] for part in found], dtype=torch.float64) - truth[1]
    told = "" if evidence.isnan().any() else f"{float(evidence.mean()):+.3f} ± {float(evidence.std()):.3f}"
    shown = " / ".join(f"{value:.3f}" for value in weights.mean(0).tolist())
    return f"| {name} | {shown} | {float(error):.4f} ± {own:.4f} | {told} | {seconds:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=None, help="Markdown file to write")
    arguments = parser.parse_args()
    few = max(2, arguments.seeds // 4)
    double = torch.float64
    law = Mixture(
        SDE(EDM()),
        torch.tensor(MEANS, dtype=double)[:, None],
        torch.tensor(VARIANCES, dtype=double),
        torch.tensor(WEIGHTS),
    )
    seen = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]], dtype=double)
    about = f"""\
Methods on a law with three modes in four dimensions, two of them measured with noise, as they are and as proposals of weighted
particles, beside closed forms. {SAMPLER.steps} steps of DPM++ 2M SDE, float64. An error is the largest of three weights, root
mean square over {arguments.seeds} seeds ({few} of 4000), with its standard error. What log p(y) is off by at noise 0.1 is
the steps' own: 160 of them and 4000 particles, by PiGDM, have +0.01, +0.01 and +0.04 with three seeds.
torch {torch.__version__}, one thread, `python benchmarks/posteriors.py`."""
    lines = ["# Posteriors", "", *about.splitlines()]
    for measured, noise in CASES:
        measurement = Measurement(Mask(seen), torch.tensor([[[*measured, 0.0, 0.0]]], dtype=double), noise)
        truth = exact(law, measured, noise)
        shown = " / ".join(f"{value:.3f}" for value in truth[0].tolist())
        lines += [
            "",
            f"## y = ({measured[0]}, {measured[1]}), noise {noise}: exact weights {shown}, log p(y) = {truth[1]:.3f}",
            "",
        ]
        lines += ["| | weights of modes | error | log p(y) − exact | CPU s |", "| --- | --- | --- | --- | --- |"]
        for method in METHODS:
            name = type(method).__name__

            def plain(seed: int, method: Method = method, given: Measurement = measurement) -> Found:
                keys = Generators((seed, i) for i in range(N))
                x = SAMPLER(Guided(law, given, method), (N, 1, 4), generator=keys, like=law.means)
                return modes(law, x).mean(0), math.nan

            lines.append(row(f"{name}, {N} draws", plain, truth, few))
            print(lines[-1], flush=True)
            for count in (100, 1000, 4000):

                def weighed(
                    seed: int, method: Method = method, count: int = count, given: Measurement = measurement
                ) -> Found:
                    found = Particles(method, count, SAMPLER)(law, given, (1, 4), seed=seed, like=law.means)
                    return found.mean(modes(law, found.x)), found.log_evidence

                seeds = few if count > 1000 else arguments.seeds
                lines.append(row(f"{name}, {count} particles", weighed, truth, seeds))
                print(lines[-1], flush=True)
    text = "\n".join([*lines, "", MARK])
    if arguments.out is not None:
        kept = arguments.out.read_text() if arguments.out.exists() else ""
        write_text(arguments.out, text + (kept.partition(MARK)[2] or "\n"))


if __name__ == "__main__":
    main()
