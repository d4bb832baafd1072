"""MNIST digits whose lower half is hidden: of which class are the completions, and how often?

    python benchmarks/completions.py MNIST.npz [--digits 4] [--reference 1000] [--out completions.md]

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--digits", type=int, default=4)
    parser.add_argument("--reference", type=int, default=1000, help="particles of the long run")
    parser.add_argument("--draws", type=int, default=200, help="of a method as it is")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    with np.load(given.data) as found:
        train, labels = torch.from_numpy(found["x_train"])[:, None] / 255, torch.from_numpy(found["y_train"]).long()
        held = torch.from_numpy(found["x_test"])[:, None].float()
    model = sf.load("mnist")
    whole = classifier(train, labels, 0)
    half = classifier(train[..., :ROWS, :], labels, 1)
    seen = torch.zeros(1, 28, 28)
    seen[:, :ROWS] = 1
    y = held + NOISE * torch.from_numpy(np.random.default_rng(0).standard_normal(held.shape)).float()
    told = half(y[..., :ROWS, :] / 255)
    chosen = torch.nonzero(told.max(1).values < LIKELY)[: given.digits, 0].tolist()
    steps = sf.DPMSolverPP2M(eta=1.0)
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    pairs: list[str] = []

    def frequencies(x: Tensor, weights: Tensor | None = None) -> Frequencies:
        classes = nn.functional.one_hot(whole(x / 255).argmax(1), 10).double()
        return classes.mean(0) if weights is None else weights.double() @ classes

    def weighed(y: Tensor, method: sf.Method, count: int, seed: int, steps_: int) -> tuple[Frequencies, float]:
        sampler = sf.Sampler(steps_, steps, model.sampler.grid)
        run = sf.weighed(
            model, sf.Mask(seen), y, NOISE, method=method, particles=count, seed=seed, sampler=sampler, chunk=100
        )
        return frequencies(run.x, run.log_weights.exp()), min(run.effective)

    for index in chosen:
        measured = torch.where(seen.bool(), y[index : index + 1], torch.nan)
        long = [weighed(measured, sf.PiGDM(), given.reference, 10 + seed, 60) for seed in range(2)]
        reference = (long[0][0] + long[1][0]) / 2
        spread = float((long[0][0] - long[1][0]).abs().sum()) / 2
        pairs.append(f"| {index} | {shown(told[index])} | {shown(reference)} | {spread:.2f} | {min(long[0][1], long[1][1]):.0f} |")
        print(pairs[-1], flush=True)

        def compare(
            name: str,
            run: Callable[[int], tuple[Frequencies, float]],
            index: int = index,
            reference: Frequencies = reference,
        ) -> None:
            for seed in range(given.seeds):
                started = time.process_time()
                found, effective = run(seed)
                seconds = time.process_time() - started
                off = float((found - reference).abs().sum()) / 2, float((found - told[index]).abs().sum()) / 2
                rows.setdefault(name, []).append((*off, effective, seconds))
            print(name, [round(value, 3) for value in np.mean(rows[name], 0)], flush=True)

        for method in (sf.DPS(), sf.PiGDM(), sf.MomentMatching()):

            def plain(seed: int, method: sf.Method = method, y: Tensor = measured) -> tuple[Frequencies, float]:
                sampler = sf.Sampler(18, steps, model.sampler.grid)
                x = sf.posterior(
                    model, sf.Mask(seen), y, NOISE, method=method, n=given.draws, seed=seed, sampler=sampler, chunk=100
                )
                return frequencies(x), float(given.draws)

            compare(f"{type(method).__name__}, {given.draws} draws, 18 steps", plain)
        for count, many in ((20, 18), (100, 18), (100, 40), (400, 40)):

            def particles(
                seed: int, count: int = count, many: int = many, y: Tensor = measured
            ) -> tuple[Frequencies, float]:
                return weighed(y, sf.PiGDM(), count, seed, many)

            compare(f"{count} particles by PiGDM, {many} steps", particles)
    lines = ["| held-out digit | classes by its upper half | by the long run | two of these apart | fewest effective |"]
    lines += ["| --- | --- | --- | --- | --- |", *pairs, ""]
    lines += ["| | from the long run | from the data's | fewest effective | CPU s |", "| --- | --- | --- | --- | --- |"]
    for name, values in rows.items():
        reference_off, data_off, effective, seconds = np.mean(values, 0)
        lines.append(f"| {name} | {reference_off:.2f} | {data_off:.2f} | {effective:.0f} | {seconds:.1f} |")
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
