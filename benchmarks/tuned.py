"""Samplers fitted to a run beside DPM++ 2M with as many evaluations, by the Fréchet distance of nfe.py.

    scorefield tune-sampler mnist --steps 6                    # 5, 6, 8: each in some two minutes of one core
    python benchmarks/tuned.py mnist --data $SCOREFIELD_DATA/images/mnist_70k.npz [--steps 5 6 8]

Run it where tune-sampler ran: what it kept of a shipped model lies in NAME-results there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import nfe
from scorefield.jobs import Sample
from scorefield.samplers import DPMSolverPP2M, EDMGrid, Sampler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 6, 8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classifier", type=Path, default=Path("nfe") / "classifier.safetensors")
    arguments = parser.parse_args()
    with np.load(arguments.data) as file:
        images = {name: torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")}
    images = {name: value[:, None].float() if name[0] == "x" else value.long() for name, value in images.items()}
    features = nfe.classifier(images, arguments.classifier)
    reference = nfe.moments(images["x_train"], features)
    for steps in arguments.steps:
        verb = Sample(run=arguments.run, steps=steps, tuned=True, out=Path("unused"))
        rows = {
            "DPM++ 2M, EDM's grid": Sampler(steps, DPMSolverPP2M(), EDMGrid()),
            "DPM++ 2M, its own grid": Sampler(steps, DPMSolverPP2M(), verb.model.stepwise.grid),
            "tuned": verb.sampler_from(verb.model.sampler),
        }
        for name, sampler in rows.items():
            drawn = (
                verb.model.sample(nfe.N, seed=seed, sampler=sampler, chunk=nfe.BATCH) for seed in range(arguments.seeds)
            )
            values = [nfe.distance(x, features, reference) for x in drawn]
            print(f"{name:28s}{steps:4d}   {nfe.spread(values)}", flush=True)


if __name__ == "__main__":
    main()
