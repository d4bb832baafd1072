"""What k-space needs before it is reconstructed: white noise of known strength, no oversampling, fewer coils."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.mri.scaling import fit_matrix
from scorefield.mri.simulate import centred

UNSEEN = 1e-3  # of the largest sensitivity, below which no coil sees a pixel


def distance_of(grid: tuple[int, ...]) -> np.ndarray:
    """How far points of k-space (height, width) are from its centre, in ellipses: 1 at the middles of the edges."""
    places = [(np.arange(n) - n // 2) / (n / 2) for n in grid]
    return np.sqrt(places[0][:, None] ** 2 + places[1][None] ** 2)


def covariance_of(samples: np.ndarray) -> np.ndarray:
    """E[n nᴴ]/2, (coils, coils), of noise (coils, points): on its diagonal the variance per real component."""
    centred_samples = samples - samples.mean(1, keepdims=True)
    return centred_samples @ centred_samples.conj().T / (2 * max(samples.shape[1] - 1, 1))


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


def mix_coils(mixing: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Combinations of coils: W y of y (coils, height, width), be it k-space or maps.

    Args:
        mixing: W, (combinations, coils).
        values: y.
    """
    if mixing.shape[1] != len(values):
        raise InputError(
            f"The noise is of {mixing.shape[1]} coils, and k-space of {len(values)}: give a noise scan of the same coils."
        )
    return np.tensordot(mixing, values, 1).astype(np.complex64)


def compression(kspace: np.ndarray, coils: int) -> np.ndarray:
    """V (coils, all coils), with orthonormal rows: the strongest combinations of coils, by the singular vectors of k-space.

    White noise of y is white in V y, and Vᴴ V y is as near to y as so many combinations can be.
    """
    if not 1 <= coils <= len(kspace):
        raise InputError(f"{len(kspace)} coils cannot be compressed to {coils}: give 1 to {len(kspace)}.")
    flat = kspace.reshape(len(kspace), -1)
    _, vectors = np.linalg.eigh(flat @ flat.conj().T)
    return vectors[:, ::-1][:, :coils].conj().T


@dataclass(frozen=True, eq=False)
class Mixing:
    """Combinations of coils with white noise, and what they say of the coils: the image is that of the coils as they are.

    Attributes:
        forward: V W, (combinations, coils), where W whitens and V compresses.
        back: W⁻¹ Vᴴ, (coils, combinations), which undoes it but for what compression left out.
    """

    forward: np.ndarray
    back: np.ndarray

    @classmethod
    def by(cls, whitening: np.ndarray) -> Mixing:
        """W, of all coils."""
        return cls(whitening, np.linalg.inv(whitening))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Coils (coils, height, width), be it k-space or maps, as combinations."""
        return mix_coils(self.forward, values)

    def compressed(self, kspace: np.ndarray, coils: int) -> tuple[Mixing, np.ndarray]:
        """The strongest of these combinations of k-space, and k-space in them.

        Args:
            kspace: in these combinations.
            coils: how many.
        """
        strong = compression(kspace, coils)
        return Mixing(strong @ self.forward, self.back @ strong.conj().T), mix_coils(strong, kspace)

    def rescaled(self, maps: np.ndarray) -> np.ndarray:
        """Maps of these combinations, known but for a factor at each pixel, such that Σ|S|² = 1 of the coils themselves.

        Else whitening would shade the image: where Σ|W S|² = 1, it is x √Σ|W S|² instead of x, x the root sum of squares.
        """
        return self(normalised(mix_coils(self.back, maps)))


def normalised(maps: np.ndarray) -> np.ndarray:
    """Maps divided by √Σ|S|² over the coils, in whatever units they came: the image is what all coils see together.

    Raises:
        InputError: maps that are 0 everywhere, or not finite.
    """
    strength = np.sqrt((np.abs(maps) ** 2).sum(0))
    if not (np.isfinite(strength).all() and strength.any()):
        raise InputError("The maps hold NaN or infinite values, or nothing but zeros: no coil sees anything by them.")
    inside = strength > UNSEEN * strength.max()
    return np.where(inside, maps / np.where(inside, strength, 1), 0)


def strongest(maps: np.ndarray) -> float:
    """The largest √Σ|S|² of all pixels. Maps, k-space and noise divided by it are of the same image, and Σ|S|² <= 1."""
    return float(np.sqrt((np.abs(maps) ** 2).sum(0)).max())


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
