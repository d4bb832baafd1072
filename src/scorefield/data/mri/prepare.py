"""What k-space needs before it is reconstructed: white noise of known strength, no oversampling, fewer coils."""

from __future__ import annotations

import math

import numpy as np

from scorefield.data.mri.scaling import fit_matrix
from scorefield.data.mri.simulate import centred
from scorefield.errors import InputError

OUTER = 0.8  # of the largest frequency: beyond that there is next to nothing but noise
LOPSIDED = 0.8  # of the longer side of k-space: if the shorter one reaches less far, it was sampled in part


def outer_noise(kspace: np.ndarray, mask: np.ndarray, radius: float = OUTER) -> np.ndarray:
    """The sampled points beyond `radius` k_max, (coils, points), taken for noise.

    Args:
        kspace: (coils, height, width).
        mask: (height, width).
        radius: in ellipses about the centre, 1 at the middles of the edges.

    Raises:
        InputError: too few points out there.
    """
    places = [(np.arange(n) - n // 2) / (n / 2) for n in mask.shape]
    distance = np.sqrt(places[0][:, None] ** 2 + places[1][None] ** 2)
    samples = kspace[:, (distance > radius) & mask & np.any(kspace != 0, axis=0)]
    if samples.shape[1] < 8 * len(kspace):
        raise InputError(
            f"Only {samples.shape[1]} points of k-space lie beyond {radius:g} k_max, too few to tell the noise of {len(kspace)} "
            "coils: give --noise, or a noise scan."
        )
    return samples


def covariance_of(samples: np.ndarray) -> np.ndarray:
    """E[n nᴴ]/2, (coils, coils), of noise (coils, points): on its diagonal the variance per real component."""
    centred_samples = samples - samples.mean(1, keepdims=True)
    return centred_samples @ centred_samples.conj().T / (2 * max(samples.shape[1] - 1, 1))


def noise_level(kspace: np.ndarray, mask: np.ndarray, radius: float = OUTER) -> float:
    """The standard deviation of the noise per real component, over all coils, from outer k-space: by the median, which a rest of
    image hardly moves (the median of |n|² is 2 σ² log 2).
    """
    square = np.abs(outer_noise(kspace, mask, radius)) ** 2
    return math.sqrt(float(np.median(square)) / (2 * math.log(2)))


def prewhiten(kspace: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """L⁻¹ y with L Lᴴ the covariance: noise of standard deviation 1 per real component, independent between coils.

    Args:
        kspace: (coils, height, width).
        covariance: from `covariance_of`, of the same coils.
    """
    if covariance.shape != (len(kspace),) * 2:
        raise InputError(
            f"The noise is of {len(covariance)} coils, and k-space of {len(kspace)}: give a noise scan of the same coils."
        )
    try:
        lower = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise InputError("The noise of some coils is 0 or a copy of others': leave these coils out.") from error
    return np.linalg.solve(lower, kspace.reshape(len(kspace), -1)).reshape(kspace.shape).astype(np.complex64)


def compress_coils(kspace: np.ndarray, coils: int) -> np.ndarray:
    """The `coils` strongest combinations of coils, by the singular vectors of k-space: white noise stays white."""
    if not 1 <= coils <= len(kspace):
        raise InputError(f"{len(kspace)} coils cannot be compressed to {coils}: give 1 to {len(kspace)}.")
    flat = kspace.reshape(len(kspace), -1)
    _, vectors = np.linalg.eigh(flat @ flat.conj().T)
    basis = vectors[:, ::-1][:, :coils]
    return (basis.conj().T @ flat).reshape(coils, *kspace.shape[1:]).astype(np.complex64)


def remove_oversampling(kspace: np.ndarray, mask: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """k-space of the middle `height` points of the image along the readout, which is the height; white noise keeps its strength.

    Raises:
        InputError: the readout is not sampled as a whole, so that its image is not known.
    """
    if height >= kspace.shape[1]:
        return kspace, mask
    lines = mask.any(0)
    if not (mask == lines).all():
        raise InputError(
            "Oversampling can be removed where whole lines along the height are sampled, not single points."
        )
    image = centred(kspace, inverse=True, axes=(-2,))
    cut = fit_matrix(np.moveaxis(image, -2, -1), (height,))
    small = centred(np.moveaxis(cut, -1, -2), axes=(-2,)) * lines
    return small.astype(np.complex64), np.broadcast_to(lines, small.shape[1:]).copy()


def partial_fourier(mask: np.ndarray) -> str:
    """A warning where one side of k-space reaches much less far from the centre than the other; else nothing."""
    for axis, name in ((0, "height"), (1, "width")):
        found = np.flatnonzero(mask.any(1 - axis))
        centre = mask.shape[axis] // 2
        below, above = centre - int(found[0]), int(found[-1]) - centre
        if min(below, above) < LOPSIDED * max(below, above) and max(below, above) > 0.5 * centre:
            return (
                f"k-space reaches {below} points to one side of the centre of its {name} and {above} to the other: "
                "with partial Fourier sampling, what is missing is left to the prior, not to symmetry."
            )
    return ""
