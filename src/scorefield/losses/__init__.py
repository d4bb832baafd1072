"""Losses: (denoiser, batch, generator) -> one number per sample."""

from scorefield.losses.adversarial import Critic, Wasserstein
from scorefield.losses.adversarial_jumps import AdversarialJumps, JumpCritic
from scorefield.losses.classification import CrossEntropy
from scorefield.losses.denoising import Denoising
from scorefield.losses.divergence import Derivative, FiniteDifference, Hutchinson
from scorefield.losses.ensemble import CRPS, EnergyScore, EnsembleScore, Score
from scorefield.losses.flow_map import SelfDistillation
from scorefield.losses.gsure import GSURE, Acquisition, SampledKSpace, SupervisedGSURE
from scorefield.losses.jump_score import JumpScore
from scorefield.losses.loss import Loss, Metric
from scorefield.losses.splitting import SSDU
from scorefield.losses.sure import SURE, Ambient, Sum, SUREScore
from scorefield.losses.times import ImportanceSampled, LogNormal, TimeDistribution, UniformLevels, UniformTime
from scorefield.losses.weights import (
    SNR,
    EDMWeight,
    FlowMatching,
    ImportanceSampledLikelihood,
    Likelihood,
    Mahalanobis,
    Norm,
    ScorePower,
    SquaredError,
    Unweighted,
    Weight,
)

__all__ = [
    "CRPS", "GSURE", "SNR", "SSDU", "SURE", "Acquisition", "AdversarialJumps", "Ambient", "Critic", "CrossEntropy",
    "Denoising", "Derivative", "EDMWeight", "EnergyScore", "EnsembleScore", "FiniteDifference", "FlowMatching",
    "Hutchinson", "ImportanceSampled", "ImportanceSampledLikelihood", "JumpCritic", "JumpScore", "Likelihood",
    "LogNormal", "Loss", "Mahalanobis", "Metric", "Norm", "SUREScore", "SampledKSpace", "Score", "ScorePower",
    "SelfDistillation", "SquaredError", "Sum", "SupervisedGSURE", "TimeDistribution", "UniformLevels", "UniformTime",
    "Unweighted", "Wasserstein", "Weight",
]  # fmt: skip
