"""Score-based generative modelling of fields: images, MR images, climate fields, functions on any grid.

All that a user needs is here by one name, as `scorefield.VP`; docs/api.md lists it. A name is loaded when it is first used, so
that importing the package costs nothing. What is for one domain alone stays in its room, such as `scorefield.climate`.
"""

# ruff: noqa: F401, I001 - a table, written twice for the sake of type checkers
from typing import TYPE_CHECKING, Any

from scorefield.foundation.lazy import lazily

# Where each public name is at home, below `scorefield.`; stored configurations name classes by their public names.
# fmt: off
NAMES = {
    "completion": "complete completed",
    "core.classifier": "Classifier",
    "core.denoiser": """
        DataPrediction Denoiser EDMPreconditioner EpsilonPrediction FlowPrediction Index Label LogNoise
        NoiseRatio OneStep Preconditioner ScalarPreconditioner ScorePrediction Times VelocityPrediction
    """,
    "core.noise": """
        AlongTime Boundary Exponential Free GaussianField KernelField MaskedField Matern Neumann Noise Periodic
        SpectralDensity SquaredExponential VonKarman White WhiteModes autoregressive runs_of
    """,
    "core.oracle": "Gaussian Mixture",
    "core.residual": "ConditionalMean LinearMean",
    "core.schedule": "EDM VE VP Cosine LinearBeta Numerical Rectified Schedule SubVP Tabulated ddpm geometric",
    "core.sde": "SDE",
    "core.spectrum": "RadialSpectrum",
    "core.wiener": "Wiener",
    "data": """
        Arrays Augment Batch Centre CentreCrop Crop Dequantise Divide DropLabel FieldDataset Flip Functions
        HuggingFace Images Loader Measured Noisy Normaliser RandomAffine Sequential Simulations Source Square Standardise
        Tensors UnitRange
    """,
    "data.quantile": "QuantileNormal",
    "data.transform": "Chain Clip Fraction Largest Log1p PerVariable RawMoment Recentre Root Tail",
    "datasets": """
        CIFAR10 CIFAR100 LSUN MNIST CelebA Channels Digits Interferograms NavierStokes TFRecords Terrain Volcano
        WebDataset
    """,
    "evidence": "log_evidence",
    "foundation.errors": "InputError",
    "foundation.random": "Generators",
    "guidance": """
        DPS Autoguided Classified ClassifierFree Guided LogLikelihood Measurement Method MomentMatching NoisyField
        NoisyLikelihood Observation PiGDM Poisson Proximal Replacement
    """,
    "inverse": "InverseProblem posterior weighed",
    "losses": """
        CRPS GSURE SNR SSDU SURE Acquisition AdversarialJumps Ambient Critic CrossEntropy Denoising Derivative EDMWeight
        EnergyScore EnsembleScore FiniteDifference FlowMatching Hutchinson ImportanceSampled ImportanceSampledLikelihood
        JumpCritic JumpScore Likelihood LogNormal Loss Mahalanobis Metric Norm SUREScore SampledKSpace Score ScorePower
        SelfDistillation SquaredError Sum SupervisedGSURE TimeDistribution UniformLevels UniformTime Unweighted Wasserstein Weight
    """,
    "metrics.ensemble": "fair_crps fair_energy_score spread_skill",
    "metrics.features": "Features",
    "metrics.frechet": "frechet_distance",
    "metrics.image": "interval_coverage psnr",
    "metrics.kernel": "kernel_distance",
    "metrics.neighbours": "memorisation_ratio two_sample_accuracy",
    "metrics.spectrum": "cosine_spectrum log_spectral_distance radial_spectrum",
    "model": "Model",
    "nn": "FNO NCSN UNO DDPMUNet Deterministic Encoder LearnedPositionMaps MagnitudeUNet NCSNpp NCSNv2 Network UNet",
    "operators": """
        Blur Coarsen Coils Compose CosineCoarsen Differentiable Fourier FourierCoarsen FourierMagnitude Grey Hole
        LinearOperator Mask NonUniformFourier NonUniformSense Operator Saturated Scale Sense as_operator cg_sense
        conjugate_gradients l1_wavelet least_squares project_range to_channels
        to_complex zero_filled
    """,
    "particles": "Particles Population",
    "run.loading": "load",
    "jobs.train": "recipe train",
    "samplers": """
        DDIM Adaptive Ancestral AnnealedLangevin BandLimited Continued Corrector DPMSolverPP2M Dequantisation EDMGrid
        EulerMaruyama Exact Extrapolate Finer Heun Jump Langevin LogSNRGrid NCSNLangevin NoPredictor Normal
        ProbabilityFlow Probes Rademacher ReverseDiffusion Sampler Sphere Step StochasticHeun TimeGrid TimeTable
        TruncatedNormal UniPC Uniform UniformGrid WienerBeyond bits_per_dimension interpolate sample
    """,
    "samplers.joint": "JointTimes",
    "samplers.tiled": "Tiled",
    "samplers.tuned": "CorrectedMultistep",
    "training": "Adam Constant CosineDecay LearningRate Logger MLflow Muon Optimiser TensorBoard Trainer WandB",
}
if TYPE_CHECKING:
    from scorefield.completion import complete, completed
    from scorefield.core.classifier import Classifier
    from scorefield.core.denoiser import (
        DataPrediction, Denoiser, EDMPreconditioner, EpsilonPrediction, FlowPrediction, Index, Label, LogNoise,
        NoiseRatio, OneStep, Preconditioner, ScalarPreconditioner, ScorePrediction, Times, VelocityPrediction,
    )
    from scorefield.core.noise import (
        AlongTime, Boundary, Exponential, Free, GaussianField, KernelField, MaskedField, Matern, Neumann, Noise, Periodic,
        SpectralDensity, SquaredExponential, VonKarman, White, WhiteModes, autoregressive, runs_of,
    )
    from scorefield.core.oracle import Gaussian, Mixture
    from scorefield.core.residual import ConditionalMean, LinearMean
    from scorefield.core.schedule import (
        EDM, VE, VP, Cosine, LinearBeta, Numerical, Rectified, Schedule, SubVP, Tabulated, ddpm, geometric,
    )
    from scorefield.core.sde import SDE
    from scorefield.core.spectrum import RadialSpectrum
    from scorefield.core.wiener import Wiener
    from scorefield.data import (
        Arrays, Augment, Batch, Centre, CentreCrop, Crop, Dequantise, Divide, DropLabel, FieldDataset, Flip,
        Functions, HuggingFace, Images, Loader, Measured, Noisy, Normaliser, RandomAffine, Sequential, Simulations, Source,
        Square, Standardise, Tensors, UnitRange,
    )
    from scorefield.data.quantile import QuantileNormal
    from scorefield.data.transform import Chain, Clip, Fraction, Largest, Log1p, PerVariable, RawMoment, Recentre, Root, Tail
    from scorefield.datasets import (
        CIFAR10, CIFAR100, LSUN, MNIST, CelebA, Channels, Digits, Interferograms, NavierStokes, TFRecords,
        Terrain, Volcano, WebDataset,
    )
    from scorefield.evidence import log_evidence
    from scorefield.foundation.errors import InputError
    from scorefield.foundation.random import Generators
    from scorefield.guidance import (
        DPS, Autoguided, Classified, ClassifierFree, Guided, LogLikelihood, Measurement, Method, MomentMatching, NoisyField,
        NoisyLikelihood, Observation, PiGDM, Poisson, Proximal, Replacement,
    )
    from scorefield.inverse import InverseProblem, posterior, weighed
    from scorefield.losses import (
        CRPS, GSURE, SNR, SSDU, SURE, Acquisition, AdversarialJumps, Ambient, Critic, CrossEntropy, Denoising, Derivative,
        EDMWeight, EnergyScore, EnsembleScore, FiniteDifference, FlowMatching, Hutchinson, ImportanceSampled,
        ImportanceSampledLikelihood, JumpCritic, JumpScore, Likelihood, LogNormal, Loss, Mahalanobis, Metric, Norm, SUREScore,
        SampledKSpace, Score, ScorePower, SelfDistillation, SquaredError, Sum, SupervisedGSURE, TimeDistribution, UniformLevels,
        UniformTime, Unweighted, Wasserstein, Weight,
    )
    from scorefield.metrics.ensemble import fair_crps, fair_energy_score, spread_skill
    from scorefield.metrics.features import Features
    from scorefield.metrics.frechet import frechet_distance
    from scorefield.metrics.image import interval_coverage, psnr
    from scorefield.metrics.kernel import kernel_distance
    from scorefield.metrics.neighbours import memorisation_ratio, two_sample_accuracy
    from scorefield.metrics.spectrum import cosine_spectrum, log_spectral_distance, radial_spectrum
    from scorefield.model import Model
    from scorefield.nn import (
        FNO, NCSN, UNO, DDPMUNet, Deterministic, Encoder, LearnedPositionMaps, MagnitudeUNet, NCSNpp, NCSNv2, Network, UNet,
    )
    from scorefield.operators import (
        Blur, Coarsen, Coils, Compose, CosineCoarsen, Differentiable, Fourier, FourierCoarsen, FourierMagnitude, Grey, Hole,
        LinearOperator, Mask, NonUniformFourier, NonUniformSense, Operator, Saturated, Scale, Sense, as_operator, cg_sense,
        conjugate_gradients, l1_wavelet, least_squares, project_range, to_channels, to_complex, zero_filled,
    )
    from scorefield.particles import Particles, Population
    from scorefield.run.loading import load
    from scorefield.jobs.train import recipe, train
    from scorefield.samplers import (
        DDIM, Adaptive, Ancestral, AnnealedLangevin, BandLimited, Continued, Corrector, DPMSolverPP2M, Dequantisation,
        EDMGrid, EulerMaruyama, Exact, Extrapolate, Finer, Heun, Jump, Langevin, LogSNRGrid, NCSNLangevin, NoPredictor,
        Normal, ProbabilityFlow, Probes, Rademacher, ReverseDiffusion, Sampler, Sphere, Step, StochasticHeun, TimeGrid,
        TimeTable, TruncatedNormal, UniPC, Uniform, UniformGrid, WienerBeyond, bits_per_dimension, interpolate, sample,
    )
    from scorefield.samplers.joint import JointTimes
    from scorefield.samplers.tiled import Tiled
    from scorefield.samplers.tuned import CorrectedMultistep
    from scorefield.training import (
        Adam, Constant, CosineDecay, LearningRate, Logger, MLflow, Muon, Optimiser, TensorBoard, Trainer, WandB,
    )
# fmt: on

ROOMS = (
    "climate", "core", "data", "datasets", "functions", "guidance", "interop", "jobs", "losses", "metrics", "mri",
    "nn", "operators", "samplers", "training",
)  # fmt: skip
_get, _names, HOMES = lazily(__name__, NAMES, ROOMS)
__all__ = ["__version__", *HOMES]  # pyright: ignore[reportUnsupportedDunderAll]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # half of the time that the package takes to import

        found: Any = version("scorefield")
    else:
        found = _get(name)
    globals()[name] = found  # the next time without a detour
    return found


def __dir__() -> list[str]:
    return ["__version__", *_names()]
