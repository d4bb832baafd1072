"""Samplers: a time grid, a step, perhaps a corrector; pure functions of (denoiser, x_t, t, s). Likelihoods by the same flow."""

from scorefield.samplers.dequantise import Dequantisation, TruncatedNormal, Uniform
from scorefield.samplers.finer import BandLimited, Continued, Extrapolate, Finer, WienerBeyond
from scorefield.samplers.flow import Adaptive
from scorefield.samplers.grid import EDMGrid, LogSNRGrid, TimeGrid, TimeTable, UniformGrid
from scorefield.samplers.jump import Jump
from scorefield.samplers.langevin import AnnealedLangevin, Corrector, Langevin, NCSNLangevin
from scorefield.samplers.likelihood import ProbabilityFlow, bits_per_dimension, interpolate
from scorefield.samplers.loop import Sampler, sample
from scorefield.samplers.multistep import UniPC
from scorefield.samplers.probes import Exact, Normal, Probes, Rademacher, Sphere
from scorefield.samplers.slices import Slicewise
from scorefield.samplers.steps import (
    DDIM,
    Ancestral,
    DPMSolverPP2M,
    EulerMaruyama,
    Heun,
    NoPredictor,
    ReverseDiffusion,
    Step,
    StochasticHeun,
)
from scorefield.samplers.tiled import Tiled

__all__ = [
    "DDIM", "Adaptive", "Ancestral", "AnnealedLangevin", "BandLimited", "Continued", "Corrector", "DPMSolverPP2M",
    "Dequantisation", "EDMGrid", "EulerMaruyama", "Exact", "Extrapolate", "Finer", "Heun", "Jump", "Langevin",
    "LogSNRGrid", "NCSNLangevin", "NoPredictor", "Normal", "ProbabilityFlow", "Probes", "Rademacher",
    "ReverseDiffusion", "Sampler", "Slicewise", "Sphere", "Step", "StochasticHeun", "Tiled", "TimeGrid", "TimeTable",
    "TruncatedNormal", "UniPC", "Uniform", "UniformGrid", "WienerBeyond", "bits_per_dimension", "interpolate", "sample",
]  # fmt: skip
