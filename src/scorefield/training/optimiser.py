"""Optimisers and learning rates as plain configuration."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch.nn import Parameter

from scorefield.foundation.errors import InputError
from scorefield.training.muon import Orthogonal


class LearningRate(ABC):
    """The factor on the peak learning rate at optimiser step k = 0, 1, ... of a run."""

    @abstractmethod
    def __call__(self, step: int, steps: int) -> float: ...


@dataclass(frozen=True)
class Constant(LearningRate):
    """Linear warm-up, then constant: min(1, (k + 1)/warmup). Never 0.

    Args:
        warmup: steps until the peak.
    """

    warmup: int = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)

    def __call__(self, step: int, steps: int) -> float:
        return min(1.0, (step + 1) / max(self.warmup, 1))


@dataclass(frozen=True)
class CosineDecay(LearningRate):
    """Linear warm-up, then down a half cosine to a fraction of the peak at the last step.

    Args:
        warmup: steps until the peak.
        floor: the fraction that is left at the end.
    """

    warmup: int = 0
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        if not 0 <= self.floor <= 1:
            raise InputError(f"CosineDecay needs 0 <= floor <= 1, a fraction of the peak, not {self.floor}.")

    def __call__(self, step: int, steps: int) -> float:
        progress = min(1.0, max(0, step - self.warmup) / max(1, steps - self.warmup))
        fall = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
        return min(1.0, (step + 1) / max(self.warmup, 1)) * fall


def _check_warmup(warmup: int) -> None:
    if warmup < 0:
        raise InputError(f"A learning rate needs warmup >= 0 steps, not {warmup}.")


class Optimiser(ABC):
    """Builds a torch optimiser.

    Attributes:
        lr: the peak learning rate.
        schedule: the factor on it.
        needs_whole: it cannot work on shares of a weight.
    """

    lr: float
    schedule: LearningRate
    needs_whole: ClassVar[bool] = False

    def learns(self, weight: Parameter) -> bool:
        """Whether a weight learns; the others have no gradient."""
        return weight.requires_grad

    @abstractmethod
    def build(self, parameters: Iterable[Parameter], *, fused: bool) -> torch.optim.Optimizer: ...


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam, with decoupled weight decay (AdamW) where weight_decay is positive.

    Without matrices it fine-tunes as little as pays (BitFit, Ben Zaken et al. 2022): scales and biases, some thousands of a
    million weights, cannot follow the noise of a gradient of few fields, which all of them do.

    Args:
        lr: peak learning rate.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square.
        eps: added to the root of that.
        weight_decay: per step, times the learning rate.
        schedule: the factor on the learning rate.
        matrices: whether kernels and matrices learn, too, or scales, biases and other vectors alone.
    """

    lr: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: LearningRate = field(default_factory=lambda: Constant(warmup=5000))
    matrices: bool = True

    def __post_init__(self) -> None:
        if not (
            self.lr > 0 and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0 and self.weight_decay >= 0
        ):
            raise InputError("Adam needs lr > 0, 0 <= beta1, beta2 < 1, eps > 0 and weight_decay >= 0.")

    def learns(self, weight: Parameter) -> bool:
        return weight.requires_grad and (self.matrices or weight.ndim < 2)

    def build(self, parameters: Iterable[Parameter], *, fused: bool) -> torch.optim.Optimizer:
        betas = (self.beta1, self.beta2)
        decay, learning = self.weight_decay, [weight for weight in parameters if weight.requires_grad]
        if not learning and not self.matrices:
            raise InputError(
                "Adam without matrices has nothing to learn here: the network has no scales and no biases."
            )
        return torch.optim.AdamW(learning, lr=self.lr, betas=betas, eps=self.eps, weight_decay=decay, fused=fused)


@dataclass(frozen=True)
class Muon(Optimiser):
    """Momentum with orthogonal steps for kernels and matrices of real weights (Jordan et al. 2024), AdamW for all others.

    Steps are as large as Adam's (Liu et al. 2025), so that both share a learning rate, which is about what suits Adam.

    Args:
        lr: peak learning rate.
        momentum: decay of the sum of gradients of matrices.
        beta1: decay of the mean of the gradient of other weights.
        beta2: decay of the mean of its square.
        eps: added to the root of that.
        weight_decay: per step, times the learning rate.
        schedule: the factor on the learning rate.
    """

    lr: float = 1e-3
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: LearningRate = field(default_factory=lambda: Constant(warmup=100))
    needs_whole = True

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise InputError(f"Muon needs 0 <= momentum < 1, not {self.momentum}.")
        self._adam()

    def _adam(self) -> Adam:
        return Adam(self.lr, self.beta1, self.beta2, self.eps, self.weight_decay)

    def build(self, parameters: Iterable[Parameter], *, fused: bool) -> torch.optim.Optimizer:
        matrices, rest = [], []
        for weight in parameters:
            paired = weight.is_complex() or (weight.ndim > 2 and weight.shape[-1] == 2)  # real and imaginary parts
            is_matrix = weight.ndim > 1 and not paired and min(len(weight), weight[0].numel()) > 1
            (matrices if is_matrix else rest).append(weight)
        return Orthogonal(matrices, self._adam().build(rest, fused=fused), self.momentum, self.weight_decay)
