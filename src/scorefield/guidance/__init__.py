"""Guidance: denoisers that wrap a denoiser, E[x | x_t] into E[x | x_t, y] or E[x | x_t, class]. Every sampler takes them."""

from scorefield.guidance.autoguidance import Autoguided, Within
from scorefield.guidance.classes import Classified, ClassifierFree
from scorefield.guidance.consistency import NoisyLikelihood, Proximal
from scorefield.guidance.measurement import Guided, Measurement, Method
from scorefield.guidance.noisy_field import NoisyField
from scorefield.guidance.observation import LogLikelihood, Observation, Poisson
from scorefield.guidance.posterior import DPS, MomentMatching, PiGDM, Replacement

__all__ = [
    "DPS", "Autoguided", "Classified", "ClassifierFree", "Guided", "LogLikelihood", "Measurement", "Method",
    "MomentMatching", "NoisyField", "NoisyLikelihood", "Observation", "PiGDM", "Poisson", "Proximal", "Replacement", "Within",
]  # fmt: skip
