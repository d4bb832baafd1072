"""Gaussian fields on a part of a grid: an ocean between its coasts, a disk, a domain with holes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Size, Tensor

from scorefield.core.noise.density import Matern
from scorefield.core.noise.field import GaussianField
from scorefield.core.noise.noise import Noise
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators

STEP = 1e-100  # of κ² along the imaginary axis: its square is 0 beside 1, so that a derivative has no error


@dataclass(frozen=True)
class MaskedField(Noise):
    """ξ = S A⁻¹ z, A = κ² − Δ on the cells of a region, no flux across its coast, S diagonal so that each cell has the variance.

    It is the Matérn field of (κ² − Δ)^(α/2) u = white noise with α = 2, on the region instead of free space (Lindgren et al.
    2011): correlation goes round a peninsula and not across it, islands and lakes are apart, far from any coast and on a torus
    it is the Matérn field of smoothness ν = 2 − d/2. Without S the variance would be up to 2^d times as large at coasts, and
    grow without bound in ever smaller lakes. Outside the region fields are not known: they have no noise there, and are NaN in
    data units.

    The region is given on one grid, and those of others have the cells whose centres lie in it, so that the law is the same on
    all but for the finite differences. A is sparse, and its factor is found once for each grid: a draw then takes about
    O(n log n) on the host.

    Args:
        grid: points along each axis where the region is given.
        runs: how many cells in turn lie outside and inside, beginning outside (0 where the first is inside), in the order of
            memory; `runs_of` a mask, or `scorefield suggest RECIPE --region` for data with NaN.
        length: ℓ of the Matérn kernel, κ = √(2ν)/ℓ.
        domain: length of the grid along each axis, one for all or one each, in the unit of `length`.
        variance: of each cell.
        periodic_axes: axes along which opposite sides of the grid meet, such as that of the longitude of a globe.
    """

    grid: Sequence[int]
    runs: Sequence[int] = field(repr=False)
    length: float
    domain: float | Sequence[float] = 1.0
    variance: float = 1.0
    periodic_axes: Sequence[int] = ()

    def __post_init__(self) -> None:
        for name in ("grid", "runs", "domain", "periodic_axes"):  # lists of a configuration: the field must hash
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        if not 1 <= len(self.grid) <= 3 or min(self.grid) < 1:
            raise InputError(f"MaskedField needs a grid of 1 to 3 axes, not {tuple(self.grid)}.")
        if min(self.runs, default=-1) < 0 or sum(self.runs) != math.prod(self.grid) or not sum(self.runs[1::2]):
            raise InputError(
                f"The runs of a MaskedField have to add up to the {math.prod(self.grid)} cells of its grid, some of them inside; "
                f"they add up to {sum(self.runs)}, {sum(self.runs[1::2])} inside: take runs_of(mask)."
            )
        if not all(0 <= axis < len(self.grid) for axis in self.periodic_axes):
            raise InputError(f"MaskedField has axes 0 to {len(self.grid) - 1}, and none of {self.periodic_axes}.")
        for name, value in (("length", self.length), ("variance", self.variance)):
            if not 0 < value < math.inf:
                raise InputError(f"MaskedField needs {name} > 0, not {value}.")
        self.on_torus().lengths(len(self.grid))

    @property
    def density(self) -> Matern:
        """That of the field far from any coast."""
        return Matern(self.length, 2 - len(self.grid) / 2)

    def on_torus(self) -> GaussianField:
        return GaussianField(self.density, domain=self.domain, variance=self.variance)

    def support(self, grid: Sequence[int] | Size) -> Tensor:
        return torch.from_numpy(_inside(self, tuple(grid)))

    def sample(self, shape: Sequence[int] | Size, *, generator: Generators, like: Tensor) -> Tensor:
        operator = _operator(self, tuple(shape[2:]))
        white = generator.randn((*shape[:2], len(operator.cells)), like=like)
        drawn = operator.scale * operator.solve(white.detach().cpu().double().flatten(0, 1).numpy())
        return _filled(drawn, operator, like.new_zeros(tuple(shape)))

    def covariance(self, x: Tensor) -> Tensor:
        operator = _operator(self, tuple(x.shape[2:]))
        return _symmetric(x, operator, lambda v: operator.scale * operator.solve(operator.solve(operator.scale * v)))

    def precision(self, x: Tensor) -> Tensor:
        operator = _operator(self, tuple(x.shape[2:]))
        return _symmetric(x, operator, lambda v: operator.times(operator.times(v / operator.scale)) / operator.scale)

    def whitened(self, x: Tensor) -> Tensor:
        """A S⁻¹ x, 0 outside the region: each cell from its neighbours alone."""
        operator = _operator(self, tuple(x.shape[2:]))
        return _mapped(x, operator, lambda v: operator.times(v / operator.scale))

    def log_det(self, x: Tensor) -> Tensor:
        """Over the cells of the region."""
        operator = _operator(self, tuple(x.shape[2:]))
        return x.new_full((len(x),), 2 * x.shape[1] * (float(np.log(operator.scale).sum()) - operator.log_det))


def runs_of(mask: Any) -> list[int]:
    """The runs of a mask, True (not 0) inside a region: see `MaskedField`."""
    inside = np.concatenate(([False], np.asarray(mask).astype(bool).reshape(-1)))
    ends = np.flatnonzero(inside[1:] != inside[:-1])
    return np.diff(np.concatenate(([0], ends, [len(inside) - 1]))).tolist()


@lru_cache(maxsize=16)
def _inside(noise: MaskedField, grid: tuple[int, ...]) -> np.ndarray:
    """The cells of a grid whose centres lie in the region."""
    if len(grid) != len(noise.grid):
        raise InputError(
            f"The noise has a region of {len(noise.grid)} axes, and the fields have {len(grid)}: give those of its domain."
        )
    known = np.repeat(np.arange(len(noise.runs)) % 2 == 1, noise.runs).reshape(tuple(noise.grid))
    at = [((2 * np.arange(n) + 1) * points) // (2 * n) for n, points in zip(grid, noise.grid, strict=True)]
    found = known[np.ix_(*at)]
    if not found.any():
        raise InputError(f"No cell of a grid of {grid} has its centre in the noise's region: take a finer one.")
    return found


@dataclass(frozen=True, eq=False)
class _Operator:
    """A on the cells of a region.

    Attributes:
        cells: their places in the flattened grid.
        solve: A⁻¹ of rows (n, cells).
        times: A of rows.
        scale: the diagonal of S.
        log_det: log det A.
    """

    cells: np.ndarray
    solve: Callable[[np.ndarray], np.ndarray]
    times: Callable[[np.ndarray], np.ndarray]
    scale: np.ndarray
    log_det: float


@lru_cache(maxsize=8)
def _operator(noise: MaskedField, grid: tuple[int, ...]) -> _Operator:
    from scipy.sparse.linalg import splu  # a second to load

    inside = _inside(noise, grid)
    lengths = noise.on_torus().lengths(len(grid))
    kappa = noise.density.kappa**2
    slow = _slow_axis(grid, noise.periodic_axes)  # numbered first, so that A is tridiagonal in blocks along it
    ring = slow in noise.periodic_axes
    rows = (
        _folded(grid[slow]) if ring else np.arange(grid[slow])
    )  # a ring pressed flat has ends, and blocks of two of its rows
    number = np.full(inside.shape, -1)
    order = np.moveaxis(inside, slow, 0)[rows]
    ranks = np.full(order.shape, -1)
    ranks[order] = np.arange(inside.sum())
    np.moveaxis(number, slow, 0)[rows] = ranks
    cells = np.moveaxis(np.arange(inside.size).reshape(grid), slow, 0)[rows][order]
    matrix = _laplacian(number, [length / n for n, length in zip(grid, lengths, strict=True)], noise.periodic_axes)
    matrix.setdiag(matrix.diagonal() + kappa)
    factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    counts = order.reshape(len(order), -1).sum(1)
    ends = np.concatenate(([0], counts.cumsum()))
    variances = _squares_by_blocks(matrix, np.append(ends[:-1:2], ends[-1]) if ring else ends, kappa)
    return _Operator(
        cells,
        lambda rows: factor.solve(np.ascontiguousarray(rows.T)).T,
        lambda rows: (matrix @ rows.T).T,
        np.sqrt(noise.variance / variances),
        float(np.log(np.abs(factor.U.diagonal())).sum()),
    )


def _slow_axis(grid: Sequence[int], periodic: Sequence[int]) -> int:
    """The longest axis with ends, or the longest."""
    return max(range(len(grid)), key=lambda axis: (axis not in periodic, grid[axis]))


def _folded(n: int) -> np.ndarray:
    """0, n − 1, 1, n − 2, ...: neighbours on a ring of n are in the same pair of these or in the next."""
    pairs = np.stack((np.arange(n), np.arange(n)[::-1]), 1)
    return pairs.flatten()[:n]


def _laplacian(number: np.ndarray, steps: Sequence[float], periodic: Sequence[int]) -> Any:
    """−Δ between cells numbered from 0, −1 outside, as fluxes between neighbours: none across a coast."""
    from scipy.sparse import csc_matrix

    count = int(number.max()) + 1
    rows, columns, weights = [np.arange(count)], [np.arange(count)], [np.zeros(count)]
    for axis, step in enumerate(steps):
        following = np.roll(number, -1, axis)
        met = (number >= 0) & (following >= 0)
        if axis not in periodic:
            np.moveaxis(met, axis, 0)[-1] = False
        one, other = number[met], following[met]
        flux = np.full(len(one), step**-2.0)
        rows += [one, other, one, other]
        columns += [other, one, one, other]
        weights += [-flux, -flux, flux, flux]
    entries = (np.concatenate(rows), np.concatenate(columns))
    return csc_matrix((np.concatenate(weights), entries), shape=(count, count))


def _squares_by_blocks(matrix: Any, starts: np.ndarray, kappa: float) -> np.ndarray:
    """The diagonal of A⁻² for an A that is tridiagonal in blocks, in O(blocks · size³).

    It is −∂/∂κ² of the diagonal of A⁻¹, which elimination forth and back along the blocks gives.
    """
    rows = matrix.tocsr()
    parts = [slice(start, end) for start, end in itertools.pairwise(starts)]

    def block(one: slice, other: slice) -> np.ndarray:
        return rows[one][:, other].toarray()

    eliminated, couplings = [], []
    for number, part in enumerate(parts):
        whole = block(part, part) + 1j * STEP * kappa * np.eye(part.stop - part.start)
        if number:
            coupling = block(part, parts[number - 1])
            whole = whole - coupling @ eliminated[-1] @ coupling.T
            couplings.append(coupling)
        eliminated.append(np.linalg.inv(whole))
    inverse = eliminated[-1]
    found = [inverse.diagonal().imag]
    for before, coupling in zip(eliminated[-2::-1], couplings[::-1], strict=True):
        through = before @ coupling.T
        inverse = before + through @ inverse @ through.T
        found.append(inverse.diagonal().imag)
    return -np.concatenate(found[::-1]) / (STEP * kappa)


# ---------------------------------------------------------------------------------------------------- between tensors
def _filled(rows: np.ndarray, operator: _Operator, whole: Tensor) -> Tensor:
    """Fields of 0 with the values of the cells."""
    values = torch.from_numpy(np.ascontiguousarray(rows)).to(whole).unflatten(0, whole.shape[:2])
    whole.flatten(2)[:, :, torch.from_numpy(operator.cells).to(whole.device)] = values
    return whole


def _mapped(x: Tensor, operator: _Operator, apply: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """A map of rows of cells on fields: 0 outside, whatever they have there."""
    cells = x.detach().cpu().double().flatten(2)[:, :, torch.from_numpy(operator.cells)]
    return _filled(apply(cells.flatten(0, 1).numpy()), operator, torch.zeros_like(x))


def _symmetric(x: Tensor, operator: _Operator, apply: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """A symmetric map on fields, with its gradient, which it is itself."""

    class Applied(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, v: Tensor) -> Tensor:
            return _mapped(v, operator, apply)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return _mapped(gradients[0], operator, apply)

    return Applied.apply(x)  # pyright: ignore[reportReturnType]
