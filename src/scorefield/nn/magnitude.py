"""The magnitude-preserving U-Net of EDM2 (Karras et al. 2024): no layer changes the expected magnitude of what it is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.foundation.precision import Precise
from scorefield.nn.dropout import Dropout
from scorefield.nn.lowprecision import CONVOLUTIONS, LAYOUTS
from scorefield.nn.network import Network, check_layer
from scorefield.nn.resample import average, repeat

LEAST = 1e-4  # added to a root mean square that is divided by
SILU = 0.596  # √E[silu(z)²], z ~ N(0, 1)
Way = Literal["down", "up"]
Resampling = Literal["none", "down", "up"]


def unit(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """x over its root mean square along some axes plus 1e-4, computed in float32."""
    count = math.prod(x.shape[axis] for axis in axes)
    size = torch.linalg.vector_norm(x, dim=axes, keepdim=True, dtype=torch.float32)
    return x / (LEAST + size / math.sqrt(count)).to(x.dtype)


def activate(x: Tensor) -> Tensor:
    """silu(x)/0.596, of unit magnitude where x is."""
    return F.silu(x) / SILU


def blend(a: Tensor, b: Tensor, share: float) -> Tensor:
    """((1 − s) a + s b)/√((1 − s)² + s²), of the magnitude of two that do not correlate (eq. 88)."""
    return torch.lerp(a, b, share) / math.hypot(1 - share, share)


def join(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Channels of a and b, each weighted so that it contributes 1 − s and s whatever their numbers (eq. 103)."""
    n, m = a.shape[1], b.shape[1]
    scale = math.sqrt((n + m) / ((1 - share) ** 2 + share**2))
    return torch.cat((scale / math.sqrt(n) * (1 - share) * a, scale / math.sqrt(m) * share * b), dim=1)


class Normalised(nn.Module):
    """A convolution, or with kernel 0 a linear map, whose weights have unit magnitude for each output (eq. 47).

    In training, weights are kept at that magnitude, too (eq. 66): what a step of the optimiser does depends on it.

    Args:
        spatial: number of grid axes.
        in_channels, out_channels: channels in and out.
        kernel: points along each axis.
    """

    def __init__(self, spatial: int, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        axes = spatial if kernel else 0
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.randn(out_channels, *(kernel,) * axes, in_channels))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        axes = tuple(range(1, self.weight.ndim))
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.weight.copy_(unit(self.weight, axes))
        weight = (unit(self.weight.float(), axes) * (gain / math.sqrt(self.weight[0].numel()))).to(x.dtype)
        if weight.ndim == 2:
            return x @ weight.T
        return CONVOLUTIONS[x.ndim - 2](x, weight.movedim(-1, 1), None, padding=self.padding)


class Waves(Precise):
    """√2 cos(w l + p) of the label l with fixed random w ~ 2πN(0, 1) and p ~ 2πU(0, 1) (eq. 75).

    Args:
        channels: how many.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, label: Float[Tensor, " batch"]) -> Float[Tensor, "batch channels"]:
        return math.sqrt(2) * torch.cos(label[:, None] * self.frequencies + self.phases)


class Block(nn.Module):
    """A residual block, with attention if there are heads (fig. 21).

    Args:
        spatial: number of grid axes.
        in_channels, out_channels: channels in and out.
        embedding: entries of the embedding, which scales the channels inside.
        way: "down" normalises each point and changes the number of channels before the branches part, "up" after.
        resample: the change of size.
        heads: of attention; 0 for none.
        dropout: probability of a zero before the second convolution.
        balance: the share of the residual branch, and of attention.
        clip: largest value that leaves the block.
    """

    def __init__(
        self,
        spatial: int,
        in_channels: int,
        out_channels: int,
        embedding: int,
        *,
        way: Way,
        resample: Resampling = "none",
        heads: int = 0,
        dropout: float = 0.0,
        balance: float = 0.3,
        clip: float = 256.0,
    ) -> None:
        super().__init__()
        self.way, self.resample, self.heads, self.balance, self.clip = way, resample, heads, balance, clip
        self.gain = nn.Parameter(torch.zeros(()))
        self.conv_in = Normalised(spatial, out_channels if way == "down" else in_channels, out_channels)
        self.embed = Normalised(spatial, embedding, out_channels, 0)
        self.dropout = Dropout(dropout)
        self.conv_out = Normalised(spatial, out_channels, out_channels)
        self.shortcut = Normalised(spatial, in_channels, out_channels, 1) if in_channels != out_channels else None
        self.query_key_value = Normalised(spatial, out_channels, 3 * out_channels, 0) if heads else None
        self.out = Normalised(spatial, out_channels, out_channels, 0) if heads else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.resample != "none":
            x = average(x) if self.resample == "down" else repeat(x)
        if self.way == "down":
            x = unit(x if self.shortcut is None else self.shortcut(x), (1,))
        scale = self.embed(embedding, self.gain) + 1
        h = self.conv_in(activate(x))
        h = activate(h * scale.to(h.dtype).unflatten(1, (-1, *(1,) * (h.ndim - 2))))
        h = self.conv_out(self.dropout(h))
        if self.way == "up" and self.shortcut is not None:
            x = self.shortcut(x)
        x = blend(x, h, self.balance)
        if self.query_key_value is not None and self.out is not None:
            tokens = self.query_key_value(x.flatten(2).transpose(1, 2))
            parts = tokens.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            query, key, value = (unit(part, (3,)) for part in parts)
            h = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
            x = blend(x, self.out(h).transpose(1, 2).unflatten(2, x.shape[2:]), self.balance)
        return x.clamp(-self.clip, self.clip)


class MagnitudeUNet(Network):
    """The U-Net of EDM2 (Karras et al. 2024, fig. 21): no normalisation of groups, no biases; a channel of ones joins x.

    For `EDMPreconditioner`, whose label is log(σ/α)/4. A grid that is no multiple of 2^(levels − 1) is filled up with zeros
    at its far ends, and cut back.

    Args:
        in_channels: channels of x.
        out_channels: channels of the result.
        cond_channels: channels of `cond["field"]`, which is concatenated to x.
        labels: number of classes; label −1, or none at all, adds nothing: the null class of classifier-free guidance.
        spatial: number of grid axes, 1 to 3.
        channels: channels at the first level.
        multipliers: channels of each level as multiples of `channels`.
        blocks: residual blocks per level.
        attention: levels that have attention, 0 being the finest; the bottleneck always has.
        head: channels of a head of attention.
        features: waves of the noise label; 0 for as many as the first level has channels.
        embedding: entries of the embedding; 0 for as many as the widest level has channels.
        label_balance: the share of the class in the embedding.
        skip_balance: the share of skips where they join.
        balance: the share of the residual branch, and of attention.
        dropout: probability of a zero before the second convolution of a block.
        clip: largest value that leaves a block.

    Raises:
        InputError: if no channels are given, or a level with attention has no whole heads.
    """

    def __init__(
        self,
        in_channels: int = 0,
        out_channels: int = 0,
        cond_channels: int = 0,
        labels: int = 0,
        spatial: int = 2,
        channels: int = 192,
        multipliers: tuple[int, ...] = (1, 2, 3, 4),
        blocks: int = 3,
        attention: tuple[int, ...] = (2, 3),
        head: int = 64,
        features: int = 0,
        embedding: int = 0,
        label_balance: float = 0.5,
        skip_balance: float = 0.5,
        balance: float = 0.3,
        dropout: float = 0.0,
        clip: float = 256.0,
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise InputError(
                "MagnitudeUNet has no channels: give in_channels and out_channels, or data to take them from."
            )
        if (
            spatial not in (1, 2, 3)
            or blocks < 1
            or channels < 1
            or not multipliers
            or min(multipliers) < 1
            or head < 1
        ):
            raise InputError(
                "MagnitudeUNet needs spatial from 1 to 3, and at least one level, block, channel and head."
            )
        check_layer(channels * max(multipliers))
        widths = [channels * multiplier for multiplier in multipliers]
        if not set(attention) <= set(range(len(widths))):
            raise InputError(f"attention is {attention}: there are only levels 0 to {len(widths) - 1}.")
        for width in {widths[level] for level in attention} | {widths[-1]}:
            if width % head:
                raise InputError(f"A level of {width} channels has no whole heads of {head}: change head or channels.")
        self.cond_channels, self.labels, self.levels = cond_channels, labels, len(widths)
        self.label_balance, self.skip_balance = label_balance, skip_balance
        entries = embedding or max(widths)
        self.waves = Waves(features or widths[0])
        self.embed = Normalised(spatial, features or widths[0], entries, 0)
        self.classes = Normalised(spatial, labels, entries, 0) if labels else None

        def block(width: int, out: int, way: Way, *, attend: bool = False, resample: Resampling = "none") -> Block:
            heads, rest = out // head if attend else 0, {"dropout": dropout, "balance": balance, "clip": clip}
            return Block(spatial, width, out, entries, way=way, resample=resample, heads=heads, **rest)

        self.first = Normalised(spatial, in_channels + cond_channels + 1, widths[0])
        self.down, skips, out = nn.ModuleList(), [widths[0]], widths[0]
        for level, width in enumerate(widths):
            if level:
                self.down.append(block(out, out, "down", resample="down"))
                skips.append(out)
            for _ in range(blocks):
                self.down.append(block(out, width, "down", attend=level in attention))
                skips.append(out := width)
        self.middle = nn.ModuleList([block(out, out, "up", attend=True), block(out, out, "up")])
        self.up = nn.ModuleList()
        for level, width in reversed([*enumerate(widths)]):
            if level < len(widths) - 1:
                self.up.append(block(out, out, "up", resample="up"))
            for _ in range(blocks + 1):
                self.up.append(block(out + skips.pop(), width, "up", attend=level in attention))
                out = width
        self.last = Normalised(spatial, out, out_channels)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        x: Float[Tensor, "batch in_channels *grid"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels *grid"]:
        cond = cond or {}
        embedding = self._embed(label, cond)
        grid = x.shape[2:]
        h = torch.cat((x, cond["field"].to(x.dtype)), dim=1) if self.cond_channels else x
        h = torch.cat((h, torch.ones_like(h[:, :1])), dim=1)
        if any(missing := [-size % 2 ** (self.levels - 1) for size in grid]):
            h = F.pad(h, [side for extra in reversed(missing) for side in (0, extra)])
        h = h.contiguous(memory_format=LAYOUTS[h.ndim]) if h.ndim in LAYOUTS else h
        h = self.first(h)
        skips = [h]
        for block in self.down:
            skips.append(h := block(h, embedding))
        for block in self.middle:
            h = block(h, embedding)
        for block in self.up:
            joined = h if block.resample != "none" else join(h, skips.pop(), self.skip_balance)
            h = block(joined, embedding)
        h = self.last(h, self.gain)
        return h[(..., *(slice(size) for size in grid))].to(x.dtype)

    def _embed(self, label: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        with torch.autocast(label.device.type, enabled=False):
            h = self.embed(self.waves(label).to(self.embed.weight.dtype))
            if self.classes is not None:
                given = cond.get("label", torch.full(label.shape, -1, dtype=torch.long, device=label.device))
                one_hot = F.one_hot(given.clamp(min=0), self.labels).to(h) * (given >= 0)[:, None]
                h = blend(h, self.classes(one_hot * math.sqrt(self.labels)), self.label_balance)
            return activate(h)
