"""Quality against network evaluations: the published predictor-corrector sampler beside faster ones, on one model of MNIST.

    scorefield train mnist --data Arrays --data.path $SCOREFIELD_DATA/images/mnist_70k.npz --out runs/mnist
    python benchmarks/nfe.py runs/mnist --data $SCOREFIELD_DATA/images/mnist_70k.npz [--out benchmarks/nfe.md]

Each cell is the Fréchet distance of 1000 samples to the 60 000 training images in the features of a small classifier of MNIST,
for three seeds. The law is VE from 0.01 to 50 for all. Samples are kept in RUN/nfe: what is there is not computed again.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import scorefield
from scorefield.foundation.files import replacing, write_text
from scorefield.jobs.draws import count_evaluations
from scorefield.jobs.evaluation.extract import Extractor, in_memory
from scorefield.metrics.features import Classifier, train_classifier
from scorefield.metrics.frechet import Moments, frechet_distance
from scorefield.model import Model
from scorefield.samplers import (
    DDIM,
    Ancestral,
    DPMSolverPP2M,
    EDMGrid,
    Heun,
    Langevin,
    ReverseDiffusion,
    Sampler,
    StochasticHeun,
    UniformGrid,
)

BATCH = 500
BUDGETS = (8, 12, 18, 26, 35, 40, 50, 100)
TARGET = 40  # evaluations
PUBLISHED = "PC, reverse diffusion and Langevin"
N = 1000


def samplers() -> dict[str, list[Sampler]]:
    """The published ones with a thousand levels, and for each fast step the largest number of steps within each budget."""
    fast = {
        "DDIM": DDIM(),
        "DPM++ 2M": DPMSolverPP2M(),
        "Heun": Heun(),
        "stochastic Heun, churn 0.2": StochasticHeun(churn=0.2),
    }
    per_step = {"DDIM": 1, "DPM++ 2M": 1}
    rows = {
        name: [Sampler((budget + 1) // 2 if name not in per_step else budget, step, EDMGrid()) for budget in BUDGETS]
        for name, step in fast.items()
    }
    for eta in (1, 2):  # η and ρ were chosen with seed 7, which is none of those below
        name = f"DPM++ 2M SDE, η = {eta}, ρ = 4"
        rows[name] = [Sampler(budget, DPMSolverPP2M(eta=eta), EDMGrid(rho=4)) for budget in BUDGETS]
    rows["ancestral"] = [Sampler(1000, Ancestral(), UniformGrid(1e-5))]
    rows[PUBLISHED] = [Sampler(1000, ReverseDiffusion(), UniformGrid(1e-5), Langevin(0.16))]
    return rows


def drawn(model: Model, sampler: Sampler, seed: int, path: Path) -> Tensor:
    """The samples of a seed, from the file if there is one."""
    if not path.exists():
        x = model.sample(N, seed=seed, sampler=sampler, chunk=BATCH)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, x.numpy())
    return torch.from_numpy(np.load(path))


def classifier(images: dict[str, Tensor], path: Path) -> Classifier:
    if not path.exists():
        train = (images["x_train"], images["y_train"])
        train_classifier(train, (images["x_test"], images["y_test"]), classes=10).save(path)
    return Classifier.load(path)


def distance(x: Tensor, features: Classifier, reference: Moments) -> float:
    return frechet_distance(moments(x, features), reference)


def moments(x: Tensor, features: Classifier) -> Moments:
    return Extractor(features, keep=0, batch=BATCH)(in_memory(x)).moments


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def measure(model: Model, folder: Path, features: Classifier, reference: Moments, seeds: int) -> list[tuple]:
    """(name, evaluations, distances, seconds) of every cell."""
    found = []
    for name, row in samplers().items():
        for sampler in row:
            count, started = count_evaluations(model, sampler), time.perf_counter()
            paths = [folder / f"{name.replace(' ', '-').replace(',', '')}-{count}-{seed}.npy" for seed in range(seeds)]
            values = [
                distance(drawn(model, sampler, seed, path), features, reference) for seed, path in enumerate(paths)
            ]
            found.append((name, count, values))
            seconds = time.perf_counter() - started
            print(f"{name:36s}{count:6d}   {spread(values):16s}{seconds:8.0f} s", flush=True)
    return found


def page(found: list[tuple], facts: str, floor: list[float]) -> str:
    """The table, and what it says of the target."""
    lines = ["# Quality against network evaluations", "", *facts.splitlines(), ""]
    lines += ["| evaluations, at most | " + " | ".join(f"{budget}" for budget in BUDGETS) + " |"]
    lines += ["| --- " * (len(BUDGETS) + 1) + "|"]
    names = list(dict.fromkeys(name for name, count, _ in found if count <= max(BUDGETS)))
    cells = {(name, count): spread(values) for name, count, values in found}
    for name in names:  # a budget of an even number leaves the methods that evaluate twice a step one short of it
        row = [cells.get((name, budget)) or cells[name, budget - 1] for budget in BUDGETS]
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    lines += ["", "| sampler | evaluations | Fréchet distance |", "| --- | --- | --- |"]
    lines += [f"| {name} | {count} | {spread(values)} |" for name, count, values in found if count > max(BUDGETS)]
    lines += [f"| test images themselves, three sets of {N} | | {spread(floor)} |", ""]
    (published,) = [values for name, _, values in found if name == PUBLISHED]
    best = min((cell for cell in found if cell[1] <= TARGET), key=lambda cell: statistics.mean(cell[2]))
    reached = [cell for cell in found if statistics.mean(cell[2]) <= statistics.mean(published)]
    lines.append(f"Within {TARGET} evaluations {best[0]} with {best[1]} is best: {spread(best[2])}.")
    lines.append(f"The published sampler reaches {spread(published)}.")
    if reached:
        first = min(reached, key=lambda cell: cell[1])
        lines.append(f"The first to be as good is {first[0]}, with {first[1]} evaluations.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--step", type=int, default=None, help="of which checkpoint; the last one by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None, help="Markdown file to write")
    arguments = parser.parse_args()
    with np.load(arguments.data) as file:
        images = {name: torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")}
    images = {name: value[:, None].float() if name[0] == "x" else value.long() for name, value in images.items()}
    folder = arguments.run / "nfe"
    features = classifier(images, folder / "classifier.safetensors")
    reference = moments(images["x_train"], features)
    floor = [distance(part, features, reference) for part in images["x_test"][: 3 * N].split(N)]
    model = scorefield.load(arguments.run, step=arguments.step)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.denoiser(torch.zeros(1, *model.shape), torch.full((1,), 0.5))
    found = measure(model, folder, features, reference, arguments.seeds)
    facts = f"""\
Fréchet distance of {N} samples to 60 000 training images of MNIST, mean ± standard deviation over {arguments.seeds} seeds, in the
{len(reference.mean)} features of a classifier that is right for {100 * features.accuracy:.1f} % of the test images (sha256
{features.hash[:16]}). n = {N} is biased upward, for all alike. One model for all: the recipe `mnist`,
{sum(p.numel() for p in model.denoiser.parameters()):,} parameters, {counter.get_total_flops() / 1e6:.0f} MFLOP an evaluation; \
VE law from 0.01 to 50, fast samplers on EDM's grid.
`python benchmarks/nfe.py RUN --data mnist_70k.npz`; torch {torch.__version__}, {platform.machine()}, \
{torch.get_num_threads()} thread."""
    text = page(found, facts, floor)
    print(text)
    if arguments.out is not None:
        write_text(arguments.out, text)


if __name__ == "__main__":
    main()
