"""The noise of k-space, told from itself: from what neighbours do not foretell, from the highest frequencies, and from air."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.mri.background import air_samples
from scorefield.mri.maps import calibration_box
from scorefield.mri.prepare import covariance_of, distance_of, whitening
from scorefield.mri.scaling import fit_matrix

MEASURED = 8  # slices of a scan from which its noise is told
RINGS = (1.0, 0.9, 0.8)  # of the largest frequency: the outermost that holds enough points is taken for noise
ENOUGH = 32  # points for each coil
FEWEST = 8  # points for each coil, of the innermost ring
KEPT = 0.5  # of outer points, the weakest: as many may be image
CLEAR = 2.0  # how many times stronger than the outermost points those about 0.8 k_max are where image reaches out there
LARGEST = 96  # points along an axis of the box in which neighbours are compared
AMPLE = 5  # points of the box for each neighbour's coefficient
# of the other estimates, below which air was filled with zeros: of a single coil at 60 dB it has 0.03 of them
EMPTY = 0.02
MOST = 2**14  # points of air of a slice: more add nothing
FEW = 4  # coils, which foretell little of each other: noise 50 dB below the signal comes out 3 times too large, of one coil 9
UNTOLD = (
    "undersampled k-space of few coils, where no air is seen at the ends of whole lines, does not well tell its noise: it may be "
    "several times less than was estimated. Give --noise, or a noise scan."
)
CONDITION = 1e-4  # smallest eigenvalue over the largest, below which a covariance is no noise of working coils


def whitening_of(
    noise_scan: np.ndarray | None, slices: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, float, str]:
    """W of a whole scan, see `whitening`, the standard deviation of the noise of W y, and a warning or nothing.

    Args:
        noise_scan: noise alone, (coils, points); None to tell it from k-space.
        slices: as `noise_covariance` takes them; read where there is no noise scan.
    """
    if noise_scan is not None:
        return *whitening(covariance_of(noise_scan)), ""
    covariance, note = noise_covariance(slices)
    return *whitening(covariance), note


def spread_over(count: int) -> list[int]:
    """The numbers of some slices of a scan, evenly spread, from which its noise is told."""
    return np.unique(np.linspace(0, count - 1, MEASURED).round().astype(int)).tolist()


def noise_covariance(slices: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, str]:
    """E[n nᴴ]/2 over the coils of a scan, (coils, coils), and a warning or nothing.

    The one of three estimates with the smallest determinant, since all are too large where they fail: `foretold_noise`, which
    takes for noise what of the image does not follow from its neighbours; the highest frequencies, where an image may reach; and
    the air about the object (`air_samples`), which an object may fill. Air that somebody filled with zeros is left out.

    Args:
        slices: k-space (coils, height, width) and where it is used, (height, width), of several slices.

    Raises:
        InputError: neither a box about the centre nor enough points at high frequencies, nor air.
    """
    near, far, air = [], [], []
    for kspace, mask in slices:
        near.append(foretold_noise(kspace, mask))
        distance, used = distance_of(mask.shape), mask & np.any(kspace != 0, axis=0)
        chosen = used & (distance > RINGS[-1])
        far.append((kspace[:, chosen], distance[chosen]))
        air.append(_empty(air_samples(kspace, used)))
    samples, distance = (np.concatenate(parts, axis=-1) for parts in zip(*far, strict=True))
    coils = len(samples)
    outer, note = outer_noise(samples, distance) if samples.shape[1] >= FEWEST * coils else (None, "")
    told = [*_mean(near), *([] if outer is None else [outer])]
    told += [one for one in _mean(air) if not told or _level(one) > EMPTY * min(map(_level, told))]
    if not told:
        raise InputError(
            f"Only {samples.shape[1]} points of k-space lie beyond {RINGS[-1]:g} k_max, and no box of {AMPLE * coils * 8} about "
            f"its centre is sampled: too few to tell the noise of {coils} coils. Give --noise, or a noise scan."
        )
    best = min(told, key=_level)
    if coils <= FEW and not any(one is not None for one in air):
        return best, UNTOLD
    return best, note if best is outer else ""


def outer_noise(samples: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, str]:
    """The covariance of the weaker ones of the outermost points, (coils, points), and a warning where an image may reach there.

    Args:
        samples: points beyond the innermost of `RINGS`.
        distance: of each from the centre.
    """
    beyond = [distance > radius for radius in RINGS]
    place = next((i for i, ring in enumerate(beyond) if ring.sum() >= ENOUGH * len(samples)), len(RINGS) - 1)
    outer, energy = robust_covariance(samples[:, beyond[place]]), (np.abs(samples) ** 2).sum(0)
    if beyond[place].all() or (rise := energy[~beyond[place]].mean() / energy[beyond[place]].mean()) < CLEAR:
        return outer, ""
    return outer, (
        f"k-space is {rise:.1f} times stronger at {RINGS[-1]:g} k_max than farther out: the image may reach there too, and the "
        "noise be less than was estimated. Give --noise, or a noise scan."
    )


def _empty(samples: np.ndarray | None) -> np.ndarray | None:
    """The covariance of what air has, (coils, points), if that is enough."""
    if samples is None or samples.shape[1] < FEWEST * len(samples):
        return None
    return robust_covariance(samples[:, :: 1 + samples.shape[1] // MOST])


def _mean(found: list[np.ndarray | None]) -> list[np.ndarray]:
    """The mean over the slices that tell anything, or nothing."""
    told = [one for one in found if one is not None]
    return [np.mean(told, axis=0)] if told else []


def _level(covariance: np.ndarray) -> float:
    """The geometric mean of standard deviations, det(C)^(1/2 coils); 0 where some coils are copies."""
    return float(np.exp(np.linalg.slogdet(covariance)[1] / (2 * len(covariance))))


def foretold_noise(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """The covariance of the noise from linear prediction of each point by its neighbours in all coils, or None.

    Coil images share one image and their sensitivities are smooth, so that y_k = Σ_j W_j y_{k+j} + n_k − Σ_j W_j n_{k+j} (SPIRiT,
    Lustig and Pauly 2010). With W by least squares the residual has the covariance R = C + Σ_j W_j C W_jᴴ, linear in C.

    Args:
        kspace: (coils, height, width).
        mask: (height, width); the box about the centre that is sampled as a whole is used.
    """
    box = tuple(min(size, LARGEST) for size in calibration_box(mask))
    region = fit_matrix(kspace, box).astype(np.complex128)
    count = len(region)
    for reach in (2, 1):
        width = 2 * reach + 1
        points, unknown = max(box[0] - 2 * reach, 0) * max(box[1] - 2 * reach, 0), count * (width**2 - 1)
        if points >= AMPLE * unknown:
            break
    else:
        return None
    neighbours, target = neighbourhoods(region, reach)
    try:
        weights = np.linalg.solve(neighbours.conj().T @ neighbours, neighbours.conj().T @ target)
    except np.linalg.LinAlgError:
        return None  # without any noise neighbours tell all
    residual = target - neighbours @ weights
    spread = residual.T @ residual.conj() / (2 * (points - unknown))
    each = weights.reshape(-1, count, count).transpose(0, 2, 1)
    system = np.eye(count**2) + np.einsum("jac,jbd->abcd", each, each.conj()).reshape(count**2, count**2)
    found = np.linalg.solve(system, spread.ravel()).reshape(count, count)
    found = (found + found.conj().T) / 2
    values = np.linalg.eigvalsh(found)
    return found if values[0] > CONDITION * values[-1] else None


def neighbourhoods(region: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours of each point in all coils, (points, (w² − 1) coils), w = 2 · reach + 1, and itself, (points, coils).

    Args:
        region: of k-space, (coils, height, width).
        reach: how far neighbours are along an axis.
    """
    count, width = len(region), 2 * reach + 1
    patches = np.lib.stride_tricks.sliding_window_view(region, (width, width), axis=(1, 2)).transpose(1, 2, 3, 4, 0)
    patches = patches.reshape(-1, width**2, count)
    return np.delete(patches, width**2 // 2, axis=1).reshape(len(patches), -1), patches[:, width**2 // 2]


def robust_covariance(samples: np.ndarray, kept: float = KEPT, rounds: int = 20) -> np.ndarray:
    """E[n nᴴ]/2 of complex Gaussian noise (coils, points) among which there are others: minimum covariance determinant.

    In turn the covariance of the points that are nearest in its own metric (Rousseeuw and Van Driessen 1999). Of noise alone
    nᴴ C⁻¹ n/2 has a gamma distribution with as many degrees as coils, which tells by how much the nearest are too weak.
    """
    from scipy.stats import gamma

    coils, points = samples.shape
    most = gamma.ppf(kept, coils)
    share = gamma.cdf(most, coils + 1) / kept
    strength = np.median(np.abs(samples) ** 2, axis=1, keepdims=True)
    distance = (np.abs(samples) ** 2 / np.where(strength > 0, strength, 1)).sum(0)
    covariance = covariance_of(samples)
    for _ in range(rounds):
        nearest = samples[:, np.argsort(distance, kind="stable")[: max(round(kept * points), coils + 1)]]
        covariance = nearest @ nearest.conj().T / (2 * nearest.shape[1] * share)
        values = np.linalg.eigvalsh(covariance)
        if not values[0] > 1e-12 * values[-1]:
            break
        distance = (samples.conj() * np.linalg.solve(covariance, samples)).real.sum(0)
    return covariance
