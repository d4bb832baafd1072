"""The mean of what is drawn: a model draws x − m(cond), of which much less is left to chance than of x itself.

With m(cond) = E[x | cond] the rest has mean 0 for every condition, and its spread is what the condition leaves open.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from scorefield.core.denoiser import Condition
from scorefield.data.batch import Batch
from scorefield.data.normalise import Standardise
from scorefield.foundation.errors import InputError
from scorefield.nn.network import Network


class ConditionalMean(nn.Module, ABC):
    """m(cond) in model space, and the scale of what it leaves, which is fitted and stored: (x − m(cond) − shift)/scale.

    Attributes:
        vector: how many entries of `cond["vector"]` it needs; 0 without any.
    """

    vector: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.residual = Standardise()

    @abstractmethod
    def forward(self, x: Tensor, cond: Condition) -> Tensor:
        """m(cond) of the shape and type of x, in model space; x itself is not looked at."""

    def fit(self, batches: Iterable[Batch]) -> None:
        """Fit the scale to batches in model space."""
        with torch.no_grad():
            rest = (Batch(batch.x - self(batch.x, batch.cond), mask=batch.mask) for batch in batches)
            self.residual.fit(rest)

    @torch.no_grad()
    def subtract(self, batch: Batch) -> Batch:
        """What is left of a batch in model space, and its noise in the same units."""
        if batch.y is not None:
            raise InputError(
                "A mean is subtracted from fields, not from what was measured of them: leave model.mean out."
            )
        return replace(batch, x=batch.x - self(batch.x, batch.cond)).normalised(self.residual)

    @torch.no_grad()
    def add(self, rest: Tensor, cond: Condition) -> Tensor:
        """x in model space."""
        return self(rest, cond) + self.residual.inverse(rest)


class Regression(ConditionalMean):
    """The prediction of a deterministic network that was trained before (`scorefield train --mean RUN`).

    Args:
        net: the network, `scorefield.nn.Deterministic` around one of any kind.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net, self.vector = net.eval().requires_grad_(False), net.vector

    def train(self, mode: bool = True) -> Regression:
        return super().train(False)  # no dropout in a mean, not even while the rest is trained

    def forward(self, x: Tensor, cond: Condition) -> Tensor:
        return self.net.evaluate(torch.zeros_like(x), x.new_zeros(len(x)), cond)
