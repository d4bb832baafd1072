"""Few evaluations under field noise: the Gaussian cell of functions_gate.py, its flow map, and the same run untrained for it.

    python benchmarks/functions_gate.py --folder runs/gate --cells fno-field-precision-gaussian --sizes 32
    scorefield train flow-map --init runs/gate/fno-field-precision-gaussian --out runs/gate/map
    scorefield tune-sampler runs/gate/fno-field-precision-gaussian --steps 4
    python benchmarks/field_few.py runs/gate

The figure is mean |ln P/P_true| over the bands 1 to 15 of 64 samples, as in functions_gate.py. In each row: what draws, the grid,
the figure, the mean of ln P/P_true with its sign, CPU s.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from functions_gate import SAMPLES, bands, truth
from scorefield import load
from scorefield.jobs import Sample
from scorefield.model import Model
from scorefield.samplers import DDIM, DPMSolverPP2M, EDMGrid, Jump, Sampler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--map", default="map", help="the flow map in the folder, or none")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--sizes", type=int, nargs="*", default=[32, 128])
    parser.add_argument("--gammas", type=float, nargs="*", default=[0.0, 1.0])
    parser.add_argument(
        "--ratios", type=float, nargs="*", default=[0.1, 0.3, 1.0], help="lowest σ/α of the levels of jumps"
    )
    parser.add_argument("--only", nargs="*", default=["DDIM", "DPM++ 2M", "tuned", "map"])
    arguments = parser.parse_args()
    run, steps = arguments.folder / "fno-field-precision-gaussian", arguments.steps
    teacher, ways = load(run), list[tuple[str, Model, Sampler]]()
    if "DDIM" in arguments.only:
        ways.append(("DDIM", teacher, Sampler(steps, DDIM(), EDMGrid())))
    if "DPM++ 2M" in arguments.only:
        ways.append(("DPM++ 2M", teacher, Sampler(steps, DPMSolverPP2M(), EDMGrid())))
    if "tuned" in arguments.only:
        tuned = Sample(run=run, steps=steps, tuned=True, out=Path("unused"))
        ways.append(("tuned", teacher, tuned.sampler_from(teacher.sampler)))
    if "map" in arguments.only:
        student = load(arguments.folder / arguments.map)
        for gamma in arguments.gammas:
            for ratio in arguments.ratios:
                name = f"flow map, γ = {gamma:g}, σ/α = {ratio:g}"
                ways.append((name, student, Sampler(steps, Jump(gamma), EDMGrid(ratio_min=ratio))))
    true = truth("gaussian")
    for size in arguments.sizes:
        for name, model, sampler in ways:
            started = time.process_time()
            x = model.sample(SAMPLES, seed=7, shape=(1, size, size), chunk=16, sampler=sampler)
            off = (bands(x)[1:16] / true[1:16]).log()
            seconds = time.process_time() - started
            print(f"| {name} | {size}² | {off.abs().mean():.3f} | {off.mean():+.3f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
