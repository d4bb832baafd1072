"""The orthonormal cosine transform (DCT-II) and its inverse, in O(n log n), differentiable and on any device.

Its basis √(2/n) cos(πk(j + ½)/n), 1/√n for k = 0, is that of even reflection at both ends of an axis: the transform of fields
that are not periodic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def dct(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Coefficients of x in the cosine basis along each axis (Makhoul 1980: one FFT of the same length)."""
    for axis in axes:
        x = _forward(x.movedim(axis, -1)).movedim(-1, axis)
    return x


def idct(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The field of given coefficients: the inverse, and the transpose, of `dct`."""
    for axis in axes:
        x = _backward(x.movedim(axis, -1)).movedim(-1, axis)
    return x


def resample(x: Tensor, grid: Sequence[int]) -> Tensor:
    """The same functions at the points (i + ½)/m of another grid: on fewer points without the modes that these lack, on more with
    no others. Its transpose is ∏ m/n times the resampling back.

    Args:
        x: (batch, channels, *grid).
        grid: the sizes m.
    """
    axes = range(2, x.ndim)
    if tuple(x.shape[2:]) == tuple(grid):
        return x
    modes = dct(x, axes)
    gain = math.sqrt(math.prod(grid) / math.prod(x.shape[2:]))
    kept = modes[(..., *(slice(m) for m in grid))] * gain
    full = kept.new_zeros((*x.shape[:2], *grid))
    full[(..., *(slice(n) for n in kept.shape[2:]))] = kept
    return idct(full, axes)


def _scale(x: Tensor) -> Tensor:
    """√(2/n), 1/√n for k = 0: what makes the basis orthonormal."""
    n = x.shape[-1]
    scale = x.new_full((n,), math.sqrt(2 / n))
    scale[0] = math.sqrt(1 / n)
    return scale


def _twist(x: Tensor) -> Tensor:
    """exp(−iπk/2n)."""
    n = x.shape[-1]
    phase = -math.pi / (2 * n) * torch.arange(n, dtype=torch.float64)
    complex_type = torch.complex128 if x.dtype == torch.float64 else torch.complex64
    return torch.polar(torch.ones_like(phase), phase).to(device=x.device, dtype=complex_type)


def _forward(x: Tensor) -> Tensor:
    """Even points, then odd ones backwards: their Fourier transform, turned by half a point, is the cosine transform."""
    reordered = torch.cat((x[..., ::2], x[..., 1::2].flip(-1)), dim=-1)
    return _scale(x) * (torch.fft.fft(reordered) * _twist(x)).real


def _backward(x: Tensor) -> Tensor:
    plain = x / _scale(x)
    mirrored = torch.cat((torch.zeros_like(x[..., :1]), plain[..., 1:].flip(-1)), dim=-1)
    reordered = torch.fft.ifft(torch.complex(plain, -mirrored) * _twist(x).conj()).real
    half = (x.shape[-1] + 1) // 2
    result = torch.empty_like(reordered)
    result[..., ::2], result[..., 1::2] = reordered[..., :half], reordered[..., half:].flip(-1)
    return result
