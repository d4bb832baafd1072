"""Noise: the Gaussian measure N(0, C) that ξ is drawn from: white, or a random field of a given smoothness."""

from scorefield.core.noise.along_time import AlongTime, autoregressive
from scorefield.core.noise.boundary import Boundary, Free, Neumann, Periodic
from scorefield.core.noise.density import Exponential, Matern, SpectralDensity, SquaredExponential, VonKarman
from scorefield.core.noise.field import GaussianField
from scorefield.core.noise.kernel import KernelField
from scorefield.core.noise.masked import MaskedField, runs_of
from scorefield.core.noise.noise import Noise, White, WhiteModes

__all__ = [
    "AlongTime", "Boundary", "Exponential", "Free", "GaussianField", "KernelField", "MaskedField", "Matern",
    "Neumann", "Noise", "Periodic", "SpectralDensity", "SquaredExponential", "VonKarman", "White", "WhiteModes",
    "autoregressive", "runs_of",
]  # fmt: skip
