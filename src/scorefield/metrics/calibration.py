"""Whether draws of a posterior are draws of it: ranks of the truth, coverage, reliability, with bands for chance.

Were truth and members x_0, x_1, ..., x_n independent draws of p(x | y), each of them could be the truth (Cook et al. 2006;
Talts et al. 2018): what is found with x_0 in this place is a draw of what is found with each x_j. Bands for chance are made so,
from the members themselves, with all that pixels have to do with one another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.metrics.image import DETERMINED

BANDS = 4  # of frequency, from the coarsest to the finest


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is found of one field with each of n + 1 draws in the place of the truth, the truth first.

    Args:
        covered: share of the uncertain elements in the interval of the others, (n + 1); NaN where none is uncertain.
        ranks: how many elements have each rank among the others, (n + 1, n + 1).
        error: mean square error of the others' mean in each band of frequency, (n + 1, bands).
        spread: what it would be for draws of one law, (n + 1, bands).
        whole: ranks of the mean over the field, and of the power in each band, (n + 1, 1 + bands).
        score: |x − mean| over half the interval, of the uncertain elements of the truth, (elements).
        inside: whether the truth is inside, (elements), NaN where nothing is uncertain.
    """

    covered: Tensor
    ranks: Tensor
    error: Tensor
    spread: Tensor
    whole: Tensor
    score: Tensor
    inside: Tensor


def verdict(truth: Tensor, members: Tensor, *, level: float = 0.9, generator: torch.Generator) -> Verdict:
    """Hold a field, and each member in its place, against the other draws.

    Args:
        truth: (channels, *grid).
        members: n >= 3 draws, (n, channels, *grid).
        level: of the interval.
        generator: decides between equal values.
    """
    from scipy.special import stdtrit

    n = len(members)
    if n < 3 or not 0 < level < 1:
        raise InputError(f"A verdict needs at least 3 members and a level in (0, 1), not {n} and {level}.")
    draws = torch.cat((truth[None], members)).double()
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * math.sqrt(1 + 1 / n)
    total, square = draws.sum(0), draws.square().sum(0)
    mean = (total - draws) / n  # of the others
    variance = ((square - draws.square()) - n * mean.square()).clamp(min=0) / (n - 1)
    std = variance.sqrt()
    away = (draws - mean).abs()
    largest = torch.maximum(std, away).flatten(1).amax(1).reshape(-1, *(1,) * truth.ndim)
    free = (
        torch.maximum(std, away) > DETERMINED * largest
    )  # where all agree, and the truth as well, nothing is uncertain
    score = away / (half * std.clamp(min=1e-12 * largest.clamp(min=torch.finfo(torch.float32).tiny)))
    counts = free.flatten(1).sum(1)
    covered = ((score <= 1) & free).flatten(1).sum(1) / counts
    ranked = ranks(draws, generator)
    histogram = torch.stack([row[kept].bincount(minlength=n + 1) for row, kept in zip(ranked, free, strict=True)])
    bands = band_power(draws)
    summary = torch.cat((draws.flatten(1).mean(1, keepdim=True), bands), 1)
    return Verdict(
        covered,
        histogram,
        band_power(draws - mean),
        (1 + 1 / n) * n / (n - 1) * _spread(draws, mean, n),
        ranks(summary, generator),
        score[0][free[0]],
        torch.where(free[0], (score[0] <= 1).double(), torch.nan),
    )


def _spread(draws: Tensor, mean: Tensor, n: int) -> Tensor:
    """Mean square deviation of the others from their mean in each band, (n + 1, bands)."""
    powers = band_power(draws)
    return (powers.sum(0) - powers) / n - band_power(mean)


def ranks(draws: Tensor, generator: torch.Generator) -> Tensor:
    """How many of the others are below each draw, element by element; equal ones in any order."""
    order = torch.rand(draws.shape, generator=generator, dtype=torch.float64).argsort(0)
    shuffled = draws.gather(0, order)
    place = shuffled.argsort(dim=0, stable=True).argsort(0)
    return torch.empty_like(place).scatter_(0, order, place)


def band_power(x: Tensor, bands: int = BANDS) -> Tensor:
    """Mean power of the Fourier modes in bands of |k| of equal width in the largest axis's cycles, (batch, bands); 0 in empty
    ones.
    """
    grid = x.shape[2:]
    axes = torch.meshgrid(*(torch.fft.fftfreq(size, dtype=torch.float64).abs() for size in grid), indexing="ij")
    radius = torch.stack([axis.square() for axis in axes]).sum(0).sqrt() / (0.5 * math.sqrt(len(grid)))
    place = (radius * bands).long().clamp(max=bands - 1).flatten()
    power = torch.fft.fftn(x.double(), dim=tuple(range(2, x.ndim)), norm="ortho").abs().square().mean(1).flatten(1)
    summed = power.new_zeros((len(x), bands)).index_add_(1, place, power)
    return summed / place.bincount(minlength=bands).clamp(min=1)


@dataclass(frozen=True)
class Within:
    """A figure with the band that chance leaves to it.

    Args:
        value: what is found.
        low: the least that 95 % of draws of chance have.
        high: the most.
    """

    value: float
    low: float
    high: float

    @property
    def kept(self) -> bool:
        """Whether it is in the band."""
        return self.low <= self.value <= self.high


def by_chance(each: Tensor, reduce: str = "mean", *, draws: int = 2000, level: float = 0.95) -> Within:
    """The mean over fields of what is found with the truth, and the band of it with a draw at random in its place.

    Args:
        each: (fields, n + 1), the truth first; fields with NaN are left out.
        reduce: mean, or ratio: of the sums of (fields, n + 1, 2).
        draws: how many draws of chance.
        level: of the band.
    """
    kept = each[each.flatten(1).isfinite().all(1)].double()
    if not len(kept):
        return Within(math.nan, math.nan, math.nan)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(kept.shape[1], (draws, len(kept)), generator=generator)
    found = kept[torch.arange(len(kept)), chosen]  # (draws, fields, ...)
    if reduce == "ratio":
        values, value = found[..., 0].sum(1) / found[..., 1].sum(1), kept[:, 0, 0].sum() / kept[:, 0, 1].sum()
    else:
        values, value = found.mean(1), kept[:, 0].mean()
    low, high = torch.quantile(values, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Within(float(value), low, high)


def rank_distance(histograms: Tensor) -> Within:
    """How far ranks of the truth are from being equally frequent: the largest difference of distribution functions, with its
    band.

    Args:
        histograms: (fields, n + 1 in the place of the truth, ranks), the truth first.
    """
    shares = histograms.double() / histograms.sum(-1, keepdim=True).clamp(min=1)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(shares.shape[1], (2000, len(shares)), generator=generator)
    even = torch.arange(1, shares.shape[2] + 1, dtype=torch.float64) / shares.shape[2]

    def distance(share: Tensor) -> Tensor:
        return (share.cumsum(-1) - even).abs().amax(-1)

    values = distance(shares[torch.arange(len(shares)), chosen].mean(1))
    return Within(float(distance(shares[:, 0].mean(0))), 0.0, float(torch.quantile(values, 0.95)))


def conformal_factor(scores: Sequence[Tensor], level: float = 0.9) -> float:
    """κ by which intervals are to be widened to hold a share `level` of a new field's elements, in the mean over such fields.

    Conformal risk control (Angelopoulos et al. 2024, theorem 1): with F fields, the least κ with Σ_i c_i(κ) >= level (F + 1),
    c_i the share of field i with a score of at most κ. It holds for exchangeable fields, whatever the draws are.

    Args:
        scores: of each field, the distance of each element from the mean over half the interval.
        level: the share.

    Raises:
        InputError: too few fields: F / (F + 1) has to reach the level.
    """
    fields = [score.double().sort().values for score in scores if len(score)]
    count = len(fields)
    if count < level * (count + 1):
        raise InputError(
            f"{count} fields are too few for intervals that hold {level:.0%}: give "
            f"--fields {math.ceil(level / (1 - level) - 1e-9)} or more."
        )
    values = torch.cat(fields)
    weights = torch.cat([torch.full_like(score, 1 / len(score)) for score in fields])
    order = values.argsort()
    reached = weights[order].cumsum(0) >= level * (count + 1) - 1e-9
    return float(values[order][reached.double().argmax()])
