"""The network of NCSN and NCSNv2: residual stages of falling size or growing dilation, joined again from the deepest up.

A four-cascaded RefineNet (Lin et al. 2017) with instance normalisation that keeps the channels' means (Song & Ermon 2019,
appendix A; 2020, appendix B). With a number of levels every normalisation has scales and shifts of its own per noise level
(NCSN); without, the network does not see the level, and normalises in the residual blocks alone (NCSNv2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.nn.resample import POOLINGS

Activation = Literal["elu", "relu", "lrelu", "swish"]
Depth = Literal["low", "medium", "large"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": F.elu,
    "relu": F.relu,
    "lrelu": lambda x: F.leaky_relu(x, 0.2),
    "swish": F.silu,
}
# (width in multiples of the first stage's, dilation) of each stage; a stage without dilation halves the size, but the first
STAGES: dict[str, tuple[tuple[int, int], ...]] = {
    "low": ((1, 1), (2, 1), (2, 2), (2, 4)),
    "medium": ((1, 1), (2, 1), (2, 1), (4, 2), (4, 4)),
    "large": ((1, 1), (2, 1), (2, 1), (2, 1), (4, 2), (4, 4)),
}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}
EPSILON = 1e-5


def convolution(
    spatial: int, width: int, out: int, kernel: int = 3, *, dilation: int = 1, bias: bool = True
) -> nn.Module:
    """A convolution that keeps the size, with torch's initial weights."""
    padding = kernel // 2 * dilation
    return CONVOLUTIONS[spatial](width, out, kernel, padding=padding, dilation=dilation, bias=bias)


class InstanceNormPlus(nn.Module):
    """γ ((x − μ)/s + α (μ − m)/v) + β: μ, s of each channel of a sample; m, v mean and deviation of its means.

    Instance normalisation alone would lose the means of the channels, and with them the colour of a field.

    Args:
        channels: of x, at least 2.
        levels: rows of (γ, α, β), chosen by the label, between two whole ones a mixture of both; 0 for one row and no label.
    """

    def __init__(self, channels: int, levels: int = 0) -> None:
        super().__init__()
        self.levels = levels
        table = 1 + 0.02 * torch.randn(max(levels, 1), 3, channels)
        table[:, 2] = 0
        self.table = nn.Parameter(table)

    def forward(
        self, x: Float[Tensor, "batch channels *grid"], label: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels *grid"]:
        gamma, alpha, beta = (row.reshape(*row.shape, *(1,) * (x.ndim - 2)) for row in self._rows(label))
        with torch.autocast(x.device.type, enabled=False):
            h = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
            grid = tuple(range(2, x.ndim))
            variance, mean = torch.var_mean(h, dim=grid, correction=0, keepdim=True)
            spread, centre = torch.var_mean(mean, dim=1, keepdim=True)
            means = (mean - centre) * (spread + EPSILON).rsqrt()
            h = (h - mean) * (variance + EPSILON).rsqrt() + alpha * means
            return (gamma * h + beta).to(x.dtype)

    def _rows(self, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """γ, α, β, each (1 or batch, channels)."""
        if not self.levels:
            return self.table[:, 0], self.table[:, 1], self.table[:, 2]
        below = label.floor().clamp(0, self.levels - 1)
        above = (below + 1).clamp(max=self.levels - 1)
        weight = (label - below).clamp(0, 1)[:, None, None]
        rows = torch.lerp(self.table[below.long()], self.table[above.long()], weight.to(self.table.dtype))
        return rows[:, 0], rows[:, 1], rows[:, 2]


class Residual(nn.Module):
    """Two normalised convolutions beside a shortcut, perhaps dilated; `down` changes size, or with dilation only width."""

    def __init__(
        self, spatial: int, width: int, out: int, *, activation: Activation, levels: int, dilation: int, down: bool
    ) -> None:
        super().__init__()
        self.act, self.pool = ACTIVATIONS[activation], down and dilation == 1
        between = width if down else out
        self.norm_in = InstanceNormPlus(width, levels)
        self.conv_in = convolution(spatial, width, between, dilation=dilation)
        self.norm_out = InstanceNormPlus(between, levels)
        self.conv_out = convolution(spatial, between, out, dilation=dilation)
        kernel = 1 if dilation == 1 else 3
        self.shortcut = (
            convolution(spatial, width, out, kernel, dilation=dilation) if down or width != out else nn.Identity()
        )

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.conv_in(self.act(self.norm_in(x, label)))
        h = self.shortcut(x) + self.conv_out(self.act(self.norm_out(h, label)))
        return POOLINGS[x.ndim - 2](h, 2) if self.pool else h


class Chain(nn.Module):
    """A number of residual units of two activated convolutions each."""

    def __init__(self, spatial: int, width: int, units: int, *, activation: Activation, levels: int) -> None:
        super().__init__()
        self.act = ACTIVATIONS[activation]
        self.norms = nn.ModuleList(norm(width, levels) for _ in range(2 * units))
        self.convolutions = nn.ModuleList(convolution(spatial, width, width, bias=False) for _ in range(2 * units))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for unit in range(0, len(self.convolutions), 2):
            h = x
            for step in (unit, unit + 1):
                h = self.convolutions[step](self.act(normalised(self.norms[step], h, label)))
            x = x + h
        return x


class Fusion(nn.Module):
    """Fields of several sizes, convolved, interpolated to one size and added up."""

    def __init__(self, spatial: int, width: int, out: int, inputs: int, *, levels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norm(width, levels) for _ in range(inputs))
        self.convolutions = nn.ModuleList(convolution(spatial, width, out) for _ in range(inputs))

    def forward(self, fields: Sequence[Tensor], label: Tensor) -> Tensor:
        size, mode = fields[0].shape[2:], INTERPOLATIONS[fields[0].ndim - 2]
        parts = []
        for x, norm, convolution in zip(fields, self.norms, self.convolutions, strict=True):
            h = convolution(normalised(norm, x, label))
            parts.append(h if h.shape[2:] == size else F.interpolate(h, size=size, mode=mode, align_corners=True))
        return sum(parts[1:], parts[0])


def means(x: Tensor) -> Tensor:
    """The mean over windows of 5, with zeros outside; torch's own padding would refuse small volumes."""
    return POOLINGS[x.ndim - 2](F.pad(x, (2, 2) * (x.ndim - 2)), 5, stride=1)


def maxima(x: Tensor) -> Tensor:
    """The largest value in windows of 5."""
    return MAXIMA[x.ndim - 2](x, 5, stride=1, padding=2)


class Pooling(nn.Module):
    """Chained residual pooling over windows of 5: the largest value (NCSNv2) or the mean (NCSN)."""

    def __init__(self, spatial: int, width: int, *, activation: Activation, levels: int) -> None:
        super().__init__()
        self.act, self.pool = ACTIVATIONS[activation], means if levels else maxima
        self.norms = nn.ModuleList(norm(width, levels) for _ in range(2))
        self.convolutions = nn.ModuleList(convolution(spatial, width, width, bias=False) for _ in range(2))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        total = path = self.act(x)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            path = convolution(self.pool(normalised(norm, path, label)))
            total = total + path
        return total


class Refine(nn.Module):
    """A stage's features and the result of the stage below: adapted, fused, pooled."""

    def __init__(
        self, spatial: int, width: int, out: int, *, activation: Activation, levels: int, inputs: int, units: int
    ) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(
            Chain(spatial, width, 2, activation=activation, levels=levels) for _ in range(inputs)
        )
        self.fuse = Fusion(spatial, width, out, inputs, levels=levels) if inputs > 1 else None
        self.pool = Pooling(spatial, out, activation=activation, levels=levels)
        self.finish = Chain(spatial, out, units, activation=activation, levels=levels)

    def forward(self, fields: Sequence[Tensor], label: Tensor) -> Tensor:
        adapted = [chain(x, label) for chain, x in zip(self.adapt, fields, strict=True)]
        h = adapted[0] if self.fuse is None else self.fuse(adapted, label)
        return self.finish(self.pool(h, label), label)


def norm(width: int, levels: int) -> nn.Module:
    """What stands before an activation outside of the residual stages: nothing, where the network sees no label."""
    return InstanceNormPlus(width, levels) if levels else nn.Identity()


def normalised(norm: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    """Apply what `norm` gave."""
    return x if isinstance(norm, nn.Identity) else norm(x, label)


class RefineNet(nn.Module):
    """From (batch, in_channels, *grid) to (batch, out_channels, *grid).

    A grid that is no multiple of 2^(halvings) is filled up with zeros at its far ends and cut back.

    Args:
        spatial: number of grid axes.
        in_channels, out_channels: channels in and out.
        channels: of the first stage.
        depth: which `STAGES`.
        activation: between convolutions.
        levels: noise levels with normalisations of their own; 0 for a network that does not see the level.
    """

    def __init__(
        self,
        spatial: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: int,
        depth: Depth,
        activation: Activation,
        levels: int = 0,
    ) -> None:
        super().__init__()
        self.act = ACTIVATIONS[activation]
        widths = [channels * multiple for multiple, _ in STAGES[depth]]
        dilations = [dilation for _, dilation in STAGES[depth]]
        self.halvings = dilations.count(1) - 1
        self.first = convolution(spatial, in_channels, channels)
        self.stages = nn.ModuleList()
        for (before, width), dilation, down in zip(
            pairwise([channels, *widths]), dilations, [False] + [True] * (len(widths) - 1), strict=True
        ):
            make = {"activation": activation, "levels": levels, "dilation": dilation}
            pair = (
                Residual(spatial, before, width, down=down, **make),
                Residual(spatial, width, width, down=False, **make),
            )
            self.stages.append(nn.ModuleList(pair))
        self.refine = nn.ModuleList()
        for place, (width, out) in enumerate(pairwise([*reversed(widths), channels])):
            inputs, units = 1 if place == 0 else 2, 3 if place == len(widths) - 1 else 1
            self.refine.append(
                Refine(spatial, width, out, activation=activation, levels=levels, inputs=inputs, units=units)
            )
        self.norm = InstanceNormPlus(channels, levels)
        self.last = convolution(spatial, channels, out_channels)

    def forward(
        self, x: Float[Tensor, "batch in_channels *grid"], label: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch out_channels *grid"]:
        grid = x.shape[2:]
        missing = [-size % 2**self.halvings for size in grid]
        h = F.pad(x, [side for extra in reversed(missing) for side in (0, extra)]) if any(missing) else x
        h = self.first(h)
        features = []
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined] - a ModuleList
                h = block(h, label)
            features.append(h)
        h = self.refine[0]([features.pop()], label)
        for refine in self.refine[1:]:
            h = refine([features.pop(), h], label)
        h = self.last(self.act(self.norm(h, label)))
        return h[(..., *(slice(size) for size in grid))].to(x.dtype)
