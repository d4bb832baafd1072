"""Three layers in low precision on a CPU, where torch's own ways cost a training step a third of its time.

Each has the value and the gradient of the composition of torch's layers that it stands for, to rounding; that composition
is what is differentiated for derivatives of higher order.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from scorefield.nn.resample import CONVOLUTIONS

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of a tensor's axes
EPSILON = 1e-6
FEW = 1024


def applies(x: Tensor) -> bool:
    """Whether x is of the kind that this module is for."""
    return x.device.type == "cpu" and x.dtype == torch.bfloat16 and not torch.compiler.is_compiling()


def dropout(x: Tensor, probability: float) -> Tensor:
    """Zeros with a probability, and the rest scaled so that the mean stays.

    Torch draws a mask on a CPU by one thread from one number per value, which can take a tenth of a training step. Here
    one number makes four values; the probability is thereby rounded to a multiple of 2⁻¹⁶.
    """
    x = x.contiguous(memory_format=LAYOUTS[x.ndim]) if x.ndim in LAYOUTS else x.contiguous()
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    uniform = bits[: x.numel()].as_strided(x.shape, x.stride())
    return x * uniform.ge_(round(probability * 2**16) - 2**15).to(x.dtype).mul_(1 / (1 - probability))


def normalise(x: Tensor, shift: Tensor | None, weight: Tensor, bias: Tensor, groups: int, activate: bool) -> Tensor:
    """Group normalisation of x + shift in float32, then SiLU; `shift` is one value per sample and channel."""
    wide = torch.promote_types(x.dtype, torch.float32)
    h = F.group_norm(_widened(x, shift, wide), groups, weight.to(wide), bias.to(wide), EPSILON)
    return (F.silu(h) if activate else h).to(x.dtype)


def _widened(x: Tensor, shift: Tensor | None, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if shift is None else x + _per_channel(shift.to(dtype), x)


def _per_channel(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim))


class Normalise(Function):
    """`normalise` that keeps nothing but x for its gradient: what is in float32 stays in the processor's cache."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shift: Tensor | None, weight: Tensor, bias: Tensor, groups: int, activate: bool
    ) -> Tensor:
        size = (*x.shape[:2], math.prod(x.shape[2:]), groups)
        h, mean, scale = torch.native_group_norm(_widened(x, shift, torch.float32), weight, bias, *size, EPSILON)
        ctx.size, ctx.activate = size, activate
        ctx.save_for_backward(x, shift, weight, bias, mean, scale)
        return (F.silu(h, inplace=True) if activate else h).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, shift, weight, bias, mean, scale = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = [value for value in (x, shift, weight, bias) if value is not None]
            out = normalise(x, shift, weight, bias, ctx.size[3], ctx.activate)
            found = list(torch.autograd.grad(out, inputs, gradients[0], create_graph=True))
            return found.pop(0), None if shift is None else found.pop(0), *found, None, None
        wide, gradient = _widened(x, shift, torch.float32), gradients[0].float()
        if ctx.activate:
            factor = weight * scale.repeat_interleave(len(weight) // ctx.size[3], dim=1)
            offset = bias - factor * mean.repeat_interleave(len(weight) // ctx.size[3], dim=1)
            h = torch.addcmul(_per_channel(offset, x), wide, _per_channel(factor, x))
            gradient = torch.ops.aten.silu_backward(gradient, h)
        of_x, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            gradient, wide, mean, scale, weight, *ctx.size, [True, True, True]
        )
        of_shift = None if shift is None else of_x.flatten(2).sum(2).to(shift.dtype)
        return of_x.to(x.dtype), of_shift, of_weight, of_bias, None, None


class Convolve(Function):
    """A convolution whose weight is stored in float32 as (out, *kernel, in).

    On few grid points, the gradient of the weight is one product of matrices.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        low = weight.to(x.dtype)
        ctx.low, ctx.stride, ctx.padding = low, stride, padding
        ctx.save_for_backward(x, weight)
        convolve = CONVOLUTIONS[x.ndim - 2]
        return convolve(x, low.movedim(-1, 1), bias.to(x.dtype), stride=stride, padding=padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        spatial, gradient = x.ndim - 2, gradients[0]
        needed = list(ctx.needs_input_grad[:3])
        differentiable = torch.is_grad_enabled()
        few = not differentiable and ctx.stride == 1 and gradient.numel() <= FEW * gradient.shape[1]
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient,
            x,
            (weight.to(x.dtype) if differentiable else ctx.low).movedim(-1, 1),
            [len(weight)],
            [ctx.stride] * spatial,
            [ctx.padding] * spatial,
            [1] * spatial,
            False,
            [0] * spatial,
            1,
            [needed[0], needed[1] and not few, needed[2] and not few],
        )
        if few and needed[1]:
            rows = gradient.movedim(1, -1).flatten(0, -2)
            of_weight = (rows.t() @ _columns(x, weight.shape[1:-1], ctx.padding)).view(weight.shape)
            of_bias = rows.sum(0, dtype=torch.float32)
        elif of_weight is not None:
            of_weight = of_weight.movedim(1, -1)
        cast = [None if value is None else value.to(weight.dtype) for value in (of_weight, of_bias)]
        return of_x, *cast, None, None


def _columns(x: Tensor, kernel: torch.Size, padding: int) -> Tensor:
    """What a kernel sees at each of its positions, (positions, kernel points times channels)."""
    x = x.movedim(1, -1)
    if padding:
        x = F.pad(x, (0, 0) + (padding, padding) * len(kernel))
    x = x.contiguous()
    steps = x.stride()[1:-1]
    places = [size - width + 1 for size, width in zip(x.shape[1:-1], kernel, strict=True)]
    windows = x.as_strided((len(x), *places, *kernel, x.shape[-1]), (x.stride(0), *steps, *steps, 1))
    return windows.reshape(len(x) * math.prod(places), -1)
