"""How wrapped phases are spread: circular moments of fields (cos φ, sin φ), and what these cannot see, the order in space.

Channels are cos φ and sin φ up to a positive factor; where both are 0, nothing is known. Circular moments do not change when
pixels change places. Residues and spectra do: beside every distance of moments stand those, and what shuffled pixels score.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Generator, Tensor

from scorefield.foundation.errors import InputError
from scorefield.metrics.spectrum import Spectrum, radial_spectrum

CONCENTRATED = 0.05  # circular variance below which the skewness is 0/0 but for noise

Phases = Float[Tensor, "n two height width"]
Others = Float[Tensor, "m two rows columns"]  # as many as there are, on a grid of their own


class CircularMoments(NamedTuple):
    """Of each field; with R_p e^(iT_p) the mean of e^(ipφ) over its pixels (Fisher 1993, section 2.3).

    Args:
        variance: 1 − R_1, from 0 for equal phases to 1 for phases without direction.
        skewness: R_2 sin(T_2 − 2T_1)/(1 − R_1)^(3/2); NaN where 1 − R_1 <= 0.05, where it is the ratio of two small numbers.
    """

    variance: Float[Tensor, " n"]
    skewness: Float[Tensor, " n"]


def phasors(x: Phases) -> Complex[Tensor, "n height width"]:
    """e^{iφ} in double precision, 0 where nothing is known."""
    if x.ndim != 4 or x.shape[1] != 2:
        raise InputError(f"Phases are fields of two channels, cos and sin, on a plane, not {tuple(x.shape[1:])}.")
    z = torch.complex(x[:, 0].double(), x[:, 1].double())
    return torch.where(z == 0, 0, z / z.abs().clamp(min=1e-300))


def circular_moments(x: Phases) -> CircularMoments:
    """The circular variance and skewness of each field."""
    z = phasors(x)
    known = (z != 0).sum((1, 2)).clamp(min=1)
    first, second = z.sum((1, 2)) / known, z.square().sum((1, 2)) / known
    variance = 1 - first.abs()
    skewness = second.abs() * torch.sin(second.angle() - 2 * first.angle()) / variance.clamp(min=CONCENTRATED) ** 1.5
    return CircularMoments(variance, torch.where(variance > CONCENTRATED, skewness, torch.nan))


def circular_distances(x: Phases, data: Others) -> dict[str, float]:
    """1-Wasserstein distances of the fields' circular variances (w_var) and skewnesses (w_skew), and their sum (w_total).

    `skewed` is the share of fields that have a skewness, of samples or data, whichever have fewer: w_skew and w_total are of
    these alone, and NaN where there are none.
    """
    from scipy.stats import wasserstein_distance  # a second to load

    ours, theirs = circular_moments(x), circular_moments(data)
    w_var = wasserstein_distance(ours.variance.numpy(), theirs.variance.numpy())
    skewed = [moments.skewness[~moments.skewness.isnan()].numpy() for moments in (ours, theirs)]
    w_skew = float(wasserstein_distance(*skewed)) if all(map(len, skewed)) else float("nan")
    share = min(len(part) / len(whole) for part, whole in zip(skewed, (x, data), strict=True))
    return {"w_var": float(w_var), "w_skew": w_skew, "w_total": float(w_var) + w_skew, "skewed": share}


def residue_density(x: Phases) -> Float[Tensor, " n"]:
    """The share of squares of four known neighbours around which the phase does not return to itself: sums of wrapped differences
    along the sides are ±2π there (Goldstein, Zebker and Werner 1988). Near 1/3 for noise, 0 for what unwraps without doubt.
    """
    z = phasors(x)
    corners = (z[:, :-1, :-1], z[:, :-1, 1:], z[:, 1:, 1:], z[:, 1:, :-1])
    around = zip(corners, (*corners[1:], corners[0]), strict=True)
    turns = sum((after * before.conj()).angle() for before, after in around) / (2 * torch.pi)
    known = torch.stack([corner != 0 for corner in corners]).all(0)
    found = (torch.as_tensor(turns).abs() > 0.5) & known
    return found.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)


def phase_spectrum(x: Phases) -> Spectrum:
    """Ring means of the power of e^{iφ} under a taper, over the longer side's wavenumbers; 0 stands where nothing is known."""
    z = phasors(x)
    real, imaginary = (radial_spectrum(part, taper=True) for part in (z.real, z.imag))
    return Spectrum(real.wavenumber, real.power + imaginary.power)


def shuffled(x: Phases, seed: int = 0) -> Phases:
    """The same pixels in random places: as control, for what no moment can see."""
    generator = Generator().manual_seed(seed)
    order = torch.argsort(torch.rand(len(x), x[0, 0].numel(), generator=generator), 1)
    return x.flatten(2).gather(2, order[:, None].expand(-1, 2, -1)).reshape(x.shape)
