"""Radial k-space of MNI152 with a part of the spokes: gridding, CG-SENSE and L1-wavelet, tuned on the scan itself; and a prior.

    python benchmarks/radial.py --data $SCOREFIELD_DATA [--run RUN] --slices 70 90 110

352 spokes of 448 samples, a golden angle apart, are all of k-space of 192 × 224 pixels; a quarter and an eighth of them are used.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

import scorefield
from mri import CENTRE, METHOD, SAMPLER, slices_of
from scorefield.metrics.image import interval_coverage
from scorefield.mri.kspace import KSpace
from scorefield.mri.metrics import masked_psnr, object_mask
from scorefield.mri.posterior import Posterior
from scorefield.mri.scan_loading import Scans
from scorefield.mri.simulated import Simulation, simulate
from scorefield.mri.trajectory import Trajectory
from scorefield.operators import NonUniformFourier

GRID, SAMPLES, ALL = (192, 224), 448, 352


def scan_of(simulation: Simulation, spokes: int, number: int) -> Scans:
    """What a scanner measures along spokes a golden angle apart, its noise that of the simulation, two samples per cell."""
    angle = (np.arange(spokes) + number * spokes) * math.pi * (math.sqrt(5) - 1) / 2
    along = np.arange(SAMPLES) / SAMPLES - 0.5
    places = along[:, None, None] * np.stack((np.sin(angle), np.cos(angle)), -1) * np.array(GRID)
    coils = torch.from_numpy(simulation.maps * simulation.image)[None]
    y = NonUniformFourier(torch.from_numpy(places.reshape(-1, 2)), GRID)(coils)[0].numpy()
    white = np.random.default_rng(number).standard_normal((2, *y.shape))
    y = (y + simulation.noise * (white[0] + 1j * white[1])).astype(np.complex64).reshape(1, -1, SAMPLES, spokes)
    trajectory = Trajectory(places, GRID)
    return Scans(KSpace("radial", y.shape, lambda _: y[0], size=GRID, labelled=True, trajectory=trajectory))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--volume", default="MNI152")
    parser.add_argument("--slices", type=int, nargs="+", default=[70, 90, 110])
    parser.add_argument("--parts", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--members", type=int, default=8)
    args = parser.parse_args()
    volume = slices_of(args.data, args.volume)
    for part in args.parts:
        rows: list[dict[str, float]] = []
        for number in args.slices:
            simulation = simulate(volume[number], number=number)
            truth = torch.from_numpy(np.abs(simulation.image))
            inside = object_mask(truth)
            scan = scan_of(simulation, ALL // part, number).scan(0)[0]
            row = {name: masked_psnr(x.abs(), truth, inside) for name, x in scan.baseline_images().items()}
            row |= dict(zip(("damping", "iterations", "weight"), scan.baselines.settings, strict=True))
            row["noise/true"] = scan.noise * scan.unit / simulation.noise
            if args.run is not None:
                posterior = Posterior(scorefield.load(args.run), METHOD, SAMPLER, args.members, centre=CENTRE)
                members = posterior.draw(scan, args.members, number=number)
                row["posterior mean"] = masked_psnr(members.mean(0).abs(), truth, inside)
                row["coverage"] = interval_coverage(members.abs()[:, inside], truth[inside][None])
                row["χ²/N"] = float(scan.chi_square(members).mean())
            rows.append(row)
            print(
                f"1/{part}, slice {number}: " + ", ".join(f"{name} {value:.4g}" for name, value in row.items()),
                flush=True,
            )
        print(f"1/{part}, mean: " + ", ".join(f"{name} {np.mean([row[name] for row in rows]):.4g}" for name in rows[0]))


if __name__ == "__main__":
    main()
