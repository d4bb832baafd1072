"""Dequantisation: quantised data have no density until noise is added, and a bound of their probability after it.

The cell of a value x is what lies within half a quantum of it, or between it and the next one. With noise e of a law r that
stays in the cell, any density p whose mass there is P(x) has log P(x) ≥ E[log p(x + e) − log r(e)], and
P(x) = E[p(x + e)/r(e)] where r is positive all over the cell: the nearer r is to p within it, the tighter is the bound.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.samplers.likelihood import ProbabilityFlow


class Dequantisation(ABC):
    """Noise that makes quantised data continuous, and its density."""

    @abstractmethod
    def begin(self, flow: ProbabilityFlow, step: float) -> ProbabilityFlow:
        """The flow from the level of noise that this noise stands for.

        Args:
            flow: as it would be for continuous data.
            step: between neighbouring values in model space.
        """

    @abstractmethod
    def __call__(self, u: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """The noise of each field in parts of the quantum, and the sum of its log density over each (batch), both in float64.

        Args:
            u: uniform draws in [0, 1), (batch, channels, *grid).
            spread: σ of the level at which the flow begins, in parts of the quantum, for each element.
        """


@dataclass(frozen=True)
class Uniform(Dequantisation):
    """e = u in [0, 1) quanta: for models that were trained on data so dequantised, and what most published figures are of (Uria
    et al. 2013; Theis et al. 2016). A model trained on the quantised values themselves has not learnt this noise.
    """

    def begin(self, flow: ProbabilityFlow, step: float) -> ProbabilityFlow:
        return flow

    def __call__(self, u: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        return u.double(), torch.zeros(len(u), dtype=torch.float64, device=u.device)


@dataclass(frozen=True)
class TruncatedNormal(Dequantisation):
    """e ~ N(0, s²) within half a quantum, s the noise of the level at which the flow begins: what a model trained on the
    quantised values themselves has learnt there, so that little is lost (Zheng et al. 2023). For white noise.

    Args:
        width: s in quanta, where the schedule goes so low; from 0.5 on much of what the model has learnt lies beyond the cell.
    """

    width: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise InputError(f"Noise of a truncated normal law needs a width above 0, not {self.width:g}.")

    def begin(self, flow: ProbabilityFlow, step: float) -> ProbabilityFlow:
        return replace(flow, ratio_min=self.width * step)

    def __call__(self, u: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        s = spread.double()
        below = torch.special.ndtr(-0.5 / s)
        inside = torch.special.erf(0.5 / (s * math.sqrt(2)))
        middle = u.double() + 2**-25  # of the interval that a draw in float32 stands for: 0 itself is of no such law
        z = torch.special.ndtri(below + inside * middle).clamp(-0.5 / s, 0.5 / s)
        log_density = -0.5 * z.square() - (s * inside).log() - 0.5 * math.log(2 * math.pi)
        return s * z, log_density.expand(u.shape).flatten(1).sum(1)
