"""Rollouts beside the sequences they go on from, by lead time: fair CRPS and RMSE, of persistence and climatology too; spectra.

Writes what `sample --given start.npy --rollout N` needs, and reads what it drew: sample i + m · sequences is of sequence i.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from scorefield.metrics.ensemble import fair_crps


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
    members = drawn.unflatten(0, (-1, len(truth)))
    train = torch.from_numpy(np.load(arguments.train))
    print("lead   CRPS    climatology  persistence  RMSE    climatology  persistence  worst ln P")
    for lead in range(1, members.shape[2] + 1):
        ensemble, fields = members[:, :, lead - 1], truth[:, lead]
        climate = train[:50, lead][:, None].expand(-1, len(fields), *fields.shape[1:])
        kept = truth[:, 0]
        rows = [float(fair_crps(forecast, fields).mean()) for forecast in (ensemble, climate, kept[None])]
        means = (ensemble.mean(0), train[:, lead].mean(0), kept)
        rows += [float((mean - fields).square().mean().sqrt()) for mean in means]
        one, other = (torch.fft.rfft(x.flatten(0, -2).double()).abs().square().mean(0)[1:] for x in (ensemble, fields))
        rows.append(float((one / other).log().abs().max()))
        print(f"{lead:4d}" + "".join(f"  {row:9.4f}" for row in rows))


if __name__ == "__main__":
    main()
