"""Magnitudes of noisy coils, and what their noise adds to them.

M = √Σ_c |x_c + n_c|² of L coils, n white with standard deviation σ per real component, has a noncentral χ distribution with 2L
degrees that depends on x = √Σ_c |x_c|² alone; of one coil it is Rice's (Gudbjartsson and Patz 1995; Koay and Basser 2006). Its
noise has no mean of 0: E M² = x² + 2Lσ², and dark pixels are too bright.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from scorefield.foundation.errors import InputError

REACH, STEP = 40.0, 0.01  # of x/(σ√L), where E M is tabulated; beyond, two terms of its series err by less than 1e-4 σ
MANY = 32  # coils, beyond which ₁F₁ overflows
CUT = 0.95  # of the noise alone, above which a pixel is taken for signal
LEAST = 0.02  # of the pixels have to be background
ROUNDS, SETTLED = 200, 1e-5
SMOOTH = 0.1  # by which two of the background's moments may disagree where it is noise alone


def unbiased_square(magnitude: Tensor, noise: float, coils: int = 1) -> Tensor:
    """M² − 2Lσ², whose mean is x², exactly; in dark pixels it may be negative.

    Args:
        magnitude: M.
        noise: σ.
        coils: L.
    """
    return magnitude.square() - 2 * coils * noise**2


def expected_magnitude(x: Tensor, noise: float, coils: int = 1) -> Tensor:
    """E M = σ √2 Γ(L + ½)/Γ(L) · ₁F₁(−½; L; −x²/2σ²), float64.

    Args:
        x: what was to be measured, >= 0.
        noise: σ.
        coils: L.
    """
    return noise * torch.from_numpy(_mean(x.double().numpy() / noise, coils))


def without_bias(mean: Tensor, noise: float, coils: int = 1) -> Tensor:
    """The x whose magnitudes have a given mean, of which noise without any signal has 0: after averaging or denoising M.

    Args:
        mean: of M, such as a denoiser finds it.
        noise: σ.
        coils: L.
    """
    grid = np.arange(0.0, REACH, STEP) * math.sqrt(coils)
    table, m = _mean(grid, coils), mean.double().numpy() / noise
    far = np.sqrt(np.maximum(m**2 - (2 * coils - 1), 0))
    found = np.where(m < table[-1], np.interp(m, table, grid), far)
    return (noise * torch.from_numpy(found)).to(mean)


def background_noise(magnitude: Tensor, coils: int = 1) -> float:
    """σ from the background, where there is no signal: M²/σ² is χ² with 2L degrees there.

    In turn the mean square of what lies below the 95 % point of noise of σ, and the σ that has it, from the darkest pixels
    upwards. Pixels of exactly 0 were filled in, and do not count.

    Args:
        magnitude: M, of any shape.
        coils: L.

    Raises:
        InputError: no background, or one that is not of such noise.
    """
    from scipy.stats import chi2

    square = magnitude.double().numpy().ravel() ** 2
    square = np.sort(square[square > 0])
    degrees = 2 * coils
    limit = float(chi2.ppf(CUT, degrees))
    below = degrees * float(chi2.cdf(limit, degrees + 2)) / CUT  # the mean of what is below the limit, for σ = 1
    least = int(LEAST * len(square))
    if least < 8:
        raise InputError("There are too few pixels to find the noise of magnitudes in: give --noise.")
    variance, sums = float(square[least]) / degrees, np.cumsum(square)
    for _ in range(ROUNDS):
        count = int(np.searchsorted(square, limit * variance))
        last, variance = variance, float(sums[count - 1]) / count / below
        if abs(variance - last) <= SETTLED * last:
            break
    held = square[square <= limit * variance]
    expected = degrees * (degrees + 2) * float(chi2.cdf(limit, degrees + 4)) / CUT  # of the square of it
    spread = float((held**2).mean()) / (expected * variance**2)
    if len(held) < least or abs(spread - 1) > SMOOTH:
        raise InputError(
            f"No background of noise alone is found in the magnitudes (of {coils} coil{'s' * (coils > 1)}): give --noise."
        )
    return math.sqrt(variance)


def _mean(ratio: np.ndarray, coils: int) -> np.ndarray:
    """E M/σ of x/σ."""
    from scipy.special import gammaln, hyp1f1

    if coils > MANY:
        return _mean_of_many(ratio, coils)

    reach = REACH * math.sqrt(coils)
    near = np.minimum(ratio, reach)
    factor = math.sqrt(2) * math.exp(float(gammaln(coils + 0.5) - gammaln(coils)))
    series = factor * hyp1f1(-0.5, coils, -(near**2) / 2)
    far = np.maximum(ratio, reach)
    return np.where(ratio < reach, series, far + (2 * coils - 1) / (2 * far))


def _mean_of_many(ratio: np.ndarray, coils: int) -> np.ndarray:
    """E √S by the central moments of S = M²/σ² up to the sixth, where ₁F₁ overflows; errs by less than 2e-5 σ.

    S is noncentral χ², of the cumulants κ_n = 2^(n−1) (n−1)! (2L + n x²/σ²), and narrow beside its mean.
    """
    mean = 2 * coils + ratio**2
    k2, k3, k4, k5, k6 = (
        2 ** (n - 1) * math.factorial(n - 1) * (2 * coils + n * ratio**2) / mean**n for n in range(2, 7)
    )
    moments = (k2, k3, k4 + 3 * k2**2, k5 + 10 * k3 * k2, k6 + 15 * k4 * k2 + 10 * k3**2 + 15 * k2**3)
    taylor = (-1 / 8, 1 / 16, -5 / 128, 7 / 256, -21 / 1024)
    return np.sqrt(mean) * (1 + sum(a * m for a, m in zip(taylor, moments, strict=True)))
