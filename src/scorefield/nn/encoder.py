"""A classifier of noisy fields: the way down of NCSN++, pooled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.nn.embedding import GaussianFourier, Sinusoidal, embedded
from scorefield.nn.layers import Attention, Convolution, Filter, GroupNorm, ResidualBlock, linear
from scorefield.nn.lowprecision import LAYOUTS
from scorefield.nn.ncsnpp import Stage, check_numbers
from scorefield.nn.network import Network
from scorefield.nn.resample import gather_patches


class Encoder(Network):
    """Logits of a class, from the residual blocks of NCSN++ on its way down, given the noise level; their mean; a line.

    Grids of any size: one that halves to an odd size is filled up with zeros at its far ends.

    Args:
        in_channels: channels of x.
        classes: how many classes; taken from the data where 0.
        spatial: number of grid axes, 1 to 3.
        channels: channels at the first level.
        multipliers: channels of each level as multiples of `channels`.
        blocks: residual blocks per level.
        attention: levels that have attention, 0 being the finest.
        dropout: probability of a zero before the second convolution of a block.
        embedding: "fourier" for a label such as log σ, "positional" for one of the order of 1 to 1000.
        fourier_scale: standard deviation of the Fourier frequencies.
        filter: how size changes: "fir" [1, 3, 3, 1], or "box" (average).
        patch: the first level is this many times coarser than the grid, whose values of a patch enter as channels.

    Raises:
        InputError: if no channels or classes are given, or the arguments contradict each other.
    """

    def __init__(
        self,
        in_channels: int = 0,
        classes: int = 0,
        spatial: int = 2,
        channels: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        attention: tuple[int, ...] = (),
        dropout: float = 0.1,
        embedding: Literal["fourier", "positional"] = "fourier",
        fourier_scale: float = 16.0,
        filter: Filter = "fir",
        patch: int = 1,
    ) -> None:
        super().__init__()
        if in_channels < 1 or classes < 2:
            raise InputError("Encoder needs in_channels >= 1 and classes >= 2: give them, or data with classes.")
        if spatial not in (1, 2, 3):
            raise InputError(f"spatial is {spatial}: Encoder works on grids of 1, 2 or 3 axes.")
        if patch < 1:
            raise InputError(f"patch is {patch}: Encoder needs patches of at least 1 grid point.")
        check_numbers(channels, multipliers, blocks, attention, dropout, embedding)
        self.logits, self.levels, self.patch = classes, len(multipliers), patch
        self.embedding = GaussianFourier(channels, fourier_scale) if embedding == "fourier" else Sinusoidal(channels)
        width, depth = channels, 4 * channels
        self.embed = nn.Sequential(linear(self.embedding.channels, depth), nn.SiLU(), linear(depth, depth))
        self.first = Convolution(spatial, in_channels * patch**spatial, width)
        self.stages = nn.ModuleList()
        for level, out in enumerate(channels * multiplier for multiplier in multipliers):
            if level:
                half = ResidualBlock(
                    spatial, width, width, embedding=depth, dropout=dropout, resample="down", filter=filter
                )
                self.stages.append(Stage(half))
            for _ in range(blocks):
                block = ResidualBlock(spatial, width, out, embedding=depth, dropout=dropout, filter=filter)
                self.stages.append(Stage(block, Attention(out) if level in attention else None))
                width = out
        self.norm = GroupNorm(width)
        self.last = linear(width, classes)

    def forward(
        self,
        x: Float[Tensor, "batch in_channels *grid"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        with torch.autocast(label.device.type, enabled=False):
            embedding = F.silu(embedded(self.embedding, self.embed, label))
        missing = [-size % (self.patch * 2 ** (self.levels - 1)) for size in x.shape[2:]]
        h = F.pad(x, [side for extra in reversed(missing) for side in (0, extra)]) if any(missing) else x
        h = h if self.patch == 1 else gather_patches(h, self.patch)
        h = self.first(h.contiguous(memory_format=LAYOUTS[h.ndim]) if h.ndim in LAYOUTS else h)
        for stage in self.stages:
            h = stage(h, embedding)
        return self.last(self.norm(h).flatten(2).mean(2)).to(x.dtype)
