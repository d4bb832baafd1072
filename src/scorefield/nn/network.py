"""The one thing a score model asks of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.foundation.arithmetic import placed
from scorefield.foundation.errors import InputError
from scorefield.foundation.limits import check_memory
from scorefield.foundation.precision import FLOAT32, wide


def check_layer(channels: int) -> None:
    """Raise MemoryError for channels of which one layer alone exceeds this machine, before smaller things are made of as many."""
    try:
        check_memory(FLOAT32 * channels**2, f"a layer of {channels} channels")
    except InputError as error:
        raise MemoryError(str(error).removesuffix(": take less.")) from error


class Network(nn.Module, ABC):
    """F(x, label, cond): a field and a noise label per sample to a field of the same grid.

    A constructor that takes `in_channels` and `out_channels`, with the default 0 has them filled in from the data; so has one
    that takes `classes`, or `vector`.

    A network with `logits` is a classifier: its result is not a field but logits (batch, classes).

    Attributes:
        logits: how many classes its result tells apart; 0 where the result is a field.
        labels: how many classes it tells apart by `cond["label"]`; 0 without any.
        cond_channels: how many channels of `cond["field"]` it needs; 0 without any.
        vector: how many entries `cond["vector"]` has, (batch, entries) of about unit variance, NaN for none; 0 without any.
        augmentations: how many numbers of `cond["augment"]` it takes, (batch, entries), 0 where it has none; 0 without any.
        jumps: whether it learns where a jump ends, by `cond["jump"]`: it may become a flow map.
        label_range: the smallest and the largest noise label that it can tell from others; None where it takes any.
    """

    logits: int = 0
    labels: int = 0
    cond_channels: int = 0
    vector: int = 0
    augmentations: int = 0
    jumps: bool = False
    label_range: tuple[float, float] | None = None

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "batch in_channels *grid"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels *grid"]: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of its parameters; float32 without any."""
        return self._own(torch.float32)

    def _own(self, other: torch.dtype) -> torch.dtype:
        """The type of its parameters, or another where it has none."""
        parts = chain(self.parameters(), self.buffers())
        return next((part.dtype for part in parts if part.is_floating_point()), other)

    def evaluate(self, x: Tensor, label: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """F in the precision of x, computed in its own; noise label, coordinates and vector keep their digits.

        Args:
            x: the field, in any precision.
            label: one for all or one each.
            cond: with a field and a vector of any precision.
        """
        own = self._own(x.dtype)  # what has no parameters computes in the precision that it is given
        label = placed(label.to(wide(own)), x.device).expand(len(x))
        if cond and "field" in cond:
            cond = {**cond, "field": cond["field"].to(own)}
        return self(x.to(own), label, cond).to(x.dtype)
