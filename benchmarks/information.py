"""Up to how much information particles are right: MNIST digits of which averages over the upper half were measured.

    python benchmarks/information.py MNIST.npz [--digits 77] [--prior 2000] [--folder kept] [--out information.md]

The prior is the model `mnist` that is shipped, by the steps that particles take. Draws of it, weighted by p(y | x), are its
posterior, exactly, as long as enough of them count; where they do not, two long runs of particles take their place, and how far
these are apart is told. Information is KL(p(x | y) ‖ p(x)) = E[log p(y | x) | y] − log p(y), in nats.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import scorefield as sf
from completions import Frequencies, apart, classifier, shown
from scorefield.foundation.files import replacing, write_json, write_text
from scorefield.inverse import particle_sampler

NOISE = 40.0  # of 255, of each average
ROWS = 14  # that are seen, from above
BOXES = {7: (14, 4), 14: (7, 4), 28: (7, 2), 56: (7, 1), 98: (2, 2), 392: (1, 1)}  # of pixels, by how many there are
KNOWN = 10_000  # digits that the judge of classes learns from
ENOUGH = 100.0  # draws of the prior that have to count
COUNTS = (20, 100, 400)
METHODS = {"DPS": sf.DPS(), "PiGDM": sf.PiGDM(), "MomentMatching": sf.MomentMatching()}


class Averaged:
    """One digit, of whose upper half averages over boxes were measured."""

    def __init__(self, model: sf.Model, digit: Tensor, box: tuple[int, int], judge: Callable[[Tensor], Tensor]) -> None:
        def averages(x: Tensor) -> Tensor:
            return nn.functional.avg_pool2d(x[..., :ROWS, :], box)

        self.model, self.judge, self.averages = model, judge, averages
        self.operator = sf.as_operator(averages, shape=(1, 28, 28))
        y = averages(digit)
        self.y = y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))

    def log_likelihood(self, x: Tensor) -> Tensor:
        square = (self.y - self.averages(x)).double().square().flatten(1).sum(1)
        return -0.5 * square / NOISE**2 - self.y.numel() * math.log(math.sqrt(2 * math.pi) * NOISE)

    def frequencies(self, x: Tensor, log_weights: Tensor | None = None) -> Frequencies:
        classes = nn.functional.one_hot(self.judge(x / 255).argmax(1), 10).double()
        return classes.mean(0) if log_weights is None else log_weights.double().softmax(0) @ classes

    def information(self, x: Tensor, log_weights: Tensor, log_evidence: float) -> float:
        return float(log_weights.double().softmax(0) @ self.log_likelihood(x)) - log_evidence

    def exact(self, x: Tensor, classes: Tensor) -> tuple[Frequencies, float, float]:
        """By draws of the prior: frequencies, how many draws count, information."""
        log = self.log_likelihood(x)
        weights = log.softmax(0)
        found = self.information(x, log, float(log.logsumexp(0)) - math.log(len(x)))
        return weights @ classes, float(1 / weights.square().sum()), found

    def drawn(self, method: sf.Method, n: int, seed: int) -> Frequencies:
        how = {"method": method, "seed": seed, "sampler": particle_sampler(self.model), "chunk": 100}
        return self.frequencies(sf.posterior(self.model, self.operator, self.y, NOISE, n=n, **how))

    def weighed(self, count: int, seed: int) -> tuple[Frequencies, float, float]:
        """By particles: frequencies, how many count where the fewest do, information."""
        how = {"method": sf.PiGDM(), "seed": seed, "chunk": 100}
        run = sf.weighed(self.model, self.operator, self.y, NOISE, particles=count, **how)
        found = self.information(run.x, run.log_weights, run.log_evidence)
        return self.frequencies(run.x, run.log_weights), min(run.effective), found


def prior_draws(model: sf.Model, n: int, judge: Callable[[Tensor], Tensor], folder: Path) -> tuple[Tensor, Tensor]:
    """Fields and their classes, in pieces of 1000 that are kept: a call goes on where another one stopped."""
    found = []
    for start in range(0, n, 1000):
        path = folder / f"prior-{start}.npy"
        if not path.exists():
            x = model.sample(1000, seed=1000 + start, sampler=particle_sampler(model), chunk=250)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, x.numpy().astype(np.float16))
        found.append(torch.from_numpy(np.load(path)).float())
    x = torch.cat(found)
    return x, nn.functional.one_hot(torch.cat([judge(part / 255).argmax(1) for part in x.split(1000)]), 10).double()


def row(case: Averaged, prior: tuple[Tensor, Tensor], reference: int, draws: int) -> dict[str, object]:
    """All of one digit, as JSON has it; seconds are of the CPU."""
    frequencies, counted, nats = case.exact(*prior)
    told = f"{counted:.0f} draws of the prior"
    if counted < ENOUGH:
        pair = [case.weighed(reference, 10 + seed) for seed in range(2)]
        frequencies, nats = (pair[0][0] + pair[1][0]) / 2, sum(one[2] for one in pair) / 2
        told = f"two runs, {apart(pair[0][0], pair[1][0]):.2f} apart"
    found: dict[str, object] = {"nats": nats, "classes": shown(frequencies), "reference": told}
    for name, method in METHODS.items():
        started = time.process_time()
        off = apart(case.drawn(method, draws, 0), frequencies)
        found[name] = {"off": off, "seconds": time.process_time() - started}
    for count in COUNTS if counted >= ENOUGH else COUNTS[:-1]:
        started, seeds = time.process_time(), range(1 if count > 100 else 2)
        each = [case.weighed(count, seed) for seed in seeds]
        seconds = (time.process_time() - started) / len(seeds)
        off = float(np.mean([apart(one[0], frequencies) for one in each]))
        found[str(count)] = {"off": off, "counted": min(one[1] for one in each), "seconds": seconds}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--digits", type=int, nargs="+", default=[77], help="of the test set")
    parser.add_argument(
        "--values", type=int, nargs="+", default=list(BOXES), choices=list(BOXES), help="how many averages"
    )
    parser.add_argument("--prior", type=int, default=2000, help="draws of the prior")
    parser.add_argument("--reference", type=int, default=400, help="particles of each of the two runs")
    parser.add_argument("--draws", type=int, default=50, help="of a method as it is")
    parser.add_argument("--folder", type=Path, default=Path("information"), help="what is there is not computed again")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with np.load(given.data) as found:
        train, labels = torch.from_numpy(found["x_train"][:KNOWN])[:, None] / 255, torch.from_numpy(found["y_train"])
        held, classes = torch.from_numpy(found["x_test"])[:, None].float(), torch.from_numpy(found["y_test"])
    model, judge = sf.load("mnist"), classifier(train, labels[:KNOWN].long(), 0)
    right = float((judge(held[:2000] / 255).argmax(1) == classes[:2000]).double().mean())
    print(f"the judge is right on {right:.1%} of 2000 test digits", flush=True)
    prior = prior_draws(model, given.prior, judge, given.folder)
    head = ["values", "digit", "nats", "classes", "by", *METHODS, *(f"{count} particles" for count in COUNTS)]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    seconds: dict[str, list[float]] = {}
    for values in given.values:
        for index in given.digits:
            path = given.folder / f"row-{values}-{index}.json"
            if not path.exists():
                case = Averaged(model, held[index : index + 1], BOXES[values], judge)
                write_json(path, row(case, prior, given.reference, given.draws))
            found = json.loads(path.read_text())
            cells = [str(values), str(index), f"{found['nats']:.1f}", found["classes"], found["reference"]]
            cells += [f"{found[name]['off']:.2f}" for name in METHODS]
            known = [found.get(str(count)) for count in COUNTS]
            cells += ["" if one is None else f"{one['off']:.2f} ({one['counted']:.0f})" for one in known]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
            for name in {*METHODS, *map(str, COUNTS)} & set(found):
                seconds.setdefault(name, []).append(found[name]["seconds"])
    cost = ", ".join(f"{name} {np.mean(found):.1f}" for name, found in seconds.items())
    text = "\n".join([*lines, "", f"CPU seconds of {given.draws} draws, or of so many particles: {cost}."]) + "\n"
    print(text)
    if given.out is not None:
        write_text(given.out, text)


if __name__ == "__main__":
    main()
