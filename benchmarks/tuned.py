"""Samplers fitted to a run beside DPM++ 2M with as many evaluations, by the Fréchet distance of nfe.py.

    scorefield tune-sampler mnist --steps 6                    # 5, 6, 8: each in some two minutes of one core
    python benchmarks/tuned.py mnist --data $SCOREFIELD_DATA/images/mnist_70k.npz [--steps 5 6 8]
    python benchmarks/tuned.py digits                          # without --data: 1500 samples, in pixels, as in few.md

Run it where tune-sampler ran: what it kept of a shipped model lies in NAME-results there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import nfe
from scorefield.jobs import Sample
from scorefield.jobs.evaluation.extract import Extractor
from scorefield.metrics.features import Features, Pixels
from scorefield.metrics.frechet import Moments
from scorefield.run.loading import open_checkpoint
from scorefield.samplers import DPMSolverPP2M, EDMGrid, Sampler


def judge(run: Path, data: Path | None, classifier: Path) -> tuple[int, Features, Moments]:
    """How many samples are compared, in which features, with what."""
    if data is None:
        return (
            1500,
            Pixels(),
            Extractor(Pixels(), keep=0, batch=nfe.BATCH)(open_checkpoint(run).source().load("train")).moments,
        )
    with np.load(data) as file:
        images = {name: torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")}
    images = {name: value[:, None].float() if name[0] == "x" else value.long() for name, value in images.items()}
    features = nfe.classifier(images, classifier)
    return nfe.N, features, nfe.moments(images["x_train"], features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 6, 8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classifier", type=Path, default=Path("nfe") / "classifier.safetensors")
    arguments = parser.parse_args()
    n, features, reference = judge(arguments.run, arguments.data, arguments.classifier)
    for steps in arguments.steps:
        verb = Sample(run=arguments.run, steps=steps, tuned=True, out=Path("unused"))
        rows = {
            "DPM++ 2M, EDM's grid": Sampler(steps, DPMSolverPP2M(), EDMGrid()),
            "DPM++ 2M, its own grid": Sampler(steps, DPMSolverPP2M(), verb.model.stepwise.grid),
            "tuned": verb.sampler_from(verb.model.sampler),
        }
        for name, sampler in rows.items():
            drawn = (
                verb.model.sample(n, seed=seed, sampler=sampler, chunk=nfe.BATCH) for seed in range(arguments.seeds)
            )
            values = [nfe.distance(x, features, reference) for x in drawn]
            print(f"{name:28s}{steps:4d}   {nfe.spread(values)}", flush=True)


if __name__ == "__main__":
    main()
