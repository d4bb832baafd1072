"""What flows from data to network: one immutable batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
        """The same batch with x in model space, 0 where it is not known."""
        x = normaliser(self.x)
        return replace(self, x=x if self.mask is None else x.where(self.mask.bool(), 0.0))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        cond = {name: tensor.to(device, non_blocking=True) for name, tensor in self.cond.items()}
        return replace(self, x=self.x.to(device, non_blocking=True), cond=cond, y=move(self.y), mask=move(self.mask))


class Conditions:
    """The fields that batches are conditioned on, as batches of their own, as often as they are asked for; NaN is unknown.

    Args:
        batches: those that they come from.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            if "field" in batch.cond:
                x = batch.cond["field"]
                yield Batch(x, mask=~torch.isnan(x), key=batch.key)
