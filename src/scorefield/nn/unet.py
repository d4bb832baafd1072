"""A plain U-Net: convolutions without normalisation, which learns to denoise in minutes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.nn.embedding import AugmentEmbedding, GaussianFourier, JumpEmbedding, VectorEmbedding, embedded, summed
from scorefield.nn.layers import Convolution, linear
from scorefield.nn.lowprecision import LAYOUTS
from scorefield.nn.network import Network
from scorefield.nn.resample import gather_patches, spread_patches


class Modulated(nn.Module):
    """x + conv(silu((1 + g) conv(x) + b)), gains g and shifts b one per channel from the noise embedding.

    Nothing divides by the strength of the features, so that a denoiser keeps the amplitude of what it sees: it is the gains that
    follow the noise level.
    """

    def __init__(self, spatial: int, channels: int, embedding: int) -> None:
        super().__init__()
        self.first = Convolution(spatial, channels, channels)
        self.second = Convolution(spatial, channels, channels, scale=0.1)
        self.embed = linear(embedding, 2 * channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.first(x)
        gain, shift = self.embed(embedding).reshape(len(x), -1, *(1,) * (x.ndim - 2)).chunk(2, dim=1)
        return x + self.second(F.silu(torch.addcmul(shift.to(h), h, (1 + gain).to(h))))


class UNet(Network):
    """Levels of residual blocks without normalisation; skips and sizes change by sums, strided convolutions and patches.

    A grid that is no multiple of patch · 2^(levels - 1) is filled up with zeros at its far ends and cut back.

    Args:
        in_channels: channels of x.
        out_channels: channels of the result.
        cond_channels: channels of `cond["field"]`, which is concatenated to x.
        spatial: number of grid axes, 1 to 3.
        channels: channels at the finest level.
        multipliers: channels of each level as multiples of `channels`.
        blocks: residual blocks per level, on either side.
        fourier_scale: standard deviation of the frequencies in which the noise label is seen; for one such as log(σ)/4.
        vector: entries of `cond["vector"]`, whose embedding joins the noise's before its activation: gains and shifts of every
            block follow both.
        patch: the finest level is this many times coarser than the grid, and has the values of each patch of patch^spatial points
            as its channels: most of a convolution's time goes where there are many points and few channels.
        jumps: whether it learns where a jump ends (`cond["jump"]`), for a flow map.
        augmentations: entries of `cond["augment"]`, see `scorefield.RandomAffine`.
    """

    def __init__(
        self,
        in_channels: int = 0,
        out_channels: int = 0,
        cond_channels: int = 0,
        spatial: int = 2,
        channels: int = 32,
        multipliers: tuple[int, ...] = (1, 2, 4, 4),
        blocks: int = 1,
        fourier_scale: float = 0.5,
        vector: int = 0,
        patch: int = 1,
        jumps: bool = False,
        augmentations: int = 0,
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise InputError("UNet has no channels: give in_channels and out_channels, or data to take them from.")
        if not multipliers or min((*multipliers, channels, blocks, patch)) < 1 or spatial not in (1, 2, 3):
            raise InputError("UNet needs channels, multipliers, blocks and patch >= 1 and grids of 1, 2 or 3 axes.")
        self.cond_channels, self.vector, self.patch, self.jumps = cond_channels, vector, patch, jumps
        self.augmentations = augmentations
        widths = [channels * multiplier for multiplier in multipliers]
        self.embedding = GaussianFourier(16, fourier_scale)
        size = 4 * channels
        self.embed = nn.Sequential(linear(32, size), nn.SiLU(), linear(size, size), nn.SiLU())
        self.first = Convolution(spatial, patch**spatial * (in_channels + cond_channels), widths[0])
        steps = list(pairwise(widths))

        def level(width: int) -> nn.ModuleList:
            return nn.ModuleList([Modulated(spatial, width, size) for _ in range(blocks)])

        self.down = nn.ModuleList([level(width) for width in widths])
        self.coarsen = nn.ModuleList([Convolution(spatial, a, b, 2, stride=2, padding=0) for a, b in steps])
        self.refine = nn.ModuleList([Convolution(spatial, b, 2**spatial * a, 1) for a, b in steps])
        self.up = nn.ModuleList([level(width) for width in widths[:-1]])
        self.last = Convolution(spatial, widths[0], patch**spatial * out_channels, scale=0.0)
        self.vectors = VectorEmbedding(vector, size) if vector else None
        self.jump = JumpEmbedding(size) if jumps else None
        self.augment = AugmentEmbedding(augmentations, self.embedding.channels) if augmentations else None

    def forward(
        self,
        x: Float[Tensor, "batch in_channels *grid"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels *grid"]:
        grid = x.shape[2:]
        seen = torch.cat((x, (cond or {})["field"].to(x.dtype)), dim=1) if self.cond_channels else x
        with torch.autocast(x.device.type, enabled=False):  # in bfloat16, x would lose noise that is weak beside it
            more = summed((self.vectors, self.jump), cond, len(x))
            early = None if self.augment is None else self.augment(cond, len(x))
            embedding = embedded(self.embedding, self.embed, label, more, early)
            h = self.first(self._arrange(seen))
        skips = []
        for level, blocks in enumerate(self.down):
            for block in cast(nn.ModuleList, blocks):
                h = block(h, embedding)
            if level < len(self.coarsen):
                skips.append(h)
                h = self.coarsen[level](h)
        for refine, blocks in zip(reversed(self.refine), reversed(self.up), strict=True):
            h = skips.pop() + spread_patches(refine(h), 2)
            for block in cast(nn.ModuleList, blocks):
                h = block(h, embedding)
        found = self.last(h)
        found = found if self.patch == 1 else spread_patches(found, self.patch)
        return found[(..., *(slice(size) for size in grid))].to(x.dtype)

    def _arrange(self, x: Tensor) -> Tensor:
        """Fill up to a size that halves at every level, patches as channels, which are innermost in memory."""
        missing = [-size % (self.patch * 2 ** len(self.coarsen)) for size in x.shape[2:]]
        if any(missing):
            x = F.pad(x, [side for extra in reversed(missing) for side in (0, extra)])
        x = x if self.patch == 1 else gather_patches(x, self.patch)
        return x.contiguous(memory_format=LAYOUTS[x.ndim]) if x.ndim in LAYOUTS else x
