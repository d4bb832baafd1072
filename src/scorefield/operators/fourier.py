"""Complex fields as pairs of real channels, and their centred Fourier transform."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.operators.operator import LinearOperator


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


def transform(z: Tensor, rank: int, *, inverse: bool = False) -> Tensor:
    """The centred orthonormal Fourier transform of complex z over its last `rank` axes: frequency 0 at index n // 2."""
    axes = tuple(range(-rank, 0))
    change = torch.fft.ifftn if inverse else torch.fft.fftn
    return torch.fft.fftshift(change(torch.fft.ifftshift(z, axes), dim=axes, norm="ortho"), axes)


@dataclass(frozen=True)
class Fourier(LinearOperator):
    """y = F x, the centred orthonormal discrete Fourier transform over all grid axes of each complex channel: F* F = I.

    Sizes may be odd; frequency 0 and the centre of the image lie at index n // 2 of each axis.
    """

    def __call__(self, x: Tensor) -> Tensor:
        return like(transform(to_complex(x), x.ndim - 2), x)

    def adjoint(self, y: Tensor) -> Tensor:
        return like(transform(to_complex(y), y.ndim - 2, inverse=True), y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return self.adjoint(y).expand_as(x)
