"""Transforms of skewed, bounded and local variables, to be chained: each is fitted to what those before it make of the data.

Values are transformed one by one. Where a step loses something on purpose - a clip, an atom - its description says what.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.data.batch import Batch
from scorefield.data.normalise import Affine, Normaliser
from scorefield.data.statistics import Statistics, measure
from scorefield.foundation.errors import InputError

Values = Float[Tensor, "batch channels *grid"]
TOP = 4096  # values of a channel from which its tail is known


class Chain(Normaliser):
    """Transforms in order; the inverse undoes them from the last to the first.

    Args:
        steps: the transforms.
    """

    def __init__(self, steps: list[Normaliser]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        for number, step in enumerate(self._ordered):
            step.fit(Transformed(batches, self._ordered[:number]))
        return self

    @property
    def precision(self) -> torch.dtype:
        return widest(self._ordered)

    def forward(self, x: Values) -> Values:
        z = x.double()  # each step would round, and an exponential multiplies what is lost before it
        for step in self._ordered:
            z = step(z)
        return z.to(x.dtype)

    def inverse(self, x: Values) -> Values:
        z = x.double()
        for step in reversed(self._ordered):
            z = step.inverse(z)
        return z.to(torch.promote_types(x.dtype, self.precision))

    def log_det(self, x: Values) -> Float[Tensor, " batch"]:
        z, total = x.double(), x.new_zeros(len(x), dtype=torch.float64)
        for step in self._ordered:
            total = total + step.log_det(z)
            z = step(z)
        return total.to(x.dtype)

    @property
    def _ordered(self) -> list[Normaliser]:
        return cast(list[Normaliser], list(self.steps))


class PerVariable(Normaliser):
    """One transform for each channel, in the order of the variables; the last one serves all channels that are left.

    Args:
        transforms: of channel 0, 1, ...
    """

    channels: Tensor

    def __init__(self, transforms: list[Normaliser]) -> None:
        super().__init__()
        if not transforms:
            raise InputError("PerVariable has no transforms: give at least one.")
        self.transforms = nn.ModuleList(transforms)
        self.register_buffer("channels", torch.empty(0, dtype=torch.int64))

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        self.channels = torch.tensor(next(iter(batches)).x.shape[1])
        if self.channels < len(self.transforms):
            raise InputError(f"PerVariable has {len(self.transforms)} transforms for {int(self.channels)} variables.")
        for transform, part in self._parts(int(self.channels)):
            transform.fit(Selected(batches, part))
        return self

    @property
    def precision(self) -> torch.dtype:
        return widest(list(self.transforms))

    def forward(self, x: Values) -> Values:
        return torch.cat([transform(x[:, part]) for transform, part in self._parts(x.shape[1])], dim=1)

    def inverse(self, x: Values) -> Values:
        return torch.cat([transform.inverse(x[:, part]) for transform, part in self._parts(x.shape[1])], dim=1)

    def log_det(self, x: Values) -> Float[Tensor, " batch"]:
        found = [transform.log_det(x[:, part]) for transform, part in self._parts(x.shape[1])]
        return torch.stack(found).sum(0)

    def _parts(self, channels: int) -> Iterator[tuple[Normaliser, slice]]:
        if self.channels.numel() and channels != int(self.channels):
            raise InputError(
                f"PerVariable was fitted to {int(self.channels)} channels and is given {channels}: use the same data."
            )
        last = len(self.transforms) - 1
        for number, transform in enumerate(cast(list[Normaliser], list(self.transforms))):
            yield transform, slice(number, channels if number == last else number + 1)


def widest(steps: Sequence[nn.Module]) -> torch.dtype:
    """float64 where any of some normalisers needs it."""
    found = [cast(Normaliser, step).precision for step in steps]
    return torch.float64 if torch.float64 in found else torch.float32


class Transformed:
    """Batches as some transforms make them; each iteration reads them again."""

    def __init__(self, batches: Iterable[Batch], steps: list[Normaliser]) -> None:
        self.batches, self.steps = batches, steps

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            x = batch.x.double()
            for step in self.steps:
                x = step(x)
            yield replace(batch, x=x)


class Selected:
    """Batches with some of their channels; each iteration reads them again."""

    def __init__(self, batches: Iterable[Batch], part: slice) -> None:
        self.batches, self.part = batches, part

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            mask = None if batch.mask is None else batch.mask.expand_as(batch.x)[:, self.part]
            yield replace(batch, x=batch.x[:, self.part], mask=mask)


# -------------------------------------------------------------------------------------------------- one value at a time
class Fixed(Normaliser):
    """A function of single values with nothing to learn. Abstract: which function is left open."""

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        return self

    @abstractmethod
    def log_slope(self, x: Tensor) -> Tensor:
        """log |derivative| at every value, of the shape of x."""

    def log_det(self, x: Values) -> Float[Tensor, " batch"]:
        return self.log_slope(x.double()).flatten(1).sum(1).to(x.dtype)


class Root(Fixed):
    """sign(x) |x|^(1/power): a root that spreads small amounts and draws large ones together.

    Args:
        power: 2, 3, 4, ...
    """

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        if not power > 0:
            raise InputError(f"Root needs a power > 0, not {power}.")
        self.power = power

    def forward(self, x: Values) -> Values:
        return (x.sign() * x.double().abs().pow(1 / self.power)).to(x.dtype)

    def inverse(self, x: Values) -> Values:
        return (x.sign() * x.double().abs().pow(self.power)).to(x.dtype)

    def log_slope(self, x: Tensor) -> Tensor:
        return (1 / self.power - 1) * x.abs().log() - torch.log(torch.tensor(self.power))


class Log1p(Fixed):
    """log(1 + x/scale), for amounts with heavy tails.

    Args:
        scale: the amount, in data units, below which the map is nearly linear.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise InputError(f"Log1p needs a scale > 0, not {scale}.")
        self.scale = scale

    def forward(self, x: Values) -> Values:
        return torch.log1p(x.double() / self.scale).to(x.dtype)

    def inverse(self, x: Values) -> Values:
        return (torch.expm1(x.double()) * self.scale).to(x.dtype)

    def log_slope(self, x: Tensor) -> Tensor:
        return -torch.log(x + self.scale)


class Recentre(Fixed):
    """2x − 1: from [0, 1] to [−1, 1]."""

    def forward(self, x: Values) -> Values:
        return 2 * x - 1

    def inverse(self, x: Values) -> Values:
        return (x + 1) / 2

    def log_slope(self, x: Tensor) -> Tensor:
        return torch.full_like(x, 2.0).log()


class Fraction(Fixed):
    """x/100: from per cent to a fraction."""

    def forward(self, x: Values) -> Values:
        return x / 100

    def inverse(self, x: Values) -> Values:
        return x * 100

    def log_slope(self, x: Tensor) -> Tensor:
        return torch.full_like(x, 0.01).log()


class Clip(Fixed):
    """x itself; on the way back what lies outside is cut off. Lossy there: two fields may become one.

    Args:
        low: smallest value in the units of this place in a chain.
        high: largest value; null for none.
    """

    def __init__(self, low: float | None = 0.0, high: float | None = None) -> None:
        super().__init__()
        if low is None and high is None:
            raise InputError("Clip cuts off nothing: give low, high or both.")
        self.low, self.high = low, high

    def forward(self, x: Values) -> Values:
        return x

    def inverse(self, x: Values) -> Values:
        return x.clamp(self.low, self.high)

    def log_slope(self, x: Tensor) -> Tensor:
        raise InputError("Clip is no bijection, so that there is no density in data units: leave it out of the chain.")


# ------------------------------------------------------------------------------------------------- fitted, per channel
class Tail(Normaliser):
    """x itself up to the largest training value m of its channel; on the way back values beyond are bounded by what data allow.

    The way back is m + (b − m)(1 − exp(−(y − m)/(b − m))) for y > m: smooth, rising, and never above b. To the largest training
    values a generalised Pareto law is fitted by probability-weighted moments (Hosking and Wallis 1987), its shape within ±0.5,
    and b is what it exceeds once in `times` as many values as there were in training. An exponential of too large a number, as
    of a model that has learnt little, then makes no amounts that never fall. It comes before the root or logarithm of a `Chain`.

    Args:
        times: b would be exceeded once in so many times the training data.
    """

    largest: Tensor
    bound: Tensor

    def __init__(self, times: float = 100.0) -> None:
        super().__init__()
        if not times >= 1:
            raise InputError(f"Tail needs times of at least 1, not {times}.")
        self.times = times
        for name in ("largest", "bound"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        if self.fitted:
            raise InputError("Tail is fitted already: make a new one for other data.")
        kept: list[Tensor] = []
        counts: list[int] = []
        for batch in batches:
            mask = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask.expand_as(batch.x)
            parts = [x[known.bool()].double() for x, known in zip(batch.x.unbind(1), mask.unbind(1), strict=True)]
            kept, counts = kept or [part[:0] for part in parts], counts or [0] * len(parts)
            counts = [count + len(part) for count, part in zip(counts, parts, strict=True)]
            joined = [torch.cat(pair) for pair in zip(kept, parts, strict=True)]
            kept = [part.topk(min(len(part), TOP)).values for part in joined]
        for channel, part in enumerate(kept):
            if not len(part) or not bool(part.isfinite().all()):
                raise InputError(f"Channel {channel} has no known values, or infinite ones: mask or replace them.")
        self.largest = torch.stack([part[0] for part in kept])
        self.bound = torch.stack([self._bound(part, n) for part, n in zip(kept, counts, strict=True)])
        return self

    def _bound(self, top: Tensor, count: int) -> Tensor:
        """What is exceeded once in `times` the data, from the largest values in falling order."""
        used = top[: max(min(count // 1000, len(top)), min(20, len(top)))]
        excess = (used - used[-1])[:-1].flip(0)  # rising
        n = len(excess)
        least = used[0] + 1e-3 * used[0].abs().clamp(min=1e-6)  # where all are equal
        if n < 2 or not bool(excess[-1] > 0):
            return least
        mean = excess.mean()
        lower = ((1 - (torch.arange(1, n + 1).double() - 0.35) / n) * excess).mean()
        shape = (2 - mean / (mean - 2 * lower)).clamp(-0.5, 0.5)  # ξ, and σ = (1 − ξ) mean, so that the mean is right
        rarity = torch.tensor(n * self.times, dtype=torch.float64)
        level = rarity.log() if abs(float(shape)) < 1e-6 else (rarity**shape - 1) / shape
        return torch.maximum(used[-1] + (1 - shape) * mean * level, torch.maximum(used[0] + mean, least))

    def forward(self, x: Values) -> Values:
        most, room = self._columns(x)
        share = ((x.double() - most) / room).clamp(0, 1 - 1e-12)
        return torch.where(x > most, (most - room * torch.log1p(-share)).to(x.dtype), x)

    def inverse(self, x: Values) -> Values:
        most, room = self._columns(x)
        beyond = most - room * torch.expm1(-(x.double() - most).clamp(min=0) / room)
        return torch.where(x > most, beyond.to(x.dtype), x)

    def log_det(self, x: Values) -> Float[Tensor, " batch"]:
        most, room = self._columns(x)
        share = ((x.double() - most) / room).clamp(0, 1 - 1e-12)
        return (-torch.log1p(-share)).flatten(1).sum(1).to(x.dtype)

    def _columns(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.fitted:
            raise InputError("Tail is not fitted: call fit, or load a checkpoint that holds it.")
        if x.shape[1] != len(self.bound):
            raise InputError(f"Tail was fitted to {len(self.bound)} channels and is given {x.shape[1]}.")
        shape = (-1, *(1,) * (x.ndim - 2))
        most = self.largest.double().reshape(shape)
        return most, self.bound.double().reshape(shape) - most


class Largest(Affine):
    """x divided by the largest training value of its channel: amounts from 0 go to [0, 1]."""

    def coefficients(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        if not bool((statistics.maximum > 0).all()):
            raise InputError(
                f"Channel {int((statistics.maximum <= 0).nonzero()[0])} is never above 0: use Standardise."
            )
        return torch.zeros_like(statistics.maximum), statistics.maximum


class RawMoment(Affine):
    """x divided by (E |x|ᵖ)^(1/p) of its channel, about 0: amounts keep their zero.

    Args:
        power: p.
    """

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        if not power > 0:
            raise InputError(f"RawMoment needs a power > 0, not {power}.")
        self.power = power

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        if self.fitted:
            raise InputError("RawMoment is fitted already: make a new one for other data.")
        powers = measure(replace(batch, x=batch.x.double().abs().pow(self.power)) for batch in batches).check()
        self.shift, self.scale = (v.to(self.shift) for v in self.coefficients(powers))
        return self

    def coefficients(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        if not bool((statistics.mean > 0).all()):
            raise InputError(f"Channel {int((statistics.mean <= 0).nonzero()[0])} is 0 everywhere: remove it.")
        return torch.zeros_like(statistics.mean), statistics.mean ** (1 / self.power)
