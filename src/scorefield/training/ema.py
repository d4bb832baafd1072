"""Exponential moving average of the weights, by parameter name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """w̄ ← w̄ + (1 − d)(w − w̄) after every optimiser step, d = min(decay, (1 + k)/(10 + k)) at step k.

    The ramp lets the average forget the random start (as the original implementations do it).

    Args:
        module: whose parameters are averaged.
        decay: 0 keeps the weights themselves.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.average = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        own, new = list(self.average.values()), list(self._parameters.values())
        torch._foreach_lerp_(own, new, 1 - decay)  # type: ignore[attr-defined] - one kernel for all of them

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module computes with the averaged weights inside; nothing is copied, so nothing is lost."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self.average[name] = self.average[name], parameter.data

    @torch.no_grad()
    def load(self, average: Mapping[str, Tensor]) -> None:
        """Take over a stored average; its names are the parameters' names, all of them."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])
