"""Field noise: how long a draw takes, beside a dense Cholesky factor of the same covariance, in one run.

    python benchmarks/field_noise.py [--points 120] [--out benchmarks/field_noise.md]

Set-up is the variances of the modes, or the covariance matrix of the grid's points and its factor. The dense factor draws 16
fields by one product, and one by one, as the loop of Lim et al. (2023) does. Process CPU time, best of several, in float32, on
one thread: as on a core of its own, where the machine is shared.
"""

from __future__ import annotations

import argparse
import gc
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from scorefield.core.noise import Boundary, Exponential, Free, GaussianField, Neumann, Periodic
from scorefield.core.noise import field as fields
from scorefield.foundation.files import write_text
from scorefield.foundation.random import Generators

BATCH = 16
DENSITY = Exponential(0.1)
BOUNDARIES: dict[str, Boundary] = {"periodic": Periodic(), "neumann": Neumann(), "free": Free()}


def best(work: Callable[[], object], times: int = 15) -> float:
    """CPU seconds of the fastest of several calls."""
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def set_up(noise: GaussianField, n: int) -> None:
    fields._eigenvalues.cache_clear()
    fields._gain_like.cache_clear()
    fields._gain(noise, (n, n), 0.5, torch.empty(0))


def draw(noise: GaussianField, n: int, batch: int) -> Callable[[], object]:
    generator, like = Generators((0, index) for index in range(batch)), torch.empty(0)
    return lambda: noise.sample((batch, 1, n, n), generator=generator, like=like)


def dense_factor(n: int) -> torch.Tensor:
    """The Cholesky factor of the exponential kernel on an n × n grid of the unit square."""
    line = torch.arange(n) / n
    points = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    covariance = torch.cdist(points, points).div_(-DENSITY.length).exp_()
    covariance.diagonal().add_(1e-4)
    return torch.linalg.cholesky(covariance, out=covariance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=120, help="per axis, of the grid with a dense factor")
    parser.add_argument("--out", type=Path, default=None, help="Markdown file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    n = arguments.points
    lines = ["| boundary | 1024², one field | set-up | 16 fields |", "| --- | --- | --- | --- |"]
    ours = {}
    for name, boundary in BOUNDARIES.items():
        noise = GaussianField(DENSITY, boundary, point=True)
        one = best(draw(noise, 1024, 1))
        setting = best(lambda noise=noise: set_up(noise, n))
        sixteen = best(draw(noise, n, BATCH))
        ours[name] = (setting, sixteen)
        lines.append(f"| {name} | {1e3 * one:.0f} ms | {1e3 * setting:.1f} ms | {1e3 * sixteen:.1f} ms |")
    gc.collect()
    started = time.process_time()
    factor = dense_factor(n)
    dense_setting = time.process_time() - started
    white = torch.randn(n * n, BATCH)
    product = best(lambda: factor @ white, 3)
    loop = best(lambda: [factor @ torch.randn(n * n) for _ in range(BATCH)], 2)
    lines += [
        f"| dense Cholesky, one product | | {dense_setting:.1f} s | {1e3 * product:.0f} ms |",
        f"| dense Cholesky, one by one | | | {1e3 * loop:.0f} ms |",
        "",
        "| against the dense factor | set-up | 16 fields, one product | 16 fields, one by one |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {dense_setting / setting:,.0f}× | {product / sixteen:.0f}× | {loop / sixteen:.0f}× |"
            for name, (setting, sixteen) in ours.items()
        ),
    ]
    facts = f"{n}² points where not said otherwise; torch {torch.__version__}, {platform.machine()}, 1 thread, float32, CPU time."
    text = "\n".join(["# Field noise", "", facts, "", *lines]) + "\n"
    print(text)
    if arguments.out is not None:
        write_text(arguments.out, text)


if __name__ == "__main__":
    main()
