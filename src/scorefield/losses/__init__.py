"""Losses: (denoiser, batch, generator) -> one number per sample."""

from scorefield.losses.classification import CrossEntropy
from scorefield.losses.denoising import Denoising
from scorefield.losses.loss import Loss
from scorefield.losses.norms import Norm, Precision, Squares
from scorefield.losses.times import Important, LogNormal, TimeLaw, UniformLevels, UniformTime
from scorefield.losses.weights import (
    SNR,
    FlowMatching,
    ImportantLikelihood,
    KarrasWeight,
    Likelihood,
    Plain,
    ScorePower,
    Weight,
)

__all__ = [
    "SNR",
    "CrossEntropy",
    "Denoising",
    "FlowMatching",
    "Important",
    "ImportantLikelihood",
    "KarrasWeight",
    "Likelihood",
    "LogNormal",
    "Loss",
    "Norm",
    "Plain",
    "Precision",
    "ScorePower",
    "Squares",
    "TimeLaw",
    "UniformLevels",
    "UniformTime",
    "Weight",
]
