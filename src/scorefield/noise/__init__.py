"""Noise: the Gaussian measure N(0, C) that ξ is drawn from: white, or a random field of a given smoothness."""

from scorefield.noise.boundary import Boundary, Free, Neumann, Periodic
from scorefield.noise.density import Exponential, Matern, SpectralDensity, SquaredExponential, VonKarman
from scorefield.noise.field import GaussianField
from scorefield.noise.kernel import KernelField
from scorefield.noise.noise import Noise, White, WhiteModes

__all__ = [
    "Boundary",
    "Exponential",
    "Free",
    "GaussianField",
    "KernelField",
    "Matern",
    "Neumann",
    "Noise",
    "Periodic",
    "SpectralDensity",
    "SquaredExponential",
    "VonKarman",
    "White",
    "WhiteModes",
]
