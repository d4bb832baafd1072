"""What flows from data to network: one immutable batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError


@dataclass(frozen=True)
class Batch:
    """Fields, what they are conditioned on, what was measured of them, and where they are known.

    Args:
        x: the fields, (batch, channels, *grid).
        cond: what the model is conditioned on, passed unchanged from data to network; keys `field` (concatenated to the
            network's input), `label`, `vector` (batch, entries; NaN where it is unknown), `coords`, `augment` (batch, entries:
            what augmentation has done to each).
        y: a measurement of x, for losses that learn from measurements alone.
        mask: 1 where x is known and 0 elsewhere, broadcastable to x; `None` means known everywhere.
        key: (index, epoch) of each sample, (batch, 2) int64. All randomness of a sample in training is drawn from it.
        given: what else the operator of that measurement is made of, one row per sample: sampled points, maps of coils.
        noise: (batch), the standard deviation of the noise in x or, where there is one, in y, per real component; `None` means
            that the fields are taken as they are.
    """

    x: Tensor
    cond: Mapping[str, Tensor] = field(default_factory=dict)
    y: Tensor | None = None
    mask: Tensor | None = None
    key: Tensor | None = None
    given: Mapping[str, Tensor] = field(default_factory=dict)
    noise: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def normalised(self, normaliser: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch in model space: x, 0 where it is not known, and what was measured of it with its noise.

        Raises:
            InputError: a measurement, or noise, that no single factor brings to model space.
        """
        x = normaliser(self.x)
        x = x if self.mask is None else x.where(self.mask.bool(), 0.0)
        if self.noise is None and self.y is None:
            return replace(self, x=x)
        factor = _factor(normaliser, self.x, shifted=self.y is None)
        y, noise = (None if value is None else factor * value for value in (self.y, self.noise))
        return replace(self, x=x, y=y, noise=noise)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device, but for its key, which the host reads."""
        return replace(self.mapped(lambda tensor: tensor.to(device, non_blocking=True)), key=self.key)

    def tensors(self) -> Iterator[Tensor]:
        """All of its tensors."""
        yield from (self.x, *self.cond.values(), *self.given.values())
        yield from (part for part in (self.y, self.mask, self.key, self.noise) if part is not None)

    def split(self, size: int) -> list[Batch]:
        """The same samples in batches of at most so many."""

        def part(first: int) -> Batch:
            return self.mapped(lambda tensor: tensor[first : first + size] if len(tensor) == len(self) else tensor)

        return [part(first) for first in range(0, len(self), size)]

    def pin_memory(self) -> Batch:
        """The same batch in memory that a GPU copies from by itself; a `DataLoader` calls this."""
        return replace(self.mapped(Tensor.pin_memory), key=self.key)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed."""

        def changed(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        cond, given = ({name: change(value) for name, value in part.items()} for part in (self.cond, self.given))
        y, mask, key, noise = map(changed, (self.y, self.mask, self.key, self.noise))
        return Batch(change(self.x), cond, y, mask, key, given, noise)


class Conditions:
    """The fields that batches are conditioned on, as batches of their own, as often as they are asked for; NaN is unknown.

    Args:
        batches: those that they come from.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        found = False
        for batch in self.batches:
            if "field" in batch.cond:
                x, found = batch.cond["field"], True
                yield Batch(x, mask=~torch.isnan(x), key=batch.key)
        if not found:
            raise InputError(
                "The data bring no field to condition on, of which model.predictors asks: give scorefield.Identity."
            )


class Changed:
    """Batches as a function makes them of others, as often as they are asked for.

    Args:
        batches: those that they are made of.
        change: makes them.
    """

    def __init__(self, batches: Iterable[Batch], change: Callable[[Batch], Batch]) -> None:
        self.batches, self.change = batches, change

    def __iter__(self) -> Iterator[Batch]:
        return map(self.change, self.batches)


def _factor(normaliser: Callable[[Tensor], Tensor], x: Tensor, *, shifted: bool) -> float:
    """s of a normaliser that maps x to s x, or, where it may be shifted, to s x + b."""
    zero = torch.zeros_like(x[:1], dtype=torch.float64)
    shift = normaliser(zero)
    first, second = normaliser(zero + 1) - shift, normaliser(zero + 2) - shift
    factor = float(first.flatten()[0])
    even = torch.allclose(first, torch.full_like(first, factor), rtol=1e-5, atol=0.0)
    if not even or not torch.allclose(second, 2 * first, rtol=1e-5, atol=0.0) or (not shifted and bool(shift.any())):
        raise InputError(
            "The normaliser makes white noise of the measurement uneven, or shifts what is measured: take one that divides all "
            "channels by the same number, such as Divide."
        )
    return factor
