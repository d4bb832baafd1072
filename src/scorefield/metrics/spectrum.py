"""How the variance of fields is spread over scales: ring means of the power of their modes.

A *ring mean* divides by the number of modes in the ring, a *ring sum* does not. That number grows like the wavenumber, so the
slope of a ring sum is flatter by one power: of a field whose modes have E|x_k|² ∝ |k|⁻³ the ring mean falls like k⁻³ and the
ring sum like k⁻². All here are ring means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scorefield.foundation.cosine import dct
from scorefield.foundation.errors import InputError


class Spectrum(NamedTuple):
    """A radially averaged spectrum.

    Args:
        wavenumber: of each ring, in cycles per unit of the spacing: n/L for n = 1, 2, ..., L the longer side.
        power: ring mean of |x_k|², so scaled that the sum over all modes is the mean square of the field.
    """

    wavenumber: Float[Tensor, " rings"]
    power: Float[Tensor, "*batch rings"]


def radial_spectrum(
    fields: Float[Tensor, "*fields"],
    spacing: Sequence[float] = (1.0, 1.0),
    *,
    taper: bool = False,
    valid: Bool[Tensor, "*batch height width"] | None = None,
) -> Spectrum:
    """Ring means of the power spectrum of each field: ring n has the modes with round(L|k|) = n, up to the Nyquist wavenumber.

    Args:
        fields: (..., *grid), without NaN; the mean is in no ring.
        spacing: of the grid along each of its one to three axes, in any unit of length.
        taper: multiply by a Hann window after the mean is taken away. A field that is not periodic has a jump at its edge, whose
            modes fall like k⁻² along the axes and hide steeper spectra.
        valid: of fields on a plane, what is known of each, by default all; see `masked_power`. Fields that `enough` refuses have
            no meaning.
    """
    axes = tuple(range(-len(spacing), 0))
    grid = fields.shape[-len(spacing) :]
    last, waves = grid[-1], [torch.fft.fftfreq(n, d, dtype=torch.float64) for n, d in zip(grid, spacing, strict=True)]
    waves[-1] = torch.fft.rfftfreq(last, spacing[-1], dtype=torch.float64)
    longest = _longest(grid, spacing)
    rings = int(min(0.5 / d for d in spacing) * longest + 1e-9)
    ring = _ring_of(waves, longest, rings)
    if taper:
        fields = tapered(fields - fields.mean(axes, keepdim=True), len(axes))
    power = _power(fields, axes) if valid is None else masked_power(fields, valid)
    twice = torch.full_like(waves[-1], 2.0)  # the half of the modes that a real transform leaves out
    twice[0] = 1.0
    if last % 2 == 0:
        twice[-1] = 1.0
    wavenumber = torch.arange(1, rings + 1, dtype=torch.float64, device=fields.device) / longest
    return Spectrum(wavenumber, _ring_means(power, twice.expand(ring.shape).to(power), ring, rings))


def masked_power(
    fields: Float[Tensor, "*batch height width"], valid: Bool[Tensor, "*batch height width"]
) -> Float[Tensor, "*batch height half"]:
    """The power of the modes of fields that are known in part: the transform of C(h) = Σ m f(s) f(s + h) / Σ m(s) m(s + h).

    m is 1 where a field is known, and lags h go round the domain, as of a field that is periodic. Each C(h) is without bias where
    the field is stationary, and so is the power (up to the mean, which is estimated); it is the periodogram where all is known.
    Single fields may have rings below 0; means over many do not.
    """
    weight = valid.to(fields)
    mean = (torch.where(valid, fields, 0.0)).sum((-2, -1), keepdim=True) / weight.sum((-2, -1), keepdim=True)
    sums = _pairs(torch.where(valid, fields - mean, 0.0)) / _pairs(weight).clamp(min=0.5)
    return torch.fft.rfft2(sums).real / (fields.shape[-2] * fields.shape[-1])


def enough(valid: Bool[Tensor, "*batch height width"]) -> Bool[Tensor, "*batch"]:
    """Whether the points that are known tell the power of all modes: at each lag they make at least 5 % of all pairs."""
    pairs = _pairs(valid.double())
    return pairs.amin((-2, -1)) >= 0.05 * valid.shape[-2] * valid.shape[-1]


def _pairs(x: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """Σ x(s) x(s + h) for every lag h, round the domain."""
    return torch.fft.irfft2(torch.fft.rfft2(x).abs().square(), s=x.shape[-2:])


def cosine_spectrum(fields: Float[Tensor, "*fields"], spacing: Sequence[float] = (1.0, 1.0)) -> Spectrum:
    """Ring means of the power of the cosine series of each field, which needs no taper: its even continuation has no jump.

    Mode (p, q) has the wavenumber |(p/H, q/W)|/2 with H and W the sides; ring n has those next to n/(2L), L the longest side.

    Args:
        fields: (..., *grid), without NaN; the mean is in no ring.
        spacing: of the grid along each of its one to three axes, in any unit of length.
    """
    grid = fields.shape[-len(spacing) :]
    waves = [torch.arange(n, dtype=torch.float64) / (n * d) for n, d in zip(grid, spacing, strict=True)]
    longest = _longest(grid, spacing)
    rings = int(min(1 / d for d in spacing) * longest + 1e-9) - 1
    ring = _ring_of(waves, longest, rings)
    power = dct(fields.double(), tuple(range(-len(grid), 0))).square() / math.prod(grid)
    found = _ring_means(power, torch.ones_like(ring, dtype=power.dtype, device=power.device), ring, rings)
    return Spectrum(torch.arange(1, rings + 1, dtype=torch.float64) / (2 * longest), found)


def _power(fields: Tensor, axes: tuple[int, ...]) -> Tensor:
    """|x_k|² of half of the modes, as a real transform has them."""
    return torch.fft.rfftn(fields, dim=axes, norm="forward").abs().square()


def _longest(grid: Sequence[int], spacing: Sequence[float]) -> float:
    return max(n * d for n, d in zip(grid, spacing, strict=True))


def _ring_of(waves: Sequence[Tensor], longest: float, rings: int) -> Tensor:
    """The ring of each mode by its wavenumbers along the axes. InputError where there is none."""
    if rings < 1:
        raise InputError(
            f"A spectrum needs fields of at least 2 points along an axis, not {'×'.join(str(len(k)) for k in waves)}."
        )
    squares = torch.meshgrid([wave**2 for wave in waves], indexing="ij")
    return (torch.stack(squares).sum(0).sqrt() * longest).round().long()


def _ring_means(power: Tensor, modes: Tensor, ring: Tensor, rings: int) -> Tensor:
    """The mean power (..., rings) of the modes of each ring, each of them counted as often as `modes` says."""
    inside = (ring >= 1) & (ring <= rings)
    index = (ring[inside] - 1).to(power.device)
    total = power.new_zeros((*power.shape[: power.ndim - ring.ndim], rings))
    total.index_add_(-1, index, (power * modes)[..., inside])
    return total / power.new_zeros(rings).index_add_(0, index, modes[inside])


def band_distance(one: Float[Tensor, "n bands"], other: Float[Tensor, "m bands"]) -> Float[Tensor, " bands"]:
    """|ln of the ratio of the mean powers| in each band of two sets of fields; 0.1 is about 10 % of the power."""
    return (one.double().mean(0) / other.double().mean(0)).log().abs()


def tapered(fields: Float[Tensor, "*fields"], rank: int) -> Float[Tensor, "*fields"]:
    """Fields under a Hann window along each of their last `rank` axes, which keeps the variance of white noise."""
    for axis in range(-rank, 0):
        n = fields.shape[axis]
        window = torch.hann_window(n, periodic=False, dtype=fields.dtype, device=fields.device)
        fields = fields * (window / window.square().mean().sqrt()).reshape(-1, *(1,) * (-axis - 1))
    return fields


def log_spectral_distance(
    one: Float[Tensor, "*batch rings"], other: Float[Tensor, "*batch rings"]
) -> Float[Tensor, "*batch"]:
    """Root mean square over rings of 10 log₁₀(one/other), in dB; 0 for equal spectra, 3 for a factor of 2 everywhere.

    Rings in which one of both is not above 0, as an estimate from few points may be, are left out.
    """
    inside = (one > 0) & (other > 0)
    ratio = torch.where(inside, one / other, 1.0)
    return ((10 * ratio.log10()).square().sum(-1) / inside.sum(-1)).sqrt()
