"""The spectrum of data, mode by mode, beside that of the noise: S_k on any grid, measured in bands and extrapolated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Size, Tensor

from scorefield.errors import InputError
from scorefield.noise import Noise


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


def _at_integers(values: Tensor, radii: Tensor) -> Tensor:
    """Means of bands, moved from the mean wavenumber of their modes to the integer, along the slope between neighbours."""
    logs, places = values[1:].log(), radii[1:].log()
    (slopes,) = torch.gradient(logs, spacing=(places,))
    wanted = torch.arange(1, len(values), dtype=torch.float64).log()
    return torch.cat((values[:1], (logs + slopes * (wanted - places)).exp()))


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
        """Of fields, over samples and channels; the exponent from the upper half of the bands that all directions have."""
        boundary, lengths = noise.basis(x.ndim - 2)
        power = boundary.transform(x.double()).abs().square().mean((0, 1))
        nyquist = min(n / length for n, length in zip(x.shape[2:], lengths, strict=True)) * max(lengths) / 2
        bands = math.ceil(nyquist)  # those below it, whole
        if bands < 4:
            raise InputError(
                f"A spectrum needs fields of at least 8 points along every axis, not {tuple(x.shape[2:])}."
            )
        radii = wavenumbers(noise, x.shape[2:])
        values = _at_integers(band_means(power, radii, bands), band_means(radii, radii, bands))
        upper = torch.arange(bands // 2, bands, dtype=torch.float64)
        logs, slopes = values[bands // 2 :].log(), upper.log() - upper.log().mean()
        exponent = -float((slopes * logs).sum() / slopes.square().sum())
        return cls(tuple(values.tolist()), exponent)

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
