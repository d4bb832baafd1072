"""Two layers on a CPU, in low precision and partly in float32, where torch's own ways cost a training step a third of its time.

Each has the value and the gradient of the composition of torch's layers that it stands for, to rounding; that composition
is what is differentiated for derivatives of higher order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from scorefield.nn import winograd
from scorefield.nn.resample import CONVOLUTIONS

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of a tensor's axes
EPSILON = 1e-6
FEW = 1024  # grid points of a batch


def applies(x: Tensor) -> bool:
    """Whether x is of the kind that this module is for."""
    return x.device.type == "cpu" and x.dtype == torch.bfloat16 and not torch.compiler.is_compiling()


def few(x: Tensor) -> bool:
    """Whether x has so few grid points that a convolution's weight is the larger part of its work."""
    return x.numel() <= FEW * x.shape[1]


def thin(x: Tensor, kernel: int) -> bool:
    """Whether x has three axes of which one is shorter than the kernel. There oneDNN's gradient of the weight in bfloat16 may
    hold what was in memory before (seen with 2 × 16 × 16 points and a kernel of 3).
    """
    return x.ndim == 5 and min(x.shape[2:]) < kernel


def _dense(x: Tensor, like: Tensor | None = None) -> Tensor:
    """The same values in one of the two layouts that a kernel knows, namely the one of `like`, or else of x."""
    layout = LAYOUTS.get(x.ndim, torch.contiguous_format)
    innermost = (x if like is None else like).is_contiguous(memory_format=layout)
    dense = x.contiguous(memory_format=layout if innermost else torch.contiguous_format)
    # The step from a single sample to the next may be any number, but to a kernel that goes by it.
    return dense if len(dense) != 1 else dense.as_strided(dense.shape, (dense.numel(), *dense.stride()[1:]))


def normalise(
    x: Tensor,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    activate: bool,
    epsilon: float = EPSILON,
) -> Tensor:
    """Group normalisation of x + shift in float32, then SiLU; `shift` is one value per sample and channel."""
    wide = torch.promote_types(x.dtype, torch.float32)
    # Not by `F`, which refuses a single value: it is its own mean, and what is left of it 0.
    h = torch.group_norm(_widened(x, shift, wide), groups, weight.to(wide), bias.to(wide), epsilon)
    return (F.silu(h) if activate else h).to(x.dtype)


def _widened(x: Tensor, shift: Tensor | None, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if shift is None else x + _per_channel(shift.to(dtype), x)


def _per_channel(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim))


def convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """A convolution whose weight is stored as (out, *kernel, in)."""
    return CONVOLUTIONS[x.ndim - 2](x, weight.movedim(-1, 1), bias, stride=stride, padding=padding)


def _differentiably(function: Callable[..., Tensor], inputs: list[Any], gradient: Tensor) -> list[Tensor | None]:
    """The gradients of a composition as functions that can be differentiated again."""
    wanted = [isinstance(value, Tensor) and value.requires_grad for value in inputs]
    variables = [value for value, want in zip(inputs, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(function(*inputs), variables, gradient, create_graph=True))
    return [next(found) if want else None for want in wanted]


class Normalise(Function):
    """`normalise` that keeps nothing but x for its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shift: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        activate: bool,
        epsilon: float = EPSILON,
    ) -> Tensor:
        size = (x.shape[0], x.shape[1], math.prod(x.shape[2:]), groups)
        wide = _dense(_widened(x, shift, torch.float32))
        h, mean, scale = torch.native_group_norm(wide, weight, bias, *size, epsilon)
        ctx.size, ctx.activate, ctx.epsilon = size, activate, epsilon
        ctx.save_for_backward(x, shift, weight, bias, mean, scale)
        return (F.silu(h, inplace=True) if activate else h).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, shift, weight, bias, mean, scale = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = [x, shift, weight, bias, ctx.size[3], ctx.activate, ctx.epsilon]
            return tuple(_differentiably(normalise, inputs, gradients[0]))
        wide = _dense(_widened(x, shift, torch.float32))
        gradient = gradients[0].float()
        if ctx.activate:
            grouped = scale[..., None] * weight.view(1, ctx.size[3], -1)
            offset = bias - (grouped * mean[..., None]).flatten(1)
            h = torch.addcmul(_per_channel(offset, x), wide, _per_channel(grouped.flatten(1), x))
            gradient = torch.ops.aten.silu_backward(gradient, h)
        of_x, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            _dense(gradient, wide), wide, mean, scale, weight, *ctx.size, [True, *ctx.needs_input_grad[2:4]]
        )
        of_shift = None if shift is None else of_x.flatten(2).sum(2).to(shift.dtype)
        return of_x.to(x.dtype), of_shift, of_weight, of_bias, None, None, None


class Convolve(Function):
    """`convolve` with stride 1 and a gradient of its weight by one product of matrices, or by `winograd` on many points."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        ctx.low, ctx.padding = weight.to(x.dtype), padding
        ctx.save_for_backward(x, weight, bias)
        return convolve(x, ctx.low, bias.to(x.dtype), 1, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        spatial, gradient = x.ndim - 2, gradients[0]
        if torch.is_grad_enabled():

            def composition(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
                return convolve(x, weight.to(x.dtype), bias.to(x.dtype), 1, padding)

            return tuple(_differentiably(composition, [x, weight, bias, ctx.padding], gradient))
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            settings = ([1] * spatial, [ctx.padding] * spatial, [1] * spatial, False, [0] * spatial, 1)
            kernel, mask = ctx.low.movedim(-1, 1), [True, False, False]
            of_x = torch.ops.aten.convolution_backward(gradient, x, kernel, None, *settings, mask)[0]
        rows = gradient.movedim(1, -1).flatten(0, -2)
        if ctx.needs_input_grad[1]:
            if x.dtype == torch.float32 and (m := winograd.tile(gradient.shape[2:])):
                of_weight = winograd.weight_gradient(x, gradient, ctx.padding, m)
            else:
                columns = _columns(x, weight.shape[1:-1], ctx.padding)
                of_weight = (rows.t() @ columns).view(weight.shape).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0, dtype=bias.dtype)
        return of_x, of_weight, of_bias, None


def _columns(x: Tensor, kernel: torch.Size, padding: int) -> Tensor:
    """What the kernel sees at each of its positions: (positions, points of the kernel times channels)."""
    x = x.movedim(1, -1)
    x = F.pad(x, (0, 0) + (padding, padding) * len(kernel)) if padding else x.contiguous()
    steps = x.stride()[1:-1]
    places = [size - width + 1 for size, width in zip(x.shape[1:-1], kernel, strict=True)]
    windows = x.as_strided((len(x), *places, *kernel, x.shape[-1]), (x.stride(0), *steps, *steps, 1))
    return windows.reshape(len(x) * math.prod(places), -1)
