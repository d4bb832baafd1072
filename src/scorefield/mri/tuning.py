"""Baselines at their best on the scan itself: regularised as predicts best what was measured and not shown to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from scorefield.foundation.random import Stream, seed_of
from scorefield.mri.scan import Baselines, Scan
from scorefield.operators import ParallelImaging, l1_wavelet
from scorefield.operators.solve import conjugate_gradients

DAMPINGS, ITERATIONS = (0.0, 1e-3, 1e-2), (3, 4, 5, 8, 12, 16, 20, 30, 40)
WEIGHTS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)  # relative to the foreground
PARTS = 10  # of k-space, which are held out in turn; for L1-wavelet, which takes longer, the first alone

RINGS = 32  # of k-space, whose samples share its area
FEWER = 3  # of these for k-space off the grid, whose parts are alike and take longer


def tuned(scan: Scan, given: Baselines) -> Baselines:
    """Settings, of which those that are not given predict parts of k-space that were held out.

    These are of noise as strong for every setting, so that what predicts them best is near to the image, too. But they hold most
    of their energy in the middle, and say little of the noise that more iterations let in. So of CG-SENSE the fewest iterations
    are taken whose error is within one standard error of the least (Breiman et al. 1984, 1-SE rule): on T1 slices, R = 2 to 8 and
    noise 15 to 30 dB below (17 cases), within 0.6 dB of the best of all settings, 0.13 on average; the least error alone is up to
    3.3 dB off, and 0.7 on average. Of a Poisson disc of R = 4 on one slice more, noise 20 and 15 dB below, 0.8 and 1.0 are left.

    Args:
        scan: a slice.
        given: what is given is kept.
    """
    if given.damping is None or given.iterations is None:
        dampings = DAMPINGS if given.damping is None else (given.damping,)
        counts = ITERATIONS if given.iterations is None else (given.iterations,)
        errors: dict[tuple[float, int], list[float]] = {(d, count): [] for d in dampings for count in counts}
        parts = PARTS if scan.places is None else FEWER
        for part in (held_out(scan.mask > 0, fold) for fold in range(parts)):
            for damping in dampings:
                for count, error in _errors(scan, part, damping, counts).items():
                    errors[damping, count].append(error)
        damping, count = simplest(errors)
        given = replace(given, damping=damping, iterations=count)
    if given.wavelet is None:
        given = replace(given, wavelet=_best_weight(scan, held_out(scan.mask > 0, 0)))
    return given


def simplest(errors: Mapping[tuple[float, int], Sequence[float]]) -> tuple[float, int]:
    """Of damping and iterations those with the fewest whose errors in some parts exceed those of the best by no more than one
    standard error of the mean difference; of several dampings the largest.
    """
    found = {setting: np.asarray(each) for setting, each in errors.items()}
    best = min(found.values(), key=lambda each: each.sum())

    def near(each: np.ndarray) -> bool:
        excess = each - best
        return bool(excess.mean() <= excess.std(ddof=1) / len(excess) ** 0.5)

    return min(
        (setting for setting, each in found.items() if near(each)), key=lambda setting: (setting[1], -setting[0])
    )


def held_out(mask: Tensor, fold: int) -> Tensor:
    """A part of what was sampled, (height, width): lines where all points of these are, else points."""
    sampled = mask.any(0) if bool((mask == mask.any(0)).all()) else mask
    order = np.random.default_rng(seed_of(0, Stream.MASK)).permutation(int(sampled.sum()))
    chosen = sampled.clone()
    chosen[sampled] = torch.from_numpy(order % PARTS == fold)
    return chosen & mask


def _errors(scan: Scan, part: Tensor, damping: float, counts: Sequence[int]) -> dict[int, float]:
    """The squared errors of CG-SENSE in a part that was held out, after each of some numbers of iterations of one run."""
    known, y = scan.operator.restricted((scan.mask > 0) & ~part).balanced(scan.y(1.0))
    unknown, wanted = scan.operator.restricted(part), torch.where(part, scan.y(1.0), 0)
    error = _error(scan, unknown, wanted)
    pulled = known.adjoint(y)
    found, last = {}, torch.zeros_like(pulled)

    def seen(count: int, x: Tensor) -> None:
        nonlocal last
        last = x
        if count in counts:
            found[count] = error(x)

    conjugate_gradients(
        lambda x: known.normal(x) + damping * x, pulled, iterations=max(counts), tolerance=0.0, seen=seen
    )
    rest = [count for count in counts if count not in found]  # which a run that converges does not reach
    return found | dict.fromkeys(rest, error(last) if rest else 0.0)


def _best_weight(scan: Scan, part: Tensor) -> float:
    """The weight of L1-wavelet with the least squared error in a part that was held out."""
    known, unknown = scan.operator.restricted((scan.mask > 0) & ~part), scan.operator.restricted(part)
    y, scale = scan.y(1.0), scan.scale
    error = _error(scan, unknown, torch.where(part, y, 0))
    return min(WEIGHTS, key=lambda weight: error(l1_wavelet(known, y, weight=weight * scale)))


def _error(scan: Scan, unknown: ParallelImaging, wanted: Tensor) -> Callable[[Tensor], float]:
    """The squared error of images in a part, samples counted by the area of k-space that they stand for."""
    weight = torch.ones(()) if scan.places is None else _areas(scan.places, scan.maps.shape[1:])
    return lambda x: float((weight * (unknown(x) - wanted).square()).sum())


def _areas(places: Tensor, grid: Sequence[int]) -> Tensor:
    """The area of its ring about the middle of k-space that a sample stands for, (samples, readouts), up to a factor.

    Of spokes it grows with the radius, also where they are further apart than density compensation reaches: there the noise lies.
    """
    radius = (places / (torch.tensor(grid) / 2)).norm(dim=-1)
    ring = (radius * RINGS).long()
    return ((ring + 0.5) / torch.bincount(ring.flatten())[ring]).to(torch.float32)
