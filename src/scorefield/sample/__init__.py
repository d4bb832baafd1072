"""Samplers: a time grid, a step, perhaps a corrector; pure functions of (denoiser, x_t, t, s)."""

from scorefield.sample.grid import EDMGrid, LogSNRGrid, TimeGrid, TimeTable, UniformGrid
from scorefield.sample.loop import Sampler, sample
from scorefield.sample.steps import (
    DDIM,
    DPM2M,
    Ancestral,
    EulerMaruyama,
    Heun,
    Langevin,
    ReverseDiffusion,
    Step,
    StochasticHeun,
)

__all__ = [
    "DDIM",
    "DPM2M",
    "Ancestral",
    "EDMGrid",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "LogSNRGrid",
    "ReverseDiffusion",
    "Sampler",
    "Step",
    "StochasticHeun",
    "TimeGrid",
    "TimeTable",
    "UniformGrid",
    "sample",
]
