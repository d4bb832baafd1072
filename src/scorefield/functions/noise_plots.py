"""Pictures of a model's noise and of what it does to data, for people who have to choose it; each as PNG and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scorefield.data.fields import FieldDataset
from scorefield.data.picture import save_panels
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.jobs.options import OnRun
from scorefield.model import Model
from scorefield.run.runner import RECORD, check_out
from scorefield.run.verb import Count, Seed, log, option

LEVELS = 8  # how many levels of noise
Panel = tuple[str, Tensor, float, float]


@dataclass(frozen=True, kw_only=True)
class Plot(OnRun):
    """Picture the noise of a run, its covariance, an example under growing noise, and samples; as PNG and PDF.

    Args:
        n: how many draws and samples to show.
        seed: draw i depends on (seed, i) alone.
        out: folder to write: `noise`, `covariance`, `noised` and `samples`, each .png and .pdf.
    """

    n: Count = option("-n", "--number", default=8)
    seed: Seed = 0
    out: Path

    def check(self) -> None:
        check_out(self.out, folder=True)
        if (self.out / RECORD).exists():
            raise InputError(f"{self.out} holds what another verb drew: give another --out.")

    def run(self) -> Path:
        model, n = self.model, self.n
        fields = self.checkpoint.source(self.trust).load("valid")
        cond = model.taken(fields.gather(torch.arange(n) % len(fields)).cond)
        samples = model.sample(n, seed=self.seed, cond=cond, chunk=n)
        pictures = {
            "noise": draws(model, n, self.seed),
            "covariance": covariance(model),
            "noised": noised(model, fields, self.seed),
            "samples": in_one_range("sample", samples),
        }
        for name, panels in pictures.items():
            for suffix in (".png", ".pdf"):
                save_panels(self.out / f"{name}{suffix}", panels)
        log.info("pictures in %s", self.out)
        return self.out


def draws(model: Model, n: int, seed: int) -> Sequence[Panel]:
    """ξ ~ N(0, C)."""
    generator = Generators((seed, i, Stream.NOISE_PLOT) for i in range(n))
    like = torch.empty(0, device=model.device)
    return in_one_range("noise", model.sde.noise.sample((n, *model.shape), generator=generator, like=like).cpu())


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
    x, given = model.enter(fields.gather(torch.tensor([0])))
    schedule, panels = model.sde.schedule, []
    noise = model.sde.noise.sample(x.shape, generator=Generators([(seed, 0, Stream.NOISE_PLOT)]), like=x)
    ends = schedule.log_snr(torch.tensor([0.0, 0.999], dtype=torch.float64)).clamp(-14, 14)
    for snr in torch.linspace(float(ends[0]), float(ends[1]), LEVELS, dtype=torch.float64):
        alpha, sigma = schedule(schedule.time(snr))
        x_t = ((alpha * x + sigma * noise) / torch.hypot(alpha, sigma)).to(x)
        shown = model.leave(x_t, given).cpu()
        panels.append((f"σ/α = {float((-snr / 2).exp()):.3g}", shown, float(shown.min()), float(shown.max())))
    return panels


def in_one_range(name: str, x: Tensor) -> Sequence[Panel]:
    """A panel for each of some fields, all in one range of values."""
    low, high = float(x.min()), float(x.max())
    return [(f"{name} {i}", each[None], low, high) for i, each in enumerate(x)]
