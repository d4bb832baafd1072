"""Training: a loop that can be stopped anywhere and resumed exactly."""

from scorefield.training.optimiser import Adam, Constant, CosineDecay, LearningRate, Muon, Optimiser
from scorefield.training.trainer import Trainer

__all__ = ["Adam", "Constant", "CosineDecay", "LearningRate", "Muon", "Optimiser", "Trainer"]
