"""Gaussian random fields: a truncated Karhunen-Loève series whose law is that of a function, and not of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Float64
from torch import Size, Tensor

from scorefield.core.noise.boundary import Axis, Boundary, Periodic, folded
from scorefield.core.noise.density import SpectralDensity
from scorefield.core.noise.noise import Noise
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators

SMALLEST = 1e-14  # λ below this part of the largest are rounding: C⁻¹ would be made of it


@dataclass(frozen=True)
class GaussianField(Noise):
    """ξ(x) = Σ_k √λ_k ζ_k e_k(x) over the modes of the grid, λ_k = variance · (S(ω_k)/Z + nugget), Z = Σ S over *all* modes.

    With `Free` the modes are those of a larger domain, and each has the smaller nugget that gives a point the same variance.

    Since Z knows no grid, a coarser grid's field is the finer one's with modes removed: its variance per pixel is smaller by
    what those modes carry. O(n log n) time and O(n) memory, in one to three dimensions, on grids of any sizes.

    Args:
        density: S, in physical units.
        boundary: `Periodic`, `Free` (no edge; without an inverse) or `Neumann` (cosine modes; another law).
        domain: length of the domain along each axis, one for all or one each, in the unit of the density's lengths.
        variance: σ², of a point of the untruncated field (for `Neumann`, its mean over the domain).
        point: the field at the grid's points without truncation, by folding each λ_k with those of its aliases: the exact kernel
            between points, and modes that depend on the grid. A nugget is not folded.
        band: points of a grid along each axis beyond whose modes there is no noise; none by default.
    """

    density: SpectralDensity
    boundary: Boundary = Periodic()
    domain: float | Sequence[float] = 1.0
    variance: float = 1.0
    point: bool = False
    band: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("domain", "band"):  # lists of a configuration: the field must hash
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        if not all(0 < length < math.inf for length in self._numbers(self.domain)) or not 0 < self.variance < math.inf:
            raise InputError(f"GaussianField needs domain > 0 and variance > 0, not {self.domain} and {self.variance}.")
        if self.band is not None and (self.point or min(self.band, default=0) < 1):
            raise InputError("The band of a GaussianField is a size per axis, and none where it is sampled by point.")

    @property
    def diagonal(self) -> bool:
        return self.boundary.invertible and self.band is None

    @property
    def periodic(self) -> bool:
        return self.boundary.torus

    @staticmethod
    def _numbers(value: float | Sequence[float]) -> Sequence[float]:
        return (value,) if isinstance(value, int | float) else value

    def lengths(self, rank: int) -> tuple[float, ...]:
        """Of the domain, one per axis."""
        lengths = tuple(self._numbers(self.domain))
        lengths = lengths * rank if len(lengths) == 1 else lengths
        if len(lengths) != rank:
            raise InputError(f"The noise has a domain of {len(lengths)} lengths, but the fields have {rank} axes.")
        return lengths

    def eigenvalues(self, grid: Sequence[int] | Size) -> Float64[Tensor, "*grid"]:
        """λ_k, the variance of each mode, in the order of `torch.fft.fftn` (for `Neumann`, of the cosine transform).

        With `Free`, of the larger grid. N λ_k, N its points, are the eigenvalues of C as a matrix.
        """
        return _eigenvalues(self, tuple(grid))

    def basis(self, rank: int) -> tuple[Boundary, tuple[float, ...]]:
        if not self.boundary.invertible:
            raise InputError(
                "A field noise with a Free boundary is diagonal in no modes of the grid, so that Wiener's filter has no "
                "form there: take Periodic or Neumann, or do without Wiener and WienerBeyond."
            )
        return self.boundary, self.lengths(rank)

    def on_torus(self) -> GaussianField:
        return self if self.boundary.invertible else replace(self, boundary=Periodic())

    def limited(self, grid: Sequence[int] | Size) -> GaussianField:
        return replace(self, band=tuple(grid))

    def _made_on(self, grid: Sequence[int] | Size) -> list[int]:
        return self.boundary.extend(grid, self.lengths(len(grid)), self.density.reach)[0]

    def sample(self, shape: Sequence[int] | Size, *, generator: Generators, like: Tensor) -> Tensor:
        grid = tuple(shape[2:])
        white = generator.randn((*shape[:2], *self.boundary.white(self._made_on(grid))), like=like)
        return self.boundary.colour(white, _gain(self, grid, 0.5, like), grid)

    def covariance(self, x: Tensor) -> Tensor:
        grid = x.shape[2:]
        whole = x.new_zeros((*x.shape[:2], *self._made_on(grid)))
        whole[(..., *(slice(n) for n in grid))] = x
        return self._crop(self.boundary.filter(whole, _gain(self, tuple(grid), 1.0, x)), grid)

    def precision(self, x: Tensor) -> Tensor:
        return self.boundary.filter(x, _gain(self, tuple(x.shape[2:]), -1.0, x))

    def log_det(self, x: Tensor) -> Tensor:
        self._check_inverse(tuple(x.shape[2:]))
        logs = self.eigenvalues(x.shape[2:]).log().sum() + x[0, 0].numel() * math.log(x[0, 0].numel())
        return (x.shape[1] * logs).to(x).expand(len(x))

    def _check_inverse(self, grid: tuple[int, ...]) -> None:
        """Raise InputError where C has no inverse, or none that is more than rounding."""
        values = self.eigenvalues(grid)
        if not self.boundary.invertible:
            raise InputError("A field noise with a Free boundary has no usable inverse: take Periodic or Neumann.")
        if not float(values.min()) > SMALLEST * float(values.max()):
            raise InputError(
                f"The noise has modes of no variance on a grid of {grid}, so its covariance has no inverse: "
                "give its density a nugget, such as 1e-6, or a smaller smoothness; no band."
            )

    @staticmethod
    def _crop(x: Tensor, grid: Sequence[int] | Size) -> Tensor:
        return x[(..., *(slice(n) for n in grid))]


@lru_cache(maxsize=16)
def _eigenvalues(field: GaussianField, grid: tuple[int, ...]) -> Tensor:
    boundary, density, rank = field.boundary, field.density, len(grid)
    points, lengths = boundary.extend(grid, field.lengths(rank), density.reach)
    axes = [boundary.axis(n, length) for n, length in zip(points, lengths, strict=True)]
    terms, weights = density.mixture(rank)
    for length in lengths:
        weights = weights * boundary.all_modes(terms, length)
    total = float(weights.sum())
    values = _folded(density, axes) if field.point else density(_squared(axes), rank)
    part = math.prod(field.lengths(rank)) / math.prod(
        lengths
    )  # of the torus: a larger one has more modes on the same points
    values = field.variance * (values / total + part * density.nugget)
    if field.band is None:
        return values
    if len(field.band) != rank:
        raise InputError(f"The noise has a band of {len(field.band)} sizes, but the fields have {rank} axes.")
    return values * boundary.shares(axes, grid, field.band)


def _squared(axes: Sequence[Axis]) -> Tensor:
    """|ω|² on the lattice."""
    squares = torch.meshgrid(*((k * spacing) ** 2 for k, _, spacing in axes), indexing="ij")
    return torch.stack(squares).sum(0)


def _folded(density: SpectralDensity, axes: Sequence[Axis]) -> Tensor:
    """Σ S over all aliases of each mode: a sum of products, one factor per axis."""
    terms, weights = density.mixture(len(axes))
    result, *others = (folded(terms, k, period, spacing) for k, period, spacing in axes)
    result = weights[:, None] * result
    if not others:
        return result.sum(0)
    *middle, last = others
    for factor in middle:
        result = (result[:, :, None] * factor[:, None, :]).flatten(1)
    return (result.T @ last).reshape(*(len(k) for k, _, _ in axes))


@lru_cache(maxsize=16)
def _gain_like(
    field: GaussianField, grid: tuple[int, ...], power: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    if power < 0:
        field._check_inverse(grid)
    values = field.eigenvalues(grid)
    return (values * values.numel()).pow(power).to(dtype=dtype, device=device)


def _gain(field: GaussianField, grid: tuple[int, ...], power: float, like: Tensor) -> Tensor:
    """(N λ_k)^power."""
    return _gain_like(field, grid, power, like.dtype, like.device)
