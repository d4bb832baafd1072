"""MNIST digits whose lower half is hidden: how often the completions are of which class.

    python benchmarks/completions.py MNIST.npz [--digits 3] [--reference 800] [--out completions.md]

The prior is the model `mnist` that is shipped. Frequencies of classes are compared with a long run of particles, and with a
network that was trained to tell the class from noisy upper halves, which knows the data and not the prior.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import scorefield as sf
from scorefield.foundation.files import write_text

NOISE = 16.0  # of 255
ROWS = 14  # that are seen, from above
LIKELY = 0.6  # of the likeliest class, at most: the completion is ambiguous
Frequencies = Tensor  # of the ten classes


def classifier(images: Tensor, labels: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
    """Probabilities of the classes, by a network of 0.2 M parameters: three epochs."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.SiLU(), nn.Conv2d(24, 24, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2),
        nn.Conv2d(24, 48, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.LazyLinear(96), nn.SiLU(), nn.Dropout(0.3), nn.Linear(96, 10),
    )  # fmt: skip
    net(images[:1])
    epochs, batch = 3, 128
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        at = torch.randint(len(images), (batch,), generator=torch.Generator().manual_seed(step))
        noisy = images[at] + NOISE / 255 * torch.randn(images[at].shape)
        nn.functional.cross_entropy(net(noisy), labels[at]).backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    net.eval().requires_grad_(False)
    return lambda x: torch.cat([net(part).softmax(1) for part in x.split(500)])


class Hidden:
    """One digit of which the upper half was measured."""

    def __init__(self, model: sf.Model, y: Tensor, judge: Callable[[Tensor], Tensor]) -> None:
        seen = torch.zeros(1, 28, 28)
        seen[:, :ROWS] = 1
        self.model, self.mask, self.judge = model, sf.Mask(seen), judge
        self.y = torch.where(seen.bool(), y, torch.nan)

    def drawn(self, method: sf.Method, n: int, steps: int, seed: int) -> tuple[Frequencies, float]:
        """Of n draws by a method as it is."""
        how = {"method": method, "seed": seed, "sampler": self.sampler(steps), "chunk": 100}
        return self.frequencies(sf.posterior(self.model, self.mask, self.y, NOISE, n=n, **how)), float(n)

    def weighed(self, count: int, steps: int, seed: int) -> tuple[Frequencies, float]:
        """Of so many particles by PiGDM, and how many of them counted where the fewest did."""
        how = {"method": sf.PiGDM(), "seed": seed, "sampler": self.sampler(steps), "chunk": 100}
        run = sf.weighed(self.model, self.mask, self.y, NOISE, particles=count, **how)
        return self.frequencies(run.x, run.log_weights.exp()), min(run.effective)

    def sampler(self, steps: int) -> sf.Sampler:
        return sf.Sampler(steps, sf.DPMSolverPP2M(eta=1.0), self.model.sampler.grid)

    def frequencies(self, x: Tensor, weights: Tensor | None = None) -> Frequencies:
        classes = nn.functional.one_hot(self.judge(x / 255).argmax(1), 10).double()
        return classes.mean(0) if weights is None else weights.double() @ classes


def apart(one: Frequencies, other: Frequencies) -> float:
    """Total variation, 0 to 1."""
    return float((one - other).abs().sum()) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--digits", type=int, default=3)
    parser.add_argument("--reference", type=int, default=800, help="particles of the long run")
    parser.add_argument("--draws", type=int, default=200, help="of a method as it is")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    with np.load(given.data) as found:
        train, labels = torch.from_numpy(found["x_train"])[:, None] / 255, torch.from_numpy(found["y_train"]).long()
        held = torch.from_numpy(found["x_test"])[:, None].float()
    model, judge = sf.load("mnist"), classifier(train, labels, 0)
    y = held + NOISE * torch.from_numpy(np.random.default_rng(0).standard_normal(held.shape)).float()
    told = classifier(train[..., :ROWS, :], labels, 1)(y[..., :ROWS, :] / 255)
    ways: dict[str, Callable[[Hidden, int], tuple[Frequencies, float]]] = {}
    for method in (sf.DPS(), sf.PiGDM(), sf.MomentMatching()):
        name = f"{type(method).__name__}, {given.draws} draws, 18 steps"
        ways[name] = lambda case, seed, method=method: case.drawn(method, given.draws, 18, seed)
    for count, steps in ((20, 18), (100, 18), (100, 40), (400, 40)):
        name = f"{count} particles by PiGDM, {steps} steps"
        ways[name] = lambda case, seed, count=count, steps=steps: case.weighed(count, steps, seed)
    digits, rows = [], {name: [] for name in ways}
    for index in torch.nonzero(told.max(1).values < LIKELY)[: given.digits, 0].tolist():
        case = Hidden(model, y[index : index + 1], judge)
        (first, fewest), (second, fewer) = (case.weighed(given.reference, 60, 10 + seed) for seed in range(2))
        reference = (first + second) / 2
        cells = (
            str(index),
            shown(told[index]),
            shown(reference),
            f"{apart(first, second):.2f}",
            f"{min(fewest, fewer):.0f}",
        )
        digits.append(f"| {' | '.join(cells)} |")
        print(digits[-1], flush=True)
        for name, way in ways.items():
            for seed in range(given.seeds):
                started = time.process_time()
                frequencies, effective = way(case, seed)
                seconds = time.process_time() - started
                rows[name].append((apart(frequencies, reference), apart(frequencies, told[index]), effective, seconds))
            print(name, [round(value, 3) for value in np.mean(rows[name], 0)], flush=True)
    lines = ["| held-out digit | classes by its upper half | by the long run | two of these apart | fewest effective |"]
    lines += ["| --- | --- | --- | --- | --- |", *digits, ""]
    lines += ["| | from the long run | from the data's | fewest effective | CPU s |", "| --- | --- | --- | --- | --- |"]
    for name, values in rows.items():
        off, data_off, effective, seconds = np.mean(values, 0)
        lines.append(f"| {name} | {off:.2f} | {data_off:.2f} | {effective:.0f} | {seconds:.1f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if given.out is not None:
        write_text(given.out, text)


def shown(frequencies: Frequencies) -> str:
    """The classes of more than 3 %, the most frequent first."""
    order = frequencies.argsort(descending=True).tolist()
    return ", ".join(f"{k}: {float(frequencies[k]):.2f}" for k in order if frequencies[k] > 0.03)


if __name__ == "__main__":
    main()
