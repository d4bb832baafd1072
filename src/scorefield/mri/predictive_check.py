"""Is the prior right for this scan? What was measured and held out, against what the members predict of it.

Some members are drawn without a few sampled lines (readouts off the grid; points, where sampling is not by lines). Under the
right prior, y there and A x_i + n_i, of member i and noise of its own, are draws of one law: the members' 90 % interval holds
90 % of the numbers y, however strong the noise. The share that it does hold is the coverage. What chance makes of it is found by
holding each member against the others. A prior of another anatomy or contrast is too sure: the coverage falls, while χ² of what
was used stays 1.

The factor κ on the members' deviations from their mean that makes the coverage 90 % is the inflation: x̄ + κ (x_i − x̄) spread
as the held-out samples ask for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scorefield.foundation.fourier import centred_box
from scorefield.foundation.random import Stream, seed_of
from scorefield.metrics.image import interval_coverage
from scorefield.mri.masks import calibration_box
from scorefield.mri.scan import Scan
from scorefield.operators import to_channels

LEVEL = 0.9
LOST = "of the held-out k-space"  # in every warning
SILENT = "held-out k-space says nothing of the prior"  # in every line that says why not
CENTRE = 24  # lines about the middle of k-space of which none is held out: maps and contrast come from there
MOST = 8.0  # the largest inflation that is looked for
CHECKED = 8  # members that are drawn for it
MEMBERS = 4  # below which three of them would have to say how the fourth may be
NARROWER = 2 / 3  # of their spread, with which members that spread too much would still cover enough
SURE = 0.99  # of the band that chance leaves to the coverage
NOTHING = "too little was sampled outside of the calibration region to leave any of it out."
FEWEST = 16  # points at which the members' spread must be above the noise for coverage to say anything of the prior


@dataclass(frozen=True)
class PredictiveCheck:
    """What held-out samples say about members.

    Attributes:
        coverage: the share of held-out numbers in the members' 90 % interval; NaN where it says nothing.
        low: the least that chance makes of it under the right prior, in 99 % of cases.
        high: the most.
        inflation: κ >= 1, the factor on the members' spread by which the coverage is 90 %; 1 where that is too large, or unknown.
        narrower: the coverage that two thirds of the members' spread would have.
        silent: why it says nothing; "" where it says something, or none was wanted.
    """

    coverage: float = math.nan
    low: float = math.nan
    high: float = math.nan
    inflation: float = 1.0
    narrower: float = math.nan
    silent: str = ""

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        return self.coverage, self.low, self.high, self.inflation

    @property
    def warning(self) -> str:
        """What is wrong, or why nothing is known of it; or nothing."""
        if self.silent:
            return f"{SILENT}: {self.silent}"
        wide = self.coverage > self.high and self.narrower > LEVEL
        if not (self.coverage < self.low or wide):  # also of NaN
            return ""
        chance = f"{self.low:.0%} to {self.high:.0%}"
        found = f"the members' {LEVEL:.0%} interval holds {self.coverage:.0%} {LOST}, by chance {chance}."
        if wide:
            return f"{found} They spread more than they have to: two thirds of it would do."
        return (
            f"{found} They are too sure: is the prior of this anatomy and contrast? Their spread times "
            f"{self.inflation:.2f} is right (--inflate)."
        )


def held_out(mask: Tensor, share: float, number: int = 0, *, on_grid: bool = True) -> Tensor:
    """The part of a mask to predict: whole readouts off the grid, on it whole lines where it is of lines, else points.

    Lines of the grid are drawn from the inner half of what is outside of the calibration region: further out noise decides what
    is measured. Of points one is drawn from each of as many rings of equally many of them, from the calibration region to the
    edge: members that are sure enough of what is coarse may be too sure of what is fine.
    Nothing is held out where that would be more than a quarter of what is there.

    Args:
        mask: where k-space was sampled, (height, width), or (samples, readouts) off the grid.
        share: of all that was sampled.
        number: of the slice; each has other lines.
        on_grid: the mask is of points of the grid.
    """
    sampled = (mask > 0).numpy()
    lines = _along(sampled) if on_grid else [0]  # they run along it
    every = np.asarray(sampled.any(lines[0]) if lines else sampled)
    places = _outside(every, sampled, lines) if on_grid else np.flatnonzero(every)
    count = max(1, round(share * int(every.sum()))) if share > 0 else 0
    chosen = np.zeros(every.shape, dtype=np.bool_)
    rings = on_grid and not lines
    if count and (4 if rings else 2) * count <= len(places):
        rng = np.random.default_rng(seed_of(0, number, Stream.HELD_OUT))
        strata = np.array_split(places, count) if rings else [places]
        picked = [rng.permutation(part)[: count // len(strata)] for part in strata]
        np.put(chosen, np.concatenate(picked), True)
    whole = np.expand_dims(chosen, lines[0]) if lines else chosen
    return torch.from_numpy(sampled & whole)


def _along(sampled: np.ndarray) -> list[int]:
    """The axis along which lines run, if a mask is of lines: each the same stretch of it, the whole axis or a partial echo."""
    profiles = np.asarray(sampled.any(1)), np.asarray(sampled.any(0))
    if not (sampled == np.logical_and.outer(*profiles)).all():
        return []
    return [axis for axis, profile in enumerate(profiles) if np.ptp(np.flatnonzero(profile)) + 1 == profile.sum()][:1]


def _outside(every: np.ndarray, sampled: np.ndarray, lines: list[int]) -> np.ndarray:
    """What lies outside of the calibration region, as numbers of points, or of lines the inner half, outwards."""
    size = [min(length, CENTRE) for axis, length in enumerate(calibration_box(sampled)) if axis not in lines]
    free = np.array(every)
    free[centred_box(every.shape, size)] = False
    middle = np.array([n // 2 for n in every.shape]).reshape(-1, *(1,) * every.ndim)
    distance = ((np.indices(every.shape) - middle) ** 2).sum(0)[free]
    places = np.flatnonzero(free)[np.argsort(distance, kind="stable")]
    return places[: len(places) // 2] if lines else places


def without(scan: Scan, part: Tensor) -> Scan:
    """The scan as if a part of it had not been sampled."""
    return replace(scan, mask=(scan.mask > 0) & ~part) if bool(part.any()) else scan


def predictive_check(scan: Scan, part: Tensor, members: Tensor, number: int = 0) -> PredictiveCheck:
    """What the samples of a part that was held out say about members that were drawn without it.

    Only points count at which the members spread more than the noise, on average over coils: elsewhere any prior is right.

    Args:
        scan: with all that was sampled.
        part: what was held out, (height, width).
        members: complex images (members, height, width) in the units of k-space.
        number: of the slice; the noise n_i depends on it.
    """
    if len(members) < MEMBERS:
        return PredictiveCheck(silent=f"of {len(members)} members; {MEMBERS} are needed (-n), 8 are better.")
    distinct = len(torch.view_as_real(members).flatten(1).unique(dim=0))
    if distinct < MEMBERS:  # of weighted particles, few of which counted
        return PredictiveCheck(
            silent=f"of {len(members)} members {distinct} differ, the others are copies; {MEMBERS} are needed."
        )
    if not bool(part.any()):
        return PredictiveCheck(silent=NOTHING)
    x = members.to(scan.maps.dtype)
    predicted = replace(scan, mask=part).operator(to_channels(x[:, None]))[:, :, part]
    y = scan.y(1.0)[:, :, part]
    telling = predicted.var(0).mean(0) > scan.noise**2
    if (count := int(telling.sum())) < FEWEST:
        return PredictiveCheck(
            silent=f"at {count} of {telling.numel()} held-out points do the members spread more than the noise, and {FEWEST} are "
            "needed. Noise decides what was measured there, and any prior is right."
        )
    predicted, y = predicted[..., telling].double().flatten(1), y[..., telling].double().flatten(1)
    rng = np.random.default_rng(seed_of(1, number, Stream.HELD_OUT))
    noise = scan.noise * torch.from_numpy(rng.standard_normal(tuple(predicted.shape)))
    mean = predicted.mean(0)

    def coverage(factor: float) -> float:
        return interval_coverage(mean + factor * (predicted - mean) + noise, y, LEVEL)

    drawn = predicted + noise
    others = [[j for j in range(len(drawn)) if j != i] for i in range(len(drawn))]
    low, high = band([interval_coverage(drawn[rest], drawn[i : i + 1], LEVEL) for i, rest in enumerate(others)])
    return PredictiveCheck(coverage(1.0), low, high, inflation(coverage), coverage(NARROWER))


def band(found: list[float]) -> tuple[float, float]:
    """Where one more draw of a law lies in 99 % of cases, by a few: mean ± q s √(1 + 1/n), q of Student's t."""
    from scipy.special import stdtrit

    n, mean, spread = len(found), float(np.mean(found)), float(np.std(found, ddof=1))
    reach = float(stdtrit(n - 1, (1 + SURE) / 2)) * math.sqrt(1 + 1 / n) * spread
    return max(mean - reach, 0.0), min(mean + reach, 1.0)


def inflation(coverage: Callable[[float], float]) -> float:
    """κ >= 1 at which a coverage that rises with it is 90 %, by bisection of log κ."""
    if coverage(1.0) >= LEVEL:
        return 1.0
    low, high = 0.0, math.log(MOST)
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if coverage(math.exp(middle)) < LEVEL else (low, middle)
    return math.exp((low + high) / 2)


def inflated(members: Tensor, factor: float) -> Tensor:
    """x̄ + κ (x_i − x̄)."""
    if factor == 1:
        return members
    mean = members.mean(0, keepdim=True)
    return mean + factor * (members - mean)
