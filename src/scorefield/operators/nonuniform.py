"""The Fourier transform of a field at any frequencies, off the grid: radial and spiral k-space, by gridding.

A field is divided by the transform of a kernel, padded to twice its grid, transformed there, and interpolated by that kernel
(Fessler and Sutton 2003; Beatty, Nishimura and Pauly 2005). Interpolation is a sparse matrix, its adjoint the transposed one: the
same sum in the same order whenever it is computed, on any device.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred_box, like, to_complex
from scorefield.operators.kspace import ParallelImaging, check_maps, of_all_coils, one_channel
from scorefield.operators.operator import LinearOperator
from scorefield.operators.solve import largest_singular_value, least_squares

OVERSAMPLING = 2
WIDTH = 7  # points of the oversampled grid along an axis that a frequency is interpolated from: 8e-7 of the direct sum; 6: 7e-6
SHAPE = math.pi * math.sqrt((WIDTH / OVERSAMPLING) ** 2 * (OVERSAMPLING - 0.5) ** 2 - 0.8)  # Beatty et al. 2005, eq. 5
COMPENSATING = 30  # iterations of density compensation
BALANCING, BOUND = (
    12,
    1.02,
)  # iterations for the largest of singular values that are nearly equal, and how far it may be above


@dataclass(frozen=True, eq=False)
class NonUniformFourier(LinearOperator):
    """y_j = v_j N^(−1/2) Σ_r x_r exp(−2πi Σ_a k_ja (r_a − n_a // 2)/n_a), for each complex channel: `Fourier` at integers k.

    To 1e-6, relative to all of y, in single precision and in double. x is (batch, 2 channels, *grid) or complex; y has the
    shape (batch, ..., samples). Derivatives pass through it, as through any linear map, by its adjoint.

    Args:
        places: k (samples, axes) in cycles per field of view, |k_a| <= n_a/2 along each axis; kept in double precision.
        grid: n, the sizes of the field.
        weights: v, (samples,); 1 by default.

    Raises:
        InputError: places of another number of axes, that are not finite, or beyond the grid's frequencies.
    """

    places: Tensor
    grid: Sequence[int]
    weights: Tensor | None = None
    _kept: dict = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        places, grid = self.places, tuple(self.grid)
        if places.ndim != 2 or places.shape[1] != len(grid) or not len(places):
            raise InputError(
                f"Places in k-space are (samples, {len(grid)}) for a grid {grid}, not {tuple(places.shape)}."
            )
        places = places.detach().double().cpu()
        if not bool(places.isfinite().all()):
            raise InputError("The places in k-space hold NaN or infinite values: correct the trajectory.")
        most = places.abs().amax(0)
        if bool((most > torch.tensor(grid) / 2 + 0.5).any()):
            found = ", ".join(f"{float(k):.4g}" for k in most)
            raise InputError(f"k-space reaches {found} cycles per field of view, beyond the n/2 of the grid {grid}.")
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "grid", grid)

    def __call__(self, x: Tensor) -> Tensor:
        return like(_Transform.apply(to_complex(x), self, False), x)

    def adjoint(self, y: Tensor) -> Tensor:
        return like(_Transform.apply(to_complex(y), self, True), y)

    # ------------------------------------------------------------------------------------------------ A and its adjoint
    @property
    def padded(self) -> tuple[int, ...]:
        """The oversampled grid."""
        return tuple(max(OVERSAMPLING * n, 2 * WIDTH) for n in self.grid)

    def _sampled(self, z: Tensor) -> Tensor:
        """A z, (batch, channels, samples), of complex z (batch, channels, *grid)."""
        whole = z.new_zeros((*z.shape[:2], *self.padded))
        whole[(..., *centred_box(self.padded, self.grid))] = z * self._part(self._weight, z)
        axes = tuple(range(2, z.ndim))
        spectrum = torch.fft.fftn(torch.fft.ifftshift(whole, axes), dim=axes)
        found = _times(self._part(self._matrix, z), spectrum.flatten(2))
        return found if self.weights is None else self.weights.to(found) * found

    def _gridded(self, z: Tensor) -> Tensor:
        """A* z, (batch, channels, *grid), of complex z (batch, channels, samples)."""
        z = z if self.weights is None else self.weights.to(z) * z
        spectrum = _times(self._part(self._adjoint, z), z).unflatten(2, self.padded)
        axes = tuple(range(2, spectrum.ndim))
        whole = torch.fft.fftshift(torch.fft.ifftn(spectrum, dim=axes, norm="forward"), axes)
        return whole[(..., *centred_box(self.padded, self.grid))] * self._part(self._weight, z)

    def normal(self, x: Tensor) -> Tensor:
        z = to_complex(x)
        return like(convolve(self.multipliers(z), z), x)

    def multipliers(self, z: Tensor) -> Tensor:
        """Those of A* A on a grid of twice the size, see `convolve`, in the precision and on the device of z."""
        return self._part(self._multipliers, z)

    def _multipliers(self, _: Tensor) -> Tensor:
        """The transform of A* A's point response, which depends on the distance alone (Wajer and Pruessmann 2001)."""
        double = tuple(2 * n for n in self.grid)
        axes, ones = tuple(range(len(double))), torch.ones(len(self.places), dtype=torch.complex128)
        weights = ones if self.weights is None else self.weights.to(ones) ** 2
        response = NonUniformFourier(2 * self.places, double).adjoint(weights[None, None])[0, 0]
        scale = math.sqrt(math.prod(double)) / math.prod(self.grid)
        return scale * torch.fft.fftn(torch.fft.ifftshift(response, axes), dim=axes).real

    def _part(self, made: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """A constant of the operator in the precision and on the device of z; it is kept."""
        key = (made.__name__, z.real.dtype, z.device)
        if key not in self._kept:
            self._kept[key] = made(z).to(z.real.dtype).to(z.device)
        return self._kept[key]

    def _weight(self, _: Tensor) -> Tensor:
        """(*grid): the inverse of the kernel's transform, and N^(−1/2)."""
        found = torch.ones((), dtype=torch.float64)
        for n, size in zip(self.grid, self.padded, strict=True):
            along = (torch.arange(n, dtype=torch.float64) - n // 2) / size
            found = found[..., None] / (_kernel_transform(along) * math.sqrt(n))
        return found

    def _matrix(self, _: Tensor) -> Tensor:
        """(samples, points of the oversampled grid), sparse: the kernel about each sample."""
        values, points = torch.ones(len(self.places), 1, dtype=torch.float64), torch.zeros(len(self.places), 1).long()
        for axis, (n, size) in enumerate(zip(self.grid, self.padded, strict=True)):
            place = self.places[:, axis, None] * (size / n)
            near = (place - WIDTH / 2).ceil() + torch.arange(WIDTH)
            values = (values[:, :, None] * _kernel(place - near)[:, None]).flatten(1)
            points = (points[:, :, None] * size + near.long().remainder(size)[:, None]).flatten(1)
        rows = torch.arange(len(points) + 1) * points.shape[1]
        points, order = points.sort(1)
        return _csr(rows, points.flatten(), values.gather(1, order).flatten(), (len(points), math.prod(self.padded)))

    def _adjoint(self, z: Tensor) -> Tensor:
        return _transposed(self._part(self._matrix, z))

    # ------------------------------------------------------------------------------------------------ what follows from A
    def density(self) -> Tensor:
        """How much of k-space each sample stands for, (samples,), in cells of the grid: W with A* W A ≈ 1, where that is known.

        The fixed point of w ← w/(G Gᵀ w), G the interpolation (Pipe and Menon 1999). Where samples are further apart than the
        kernel is wide, a sample stands for the kernel's width and no more.
        """
        if "density" not in self._kept:
            w = torch.ones(len(self.places), 1)
            matrix, back = (self._part(made, w.to(torch.complex64)) for made in (self._matrix, self._adjoint))
            for _ in range(COMPENSATING):
                w = w / (matrix @ (back @ w))
            area = math.prod(size / n for n, size in zip(self.grid, self.padded, strict=True))
            integral = float(_kernel_transform(torch.zeros((), dtype=torch.float64))) ** (2 * len(self.grid)) / area
            self._kept["density"] = w[:, 0].double() * integral
        return self._kept["density"]


@dataclass(frozen=True, eq=False)
class NonUniformSense(ParallelImaging):
    """y = V M F S x, what every coil sees of one image at places of k-space that are on no grid (Pruessmann et al. 2001).

    V is 1, if no weights are given. Its singular values grow with the number of samples about a place: about 1 where there is one
    in each cell of the grid.

    Args:
        maps: S, complex, (coils, *grid).
        places: k, (*samples, axes), see `NonUniformFourier`.
        mask: M, (*samples), true for those that are used; y is (batch, 2 coils, *samples).
        weights: V, (*samples), of least squares.
        iterations: of the conjugate gradients in `project`.
        tolerance: of these.
    """

    maps: Tensor
    places: Tensor
    mask: Tensor
    weights: Tensor | None = None
    iterations: int = 100
    tolerance: float = 1e-6
    _fourier: NonUniformFourier = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_maps(self.maps)
        samples = self.places.shape[:-1]
        if self.mask.shape != samples:
            raise InputError(f"The mask {tuple(self.mask.shape)} does not fit places of {tuple(samples)} samples.")
        chosen = self.places[self.mask.cpu() > 0]
        weights = None if self.weights is None else self.weights[self.mask > 0].cpu()
        object.__setattr__(self, "_fourier", NonUniformFourier(chosen, self.maps.shape[1:], weights))

    @property
    def compensation(self) -> Tensor:
        found = torch.zeros(self.mask.shape, dtype=torch.float64)
        found[self.chosen.cpu()] = self._fourier.density()
        return found.to(self.maps.real)

    def balanced(self, y: Tensor) -> tuple[NonUniformSense, Tensor]:
        operator, weights = self._balanced
        return operator, weights.to(y.real) * y

    @cached_property
    def _balanced(self) -> tuple[NonUniformSense, Tensor]:
        weights = self.compensation.sqrt()
        size = BOUND * largest_singular_value(replace(self, weights=weights), (2, *self.maps.shape[1:]), BALANCING)
        return replace(self, weights=weights / size), weights / size

    def restricted(self, mask: Tensor) -> NonUniformSense:
        return replace(self, mask=mask)

    def to(self, device: torch.device | str) -> NonUniformSense:
        found = replace(self, maps=self.maps.to(device), mask=self.mask.to(device))
        object.__setattr__(found, "_fourier", self._fourier)  # with what is computed already
        return found

    def __call__(self, x: Tensor) -> Tensor:
        z = one_channel(x, self.maps)
        chosen = self.chosen.to(z.device).flatten()
        found = z.new_zeros((len(z), len(self.maps), len(chosen)))
        found[..., chosen] = self._fourier(self.maps.to(z) * z)
        return like(found.unflatten(2, self.mask.shape), x)

    def adjoint(self, y: Tensor) -> Tensor:
        z = of_all_coils(y, self.maps)
        coils = self._fourier.adjoint(z.flatten(2)[..., self.chosen.to(z.device).flatten()])
        return like((self.maps.to(z).conj() * coils).sum(1, keepdim=True), y)

    def normal(self, x: Tensor) -> Tensor:
        z = one_channel(x, self.maps)
        maps = self.maps.to(z)
        coils = convolve(self._fourier.multipliers(z), maps * z)
        return like((maps.conj() * coils).sum(1, keepdim=True), x)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return x + least_squares(self, y - self(x), iterations=self.iterations, tolerance=self.tolerance)


class _Transform(torch.autograd.Function):
    """A or A* of an operator, each the other's derivative."""

    @staticmethod
    def forward(context, z: Tensor, operator: NonUniformFourier, adjoint: bool) -> Tensor:  # noqa: ANN001
        context.operator, context.adjoint = operator, adjoint
        return operator._gridded(z) if adjoint else operator._sampled(z)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN001 # pyright: ignore[reportIncompatibleMethodOverride]
        return _Transform.apply(gradient, context.operator, not context.adjoint), None, None


def convolve(multipliers: Tensor, z: Tensor) -> Tensor:
    """Complex z (..., *grid) by the multipliers of A* A, without wrapping around."""
    axes = tuple(range(-multipliers.ndim, 0))
    spectrum = torch.fft.fftn(z, s=multipliers.shape, dim=axes)
    found = torch.fft.ifftn(spectrum * multipliers, dim=axes)
    return found[(..., *(slice(0, n) for n in z.shape[-multipliers.ndim :]))]


def _kernel(u: Tensor) -> Tensor:
    """The Kaiser-Bessel window I₀(β √(1 − (2u/W)²))/I₀(β)."""
    inside = (1 - (2 * u / WIDTH) ** 2).clamp(min=0)
    return torch.where(u.abs() <= WIDTH / 2, torch.special.i0(SHAPE * inside.sqrt()), 0) / math.exp(SHAPE)


def _kernel_transform(f: Tensor) -> Tensor:
    """∫ κ(u) exp(−2πi f u) du of `_kernel`, |f| below the kernel's band."""
    root = (SHAPE**2 - (math.pi * WIDTH * f) ** 2).sqrt()
    return WIDTH * torch.sinh(root) / root / math.exp(SHAPE)


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():  # torch calls all of its compressed rows a beta
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(rows, columns, values, shape)


def _transposed(matrix: Tensor) -> Tensor:
    """The transposed of a sparse matrix, in rows of its own."""
    turned = matrix.to_sparse_csc()
    return _csr(turned.ccol_indices(), turned.row_indices(), turned.values(), (matrix.shape[1], matrix.shape[0]))


def _times(matrix: Tensor, z: Tensor) -> Tensor:
    """A real sparse matrix (m, n) times complex z (batch, channels, n)."""
    columns = torch.view_as_real(z).permute(2, 0, 1, 3).flatten(1).contiguous()
    with torch.autocast(z.device.type, enabled=False):  # a network may be evaluated in bfloat16, a transform not
        found = (matrix @ columns).reshape(len(matrix), *z.shape[:2], 2)
    return torch.view_as_complex(found.permute(1, 2, 0, 3).contiguous())
