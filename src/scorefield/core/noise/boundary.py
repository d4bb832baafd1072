"""What happens at the edges of the domain: the basis in which the covariance of a stationary field is diagonal.

Along an axis of length L with n points the modes are k = 0, ±1, ... of frequency ω = kδ. Grid points cannot tell a mode from
those a period P away: `folded` sums a Gaussian over them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.foundation import cosine
from scorefield.foundation.cosine import dct, idct
from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import resample

TERMS = 4  # on either side of a sum of Gaussians, at the worse of its two forms: what is left out is below 1e-16 of it


Axis = tuple[Tensor, float, float]  # the modes k, their period and their spacing


def folded(u: Float[Tensor, " terms"], k: Float[Tensor, " modes"], period: float, spacing: float) -> Tensor:
    """Σ_m exp(−u δ²(k + mP)²), m over all integers, (terms, modes): itself where it is short, else by Poisson's formula."""
    m = torch.arange(-TERMS, TERMS + 1, dtype=torch.float64)[:, None, None]
    width = (u * (spacing * period) ** 2)[:, None]
    direct = (-width * (k / period + m) ** 2).exp().sum(0)
    waves = (-((math.pi * m) ** 2) / width).exp() * (2 * math.pi * m * k / period).cos()
    return torch.where(width > math.pi, direct, (math.pi / width).sqrt() * waves.sum(0))


class Boundary(ABC):
    """The basis, and the domain on which it is one.

    Attributes:
        invertible: the covariance of the field on the domain itself is diagonal in the basis, and so has an inverse.
        torus: opposite sides of the domain are the same.
    """

    invertible: bool = True
    torus: bool = False

    @abstractmethod
    def extend(self, grid: Sequence[int], domain: Sequence[float], reach: float) -> tuple[list[int], list[float]]:
        """Points and lengths of the domain on which the field is made, of which the given one is the first part."""

    @abstractmethod
    def axis(self, n: int, length: float) -> Axis:
        """The modes k of an axis, the period after which they repeat, and their spacing δ."""

    @abstractmethod
    def share(self, k: Tensor, edge: float) -> Tensor:
        """How much of each mode k a grid has whose modes repeat after 2·edge: 1, 0, or ½ where it has one of k and −k."""

    @abstractmethod
    def all_modes(self, u: Float[Tensor, " terms"], length: float) -> Float[Tensor, " terms"]:
        """Σ exp(−u ω²) over all modes of an axis."""

    @abstractmethod
    def filter(self, x: Tensor, gain: Float[Tensor, "*grid"]) -> Tensor:
        """x with its modes multiplied by `gain`."""

    def band(self, grid: Sequence[int], kept: Sequence[int]) -> Float[Tensor, "*points"]:
        """How much of each mode of a grid one of `kept` points has, for boundaries that do not extend the grid."""
        axes = [self.axis(n, 1.0) for n in grid]
        return self.shares(axes, grid, kept)

    def shares(self, axes: Sequence[Axis], grid: Sequence[int], kept: Sequence[int]) -> Float[Tensor, "*points"]:
        """The same for the axes of the grid on which the field is made."""
        parts = [
            self.share(k, points * period / n / 2) if points < n else torch.ones_like(k)
            for (k, period, _), points, n in zip(axes, kept, grid, strict=True)
        ]
        return torch.stack(torch.meshgrid(*parts, indexing="ij")).prod(0)

    @abstractmethod
    def resample(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """x on another grid of the domain: modes that it lacks left out, those that x lacks zero."""

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """The modes of x, so scaled that those of a draw have the variances λ_k."""

    @abstractmethod
    def white(self, points: Sequence[int]) -> tuple[int, ...]:
        """The shape of the standard normal numbers that `colour` makes a field of."""

    @abstractmethod
    def colour(self, white: Tensor, gain: Float[Tensor, "*points"], grid: Sequence[int]) -> Tensor:
        """The part on the grid of a field whose modes in an orthonormal basis have the standard deviation `gain`."""


class _Torus(Boundary):
    """Fourier modes on a torus; abstract, the torus is left open."""

    def axis(self, n: int, length: float) -> Axis:
        return torch.fft.fftfreq(n, 1 / n, dtype=torch.float64), n, 2 * math.pi / length

    def share(self, k: Tensor, edge: float) -> Tensor:
        return (k.abs() < edge).double() + 0.5 * (k.abs() == edge).double()

    def all_modes(self, u: Tensor, length: float) -> Tensor:
        return folded(u, torch.zeros(1, dtype=torch.float64), 1, 2 * math.pi / length)[:, 0]

    def filter(self, x: Tensor, gain: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        modes = torch.fft.rfftn(x, dim=axes) * gain[..., : x.shape[-1] // 2 + 1]
        return torch.fft.irfftn(modes, s=x.shape[2:], dim=axes)

    def resample(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return resample(x, size)

    def transform(self, x: Tensor) -> Tensor:
        return torch.fft.fftn(x, dim=tuple(range(2, x.ndim)), norm="forward")


@dataclass(frozen=True)
class Periodic(_Torus):
    """The domain is a torus."""

    torus = True

    def extend(self, grid: Sequence[int], domain: Sequence[float], reach: float) -> tuple[list[int], list[float]]:
        return list(grid), list(domain)

    def white(self, points: Sequence[int]) -> tuple[int, ...]:
        return tuple(points)

    def colour(self, white: Tensor, gain: Tensor, grid: Sequence[int]) -> Tensor:
        return self.filter(white, gain)


@dataclass(frozen=True)
class Free(_Torus):
    """No edge: the domain is a part of a torus so large that its opposite sides are independent.

    The field is made on the whole torus and cropped: positive by construction, and stationary. C has no usable inverse.

    Args:
        extension: length of the torus in units of the domain's, along every axis; by default the smallest whole number with
            room for 6 correlation lengths. Times the number of points it must be a whole number on every grid in use.
    """

    extension: float | None = None
    invertible = False

    def __post_init__(self) -> None:
        if self.extension is not None and not 1 <= self.extension < math.inf:
            raise InputError(f"Free needs extension >= 1, not {self.extension}.")

    def extend(self, grid: Sequence[int], domain: Sequence[float], reach: float) -> tuple[list[int], list[float]]:
        factors = [self.extension or float(math.ceil(1 + 6 * reach / length)) for length in domain]
        points = [round(n * factor) for n, factor in zip(grid, factors, strict=True)]
        for n, whole, factor in zip(grid, points, factors, strict=True):
            if abs(n * factor - whole) > 1e-9 * whole:
                raise InputError(
                    f"Free(extension={factor:g}) makes {n * factor:g} points of {n}, and points must be whole: "
                    f"the nearest extension is {whole / n:.8g}; whole numbers fit every grid."
                )
        return points, [length * factor for length, factor in zip(domain, factors, strict=True)]

    def white(self, points: Sequence[int]) -> tuple[int, ...]:
        return (*points[:-1], points[-1] // 2 + 1, 2)

    def colour(self, white: Tensor, gain: Tensor, grid: Sequence[int]) -> Tensor:
        """Drawn as modes, to save a transform of the larger grid, and cropped after each axis, to save half of the other."""
        last, columns = gain.shape[-1], white.shape[-2]
        weight = gain.new_full((columns,), math.sqrt(0.5))
        weight[0] = 1  # of these modes the real part alone is used, once the other axes are transformed
        weight[-1] = 1 if last % 2 == 0 else weight[-1]
        modes = torch.view_as_complex(white) * (gain[..., :columns] * weight)
        for axis, n in enumerate(grid[:-1], 2):
            modes = torch.fft.ifft(modes, dim=axis, norm="ortho").narrow(axis, 0, n)
        modes.imag[..., 0] = 0
        if last % 2 == 0:
            modes.imag[..., -1] = 0
        return torch.fft.irfft(modes, n=last, norm="ortho")[..., : grid[-1]]


@dataclass(frozen=True)
class Neumann(Boundary):
    """Cosine modes: no gradient across the edges, where the variance is up to twice as large per axis: another law."""

    def extend(self, grid: Sequence[int], domain: Sequence[float], reach: float) -> tuple[list[int], list[float]]:
        return list(grid), list(domain)

    def axis(self, n: int, length: float) -> Axis:
        return torch.arange(n, dtype=torch.float64), 2 * n, math.pi / length

    def share(self, k: Tensor, edge: float) -> Tensor:
        return (k < edge).double()

    def all_modes(self, u: Tensor, length: float) -> Tensor:
        return 0.5 * (1 + folded(u, torch.zeros(1, dtype=torch.float64), 1, math.pi / length)[:, 0])

    def white(self, points: Sequence[int]) -> tuple[int, ...]:
        return tuple(points)

    def colour(self, white: Tensor, gain: Tensor, grid: Sequence[int]) -> Tensor:
        return self.filter(white, gain)

    def filter(self, x: Tensor, gain: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        return idct(dct(x, axes) * gain, axes)

    def resample(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return cosine.resample(x, size)

    def transform(self, x: Tensor) -> Tensor:
        return dct(x, tuple(range(2, x.ndim))) / math.sqrt(x[0, 0].numel())
