"""How fast gridded fields are read: samples/s of the loader against indexing the same arrays in memory, and the waiting's share.

    python benchmarks/climate_loader.py precip-edm t2m-edm [--memory 0]

A training step is made as the recipe says, on one thread; its batches are read in the same process, as by default.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import islice

import torch

from scorefield.data import Loader
from scorefield.run import experiment as run
from scorefield.run import recipe
from scorefield.run.configuration import find_recipe, read_recipe
from scorefield.training.state import State, launch


def timed(batches: Iterator[object], n: int) -> float:
    next(batches)
    started = time.perf_counter()
    for _ in islice(batches, n):
        pass
    return (time.perf_counter() - started) / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--memory", type=float, default=4.0, help="GiB that fields may take; 0: read as they are asked for"
    )
    parser.add_argument("--batches", type=int, default=50, help="to time the loader by")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    print("| recipe | fields | in memory, samples/s | loader, samples/s | seconds a step | share of waiting |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in settings.recipes:
        own = recipe.recipe_parser()
        content = read_recipe(find_recipe(name))
        content["data"]["init_args"]["memory"] = settings.memory
        groups = own.read_object(content, name)
        experiment = run.prepare(own, groups)
        trainer, fields = experiment.trainer, experiment.train
        size = trainer.batch_size
        whole = fields.gather(torch.arange(len(fields)))
        x, cond = whole.x, whole.cond["field"]
        order = (torch.randint(len(x), (size,)) for _ in iter(int, 1))
        memory = timed(((x[rows], cond[rows]) for rows in order), 50)
        batches = iter(Loader(fields, size, augment=trainer.augment))
        loader = timed(batches, settings.batches)
        state = State(experiment.model, trainer.optimiser, trainer.ema, 0, launch("cpu", 1, 1, trainer.precision))
        steps = (state.advance([next(batches)], trainer.loss, clip=trainer.clip, steps=100) for _ in iter(int, 1))
        step = timed(steps, settings.steps)
        row = (
            f"| {name} | {len(fields)} | {size / memory:.0f} | {size / loader:.0f} | {step:.3f} | {loader / step:.2%} |"
        )
        print(row)


if __name__ == "__main__":
    main()
