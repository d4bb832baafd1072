"""Losses: (denoiser, batch, generator) -> one number per sample."""

from scorefield.losses.classification import CrossEntropy
from scorefield.losses.denoising import Denoising
from scorefield.losses.divergence import Derivative, FiniteDifference, Hutchinson
from scorefield.losses.gsure import GSURE, Acquisition, SampledKSpace, SupervisedGSURE
from scorefield.losses.loss import Figure, Loss
from scorefield.losses.norms import Norm, Precision, Squares
from scorefield.losses.sure import SURE, Ambient, Sum, SUREScore
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
    "GSURE",
    "SNR",
    "SURE",
    "Acquisition",
    "Ambient",
    "CrossEntropy",
    "Denoising",
    "Derivative",
    "Figure",
    "FiniteDifference",
    "FlowMatching",
    "Hutchinson",
    "Important",
    "ImportantLikelihood",
    "KarrasWeight",
    "Likelihood",
    "LogNormal",
    "Loss",
    "Norm",
    "Plain",
    "Precision",
    "SUREScore",
    "SampledKSpace",
    "ScorePower",
    "Squares",
    "Sum",
    "SupervisedGSURE",
    "TimeLaw",
    "UniformLevels",
    "UniformTime",
    "Weight",
]
