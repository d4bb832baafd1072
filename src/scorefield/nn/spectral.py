"""Spectral convolution: the grid-independent part of neural operators, on grids of any size, odd ones too.

A field is the trigonometric polynomial through its points, which `scorefield.foundation.fourier` evaluates on other grids,
with what these cannot carry left out. `SpectralConvolution` multiplies its modes |k| <= h by weights that know nothing of the
grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import resample
from scorefield.foundation.precision import Precise, wide

Factorisation = Literal["dense", "tucker", "cp", "tt"]
MISSING = "Neural operators need neuraloperator and tensorly-torch ({}): pip install 'scorefield[functions]'."


class SpectralConvolution(Precise):
    """y_k = W_k x_k for |k_i| <= h_i, h_i = (modes_i − 1)/2 rounded down, plus a bias; other modes are dropped.

    Fits in the place of neuraloperator's `SpectralConv` (release 2.0.0), whose modes are misplaced on odd grids and where the
    size changes along any axis but the last. Computed in float32 or float64, its weights kept in these, whatever autocast
    asks for and the rest is converted to: FFTs in half precision exist for powers of two alone, and lose the small modes.

    Args:
        in_channels, out_channels: channels in and out.
        n_modes: modes per axis, both signs counted; a grid of fewer points uses those it has.
        factorization: of the tensor W: dense, tucker, cp or tt.
        rank: of the factorisation, a fraction of the parameters of the dense W.
        decomposition_kwargs: of tensorly-torch.
        resolution_scaling_factor, max_n_modes, fixed_rank_modes, implementation, separable, fno_block_precision, complex_data:
            neuraloperator's; only their defaults are supported.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_modes: Sequence[int],
        *,
        factorization: str | None = None,
        rank: float = 1.0,
        decomposition_kwargs: Mapping[str, Any] | None = None,
        resolution_scaling_factor: None = None,
        max_n_modes: None = None,
        fixed_rank_modes: bool = False,
        implementation: str = "reconstructed",
        separable: bool = False,
        fno_block_precision: str = "full",
        complex_data: bool = False,
    ) -> None:
        super().__init__()
        if resolution_scaling_factor or max_n_modes or separable or complex_data or fno_block_precision != "full":
            raise InputError("SpectralConvolution supports neuraloperator's defaults alone: sizes are given per call.")
        try:
            from tltorch.factorized_tensors.core import FactorizedTensor
        except ImportError as error:
            raise InputError(MISSING.format(error)) from error
        self.n_modes = list(n_modes)
        self.halves = [(modes - 1) // 2 for modes in n_modes]
        kept = [2 * half + 1 for half in self.halves[:-1]] + [self.halves[-1] + 1]
        kind = "Complex" + {"tucker": "Tucker", "cp": "CP", "tt": "TT"}.get(factorization or "", "Dense")
        spread = math.sqrt(2 / (in_channels + out_channels))  # W keeps the variance of a field
        self.weight = FactorizedTensor.new(
            (in_channels, out_channels, *kept),
            rank=rank,  # pyright: ignore[reportArgumentType] - a share, or numbers
            factorization=kind,
            **(decomposition_kwargs or {}),
        )
        self.weight.normal_(0, spread)
        self.bias = nn.Parameter(torch.zeros(out_channels, *(1,) * len(n_modes)))

    def transform(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        """x on the grid that the convolution returns."""
        return x if output_shape is None else resample(x, output_shape)

    def forward(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        size = list(x.shape[2:] if output_shape is None else output_shape)
        with torch.autocast(x.device.type, enabled=False):
            # A coarse grid has fewer modes, and an even one no |k| = n/2 to multiply by a complex number.
            halves = [min(h, (min(n, m) - 1) // 2) for h, n, m in zip(self.halves, x.shape[2:], size, strict=True)]
            precise = x.to(wide(x.dtype))
            modes = _kept_modes(precise, halves)
            weight = self.weight.to_tensor()[(..., *self._within(halves))]
            modes = torch.einsum("bi...,io...->bo...", modes, weight.to(modes.dtype))
            result = _field(modes, halves, size) + self.bias.to(precise.dtype)
        return result.to(x.dtype)

    def _within(self, halves: Sequence[int]) -> list[slice]:
        """Where the weight has the modes that a grid can carry: in the middle, and at the start of the last axis."""
        first = [slice(own - half, own + half + 1) for own, half in zip(self.halves[:-1], halves[:-1], strict=True)]
        return [*first, slice(0, halves[-1] + 1)]


def _kept_modes(x: Tensor, halves: Sequence[int]) -> Tensor:
    """Modes −h..h of every axis but the last, 0..h of that: each axis is cut as soon as it is transformed."""
    modes = torch.fft.rfft(x, dim=-1, norm="forward")[..., : halves[-1] + 1]
    for axis, half in enumerate(halves[:-1], 2):
        modes = torch.fft.fft(modes, dim=axis, norm="forward")
        n = modes.shape[axis]
        modes = torch.cat((modes.narrow(axis, n - half, half), modes.narrow(axis, 0, half + 1)), dim=axis)
    return modes


def _field(modes: Tensor, halves: Sequence[int], size: Sequence[int]) -> Tensor:
    """The real field of such modes on a grid."""
    for axis, (half, n) in enumerate(zip(halves[:-1], size[:-1], strict=True), 2):
        shape = list(modes.shape)
        shape[axis] = n - 2 * half - 1
        negative, rest = modes.narrow(axis, 0, half), modes.narrow(axis, half, half + 1)
        modes = torch.fft.ifft(torch.cat((rest, modes.new_zeros(shape), negative), dim=axis), dim=axis, norm="forward")
    return torch.fft.irfft(modes, n=size[-1], dim=-1, norm="forward")  # the imaginary part of mode 0 is left out
