"""How near a restored field comes to the truth, and whether it knows how near."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.foundation.errors import InputError

DETERMINED = 1e-3  # of the largest spread: elements that spread less are no matter of chance


def psnr(x: Float[Tensor, "batch *field"], truth: Float[Tensor, "1 *field"], peak: float) -> Float[Tensor, " batch"]:
    """10 log₁₀(peak²/mean squared error) in dB for each field; ∞ for the truth itself.

    Args:
        x: fields.
        truth: the field that they should be.
        peak: the largest value there can be, such as 255.
    """
    if not peak > 0:
        raise InputError(f"PSNR needs a peak > 0, not {peak}.")
    error = (x.double() - truth.double()).square().flatten(1).mean(1)
    return 20 * math.log10(peak) - 10 * error.log10()


def interval_coverage(
    members: Float[Tensor, "members *field"], truth: Float[Tensor, "1 *field"], level: float = 0.9
) -> float:
    """The share of elements whose truth lies within mean ± q s √(1 + 1/n), s the members' standard deviation.

    q is the quantile of Student's t with n − 1 degrees of freedom: were members and truth independent draws of one Gaussian, the
    share would be `level` for every number of members n. Quantiles of the members themselves would need dozens of them. Elements
    that all members agree on, as those measured without noise, are left out; NaN if there are no others.

    Args:
        members: n >= 2 draws.
        truth: the truth.
        level: of the interval.
    """
    low, high = student_interval(members, level)
    spread = members.double().std(0)
    free = spread > DETERMINED * spread.max()
    inside = (low <= truth[0].double()) & (truth[0].double() <= high)
    return float(inside[free].double().mean()) if bool(free.any()) else math.nan


def student_interval(
    members: Float[Tensor, "members *field"], level: float = 0.9
) -> tuple[Float[Tensor, "*field"], Float[Tensor, "*field"]]:
    """The ends of mean ± q s √(1 + 1/n), see `interval_coverage`."""
    from scipy.special import stdtrit  # a third of a second to load

    n = len(members)
    if n < 2 or not 0 < level < 1:
        raise InputError(f"An interval needs at least 2 members and a level in (0, 1), not {n} and {level}.")
    mean, spread = members.double().mean(0), members.double().std(0)
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * math.sqrt(1 + 1 / n) * spread
    return mean - reach, mean + reach


def spread_of(members: Float[Tensor, "members *field"]) -> Float[Tensor, "1 *field"]:
    """The standard deviation over members; 0 of a single one."""
    return members.std(0, keepdim=True) if len(members) > 1 else torch.zeros_like(members)


def error_by_spread(
    members: Float[Tensor, "members *field"], truth: Float[Tensor, "1 *field"], bins: int = 10
) -> tuple[Float[Tensor, " bins"], Float[Tensor, " bins"]]:
    """What is expected, √(1 + 1/n) s, and what is found, |truth − mean|, as root mean squares over elements of like spread s.

    Bins of one size, sorted by the spread of the first half of the members; s is that of the other half, as elements that
    were chosen for a small s would err more than it says. For Gaussian draws of one law both agree in every bin.

    Args:
        members: n >= 4 draws.
        truth: the truth.
        bins: how many.
    """
    n, size = len(members), truth[0].numel()
    if n < 4 or not 1 <= bins <= size:
        raise InputError(f"Error by spread needs 4 members and 1 to {size} bins, not {n} and {bins}.")
    x = members.double().flatten(1)
    order = x[: n // 2].var(0).argsort()
    expected = ((1 + 1 / n) * x[n // 2 :].var(0))[order].tensor_split(bins)
    found = (truth[0].double().flatten() - x.mean(0)).square()[order].tensor_split(bins)
    return torch.stack([part.mean() for part in expected]).sqrt(), torch.stack([part.mean() for part in found]).sqrt()
