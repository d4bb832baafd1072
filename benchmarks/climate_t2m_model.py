"""A score model of what ridge regression leaves of hourly temperature: fields of its errors, given the coarse field and the hour.

    cd benchmarks
    scorefield train climate-t2m.yaml --out RUN
    python climate_t2m_model.py RUN --out FILE.npy
    python climate_t2m.py --model "EDM of ridge's errors=FILE.npy"

The errors that it learns are those of training days that the regression had not seen.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from climate_data import COARSENING, LATITUDE, Part, area, t2m
from scorefield.climate.baselines import Ridge
from scorefield.climate.baselines.baseline import When
from scorefield.climate.regrid import block_mean
from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.source import Source, Split, hold_out
from scorefield.run import loading

SPELL, GAP = 4, 2  # days left out together, and on either side of them: as far as the test is from training


@cache
def fitted(split: str) -> tuple[Ridge, Part]:
    train = t2m(split)
    return Ridge().fit(train.coarse, train.fine, train.when), train


@cache
def errors(split: str) -> np.ndarray:
    """Of the hours of training, by regressions that know nothing of the days around them, but the means of coarse boxes."""
    _, train = fitted(split)
    found, day = np.empty_like(train.fine), train.when.day
    for first in range(day.min(), day.max() + 1, SPELL):
        out = (day >= first) & (day < first + SPELL)
        kept = (day < first - GAP) | (day >= first + SPELL + GAP)
        hours = (When(*(value[part] for value in train.when)) for part in (kept, out))
        ridge = Ridge().fit(train.coarse[kept], train.fine[kept], next(hours))
        found[out] = detail(train.fine[out] - ridge.draw(train.coarse[out], 1, 0, next(hours))[0])
    return found


def detail(fields: np.ndarray) -> np.ndarray:
    """Without their means over the coarse boxes, which are known."""
    factor = (COARSENING["t2m"],) * 2
    return (fields - spread(block_mean(fields, factor, area(fields.shape[-2:], LATITUDE)))).astype(np.float32)


def spread(coarse: np.ndarray) -> np.ndarray:
    """Each coarse value to the points of its box."""
    return coarse.repeat(COARSENING["t2m"], -2).repeat(COARSENING["t2m"], -1)


def scale(split: str) -> np.ndarray:
    """Their root mean square at each point."""
    return np.sqrt(np.square(errors(split)).mean(0))


def conditions(part: Part, split: str, *, weather: bool) -> Tensor:
    """(n, channels, y, x): the usual error, the hour, the place; with the weather the coarse field and what ridge adds to it."""
    ridge, train = fitted(split)
    angle = 2 * np.pi * part.when.hour[:, None, None] / 24
    usual = np.log(scale(split) / scale(split).mean())
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in part.fine.shape[1:]), indexing="ij")
    channels = [usual, np.sin(angle), np.cos(angle), y, x]
    if weather:
        fine = ridge.draw(part.coarse, 1, 0, part.when)[0]
        own = part.smooth - part.smooth.mean((1, 2), keepdims=True)
        channels += [own / 3, fine - part.smooth, (part.smooth - train.smooth.mean()) / 3]
    return torch.from_numpy(np.stack([np.broadcast_to(c, part.fine.shape) for c in channels], 1).astype(np.float32))


class ErrorFields(FieldDataset):
    """Errors in units of what is usual at each point, beside their conditions."""

    def __init__(self, split: str, *, weather: bool) -> None:
        self.x = torch.from_numpy((errors(split) / scale(split)).astype(np.float32))[:, None]
        self.cond = conditions(fitted(split)[1], split, weather=weather)

    def __len__(self) -> int:
        return len(self.x)

    def gather(self, indices: Tensor) -> Batch:
        return Batch(self.x[indices], {"field": self.cond[indices]})


@dataclass(frozen=True)
class Errors(Source):
    """What ridge regression leaves of the training hours; the last four days are looked at in training, too.

    Args:
        split: train, or early, to choose by what happens on the late days of training.
        weather: whether the network is told the coarse field.
    """

    split: str = "train"
    weather: bool = False

    def load(self, split: Split) -> FieldDataset:
        fields = ErrorFields(self.split, weather=self.weather)
        return Subset(fields, hold_out(len(fields), 96, 0, split)) if split == "valid" else fields


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=None, help="by default as in the run's recipe")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    settings = parser.parse_args()
    opened = loading.open_checkpoint(settings.run)
    model, source = (
        opened.model(ema=True, trust=("climate_t2m_model",)),
        cast(Errors, opened.source(("climate_t2m_model",))),
    )
    part = t2m("late" if source.split == "early" else "test")
    mean = spread(part.coarse) + detail(fitted(source.split)[0].draw(part.coarse, 1, 0, part.when)[0])
    cond = {"field": conditions(part, source.split, weather=source.weather)}
    sampler = replace(model.sampler, steps=settings.steps or model.sampler.steps)
    torch.set_num_threads(1)
    begin, members = time.process_time(), []
    for member in range(settings.members):
        x = model.sample(len(mean), seed=settings.seed + member, sampler=sampler, cond=cond, chunk=72)
        members.append(mean + detail(x[:, 0].numpy() * scale(source.split)))
    np.save(settings.out, np.stack(members).astype(np.float32))
    print(f"{time.process_time() - begin:.0f} CPU-s")


if __name__ == "__main__":
    main()
