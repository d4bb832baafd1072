"""Exponential moving average of the weights, by parameter name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scorefield.training import sharding


class EMA:
    """w̄ ← w̄ + (1 − d)(w − w̄) after every optimiser step, d = min(decay, (1 + k)/(10 + k)) at step k.

    The ramp lets the average forget the random start (as the original implementations do it).

    Args:
        module: whose parameters are averaged.
        decay: 0 keeps the weights themselves.
        sharded: whether this process has but a share of the weights; and so it has of their average.
    """

    def __init__(self, module: nn.Module, decay: float, *, sharded: bool = False) -> None:
        self.decay, self.sharded = decay, sharded
        self._parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.average = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        torch._foreach_lerp_(self.shares(), self._own(self._parameters), 1 - decay)  # type: ignore[attr-defined] - one kernel for all of them

    def shares(self) -> list[Tensor]:
        """What this process has of the average."""
        return self._own(self.average)

    def _own(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        return [sharding.local(tensor) if self.sharded else tensor for tensor in tensors.values()]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module computes with the averaged weights inside; each number is kept, so nothing is lost."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            if self.sharded:  # where the memory itself is known to what gathers it
                sharding.exchange(parameter, self.average[name])
            else:
                parameter.data, self.average[name] = self.average[name], parameter.data

    @torch.no_grad()
    def load(self, average: Mapping[str, Tensor]) -> None:
        """Take over a stored average; its names are the parameters' names, all of them."""
        for name, tensor in self.average.items():
            tensor.copy_(sharding.share_of(average[name], tensor) if self.sharded else average[name])
