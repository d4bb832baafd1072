"""What values fields take in each grid box and over all of them, whatever their order: quantiles and transport distances."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LEVELS = 1000  # of equal probability, and as many again into each tail


def quantile_edges(sample: Float[Tensor, " n"], low: float, high: float) -> Float[Tensor, " edges"]:
    """Edges of bins for a histogram that quantiles can be read from: dense where the values are, and in both tails.

    Args:
        sample: values such as will be counted, at least one.
        low: the smallest value of all.
        high: the largest.
    """
    tail = torch.logspace(-6.5, -2, LEVELS, dtype=torch.float64)
    levels = torch.cat((torch.linspace(0, 1, LEVELS, dtype=torch.float64), tail, 1 - tail))
    ordered = sample.double().sort().values
    at = levels * (len(ordered) - 1)
    below = at.floor().long()
    values = torch.lerp(ordered[below], ordered[(below + 1).clamp(max=len(ordered) - 1)], at - below)
    ends = torch.tensor([low, high], dtype=torch.float64)
    distinct, times = values.clamp(low, high).unique(return_counts=True)
    atoms = distinct[times > 2]  # such as dry points: a bin that holds them alone
    edges = torch.cat((distinct, atoms.nextafter(torch.tensor(torch.inf).to(atoms)), ends)).unique()
    # Whatever is above the last edge of the sample should not share one bin with it: a few more, equally far apart.
    rest = torch.linspace(float(ordered[-1].clamp(low, high)), high, 64, dtype=torch.float64)
    return torch.cat((edges, rest)).unique()


def counted(x: Float[Tensor, "batch n"], weight: Float[Tensor, "batch n"], edges: Float[Tensor, " edges"]) -> Tensor:
    """Weighted histograms (batch, edges - 1) of each row; bin i holds e_i <= x < e_{i+1}, the last one its upper edge too."""
    bins = max(len(edges) - 1, 1)
    place = (torch.bucketize(x.double(), edges, right=True) - 1).clamp(0, bins - 1)
    rows = torch.arange(len(x), device=x.device)[:, None] * bins
    total = torch.bincount((place + rows).flatten(), weights=weight.double().flatten(), minlength=len(x) * bins)
    return total.reshape(len(x), bins)


def quantiles(
    counts: Float[Tensor, " bins"], edges: Float[Tensor, " edges"], levels: Float[Tensor, " levels"]
) -> Float[Tensor, " levels"]:
    """The quantiles of a histogram, linear within its bins; of a bin that holds one value alone, such as 0, that value."""
    reached = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    wanted = levels.to(reached) * reached[-1]
    bin_ = (torch.searchsorted(reached, wanted) - 1).clamp(0, len(counts) - 1)
    within = (wanted - reached[bin_]) / counts[bin_].clamp(min=torch.finfo(counts.dtype).tiny)
    low, high = edges[bin_], edges[bin_ + 1]
    alone = high <= low.nextafter(torch.full_like(low, torch.inf))
    return torch.where(alone, low, torch.lerp(low, high, within.clamp(0, 1)))


def wasserstein(
    members: Float[Tensor, "members time *box"], truth: Float[Tensor, "time *box"]
) -> Float[Tensor, "*box"]:
    """The 1-Wasserstein distance, in units of the values, between the members' law in each grid box and the truth's.

    ∫|F⁻¹(p) − G⁻¹(p)| dp, exactly: both step functions have their steps at multiples of 1/(members · time). NaN where any is.
    """
    ours = members.flatten(0, 1).sort(0).values
    theirs = truth.sort(0).values.repeat_interleave(len(members), 0)
    return (ours - theirs).abs().mean(0)


def correlation(one: Float[Tensor, "n *box"], other: Float[Tensor, "n *box"]) -> Float[Tensor, "*box"]:
    """Pearson's correlation along the first dimension in each grid box; NaN where one of both does not vary."""
    one, other = (x - x.mean(0) for x in (one.double(), other.double()))
    return (one * other).sum(0) / (one.square().sum(0) * other.square().sum(0)).sqrt()
