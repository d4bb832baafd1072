"""The parts of U-shaped networks, for fields on grids of one to three axes.

Normalisation and activations are computed in float32 and returned in the dtype they came in: in low precision, a sum
over a whole group is neither accurate nor, on a CPU, fast.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.nn import lowprecision, winograd
from scorefield.nn.dropout import Dropout
from scorefield.nn.resample import average, fir_down, fir_filter, fir_up, fir_up_extended, repeat

Filter = Literal["fir", "box"]
TINY = 1e-10  # what an initial scale of 0 means: exact zeros would stop the gradient of the layer before


@torch.no_grad()
def initialise_(weight: Tensor, scale: float = 1.0) -> None:
    """Uniform with variance scale/mean(fan in, fan out) (Glorot & Bengio 2010, eq. 16); `scale` 0 means 1e-10."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    bound = math.sqrt(3 * (scale or TINY) / ((fan_in + fan_out) / 2))
    weight.uniform_(-bound, bound)


class Convolution(nn.Module):
    """A convolution over `spatial` axes with a bias that starts at zero.

    The weight is stored as (out, *kernel, in): channels innermost, as fast kernels read them, and yet contiguous for
    optimisers, averages and files, which all treat a permuted layout worse.

    Args:
        spatial: number of grid axes.
        in_channels, out_channels: channels in and out.
        kernel: size of the kernel along every axis.
        stride: stride along every axis.
        padding: zeros on either side; by default those that keep the size at stride 1.
        scale: initial scale of the weight, see `initialise_`.
    """

    def __init__(
        self,
        spatial: int,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not 1 <= spatial <= 3:
            raise InputError(f"spatial is {spatial}: networks work on grids of 1 to 3 axes.")
        self.stride, self.padding = stride, kernel // 2 if padding is None else padding
        self.weight = nn.Parameter(torch.empty(out_channels, *(kernel,) * spatial, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        initialise_(self.weight.movedim(-1, 1), scale)

    def forward(self, x: Float[Tensor, "batch in_channels *grid"]) -> Float[Tensor, "batch out_channels *size"]:
        low = lowprecision.applies(x) and (lowprecision.few(x) or lowprecision.thin(x, self.weight.shape[1]))
        if self.stride == 1 and (low or winograd.applies(x, self.weight)):
            return lowprecision.Convolve.apply(x, self.weight, self.bias, self.padding)
        return lowprecision.convolve(x, self.weight, self.bias, self.stride, self.padding)


def linear(in_channels: int, out_channels: int, scale: float = 1.0) -> nn.Linear:
    """A linear layer with our initial weights and zero bias."""
    layer = nn.Linear(in_channels, out_channels)
    initialise_(layer.weight, scale)
    nn.init.zeros_(layer.bias)
    return layer


def add(x: Tensor, h: Tensor, rescale: bool) -> Tensor:
    """x + h, divided by √2 if the sum of two fields of unit variance should have unit variance again."""
    return (x + h).mul_(math.sqrt(0.5)) if rescale else x + h


class GroupNorm(nn.Module):
    """Normalisation over groups of channels (Wu & He 2018), then SiLU unless `activate` is false.

    There are 32 groups, but none of less than `group` channels, or the next smaller number that divides the channels; or as many
    as are given. `epsilon` is added to the variance.
    """

    def __init__(
        self,
        channels: int,
        activate: bool = True,
        group: int = 4,
        *,
        groups: int = 0,
        epsilon: float = lowprecision.EPSILON,
    ) -> None:
        super().__init__()
        if group < 1:
            raise InputError(f"group is {group}: give the number of channels that are normalised together, at least 1.")
        if groups and channels % groups:
            raise InputError(
                f"{channels} channels cannot be normalised in {groups} groups: give a number that divides them."
            )
        self.groups = groups or next(n for n in range(max(min(channels // group, 32), 1), 0, -1) if channels % n == 0)
        self.activate, self.epsilon = activate, epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch channels *grid"], shift: Float[Tensor, "batch channels"] | None = None
    ) -> Float[Tensor, "batch channels *grid"]:
        """Normalise x, or x plus one value per channel."""
        if lowprecision.applies(x) and self.weight.dtype == torch.float32:
            return lowprecision.Normalise.apply(
                x, shift, self.weight, self.bias, self.groups, self.activate, self.epsilon
            )
        return lowprecision.normalise(x, shift, self.weight, self.bias, self.groups, self.activate, self.epsilon)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(QKᵀ/√c) V, each (batch, points, channels) or (batch, heads, points, channels), by the kernel that torch chooses.

    Fused kernels have first derivatives in reverse mode alone. Where a derivative is differentiated again, or taken in forward
    mode, compute inside `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.
    """
    if query.ndim == 4:
        return F.scaled_dot_product_attention(query, key, value)
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]


class Attention(nn.Module):
    """Self-attention between all grid points, added to its input.

    Args:
        channels: channels in and out.
        rescale: divide the sum by √2.
        scale: initial scale of the last layer.
        group: smallest number of channels that are normalised together.
        heads: parts of the channels, one after another, that attend each by itself.
        groups, epsilon: see `GroupNorm`.
    """

    def __init__(
        self,
        channels: int,
        *,
        rescale: bool = True,
        scale: float = 0.0,
        group: int = 4,
        heads: int = 1,
        groups: int = 0,
        epsilon: float = lowprecision.EPSILON,
    ) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise InputError(f"{channels} channels cannot attend in {heads} heads: give a number that divides them.")
        self.rescale, self.heads = rescale, heads
        self.norm = GroupNorm(channels, activate=False, group=group, groups=groups, epsilon=epsilon)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.out = linear(channels, channels, scale)
        for weight in self.query_key_value.weight.chunk(3):
            initialise_(weight, 0.1)
        nn.init.zeros_(self.query_key_value.bias)

    def forward(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *grid"]:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        parts = self.query_key_value(tokens).chunk(3, dim=-1)
        if self.heads > 1:
            parts = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts]
        h = attend(*parts)
        h = self.out(h if self.heads == 1 else h.transpose(1, 2).flatten(2))
        return add(x, h.transpose(1, 2).unflatten(2, x.shape[2:]), self.rescale)


class Downsample(nn.Module):
    """Half the size along every axis, optionally with a convolution.

    Args:
        spatial: number of grid axes.
        in_channels, out_channels: equal unless there is a convolution.
        filter: "fir" or "box" (average; with a convolution, that convolution of stride 2 alone).
        convolve: whether there is a convolution.
        centred: of that convolution of stride 2, whether it sees a zero on either side of the grid, not one at its far end: its
            points are then those of even number, else they lie half a point further.
    """

    def __init__(
        self,
        spatial: int,
        in_channels: int,
        out_channels: int,
        *,
        filter: Filter,
        convolve: bool,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.filter: Filter = filter
        self.far = 0 if centred else 1
        padding = 1 if centred else 0
        self.convolution = (
            Convolution(spatial, in_channels, out_channels, stride=2, padding=padding) if convolve else None
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        if self.convolution is None:
            return down(x, self.filter)
        if self.filter == "fir":
            return self.convolution(fir_filter(x))
        return self.convolution(F.pad(x, (0, self.far) * (x.ndim - 2)) if self.far else x)


class Upsample(nn.Module):
    """Twice the size along every axis, optionally with a convolution. Arguments as for `Downsample`."""

    def __init__(self, spatial: int, in_channels: int, out_channels: int, *, filter: Filter, convolve: bool) -> None:
        super().__init__()
        self.filter: Filter = filter
        padding = 0 if filter == "fir" else 1
        self.convolution = Convolution(spatial, in_channels, out_channels, padding=padding) if convolve else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        if self.convolution is None:
            return up(x, self.filter)
        return self.convolution(fir_up_extended(x) if self.filter == "fir" else repeat(x))


def down(x: Tensor, filter: Filter) -> Tensor:
    """Half the size along every axis."""
    return fir_down(x) if filter == "fir" else average(x)


def up(x: Tensor, filter: Filter) -> Tensor:
    """Twice the size along every axis."""
    return fir_up(x) if filter == "fir" else repeat(x)


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut, which may change the size by two (Brock et al. 2019, fig. 15).

    Args:
        spatial: number of grid axes.
        in_channels, out_channels: channels of x and of the result.
        embedding: length of the embedding vector that shifts the second normalisation; 0 for none.
        dropout: probability of a zero before the second convolution.
        resample: direction of the change of size.
        filter: "fir" or "box".
        rescale: divide the sum by √2.
        scale: initial scale of the second convolution.
        shortcut_scale: initial scale of the shortcut's 1x1 convolution, which exists where size or channels change.
        group: smallest number of channels that are normalised together.
        groups, epsilon: see `GroupNorm`.
    """

    def __init__(
        self,
        spatial: int,
        in_channels: int,
        out_channels: int,
        *,
        embedding: int,
        dropout: float,
        resample: Literal["none", "down", "up"] = "none",
        filter: Filter = "fir",
        rescale: bool = True,
        scale: float = 0.0,
        shortcut_scale: float = 1.0,
        group: int = 4,
        groups: int = 0,
        epsilon: float = lowprecision.EPSILON,
    ) -> None:
        super().__init__()
        self.filter: Filter = filter
        self.resample, self.rescale = resample, rescale
        self.norm_in = GroupNorm(in_channels, group=group, groups=groups, epsilon=epsilon)
        self.conv_in = Convolution(spatial, in_channels, out_channels)
        self.embed = linear(embedding, out_channels) if embedding else None
        self.norm_out = GroupNorm(out_channels, group=group, groups=groups, epsilon=epsilon)
        self.dropout = Dropout(dropout)
        self.conv_out = Convolution(spatial, out_channels, out_channels, scale=scale)
        direct = in_channels == out_channels and resample == "none"
        self.shortcut = None if direct else Convolution(spatial, in_channels, out_channels, 1, scale=shortcut_scale)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.norm_in(x)
        if self.resample != "none":
            change = down if self.resample == "down" else up
            x, h = change(x, self.filter), change(h, self.filter)
        h = self.conv_in(h)
        h = self.norm_out(h, self._shift(embedding))
        h = self.conv_out(self.dropout(h))
        return add(x if self.shortcut is None else self.shortcut(x), h, self.rescale)

    def _shift(self, embedding: Tensor | None) -> Tensor | None:
        if self.embed is None or embedding is None:
            return None
        with torch.autocast(embedding.device.type, enabled=False):  # on a few rows, casting the weight is all the cost
            return self.embed(embedding)
