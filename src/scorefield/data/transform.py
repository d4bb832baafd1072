"""Transforms of skewed, bounded and local variables, to be chained: each is fitted to what those before it make of the data.

Values are transformed one by one. Where a step loses something on purpose - a clip, an atom - its description says what.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.data.batch import Batch
from scorefield.data.normalise import Affine, Normaliser
from scorefield.data.statistics import Statistics, measure
from scorefield.errors import InputError

Values = Float[Tensor, "batch channels *grid"]
EDGE = 1e-5  # between the ranks of an atom and those above it, so that float32 does not mistake one for the other


class Chain(Normaliser):
    """Transforms in order; the inverse undoes them from the last to the first.

    Args:
        steps: the transforms.
    """

    def __init__(self, steps: list[Normaliser]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        for number, step in enumerate(self.steps):
            step.fit(Transformed(batches, list(self.steps)[:number]))  # type: ignore[operator]
        return self

    def forward(self, x: Values) -> Values:
        z = x.double()  # each step would round, and an exponential multiplies what is lost before it
        for step in self.steps:
            z = step(z)
        return z.to(x.dtype)

    def inverse(self, x: Values) -> Values:
        z = x.double()
        for step in reversed(self.steps):
            z = step.inverse(z)  # type: ignore[operator]
        return z.to(x.dtype)

    def log_det(self, x: Values) -> Float[Tensor, " batch"]:
        z, total = x.double(), x.new_zeros(len(x), dtype=torch.float64)
        for step in self.steps:
            total = total + step.log_det(z)  # type: ignore[operator]
            z = step(z)
        return total.to(x.dtype)


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
        for number, transform in enumerate(self.transforms):
            yield transform, slice(number, channels if number == last else number + 1)  # type: ignore[misc]


class Transformed:
    """Batches as some transforms make them, as often as they are asked for."""

    def __init__(self, batches: Iterable[Batch], steps: list[nn.Module]) -> None:
        self.batches, self.steps = batches, steps

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            x = batch.x.double()
            for step in self.steps:
                x = step(x)
            yield replace(batch, x=x)


class Selected:
    """Batches with some of their channels, as often as they are asked for."""

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
        """log |derivative| at every value."""

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


class PixelStandardise(Normaliser):
    """(x − mean) / std with a mean and a standard deviation of every point of the grid and every channel.

    A point that is never known, or always the same, is only shifted.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("std", torch.empty(0))

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        if self.fitted:
            raise InputError("PixelStandardise is fitted already: make a new one for other data.")
        mean, std = pixel_moments(batches)
        self.mean, self.std = mean.to(self.mean), std.to(self.std)
        return self

    def forward(self, x: Values) -> Values:
        self._check(x)
        return (x - self.mean) / self.std

    def inverse(self, x: Values) -> Values:
        self._check(x)
        return x * self.std + self.mean

    def log_det(self, x: Values) -> Float[Tensor, " batch"]:
        self._check(x)
        return (-self.std.double().log().sum()).to(x.dtype).expand(len(x))

    def _check(self, x: Tensor) -> None:
        if not self.fitted:
            raise InputError("PixelStandardise is not fitted: call fit, or load a checkpoint that holds it.")
        if x.shape[1:] != self.mean.shape:
            raise InputError(
                f"PixelStandardise was fitted to fields {tuple(self.mean.shape)} and is given {tuple(x.shape[1:])}: "
                "its moments belong to places, so that it fits no tiles and no other grid."
            )


class MatchMoments(Normaliser):
    """Standardised by the moments of each channel; and for predictors of another driving model, first
    (x − μ)/s · S + M at every point: its moments μ, s are replaced by those of the model trained on, M, S (bias correction).

    By itself it is `Standardise` that has kept the moments of every point; `matched_to` makes the correction of them.
    """

    mean: Tensor
    std: Tensor
    level: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean", "std", "level", "spread"):
            self.register_buffer(name, torch.empty(0))

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        if self.fitted:
            raise InputError("MatchMoments is fitted already: make a new one for other data.")
        mean, std = pixel_moments(batches)
        whole = measure(batches).check()
        self.mean, self.std = mean.to(self.mean), std.to(self.std)
        shape = (-1, *(1,) * (mean.ndim - 1))
        self.level, self.spread = (v.reshape(shape).to(self.level) for v in (whole.mean, whole.std.clamp(min=1e-30)))
        return self

    def forward(self, x: Values) -> Values:
        return (x - self.level) / self.spread

    def inverse(self, x: Values) -> Values:
        return x * self.spread + self.level

    def log_det(self, x: Values) -> Float[Tensor, " batch"]:
        points = x[0, 0].numel()
        return (-points * self.spread.double().log().sum()).to(x.dtype).expand(len(x))


class Matched:
    """(x − μ)/s · S + M at every point: a field of one model with the first two moments of another's."""

    def __init__(self, mean: Tensor, std: Tensor, new_mean: Tensor, new_std: Tensor) -> None:
        self.mean, self.std, self.new_mean, self.new_std = mean, std, new_mean, new_std

    def __call__(self, x: Values) -> Values:
        return (x - self.mean) / self.std * self.new_std + self.new_mean


def matched_to(normaliser: Normaliser, batches: Iterable[Batch]) -> Matched:
    """The correction of fields of another model, which have the moments of these batches, for one trained with a normaliser
    that has kept the moments of every point: `MatchMoments` or `PixelStandardise`, alone or first in a chain.
    """
    kept = {name.rpartition(".")[2]: value for name, value in normaliser.named_buffers() if value.ndim > 1}
    if not {"mean", "std"} <= kept.keys():
        raise InputError(
            "To correct another model's predictors, moments of every point are needed, and the run has kept none: train with "
            "model.predictors MatchMoments."
        )
    mean, std = (value.to(kept["mean"]) for value in pixel_moments(batches))
    if mean.shape != kept["mean"].shape:
        raise InputError(
            f"The other model's fields are {tuple(mean.shape)}, those trained on {tuple(kept['mean'].shape)}."
        )
    return Matched(mean, std, kept["mean"], kept["std"])


class QuantileNormal(Normaliser):
    """Φ⁻¹ of the rank of a value among the training values of its channel: any continuous law becomes N(0, 1).

    An atom at the low end - dry points, below `wet` - has the ranks below p₀, its share. A value there takes one of them at
    random, so that no spike is left; the draw follows from the seed and the field itself. The way back sends all of them to
    the atom: lossy, values below `wet` are gone. Beyond the training range the map goes on as a straight line with the mean slope
    of the outermost hundredth of the knots, so that larger values than in training can be drawn.

    Args:
        wet: values below are the atom; null for a law without one.
        dry: the value that the atom has on the way back.
        knots: how many quantiles are stored.
        seed: of the draws.
    """

    values: Tensor
    scores: Tensor

    def __init__(self, wet: float | None = None, dry: float = 0.0, knots: int = 1024, seed: int = 0) -> None:
        super().__init__()
        if knots < 16:
            raise InputError(f"QuantileNormal needs 16 knots or more, not {knots}.")
        self.wet, self.dry, self.knots, self.seed = wet, dry, knots, seed
        self.register_buffer("values", torch.empty(0, dtype=torch.float64))
        self.register_buffer("scores", torch.empty(0, dtype=torch.float64))

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        if self.fitted:
            raise InputError("QuantileNormal is fitted already: make a new one for other data.")
        kept = _known_values(batches)
        pairs = [self._table(channel, number) for number, channel in enumerate(kept)]
        self.values, self.scores = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        return self

    def forward(self, x: Values) -> Values:
        self._check(x)
        out = torch.stack([self._map(c, self.values[i], self.scores[i]) for i, c in enumerate(x.unbind(1))], dim=1)
        if self.wet is None:
            return out
        share = torch.special.ndtr(self.scores[:, 0]).reshape(-1, *(1,) * (x.ndim - 2)).to(x)
        drawn = torch.special.ndtri((share * self._uniform(x) * (1 - 2 * EDGE)).double().clamp(min=1e-7)).to(out)
        return torch.where(x < self.wet, drawn, out)

    def inverse(self, x: Values) -> Values:
        self._check(x)
        out = torch.stack([self._map(c, self.scores[i], self.values[i]) for i, c in enumerate(x.unbind(1))], dim=1)
        if self.wet is None:
            return out
        atom = x.double() < self.scores[:, 0].reshape(-1, *(1,) * (x.ndim - 2)) - EDGE
        return torch.where(atom, torch.full_like(out, self.dry), out.clamp(min=self.wet))

    def log_det(self, x: Values) -> Float[Tensor, " batch"]:
        if self.wet is not None:
            raise InputError("QuantileNormal with an atom is no bijection, so that there is no density in data units.")
        total = x.new_zeros(len(x), dtype=torch.float64)
        for i, channel in enumerate(x.double().unbind(1)):
            lower = self._segment(channel, self.values[i])
            slope = self.scores[i].diff()[lower] / self.values[i].diff()[lower]
            total = total + slope.log().flatten(1).sum(1)
        return total.to(x.dtype)

    def _table(self, known: Tensor, channel: int) -> tuple[np.ndarray, np.ndarray]:
        """Rising values and their normal scores, the first at the edge of the atom."""
        n, ordered = len(known), known.sort().values.double()
        share = 0.0 if self.wet is None else float((ordered < self.wet).double().mean())
        wet = ordered if self.wet is None else ordered[ordered >= self.wet]
        if len(wet) < 2 or wet[0] == wet[-1]:
            raise InputError(f"Channel {channel} has fewer than two values above {self.wet}: it has no quantiles.")
        # Knots are equally far apart in normal scores: ranks alone would leave the tail to one of them.
        low, high = max(share, 0.5 / n), 1 - 0.5 / n
        ends = torch.special.ndtri(torch.tensor([low, high], dtype=torch.float64))
        scores = torch.linspace(float(ends[0]), float(ends[1]), self.knots, dtype=torch.float64)
        ranks = ((torch.special.ndtr(scores) - share) / (1 - share) * len(wet) - 0.5).clamp(0, len(wet) - 1)
        below = ranks.floor().long().clamp(max=len(wet) - 2)
        values = wet[below] + (ranks - below) * (wet[below + 1] - wet[below])
        values[0], values[-1] = wet[0] if self.wet is None else self.wet, wet[-1]
        # Values that are all equal have a range of ranks: a little slope there keeps the map invertible.
        tilt = 1e-9 * float(wet[-1] - wet[0])
        values = torch.cummax(values, 0).values + tilt * torch.arange(self.knots, dtype=torch.float64)
        return _extended(values.numpy(), scores.numpy(), closed=self.wet is not None)

    def _map(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        lower = self._segment(x, source)
        z = x.double()
        weight = (z - source[lower]) / (source[lower + 1] - source[lower])
        return (target[lower] + weight * (target[lower + 1] - target[lower])).to(x.dtype)

    @staticmethod
    def _segment(x: Tensor, source: Tensor) -> Tensor:
        return (torch.searchsorted(source, x.double().contiguous()) - 1).clamp(0, len(source) - 2)

    def _uniform(self, x: Tensor) -> Tensor:
        """Draws in (0, 1) that follow from the seed and each field's own values."""
        fields = x.detach().float().cpu().contiguous().numpy()
        rows = [np.random.default_rng((self.seed, zlib.crc32(f.tobytes()))).random(f.shape, np.float32) for f in fields]
        return torch.from_numpy(np.stack(rows)).to(x).clamp(min=1e-7)

    def _check(self, x: Tensor) -> None:
        if not self.fitted:
            raise InputError("QuantileNormal is not fitted: call fit, or load a checkpoint that holds it.")
        if x.shape[1] != len(self.values):
            raise InputError(f"QuantileNormal was fitted to {len(self.values)} channels and is given {x.shape[1]}.")


def pixel_moments(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of known values at every point, (channels, *grid) float64; 0 and 1 where there are none."""
    count = mean = squares = torch.zeros(())
    for batch in batches:
        x = batch.x.double()
        good = x.isfinite() if batch.mask is None else x.isfinite() & batch.mask.bool().expand_as(x)
        n = good.sum(0).double()
        part = x.where(good, 0.0).sum(0) / n.clamp(min=1)
        deviations = (x - part).where(good, 0.0).square().sum(0)
        total = count + n
        shift, share = part - mean, n / total.clamp(min=1)
        squares = squares + deviations + shift.square() * count * share
        mean, count = mean + shift * share, total
    if count.ndim == 0:
        raise InputError("There are no data to measure: correct the source or its split.")
    std = (squares / count.clamp(min=1)).sqrt()
    return mean, std.where(std > 1e-12 * mean.abs().clamp(min=1e-12), 1.0)


def _known_values(batches: Iterable[Batch], most: int = 2**24) -> list[Tensor]:
    """The known values of each channel; of very many, every so-and-so-many-th."""
    parts: list[list[Tensor]] = []
    for batch in batches:
        mask = (
            torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask.bool().expand_as(batch.x)
        )
        parts = parts or [[] for _ in range(batch.x.shape[1])]
        for channel, kept in enumerate(parts):
            kept.append(batch.x[:, channel][mask[:, channel]])
    joined = [torch.cat(kept) for kept in parts]
    for channel, values in enumerate(joined):
        if not bool(values.isfinite().all()):
            raise InputError(f"Channel {channel} has known values that are NaN or infinite: mask or replace them.")
    return [values[:: max(1, len(values) // most)] for values in joined]


def _extended(values: np.ndarray, scores: np.ndarray, *, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """A straight line beyond the ends, of the mean slope of the outermost hundredth of the knots."""
    part = max(2, len(values) // 100)
    reach = 10.0
    high = (values[-1] - values[-part]) / (scores[-1] - scores[-part])
    low = (values[part - 1] - values[0]) / (scores[part - 1] - scores[0])
    values, scores = np.append(values, values[-1] + reach * high), np.append(scores, scores[-1] + reach)
    if closed:
        return values, scores
    return np.append(values[0] - reach * low, values), np.append(scores[0] - reach, scores)
