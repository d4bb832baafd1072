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
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import scorefield
from climate_data import Part, t2m
from scorefield.baselines import Ridge
from scorefield.data.batch import Batch
from scorefield.data.fields import Fields, Subset
from scorefield.data.source import Source, Split, hold_out
from scorefield.sample import DPM2M, EDMGrid, Sampler

MEMBERS = 8


@cache
def fitted() -> tuple[Ridge, Part]:
    train = t2m("train")
    return Ridge().fit(train.coarse, train.fine, train.when), train


def errors() -> np.ndarray:
    """Of the training hours, by regressions without their days."""
    ridge, train = fitted()
    return ridge.errors.reshape(train.fine.shape)


def scale() -> np.ndarray:
    """Their root mean square at each point."""
    return np.sqrt(np.square(errors()).mean(0))


def conditions(part: Part) -> Tensor:
    """(n, channels, y, x): the coarse field, the regression's detail, its usual error, the hour."""
    ridge, train = fitted()
    fine = ridge.draw(part.coarse, 1, 0, part.when)[0]
    own = part.smooth - part.smooth.mean((1, 2), keepdims=True)
    detail = fine - part.smooth
    angle = 2 * np.pi * part.when.hour[:, None, None] / 24
    usual = np.log(scale() / scale().mean())
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in fine.shape[1:]), indexing="ij")
    channels = [own / 3, detail, usual, np.sin(angle), np.cos(angle), y, x, (part.smooth - train.smooth.mean()) / 3]
    return torch.from_numpy(np.stack([np.broadcast_to(c, fine.shape) for c in channels], 1).astype(np.float32))


class ErrorFields(Fields):
    """Errors in units of what is usual at each point, beside their conditions."""

    def __init__(self) -> None:
        _, train = fitted()
        self.x = torch.from_numpy((errors() / scale()).astype(np.float32))[:, None]
        self.cond = conditions(train)

    def __len__(self) -> int:
        return len(self.x)

    def gather(self, indices: Tensor) -> Batch:
        return Batch(self.x[indices], {"field": self.cond[indices]})


@dataclass(frozen=True)
class Errors(Source):
    """What ridge regression leaves of the training hours; the last four days are looked at in training, too."""

    def load(self, split: Split) -> Fields:
        fields = ErrorFields()
        return Subset(fields, hold_out(len(fields), 96, 0, split)) if split == "valid" else fields


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    settings = parser.parse_args()
    test = t2m("test")
    ridge, _ = fitted()
    model = scorefield.load(settings.run)
    mean, cond = ridge.draw(test.coarse, 1, 0, test.when)[0], conditions(test)
    sampler = Sampler(steps=settings.steps, step=DPM2M(), grid=EDMGrid(rho=7.0))
    begin, members = time.process_time(), []
    for member in range(MEMBERS):
        with torch.autocast("cpu", torch.bfloat16):  # as in training
            x = model.sample(len(mean), seed=settings.seed + member, sampler=sampler, cond={"field": cond}, chunk=72)
        members.append(mean + x[:, 0].numpy() * scale())
    np.save(settings.out, np.stack(members).astype(np.float32))
    print(f"{time.process_time() - begin:.0f} CPU-s")


if __name__ == "__main__":
    main()
