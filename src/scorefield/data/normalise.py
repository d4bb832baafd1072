"""Normalisation: invertible maps between data units and model space, fitted once and kept in the checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.data.batch import Batch
from scorefield.data.precision import of_offset
from scorefield.data.statistics import Statistics, measure
from scorefield.data.vectors import check_rows
from scorefield.foundation.errors import InputError
from scorefield.foundation.precision import Learnt


class Normaliser(Learnt, ABC):
    """A map from data units to model space. What it has learnt are its buffers, which are empty until it is fitted.

    A new one takes the shape of its buffers from the checkpoint that is loaded into it: neither data nor the number of
    channels are needed. It is fitted once, since a second fit would change the meaning of all that a model has learnt.
    """

    @abstractmethod
    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        """Learn from the training data. Known values that are NaN or infinite raise InputError."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *grid"]:
        """Data units to model space."""

    @abstractmethod
    def inverse(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *grid"]:
        """Model space to data units."""

    @abstractmethod
    def log_det(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, " batch"]:
        """log |det ∂forward/∂x| at x in data units, summed over all elements of each field."""

    @property
    def precision(self) -> torch.dtype:
        """Of values in data units: float64 where float32 would round off what the model tells apart, a small spread about a large
        offset. Then `inverse` returns float64 whatever it is given.
        """
        return torch.float32


class Affine(Normaliser):
    """(x - shift) / scale with one shift and scale per channel. Abstract: what they are is left open."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.empty(0))
        self.register_buffer("scale", torch.empty(0))

    @abstractmethod
    def coefficients(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Shift and scale (channels) from the statistics of the data."""

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        if self.fitted:
            raise InputError(f"{type(self).__name__} is fitted already: make a new one for other data.")
        shift, scale = self.coefficients(measure(batches).check())
        self.shift, self.scale = in_type_of(self.shift, shift, scale)
        return self

    @property
    def precision(self) -> torch.dtype:
        return of_offset(self.shift, self.scale)

    def forward(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *grid"]:
        shift, scale = self._columns(x)
        return (x - shift) / scale

    def inverse(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *grid"]:
        shift, scale = self._columns(x)
        return x * scale + shift

    def log_det(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, " batch"]:
        _, scale = self._columns(x)
        elements = x[0, 0].numel()
        return (-elements * scale.double().abs().log().sum()).to(x.dtype).expand(len(x))

    def _columns(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale that broadcast against x."""
        name = type(self).__name__
        if not self.fitted:
            raise InputError(
                f"{name} is not fitted: call fit with training batches, or load a checkpoint that holds it."
            )
        if x.shape[1] != len(self.shift):
            raise InputError(
                f"{name} was fitted to {len(self.shift)} channels and is given {x.shape[1]}: use the same data."
            )
        shape = (-1, *(1,) * (x.ndim - 2))
        return self.shift.reshape(shape), self.scale.reshape(shape)


class Standardise(Affine):
    """(x - mean) / std per channel: mean 0 and standard deviation 1. A constant channel raises InputError at fit."""

    def coefficients(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        refuse_constant(statistics)
        return statistics.mean, statistics.std


class Centre(Affine):
    """(x - mean) / scale, the mean per channel.

    Args:
        scale: the same for all channels, in data units.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise InputError(f"Centre divides by scale={scale}: give a positive one.")
        self.divisor = scale

    def coefficients(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        return statistics.mean, torch.full_like(statistics.mean, self.divisor)


class Divide(Affine):
    """x / scale: nothing is subtracted, so that what is measured of x linearly is scaled with it, and 0 stays 0.

    Args:
        scale: the same for all channels, in data units.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise InputError(f"Divide divides by scale={scale}: give a positive one.")
        self.divisor = scale

    def coefficients(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(statistics.mean), torch.full_like(statistics.mean, self.divisor)


class UnitRange(Affine):
    """Smallest and largest value of each channel to the ends of a range. A constant channel raises InputError at fit.

    Args:
        low: where the smallest value goes.
        high: where the largest value goes.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()
        if not low < high:
            raise InputError(f"UnitRange from {low} to {high} is empty: give low below high.")
        self.low, self.high = low, high

    def coefficients(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        refuse_constant(statistics)
        scale = (statistics.maximum - statistics.minimum) / (self.high - self.low)
        return statistics.minimum - self.low * scale, scale


class Identity(Normaliser):
    """x itself; nothing to fit."""

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        return self

    def forward(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *grid"]:
        return x

    def inverse(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *grid"]:
        return x

    def log_det(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, " batch"]:
        return x.new_zeros(len(x))


class VectorUnits(nn.Module):
    """(v − mean)/std of each entry of `cond["vector"]`, learnt from the training data; a row of NaN, the null vector, stays one.

    Args:
        entries: how many.
    """

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries, self.units = entries, Standardise()

    @property
    def fitted(self) -> bool:
        """Whether it can be used."""
        return self.units.fitted

    def fit(self, batches: Iterable[Batch]) -> None:
        """Learn from the vectors of training data. Raises InputError where there are none, or an entry never changes."""
        parts = [self.check(batch.cond["vector"]).double().cpu() for batch in batches if "vector" in batch.cond]
        known = torch.cat(parts) if parts else torch.empty(0, self.entries)
        known = known[~known.isnan().all(dim=1)]
        if len(known) == 0:
            raise InputError(f"The data bring no vectors of {self.entries} numbers: set model.net.vector to 0.")
        same = (known == known[0]).all(dim=0)
        if bool(same.any()):
            entry = int(same.nonzero()[0])
            raise InputError(
                f"Entry {entry} of the vectors is {float(known[0, entry]):g} for all fields, which teaches nothing: leave it out."
            )
        self.units.fit([Batch(known)])

    def forward(self, vector: Tensor) -> Float[Tensor, "batch entries"]:
        """Data units, (batch, entries) of any type, to about unit variance, in float64."""
        checked = self.check(vector).double()
        return self.units(checked.to(self.units.shift.device))

    def check(self, vector: Tensor) -> Tensor:
        """The vectors (batch, entries), or InputError where they have another number of entries, or some that are not finite."""
        if vector.ndim != 2 or vector.shape[1] != self.entries:
            raise InputError(
                f"cond['vector'] has shape {tuple(vector.shape)}: give (batch, {self.entries}), as the network was trained."
            )
        return check_rows(vector, "cond['vector']")


def in_type_of(buffer: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """A shift and a scale, (channels), as they are kept: in the type of a buffer, or in float64 where the shift needs it."""
    kept = torch.promote_types(buffer.dtype, of_offset(shift, scale))
    return shift.to(buffer.device, kept), scale.to(buffer.device, kept)


def refuse_constant(statistics: Statistics) -> None:
    """Raise InputError if a channel has but one value, which cannot be scaled."""
    constant = (statistics.minimum == statistics.maximum).nonzero().flatten().tolist()
    if constant:
        value = float(statistics.mean[constant[0]])
        raise InputError(
            f"Channel {constant[0]} is constant at {value:g} and cannot be scaled: remove it or use Centre."
        )
