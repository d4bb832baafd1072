"""Training: a loop that can be stopped anywhere and resumed exactly."""

from scorefield.train.optimiser import Adam, Constant, CosineDecay, LearningRate, Optimiser
from scorefield.train.trainer import Trainer

__all__ = ["Adam", "Constant", "CosineDecay", "LearningRate", "Optimiser", "Trainer"]
