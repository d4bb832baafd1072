"""Rollouts beside the sequences they go on from, by lead time: fair CRPS, RMSE, spread, spectra; persistence and climatology.

Writes what `sample --given start.npy --rollout N` needs, and reads what it drew: sample i + m · sequences is of sequence i. The
last line says up to which lead time the CRPS of the draws is below that of the climatology, training fields of the same time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.core.spectrum import band_means
from scorefield.metrics.ensemble import fair_crps


def powers(x: Tensor, rank: int) -> Tensor:
    """The power in the bands 1, 2, ... of periods per side, over all fields (..., *grid) on a torus."""
    grid = x.shape[-rank:]
    modes = torch.fft.fftn(x.double(), dim=tuple(range(-rank, 0))).abs().square().flatten(0, -1 - rank).mean(0)
    axes = torch.meshgrid(*(torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in grid), indexing="ij")
    return band_means(modes, torch.stack(axes).square().sum(0).sqrt(), min(grid) // 2)[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path, help=".npy (sequences, frames, *grid)")
    parser.add_argument("--start", type=Path, help="write the first frames here, for sample --given")
    parser.add_argument("--drawn", type=Path, help="samples.npy of the rollout")
    parser.add_argument("--train", type=Path, help=".npy of training sequences, for the climatology")
    parser.add_argument("--sequences", type=int, default=100)
    arguments = parser.parse_args()
    truth = torch.from_numpy(np.load(arguments.truth)[: arguments.sequences])
    if arguments.start is not None:
        np.save(arguments.start, truth[:, :1].numpy())
        return
    drawn = torch.from_numpy(np.load(arguments.drawn))[:, :, 0]
    members, rank = drawn.unflatten(0, (-1, len(truth))), truth.ndim - 2
    train = torch.from_numpy(np.load(arguments.train))
    print("| lead | CRPS | climatology | persistence | RMSE | spread | climatology | persistence | mean ln P | worst |")
    beaten = 0
    for lead in range(1, members.shape[2] + 1):
        ensemble, fields = members[:, :, lead - 1], truth[:, lead]
        climate = train[:50, lead][:, None].expand(-1, len(fields), *fields.shape[1:])
        kept = truth[:, 0]
        rows = [float(fair_crps(forecast, fields).mean()) for forecast in (ensemble, climate, kept[None])]
        beaten = lead if beaten == lead - 1 and rows[0] < rows[1] else beaten
        means = (ensemble.mean(0), train[:, lead].mean(0), kept)
        errors = [float((mean - fields).square().mean().sqrt()) for mean in means]
        spread = float(((1 + 1 / len(ensemble)) * ensemble.var(0).mean()).sqrt())
        off = (powers(ensemble, rank) / powers(fields, rank)).log()
        rows += [errors[0], spread, *errors[1:], float(off.mean()), float(off.abs().max())]
        print(f"| {lead} |" + "|".join(f" {row:.4f} " for row in rows) + "|", flush=True)
    print(f"below the climatology up to lead time {beaten} of {members.shape[2]}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
