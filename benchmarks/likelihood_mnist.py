"""Bits per dimension on MNIST test images: {VE, VP, sub-VP} × {without, with likelihood weighting}, trained for CPU-minutes.

    SCOREFIELD_DATA=... python benchmarks/likelihood_mnist.py [--minutes 10] [--images 200] [--repeats 2] [--out mnist.json]

Each model is the same small NCSN++, trained on the 60 000 training images, dequantised uniformly and standardised, for a budget
of process CPU time in mixed bf16; its averaged weights are measured in float32. All train and are measured on the same range of
noise, from σ/α = 0.001, a tenth of a grey level. Without weighting t is uniform and λ = σ²; with it, times are drawn by
importance and the weight is g².
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch

from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.schedule import VE, VP, Schedule, SubVP
from scorefield.core.sde import SDE
from scorefield.data import Standardise
from scorefield.data.augment import Dequantise
from scorefield.data.batch import Batch
from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.foundation.random import Generators
from scorefield.jobs.likelihood import measure
from scorefield.losses import SNR, Denoising, ImportanceSampled, ImportanceSampledLikelihood, UniformTime
from scorefield.model import Model
from scorefield.nn import NCSNpp
from scorefield.samplers import ProbabilityFlow
from scorefield.training.ema import EMA

LEAST = 1e-3  # σ/α where training and the flow end
LEARNING_RATE, WARMUP, BATCH, DECAY = 1e-3, 0.02, 32, 0.999
SCHEDULES: dict[str, Schedule] = {"VE": VE(LEAST, 50.0), "VP": VP(), "sub-VP": SubVP()}


def images(folder: Path) -> tuple[FieldDataset, FieldDataset]:
    """Training and test images, whole numbers 0 to 255."""
    with np.load(folder / "images" / "mnist_70k.npz") as file:
        return ArrayFields(file["x_train"], "none"), ArrayFields(file["x_test"], "none")


def loss_for(schedule: Schedule, weighted: bool) -> Denoising:
    t_min = float(schedule.time(torch.tensor(-2 * math.log(LEAST), dtype=torch.float64)))
    if weighted:
        return Denoising(ImportanceSampled(t_min), ImportanceSampledLikelihood(t_min))
    return Denoising(UniformTime(t_min), SNR())


def untrained(schedule: Schedule, data: FieldDataset, seed: int) -> Model:
    torch.manual_seed(seed)
    net = NCSNpp(
        1,
        1,
        channels=32,
        multipliers=(1, 2, 2),
        blocks=1,
        attention=(2,),
        dropout=0.0,
        filter="box",
        progressive_input="none",
    )
    model = Model(SDE(schedule), net, EDMPreconditioner(1.0), Standardise(), shape=data[0].x.shape)
    model.normaliser.fit(data.gather(part) for part in torch.arange(len(data)).split(5000))
    return model


def train(model: Model, loss: Denoising, data: FieldDataset, seconds: float, seed: int) -> tuple[int, EMA]:
    """Optimiser steps until the budget of CPU time is spent; the learning rate falls with what is left of it."""
    parameters = list(model.denoiser.parameters())
    optimiser, average = torch.optim.Adam(parameters, lr=LEARNING_RATE), EMA(model.denoiser, DECAY)
    chooser, started, step = torch.Generator().manual_seed(seed), time.process_time(), 0
    model.train()
    while (spent := (time.process_time() - started) / seconds) < 1:
        indices = torch.randint(len(data), (BATCH,), generator=chooser)
        batch = Batch(data.gather(indices).x, key=torch.stack((indices, torch.full_like(indices, step)), dim=1))
        batch = Dequantise(data.quantum)(batch, seed).normalised(model.normaliser)
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model.denoiser, batch, generator=Generators((seed, step, row) for row in range(BATCH))).mean()
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(spent / WARMUP, 0.5 + 0.5 * math.cos(math.pi * spent))
        optimiser.step()
        average.update(step)
        step += 1
    return step, average


def one(name: str, weighted: bool, arguments: argparse.Namespace) -> dict[str, object]:
    data, test = images(Path(os.environ["SCOREFIELD_DATA"]))
    model = untrained(SCHEDULES[name], data, arguments.seed)
    loss = loss_for(SCHEDULES[name], weighted)
    steps, average = train(model, loss, data, 60 * arguments.minutes, arguments.seed)
    flow = ProbabilityFlow(arguments.tolerance, ratio_min=LEAST)
    started = time.process_time()
    with average.applied():
        record = measure(
            model.eval(), test, arguments.images, repeats=arguments.repeats, flow=flow, seed=arguments.seed
        )
    for bulky in ("nats_per_field", "indices"):
        del record[bulky]
    seconds = time.process_time() - started
    return {"schedule": name, "weighted": weighted, "loss": repr(loss), "steps": steps, **record, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of CPU time per model")
    parser.add_argument("--images", type=int, default=200, help="test images")
    parser.add_argument("--repeats", type=int, default=2, help="draws of dequantisation and probes for each")
    parser.add_argument("--tolerance", type=float, default=3e-4, help="of a step, in nats per dimension")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(SCHEDULES), help="schedules")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.minutes:g} CPU-minutes each; {platform.machine()}, torch {torch.__version__}", flush=True)
    print(f"{'':10s}{'weighting':12s}{'steps':>6s}   bits per dimension     evaluations")
    records = []
    for name in arguments.only:
        for weighted in (False, True):
            records.append(record := one(name, weighted, arguments))
            bits, counts = record["bits_per_dimension"], record["evaluations"]
            figure = f"{bits['mean']:.3f} ± {bits['standard_error']:.3f}"
            label = "likelihood" if weighted else "λ = σ²"
            print(f"{name:10s}{label:12s}{record['steps']:6d}   {figure:20s}   {counts['mean']:.0f}", flush=True)
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
