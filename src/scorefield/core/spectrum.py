"""The spectrum of data, mode by mode, beside that of the noise: S_k on any grid, measured in bands and extrapolated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Size, Tensor

from scorefield.core.noise import Noise
from scorefield.foundation.errors import InputError

ROUNDING = 1e-12  # of the largest S: what is below is what float32 made of nothing
STEEPEST = 12.0  # steeper than any power law of nature: the tail of a dissipation, or of an interpolation


def wavenumbers(noise: Noise, grid: Sequence[int] | Size) -> Float64[Tensor, "*grid"]:
    """|ω| L/2π of every mode, L the longest side of the domain: periods per longest side."""
    boundary, lengths = noise.basis(len(grid))
    axes = [boundary.axis(n, length) for n, length in zip(grid, lengths, strict=True)]
    squares = torch.meshgrid(*((k * spacing) ** 2 for k, _, spacing in axes), indexing="ij")
    return torch.stack(squares).sum(0).sqrt() * max(lengths) / (2 * math.pi)


def band_means(
    values: Float[Tensor, "*grid"], radii: Float64[Tensor, "*grid"], bands: int
) -> Float64[Tensor, " bands"]:
    """Means over the modes of the integer bands 0..bands − 1 of their wavenumber; NaN where there are none."""
    band = radii.round().long()
    inside = band < bands
    total = torch.zeros(bands, dtype=torch.float64).index_add_(0, band[inside], values.cpu().double()[inside])
    return total / band[inside].bincount(minlength=bands)


def _at_integers(values: Tensor, radii: Tensor, wanted: Tensor) -> Tensor:
    """Means of bands, moved from the mean wavenumber of their modes to the integer, along the slope between neighbours."""
    logs, places = values.log(), radii.log()
    (slopes,) = torch.gradient(logs, spacing=(places,))
    return (logs + slopes * (wanted.double().log() - places)).exp()


def _above_rounding(values: Float64[Tensor, " bands"]) -> Int64[Tensor, " kept"]:
    """The bands, beside the mean, that have more than rounding."""
    largest = float(values.max())
    if not 0 < largest < math.inf:
        raise InputError(
            "Fields that are zero, or not finite, have no spectrum: look at them with scorefield check-data."
        )
    kept = (values[1:] > ROUNDING * largest).nonzero().flatten() + 1
    if len(kept) < 3:
        raise InputError(
            f"A spectrum needs fields with more than rounding in three bands at least, and these have it in {len(kept)}: "
            "they are constant, or all but; look at them with scorefield check-data."
        )
    return kept


@dataclass(frozen=True)
class RadialSpectrum:
    """S at any wavenumber: through the measured bands r = 0, 1, ..., R in log S over log r, beyond them a power law.

    Args:
        bands: S, the variance of a mode, in the bands 0..R of its wavenumber.
        exponent: p of S ∝ r^−p beyond R.
    """

    bands: Sequence[float]
    exponent: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", tuple(float(value) for value in self.bands))
        if len(self.bands) < 2 or not all(0 < value < math.inf for value in self.bands):
            raise InputError("A RadialSpectrum needs at least two bands, all of them with some variance.")

    @classmethod
    def measure(cls, x: Float[Tensor, "batch channels *grid"], noise: Noise) -> RadialSpectrum:
        """Of fields, over samples and channels, in the bands that all directions have; the exponent from the upper half of those
        that have more than rounding. Those without have what rounding allows, 1e-12 of the largest.

        Raises:
            InputError: fields of too few points, or with next to nothing in all but a few bands.
        """
        boundary, lengths = noise.basis(x.ndim - 2)
        power = boundary.transform(x.double()).abs().square().mean((0, 1))
        nyquist = min(n / length for n, length in zip(x.shape[2:], lengths, strict=True)) * max(lengths) / 2
        bands = math.ceil(nyquist)  # those below it, whole
        if bands < 4:
            raise InputError(
                f"A spectrum needs fields of at least 8 points along every axis, not {tuple(x.shape[2:])}."
            )
        radii = wavenumbers(noise, x.shape[2:])
        values, places = band_means(power, radii, bands), band_means(radii, radii, bands)
        at = _above_rounding(values)  # log r has no 0
        found = torch.zeros_like(values)
        found[0], found[at] = values[0], _at_integers(values[at], places[at], at)
        found = found.clamp(min=ROUNDING * float(found.max()))
        upper = at[(len(at) - 1) // 2 :]
        logs, places = found[upper].log(), upper.double().log()
        places = places - places.mean()
        return cls(tuple(found.tolist()), -float((places * logs).sum() / places.square().sum()))

    @property
    def warning(self) -> str:
        """What is odd about the law beyond the bands, one line; empty where it is a law that fields have."""
        if 0 < self.exponent <= STEEPEST:
            return ""
        cause = "they end before the grid does" if self.exponent > 0 else "they do not fall towards the finest modes"
        return (
            f"the data have no power law in the upper half of their bands ({cause}): beyond the grid r^{-self.exponent:.3g} is a "
            f"guess; take fields on another grid, or an exponent of your own in 0..{STEEPEST:g}"
        )

    def __call__(self, radii: Float64[Tensor, "*grid"]) -> Float64[Tensor, "*grid"]:
        """S at wavenumbers."""
        logs = torch.tensor(self.bands, dtype=torch.float64).log()
        last = len(self.bands) - 1
        below = radii.clamp(max=last)
        low = below.floor().clamp(max=last - 1)
        inside = torch.where(
            low > 0,
            (below / low.clamp(min=1)).log() / ((low + 1) / low.clamp(min=1)).log(),
            below - low,  # log r has no 0
        )
        index = low.long()
        value = logs[index] + inside * (logs[index + 1] - logs[index])
        return (value - self.exponent * (radii / last).clamp(min=1).log()).exp()
