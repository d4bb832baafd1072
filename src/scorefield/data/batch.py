"""What flows from data to network: one immutable batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Fields, what they are conditioned on, what was measured of them, and where they are known.

    Args:
        x: the fields, (batch, channels, *grid).
        cond: what the model is conditioned on, passed unchanged from data to network; keys `field` (concatenated to the
            network's input), `label`, `vector`, `coords`.
        y: a measurement of x, for losses that learn from measurements alone.
        mask: 1 where x is known and 0 elsewhere, broadcastable to x; `None` means known everywhere.
        key: (index, epoch) of each sample, (batch, 2) int64. All randomness of a sample in training is drawn from it.
    """

    x: Tensor
    cond: Mapping[str, Tensor] = field(default_factory=dict)
    y: Tensor | None = None
    mask: Tensor | None = None
    key: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def normalised(self, normaliser: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with x in model space."""
        return replace(self, x=normaliser(self.x))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        cond = {name: tensor.to(device, non_blocking=True) for name, tensor in self.cond.items()}
        return replace(self, x=self.x.to(device, non_blocking=True), cond=cond, y=move(self.y), mask=move(self.mask))
