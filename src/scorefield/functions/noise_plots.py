"""Pictures of a model's noise and of what it does to data, for people who have to choose it; each as PNG and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scorefield.data.fields import FieldDataset
from scorefield.data.picture import save_panels
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.model import Model
from scorefield.run.configuration import Parser

LEVELS = 8  # how many levels of noise
Panel = tuple[str, Tensor, float, float]


def add_arguments(parser: Parser) -> None:
    """Where to, and how many."""
    parser.add_argument("-n", "--number", type=int, default=8, help="how many draws and samples to show")
    parser.add_argument("--seed", type=int, default=0, help="draw i depends on (seed, i) alone")
    parser.add_argument("--device", type=str, default="cpu", help="where to compute")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")


def write_all(folder: Path, model: Model, fields: FieldDataset, *, n: int = 8, seed: int = 0) -> None:
    """`noise`, `covariance`, `noised` and `samples`, each .png and .pdf.

    Args:
        folder: where to.
        model: of the fields.
        fields: held-out data, of which the first is shown under noise.
        n: draws and samples.
        seed: of both.
    """
    if n < 1:
        raise InputError(f"plot needs a --number of at least 1, not {n}.")
    cond = {name: value.to(model.device) for name, value in fields.gather(torch.arange(n) % len(fields)).cond.items()}
    samples = model.sample(n, seed=seed, cond=cond, chunk=n)
    pictures = {
        "noise": draws(model, n, seed),
        "covariance": covariance(model),
        "noised": noised(model, fields, seed),
        "samples": alike("sample", samples),
    }
    for name, panels in pictures.items():
        for suffix in (".png", ".pdf"):
            save_panels(folder / f"{name}{suffix}", panels)


def draws(model: Model, n: int, seed: int) -> Sequence[Panel]:
    """ξ ~ N(0, C)."""
    generator = Generators((seed, i, Stream.NOISE_PLOT) for i in range(n))
    like = torch.empty(0, device=model.device)
    return alike("noise", model.sde.noise.sample((n, *model.shape), generator=generator, like=like).cpu())


def covariance(model: Model) -> Sequence[Panel]:
    """Columns of C, as pictures: the covariance of every point with one in the middle, and with one at a corner."""
    grid = model.shape[1:]
    panels = []
    for name, point in (("middle", [n // 2 for n in grid]), ("corner", [0] * len(grid))):
        one = torch.zeros(1, 1, *grid, dtype=torch.float64)
        one[(0, 0, *point)] = 1
        column = model.sde.noise.covariance(one)
        variance = float(column[(0, 0, *point)])
        panels.append(
            (f"covariance with the {name}, at most {variance:.3g}", column, min(float(column.min()), 0.0), variance)
        )
    return panels


def noised(model: Model, fields: FieldDataset, seed: int) -> Sequence[Panel]:
    """x_t/√(α² + σ²) in data units at growing σ/α, the same noise in all: evenly spread over the logarithm of the ratio."""
    x = model.normaliser.cpu()(fields.gather(torch.tensor([0])).x)
    model.normaliser.to(model.device)
    schedule, panels = model.sde.schedule, []
    noise = model.sde.noise.sample(x.shape, generator=Generators([(seed, 0, Stream.NOISE_PLOT)]), like=x)
    ends = schedule.log_snr(torch.tensor([0.0, 0.999], dtype=torch.float64)).clamp(-14, 14)
    for snr in torch.linspace(float(ends[0]), float(ends[1]), LEVELS, dtype=torch.float64):
        alpha, sigma = schedule(schedule.time(snr))
        x_t = ((alpha * x + sigma * noise) / torch.hypot(alpha, sigma)).to(x)
        shown = model.normaliser.inverse(x_t.to(model.device)).cpu()
        panels.append((f"σ/α = {float((-snr / 2).exp()):.3g}", shown, float(shown.min()), float(shown.max())))
    return panels


def alike(name: str, x: Tensor) -> Sequence[Panel]:
    """A panel for each of some fields, all in one range of values."""
    low, high = float(x.min()), float(x.max())
    return [(f"{name} {i}", each[None], low, high) for i, each in enumerate(x)]
