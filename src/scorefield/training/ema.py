"""Running averages of the weights, by parameter name: exponential, and by powers of time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scorefield.training import sharding
from scorefield.training.profiles import exponent


class Average(ABC):
    """w̄ ← w̄ + (1 − d)(w − w̄) after every optimiser step.

    Args:
        module: whose parameters are averaged.
        sharded: whether this process has but a share of the weights; and so it has of their average.
    """

    def __init__(self, module: nn.Module, *, sharded: bool = False) -> None:
        self.sharded = sharded
        self._parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.average = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @abstractmethod
    def keeps(self, step: int) -> float:
        """d at optimiser step number `step`, counted from 0."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step number `step`, counted from 0."""
        torch._foreach_lerp_(self.shares(), self._own(self._parameters), 1 - self.keeps(step))  # type: ignore[attr-defined] - one kernel for all of them

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


class EMA(Average):
    """The exponential average: d = min(decay, (1 + k)/(10 + k)) at step k.

    The ramp lets the average forget the random start (as the original implementations do it).

    Args:
        module: whose parameters are averaged.
        decay: 0 keeps the weights themselves.
        sharded: whether this process has but a share of the weights.
    """

    def __init__(self, module: nn.Module, decay: float, *, sharded: bool = False) -> None:
        super().__init__(module, sharded=sharded)
        self.decay = decay

    def keeps(self, step: int) -> float:
        return min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0


class PowerEMA(Average):
    """The average with weights ∝ kᵉ − (k − 1)ᵉ of step k = 1, 2, ...: d = (1 − 1/k)ᵉ (Karras et al. 2024, section 3.1).

    Its width is a share of the time trained so far, so that averages of one width at several times have one shape, and those of
    other widths can be made of a few that were kept (`scorefield.training.profiles`).

    Args:
        module: whose parameters are averaged.
        width: σ_rel, the standard deviation of the weights over time, in parts of the time trained so far.
        sharded: whether this process has but a share of the weights.
    """

    def __init__(self, module: nn.Module, width: float, *, sharded: bool = False) -> None:
        super().__init__(module, sharded=sharded)
        self.width, self.exponent = width, exponent(width)

    def keeps(self, step: int) -> float:
        return (1 - 1 / (step + 1)) ** self.exponent
