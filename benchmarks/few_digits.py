"""Digits in few evaluations, by the Fréchet distance of pixels and by nearest neighbours.

    python benchmarks/few_digits.py RUN [--steps 1 2 4] [--low 0.3 1.0] [--renoise 1.0] [--seeds 3]
    python benchmarks/few_digits.py RUN --own              # as the run draws by itself

1500 samples a seed against the digits of training, and the first 500 of them against the digits held out by the accuracy of the
nearest-neighbour test, where 0.5 is best. Mean ± standard deviation over seeds of sampling.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

import scorefield
from scorefield.jobs.evaluation.extract import Extractor, in_memory
from scorefield.metrics.features import Pixels
from scorefield.metrics.frechet import frechet_distance
from scorefield.metrics.neighbours import two_sample_accuracy
from scorefield.run.loading import open_checkpoint
from scorefield.samplers import EDMGrid, Jump, Sampler

N = 1500


def samplers(arguments: argparse.Namespace, own: Sampler) -> Iterator[tuple[str, Sampler]]:
    """What is drawn by, with a name."""
    if arguments.own:
        yield "its own", own
    else:
        for steps in arguments.steps:
            for low in arguments.low if steps > 1 else arguments.low[:1]:
                yield f"low {low:g}", Sampler(steps, Jump(arguments.renoise), EDMGrid(ratio_min=low))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--low", type=float, nargs="+", default=[0.3, 1.0], help="lowest levels σ/α of the grid")
    parser.add_argument("--renoise", type=float, default=1.0)
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    extract = Extractor(Pixels(), keep=0, batch=500)
    source = open_checkpoint(arguments.run).source()
    fields, held_out = source.load("train"), source.load("valid")
    reference = extract(fields).moments
    beside = held_out.gather(torch.arange(len(held_out))).x.flatten(1)
    print(f"{'held out':14s}      {frechet_distance(extract(held_out).moments, reference):7.2f}")
    model = scorefield.load(arguments.run)
    for name, sampler in samplers(arguments, model.sampler):
        distances, accuracies = [], []
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            x = model.sample(N, seed=seed, sampler=sampler, chunk=500)
            distances.append(frechet_distance(extract(in_memory(x)).moments, reference))
            accuracies.append(two_sample_accuracy(x.flatten(1)[: len(beside)], beside).accuracy)
        d, a = (torch.tensor(values) for values in (distances, accuracies))
        each = " ".join(f"{value:.1f}" for value in distances)
        print(
            f"{name:14s}{sampler.steps:4d}  {d.mean():7.2f} ± {d.std():.2f} ({each})   1-NN {a.mean():.3f} ± {a.std():.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
