"""Fourier transforms of fields on grids of any size; and complex fields as pairs of real channels.

Two conventions. Functions on a torus have their first point at the origin: `resample`. Images and k-space have it at the
index n // 2 of each axis, where the frequency 0 is as well: `centred`, `centred_box`, `fit_matrix`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Size, Tensor

from scorefield.foundation.errors import InputError

Array = TypeVar("Array", Tensor, np.ndarray)


def to_complex(x: Tensor) -> Tensor:
    """Channels 2c and 2c + 1 of x (batch, 2 C, *grid) as real and imaginary part of c, (batch, C, *grid). Complex x stays."""
    if x.is_complex():
        return x
    if x.shape[1] % 2:
        raise InputError(
            f"{x.shape[1]} real channels are no complex field: give pairs of channels, real and imaginary."
        )
    return torch.view_as_complex(x.unflatten(1, (-1, 2)).movedim(2, -1).contiguous())


def to_channels(z: Tensor) -> Tensor:
    """The pairs of real channels (batch, 2 C, *grid) of a complex z (batch, C, *grid): `to_complex` undone, bit by bit."""
    return torch.view_as_real(z).movedim(-1, 2).flatten(1, 2)


def like(z: Tensor, x: Tensor) -> Tensor:
    """A complex z in the form in which x came, complex or as pairs of channels."""
    return z if x.is_complex() else to_channels(z)


def centred(x: Array, axes: Sequence[int] = (-2, -1), *, inverse: bool = False) -> Array:
    """The centred orthonormal Fourier transform F x over some axes, or with `inverse` F* x; F* F = 1.

    y_k = ∏ n^(−1/2) Σ_j x_j exp(−2πi Σ (k − n // 2)(j − n // 2)/n): k-space of an image, or with `inverse` the image of k-space.

    Args:
        x: of any shape, real or complex; an array gives an array.
        axes: those that are transformed; their sizes may be odd.
        inverse: with the other sign.
    """
    array = isinstance(x, np.ndarray)
    z = torch.from_numpy(np.array(x, order="C")) if array else x  # torch takes no read-only or reversed arrays
    change = torch.fft.ifftn if inverse else torch.fft.fftn
    found = torch.fft.fftshift(change(torch.fft.ifftshift(z, tuple(axes)), dim=tuple(axes), norm="ortho"), tuple(axes))
    return found.numpy() if array else found


def centred_box(grid: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """The middle of a grid: a box of the given size, along no axis larger, with the centre n // 2 at its own."""
    return tuple(slice(n // 2 - s // 2, n // 2 - s // 2 + s) for n, s in zip(grid, size, strict=True))


def fit_matrix(x: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """The last axes cut or filled up with zeros, about their centres n // 2, to a given size."""
    kept = [min(sizes) for sizes in zip(x.shape[-len(matrix) :], matrix, strict=True)]
    found = np.zeros((*x.shape[: -len(matrix)], *matrix), x.dtype)
    found[(..., *centred_box(matrix, kept))] = x[(..., *centred_box(x.shape[-len(matrix) :], kept))]
    return found


def resample(x: Float[Tensor, "batch channels *grid"], size: Sequence[int] | Size) -> Tensor:
    """x on another grid of the same periodic domain, whose first point is the same.

    On fewer points it is without the modes that these lack, on more with no others. Up after down is the orthogonal projection on
    the modes that both grids have.

    Args:
        x: the fields.
        size: the grid.
    """
    for axis, n in enumerate(size, 2):
        if x.shape[axis] != n:
            x = _resample_axis(x.movedim(axis, -1), n).movedim(-1, axis)
    return x


def _resample_axis(x: Tensor, n: int) -> Tensor:
    """Along the last axis. The last mode of an even grid stands for both k = n/2 and −n/2: half of it for each."""
    old = x.shape[-1]
    with torch.autocast(x.device.type, enabled=False):
        modes = torch.fft.rfft(x if x.dtype == torch.float64 else x.float(), norm="forward")
        modes = modes[..., : n // 2 + 1]
        weight = modes.real.new_ones(modes.shape[-1])
        if n > old and old % 2 == 0:
            weight[old // 2] = 0.5
        if n < old and n % 2 == 0:
            weight[n // 2] = 2
        return torch.fft.irfft(modes * weight, n=n, norm="forward").to(x.dtype)
