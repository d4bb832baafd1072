"""Samplers: a time grid, a step, perhaps a corrector; pure functions of (denoiser, x_t, t, s). Likelihoods by the same flow."""

from scorefield.sample.finer import BandLimited, Extrapolate, Finer, WienerBeyond
from scorefield.sample.flow import Adaptive
from scorefield.sample.grid import EDMGrid, LogSNRGrid, TimeGrid, TimeTable, UniformGrid
from scorefield.sample.langevin import AnnealedLangevin, Corrector, Langevin, NCSNLangevin
from scorefield.sample.likelihood import ProbabilityFlow, bits_per_dimension, interpolate
from scorefield.sample.loop import Sampler, sample
from scorefield.sample.probes import Exact, Normal, Probes, Rademacher, Sphere
from scorefield.sample.steps import (
    DDIM,
    DPM2M,
    Ancestral,
    Carry,
    EulerMaruyama,
    Heun,
    ReverseDiffusion,
    Step,
    StochasticHeun,
)

__all__ = [
    "DDIM",
    "DPM2M",
    "Adaptive",
    "Ancestral",
    "AnnealedLangevin",
    "BandLimited",
    "Carry",
    "Corrector",
    "EDMGrid",
    "EulerMaruyama",
    "Exact",
    "Extrapolate",
    "Finer",
    "Heun",
    "Langevin",
    "LogSNRGrid",
    "NCSNLangevin",
    "Normal",
    "ProbabilityFlow",
    "Probes",
    "Rademacher",
    "ReverseDiffusion",
    "Sampler",
    "Sphere",
    "Step",
    "StochasticHeun",
    "TimeGrid",
    "TimeTable",
    "UniformGrid",
    "WienerBeyond",
    "bits_per_dimension",
    "interpolate",
    "sample",
]
