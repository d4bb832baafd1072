"""The rank of a value as a normal variable: any law, heavy tails and an atom at zero included, becomes N(0, 1)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.normalise import Normaliser
from scorefield.data.precision import of_offset
from scorefield.foundation.errors import InputError

Values = Float[Tensor, "batch channels *grid"]
EDGE = 1e-5  # between the ranks of an atom and those above it, so that float32 does not mistake one for the other


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

    @property
    def precision(self) -> torch.dtype:
        return of_offset(self.values.mean(-1), self.values.std(-1)) if self.values.ndim > 1 else torch.float32

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
        z = x.to(torch.promote_types(x.dtype, self.precision))
        out = torch.stack([self._map(c, self.scores[i], self.values[i]) for i, c in enumerate(z.unbind(1))], dim=1)
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
