"""The noise of k-space, and what makes it white.

Its covariance between the coils, C = E[n nᴴ]/2, has the variances per real component on its diagonal. It is estimated from a
noise scan; or from k-space itself: from what neighbours do not predict, from the highest frequencies, and from the background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, fit_matrix
from scorefield.mri.kspace import KSpace
from scorefield.mri.masks import WHOLE, calibration_box, share_of

MEASURED = 8  # slices of a scan from which its noise is estimated
RINGS = (1.0, 0.9, 0.8)  # of the largest frequency: the outermost that holds enough points is taken for noise
ENOUGH = 32  # points for each coil
FEWEST = 8  # points for each coil, of the innermost ring
KEPT = 0.5  # of outer points, the weakest: as many may be image
CLEAR = 2.0  # how many times stronger than the outermost points those about 0.8 k_max are where image reaches out there
LARGEST = 96  # points along an axis of the box in which neighbours are compared
AMPLE = 5  # points of the box for each neighbour's coefficient
# of the other estimates, below which the background was filled with zeros: of a single coil at 60 dB it has 0.03 of them
EMPTY = 0.02
MOST = 2**14  # points of the background of a slice: more add nothing
FEW = 4  # coils, which predict little of each other: noise 50 dB below the signal comes out 3 times too large, of one coil 9
UNCERTAIN = (
    "the noise of undersampled k-space of few coils, without any background at the ends of whole lines, is uncertain: it may be "
    "several times less than was estimated. Give --noise, or a noise scan."
)
INDEPENDENT = (
    "too few points tell how the noise of so many coils is correlated: it is taken to be independent between them, and as strong "
    "in each as at the highest frequencies, several times too strong where an image reaches there. Give --noise, or a noise scan."
)
CONDITION = 1e-4  # smallest eigenvalue over the largest, below which a covariance is no noise of working coils
EDGE = 1 / 16  # of the image, at either end of the readout, which is background
OBJECT = 4.0  # times the median energy, that of noise is 1.4 at most in the mean, and of the edge of a head 15 and more


def whitening_of(
    scan: KSpace,
    slices: Iterable[tuple[np.ndarray, np.ndarray]],
    noise: float | None = None,
    estimate: Callable[[Iterable[tuple[np.ndarray, np.ndarray]]], tuple[np.ndarray, str]] | None = None,
) -> tuple[np.ndarray, float, str]:
    """W of a whole scan, (coils, coils), see `whitening`; the standard deviation of the noise of W y; and a warning, or "".

    Args:
        scan: its noise scan is used, if it has one.
        slices: as `noise_covariance` takes them; read where there is no noise scan.
        noise: the standard deviation per real component, if it is known: nothing is whitened then.
        estimate: what finds the covariance in slices, and a warning; `noise_covariance` by default.
    """
    if noise is not None:
        return np.eye(scan.shape[1]), noise, ""
    known = None if scan.noise_scan is None else covariance_of(scan.noise_scan / scan.unit)
    covariance, note = (estimate or noise_covariance)(slices) if known is None else (known, "")
    return *whitening(covariance), note


def whitening(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """W = g L⁻¹ with L Lᴴ the covariance, and g: W y has white noise of standard deviation g per real component.

    g is the geometric mean of the standard deviations that C has along its axes, det(C)^(1/2 coils), so that results stay in the
    units of y: of independent coils of equal noise W is the identity.

    Args:
        covariance: (coils, coils), from `covariance_of`.
    """
    try:
        lower = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise InputError("The noise of some coils is 0 or a copy of others': leave these coils out.") from error
    gain = float(np.exp(np.log(np.diag(lower).real).mean()))
    return gain * np.linalg.inv(lower), gain


def covariance_of(samples: np.ndarray) -> np.ndarray:
    """E[n nᴴ]/2, (coils, coils), of noise (coils, points): on its diagonal the variance per real component."""
    centred_samples = samples - samples.mean(1, keepdims=True)
    return centred_samples @ centred_samples.conj().T / (2 * max(samples.shape[1] - 1, 1))


def distance_of(grid: tuple[int, ...]) -> np.ndarray:
    """How far points of k-space (height, width) are from its centre, in ellipses: 1 at the middles of the edges."""
    places = [(np.arange(n) - n // 2) / (n / 2) for n in grid]
    return np.sqrt(places[0][:, None] ** 2 + places[1][None] ** 2)


def spread_slices(count: int) -> list[int]:
    """The numbers of some slices of a scan, evenly spread, from which its noise is estimated."""
    return np.unique(np.linspace(0, count - 1, MEASURED).round().astype(int)).tolist()


def noise_covariance(slices: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, str]:
    """C over the coils of a scan, (coils, coils), in squared units of k-space, and a warning, or "".

    The one of three estimates with the smallest determinant, since all are too large where they fail: `predicted_noise`, which
    takes for noise what of the image does not follow from its neighbours; the highest frequencies, where an image may reach; and
    the background (`background_samples`), which an object may fill. A background that was filled with zeros is left out.

    Args:
        slices: k-space (coils, height, width) and where it is used, (height, width), of several slices.

    Raises:
        InputError: neither a box about the centre, nor enough points at high frequencies, nor background.
    """
    near, far, background = [], [], []
    for kspace, mask in slices:
        near.append(predicted_noise(kspace, mask))
        distance, used = distance_of(mask.shape), mask & np.any(kspace != 0, axis=0)
        chosen = used & (distance > RINGS[-1])
        far.append((kspace[:, chosen], distance[chosen]))
        background.append(_background_noise(background_samples(kspace, used)))
    samples, distance = (np.concatenate(parts, axis=-1) for parts in zip(*far, strict=True))
    coils = len(samples)
    outer, note = outer_noise(samples, distance) if samples.shape[1] >= FEWEST * coils else (None, "")
    found = [*_mean(near), *([] if outer is None else [outer])]
    found += [one for one in _mean(background) if not found or level(one) > EMPTY * min(map(level, found))]
    if not found and samples.shape[1] >= ENOUGH:
        each = [outer_noise(samples[n : n + 1], distance)[0] for n in range(coils)]
        return np.diag([float(one[0, 0].real) for one in each]), INDEPENDENT
    if not found:
        raise InputError(
            f"Only {samples.shape[1]} points of k-space lie beyond {RINGS[-1]:g} k_max, and no box of {AMPLE * coils * 8} about "
            f"its centre is sampled: too few to estimate the noise of {coils} coils. Give --noise, or a noise scan; "
            "images are no k-space."
        )
    best = min(found, key=level)
    if coils <= FEW and not any(one is not None for one in background):
        return best, UNCERTAIN
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


def background_samples(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Samples (coils, points) in units of k-space, of which half or more hold noise alone where there is air about the object.

    Of k-space that is sampled as a whole these are the pixels beyond the ellipse that fills the image; of whole lines along the
    readout, which is the height, both ends of each, to which no other line aliases; else, or where an object lies there, None.

    Args:
        kspace: (coils, height, width).
        mask: where it is used, (height, width).
    """
    if share_of(mask) >= WHOLE:
        images = centred(np.where(mask, kspace, 0), inverse=True)
        return images[:, distance_of(mask.shape) > 1] / np.sqrt(mask.mean(), dtype=np.float32)  # zeros have no noise
    lines = mask.any(0)
    if not lines.any() or not (mask == lines).all():
        return None
    along = centred(kspace[..., lines], (-2,), inverse=True)
    edge = max(round(EDGE * along.shape[1]), 1)
    samples = np.concatenate((along[:, :edge], along[:, -edge:]), axis=1).reshape(len(kspace), -1)
    energy = (np.abs(samples) ** 2).sum(0)
    return samples if energy.mean() < OBJECT * np.median(energy) else None


def _background_noise(samples: np.ndarray | None) -> np.ndarray | None:
    """The covariance of the samples of the background, (coils, points), if they are enough."""
    if samples is None or samples.shape[1] < FEWEST * len(samples):
        return None
    return robust_covariance(samples[:, :: 1 + samples.shape[1] // MOST])


def _mean(estimates: list[np.ndarray | None]) -> list[np.ndarray]:
    """The mean of the estimates of those slices that have one, or nothing."""
    known = [one for one in estimates if one is not None]
    return [np.mean(known, axis=0)] if known else []


def level(covariance: np.ndarray) -> float:
    """The geometric mean of standard deviations, det(C)^(1/2 coils); 0 where some coils are copies."""
    return float(np.exp(np.linalg.slogdet(covariance)[1] / (2 * len(covariance))))


def predicted_noise(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
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
        return None  # without any noise neighbours predict all
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
    """C of complex Gaussian noise (coils, points) among which there are outliers: minimum covariance determinant.

    In turn the covariance of the points that are nearest in its own metric (Rousseeuw and Van Driessen 1999). Of noise alone
    nᴴ C⁻¹ n/2 has a gamma distribution with as many degrees as coils, from which follows by how much the nearest are too weak.
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
