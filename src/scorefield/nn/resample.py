"""Sampling up and down by two along every grid axis, in plain torch, for one to three axes.

The FIR filter is f = [1, 3, 3, 1]/8 per axis with zeros outside the field, in the sense of StyleGAN2's upfirdn: up is
zero insertion, padding by (2, 1) and the filter 2^d f; down is padding by (1, 1), the filter f and every second value.
As f = [1, 1]/2 * [1, 2, 1]/4, this is

    up = S R,   down = A S,   up = 2^d downᵀ,

where R repeats every value, A averages pairs and S = Sᵀ is the binomial filter: instead of a wide convolution over
inserted zeros, a repetition and a small depthwise one. Each is an autograd function whose gradient is the other: the
native gradient of a depthwise convolution is, in bfloat16 on a CPU, two orders of magnitude slower.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
POOLINGS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
BINOMIAL = (0.25, 0.5, 0.25)
FIR = (0.125, 0.375, 0.375, 0.125)


@lru_cache(maxsize=256)
def _kernel(taps: tuple[float, ...], spatial: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The separable filter as a depthwise convolution's weight, made once: on a GPU, making it is a synchronisation."""
    line = torch.tensor(taps, dtype=torch.float64)
    kernel = line
    for _ in range(spatial - 1):
        kernel = kernel[..., None] * line
    return kernel.to(device, dtype).expand(channels, 1, *kernel.shape).contiguous()


def _depthwise(x: Tensor, taps: tuple[float, ...], padding: int, stride: int = 1) -> Tensor:
    spatial = x.ndim - 2
    kernel = _kernel(taps, spatial, x.shape[1], x.dtype, x.device)
    with torch.autocast(x.device.type, enabled=False):  # the filter keeps the precision that it is given
        return CONVOLUTIONS[spatial](x, kernel, stride=stride, padding=padding, groups=x.shape[1])


def gather_patches(x: Float[Tensor, "batch channels *grid"], patch: int) -> Float[Tensor, "batch values *patches"]:
    """Every patch of patch^d grid points as one, its values as channels. Sizes must be multiples of `patch`."""
    axes = range(2, x.ndim)
    split = x.reshape(*x.shape[:2], *(part for axis in axes for part in (x.shape[axis] // patch, patch)))
    inner, outer = [2 * axis - 1 for axis in axes], [2 * axis - 2 for axis in axes]
    return split.permute(0, 1, *inner, *outer).flatten(1, x.ndim - 1)


def spread_patches(x: Float[Tensor, "batch values *patches"], patch: int) -> Float[Tensor, "batch channels *grid"]:
    """The inverse of `gather_patches`."""
    axes = range(x.ndim - 2)
    split = x.reshape(len(x), -1, *(patch,) * len(axes), *x.shape[2:])
    turned = split.permute(0, 1, *(number for axis in axes for number in (2 + len(axes) + axis, 2 + axis)))
    return turned.reshape(len(x), -1, *(patch * size for size in x.shape[2:]))


class _Filter(Function):
    """Correlation with symmetric taps and `padding` zeros on either side; its adjoint has the complementary padding."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, taps: tuple[float, ...], padding: int) -> Tensor:
        return _depthwise(x, taps, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.taps, ctx.padding = inputs

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Filter.apply(gradient[0], ctx.taps, len(ctx.taps) - 1 - ctx.padding), None, None


class _Up(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _depthwise(repeat(x), BINOMIAL, padding=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.spatial = output.ndim - 2

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return _Down.apply(gradient[0]) * 2**ctx.spatial


class _Down(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _depthwise(x, FIR, padding=1, stride=2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.grid = inputs[0].shape[2:]

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        odd = [size % 2 for size in ctx.grid]
        padded = (
            F.pad(gradient[0], [side for extra in reversed(odd) for side in (0, extra)]) if any(odd) else gradient[0]
        )
        full = _Up.apply(padded) * 0.5 ** len(odd)
        return full[(..., *(slice(size) for size in ctx.grid))] if any(odd) else full


def fir_up(x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *double"]:
    """Twice the size along every axis: linear interpolation with zeros outside the field."""
    return _Up.apply(x)


def fir_down(x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *half"]:
    """Half the size along every axis, rounded down."""
    return _Down.apply(x)


def fir_filter(x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *wider"]:
    """The FIR filter alone on every position that it reaches with two zeros of padding: one more value along each axis.

    A valid 3-tap convolution of stride 2 on top of it is StyleGAN2's combined convolution and downsampling.
    """
    return _Filter.apply(x, FIR, 2)


def fir_up_extended(x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *double_and_two"]:
    """`fir_up`, continued by one value beyond either end of each axis instead of cut there.

    A valid 3-tap convolution on top of it is StyleGAN2's combined upsampling and convolution.
    """
    return _Filter.apply(repeat(x), BINOMIAL, 2)


def repeat(x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *double"]:
    """Every value twice along every axis (nearest neighbour)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def average(x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *half"]:
    """The mean of each cell of two values per axis; a last odd value is left out."""
    return POOLINGS[x.ndim - 2](x, 2)
