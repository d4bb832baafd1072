"""Averages of the weights of several widths, made after one training, by the Fréchet distance of pixels of digits.

    scorefield train digits --train.ema_widths [0.05,0.1] --out RUN
    python benchmarks/averages.py RUN [--widths 0.04 0.05 0.07 0.1 0.15 0.2] [--seeds 2]

1500 samples of the run's own sampler against the digits of training, as in few.md; its exponential average is the first row.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import scorefield
from scorefield.jobs.evaluation.extract import Extractor, in_memory
from scorefield.metrics.features import Pixels
from scorefield.metrics.frechet import frechet_distance
from scorefield.run.loading import open_checkpoint

N = 1500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--widths", type=float, nargs="+", default=[0.04, 0.05, 0.07, 0.1, 0.15, 0.2])
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    extract = Extractor(Pixels(), keep=0, batch=500)
    fields = open_checkpoint(arguments.run).source().load("train")
    reference = extract(fields).moments
    for width in (None, *arguments.widths):
        model = scorefield.load(arguments.run, ema_width=width)
        drawn = (model.sample(N, seed=seed, chunk=500) for seed in range(arguments.seeds))
        values = [frechet_distance(extract(in_memory(x)).moments, reference) for x in drawn]
        print(width or "exponential", " ".join(f"{value:.1f}" for value in values), flush=True)


if __name__ == "__main__":
    main()
