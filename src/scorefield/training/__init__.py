"""Training: a loop that can be stopped anywhere and resumed exactly."""

from scorefield.training.loggers import Logger, MLflow, TensorBoard, WandB
from scorefield.training.optimiser import Adam, Constant, CosineDecay, LearningRate, Muon, Optimiser
from scorefield.training.trainer import Trainer

__all__ = [
    "Adam", "Constant", "CosineDecay", "LearningRate", "Logger", "MLflow", "Muon", "Optimiser", "TensorBoard", "Trainer", "WandB",
]  # fmt: skip
