"""NCSN++ and DDPM++: one U-Net with switches (Song et al. 2021, appendix H)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scorefield.foundation.errors import InputError
from scorefield.nn.embedding import (
    AugmentEmbedding,
    GaussianFourier,
    JumpEmbedding,
    Sinusoidal,
    VectorEmbedding,
    embedded,
    summed,
)
from scorefield.nn.layers import (
    Attention,
    Convolution,
    Downsample,
    Filter,
    GroupNorm,
    ResidualBlock,
    Upsample,
    add,
    down,
    linear,
    up,
)
from scorefield.nn.lowprecision import EPSILON, LAYOUTS
from scorefield.nn.network import Network, check_layer
from scorefield.nn.resample import gather_patches, spread_patches

Progressive = Literal["none", "output_skip", "residual"]
ProgressiveInput = Literal["none", "input_skip", "residual"]


class Stage(nn.Module):
    """A residual block, then attention if there is any; with `checkpointing`, computed again for its gradient."""

    def __init__(
        self, residual: ResidualBlock, attention: Attention | None = None, *, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.residual, self.attention, self.checkpointing = residual, attention, checkpointing

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(self._compute, x, embedding, use_reentrant=False)
        return self._compute(x, embedding)

    def _compute(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.residual(x, embedding)
        return h if self.attention is None else self.attention(h)


class Head(nn.Module):
    """Normalisation, activation and a convolution: the way out of the features."""

    def __init__(
        self,
        spatial: int,
        in_channels: int,
        out_channels: int,
        scale: float = 1.0,
        *,
        group: int = 4,
        groups: int = 0,
        epsilon: float = EPSILON,
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(in_channels, group=group, groups=groups, epsilon=epsilon)
        self.convolution = Convolution(spatial, in_channels, out_channels, scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.norm(x))


class InputSkip(nn.Module):
    """The input itself, sampled down, joins the features of every level."""

    def __init__(
        self, spatial: int, in_channels: int, channels: int, *, filter: Filter, combine: Literal["sum", "cat"]
    ) -> None:
        super().__init__()
        self.filter: Filter = filter
        self.combine = combine
        self.convolution = Convolution(spatial, in_channels, channels, 1)

    def forward(self, h: Tensor, pyramid: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = down(pyramid, self.filter)
        skip = self.convolution(pyramid)
        return skip + h if self.combine == "sum" else torch.cat((skip, h), dim=1), pyramid


class InputResidual(nn.Module):
    """The sum of a level's features and of the level above, sampled down with a convolution, goes on in both."""

    def __init__(self, spatial: int, in_channels: int, channels: int, *, filter: Filter, rescale: bool) -> None:
        super().__init__()
        self.rescale = rescale
        self.downsample = Downsample(spatial, in_channels, channels, filter=filter, convolve=True)

    def forward(self, h: Tensor, pyramid: Tensor) -> tuple[Tensor, Tensor]:
        h = add(self.downsample(pyramid), h, self.rescale)
        return h, h


class OutputSkip(nn.Module):
    """Every level adds to the output, which is sampled up on its way."""

    def __init__(
        self, spatial: int, channels: int, out_channels: int, *, filter: Filter, scale: float, group: int
    ) -> None:
        super().__init__()
        self.filter: Filter = filter
        self.head = Head(spatial, channels, out_channels, scale, group=group)

    def forward(self, h: Tensor, pyramid: Tensor | None) -> tuple[Tensor, Tensor]:
        out = self.head(h)
        return h, out if pyramid is None else up(pyramid, self.filter) + out


class OutputStart(nn.Module):
    """The deepest level of a residual pyramid on the way up: it starts it and leaves the features as they are."""

    def __init__(self, spatial: int, channels: int, *, group: int) -> None:
        super().__init__()
        self.head = Head(spatial, channels, channels, group=group)

    def forward(self, h: Tensor, pyramid: Tensor | None) -> tuple[Tensor, Tensor]:
        return h, self.head(h)


class OutputResidual(nn.Module):
    """The sum of a level's features and of the level below, sampled up with a convolution, goes on in both."""

    def __init__(self, spatial: int, in_channels: int, channels: int, *, filter: Filter, rescale: bool) -> None:
        super().__init__()
        self.rescale = rescale
        self.upsample = Upsample(spatial, in_channels, channels, filter=filter, convolve=True)

    def forward(self, h: Tensor, pyramid: Tensor) -> tuple[Tensor, Tensor]:
        h = add(self.upsample(pyramid), h, self.rescale)
        return h, h


class DownLevel(nn.Module):
    """Blocks of one size, then, but at the deepest level, the change to half of it, where the input pyramid joins."""

    def __init__(self, blocks: list[Stage], downsample: nn.Module | None, pyramid: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample, self.pyramid = downsample, pyramid

    def forward(self, h: Tensor, pyramid: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor, list[Tensor]]:
        skips = []
        for block in self.blocks:
            h = block(h, embedding)
            skips.append(h)
        if self.downsample is not None:
            h = self.downsample(h, embedding)
            if self.pyramid is not None:
                h, pyramid = self.pyramid(h, pyramid)
            skips.append(h)
        return h, pyramid, skips


class UpLevel(nn.Module):
    """Blocks of one size, each of which takes a skip back, the output pyramid, then, but at the top, twice the size."""

    def __init__(self, blocks: list[Stage], pyramid: nn.Module | None, upsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.pyramid, self.upsample = pyramid, upsample

    def forward(
        self, h: Tensor, pyramid: Tensor | None, skips: list[Tensor], embedding: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        for block, skip in zip(self.blocks, skips, strict=True):
            h = block(torch.cat((h, skip), dim=1), embedding)
        if self.pyramid is not None:
            h, pyramid = self.pyramid(h, pyramid)
        return h if self.upsample is None else self.upsample(h, embedding), pyramid


def last_skips(skips: list[Tensor], level: nn.Module) -> list[Tensor]:
    """Those that a level takes, off the list of all: not by itself, which is given a copy where weights are shared out."""
    return [skips.pop() for _ in cast(UpLevel, level).blocks]


def check_numbers(
    channels: int, multipliers: Sequence[int], blocks: int, attention: Sequence[int], dropout: float, embedding: str
) -> None:
    """Refuse numbers that no network has."""
    least = 4 if embedding == "positional" else 1
    if channels < least:
        raise InputError(f"channels is {channels}: the {embedding} embedding needs at least {least}.")
    check_layer(channels)
    if not multipliers or min(multipliers) < 1:
        raise InputError(f"multipliers is {multipliers}: give a number >= 1 for each level, and one level or more.")
    if blocks < 1:
        raise InputError(f"blocks is {blocks}: give at least 1 per level.")
    if not set(attention) <= set(range(len(multipliers))):
        raise InputError(f"attention is {attention}: there are only levels 0 to {len(multipliers) - 1}.")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout is {dropout}: it must lie in [0, 1).")


class NCSNpp(Network):
    """NCSN++ as published for CIFAR-10 by default; by its switches DDPM++, DDPM and others (Song et al. 2021, appendix H).

    DDPM (Ho et al. 2020, appendix B) is embedding="positional", resblock="ddpm", filter="box", progressive_input="none",
    skip_rescale=False, group=1, blocks=2; DDPM++ is embedding="positional", filter="box", progressive_input="none".

    The network divides by no σ: scaling its input and output is the preconditioner's part. A grid that is no multiple
    of patch · 2^(levels - 1) is filled up with zeros at its far ends, which convolutions see there anyway, and cut back.
    Memory is laid out channels-last inside, whatever the layout of x: there is nothing to convert.

    Args:
        in_channels: channels of x.
        out_channels: channels of the result.
        cond_channels: channels of `cond["field"]`, which is concatenated to x.
        labels: number of classes; the embedding of `cond["label"]` is added to the noise's. Label -1, or none at all, has
            an embedding of its own: the null class of classifier-free guidance (see `scorefield.data.DropLabel`).
        spatial: number of grid axes, 1 to 3.
        patch: the first level is this many times coarser than the grid: the values of a patch of patch^spatial points
            enter as channels, and leave so (Hoogeboom et al. 2023, section 3.2). Some detail for about patch^spatial the speed.
            The first level must have a channel for each value.
        channels: channels at the first level.
        multipliers: channels of each level as multiples of `channels`.
        blocks: residual blocks per level.
        attention: levels that have attention, 0 being the finest; the bottleneck always has.
        dropout: probability of a zero before the second convolution of a block.
        embedding: "fourier" for a label such as log σ, "positional" for one of the order of 1 to 1000.
        fourier_scale: standard deviation of the Fourier frequencies.
        conditional: whether the network sees the noise label at all.
        resblock: "biggan" changes size inside of residual blocks, "ddpm" between them.
        filter: how size changes: "fir" [1, 3, 3, 1], or "box" (repeat, average).
        resample_with_conv: whether "ddpm" changes of size have a convolution.
        progressive: the pyramid on the way up.
        progressive_input: the pyramid on the way down.
        combine: how "input_skip" joins the features.
        skip_rescale: divide sums of two branches by √2.
        init_scale: initial scale of the last layer of every branch.
        group: smallest number of channels that are normalised together, of at most 32 groups.
        gradient_checkpointing: compute blocks a second time for the gradient instead of storing what is inside.
        vector: entries of `cond["vector"]`, whose embedding is added to the noise's, and like it shifts the second normalisation
            of every block; it does not scale, as the published blocks do not.
        jumps: whether it learns where a jump ends (`cond["jump"]`), for a flow map.
        augmentations: entries of `cond["augment"]`, see `scorefield.RandomAffine`.
        labels_first: whether the embedding of the class joins the features of the noise label, before the layers that mix
            them (Karras et al. 2022), and not what these make of them.

    Raises:
        InputError: if no channels are given, or the arguments contradict each other.
    """

    def __init__(
        self,
        in_channels: int = 0,
        out_channels: int = 0,
        cond_channels: int = 0,
        labels: int = 0,
        spatial: int = 2,
        patch: int = 1,
        channels: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: tuple[int, ...] = (1,),
        dropout: float = 0.1,
        embedding: Literal["fourier", "positional"] = "fourier",
        fourier_scale: float = 16.0,
        conditional: bool = True,
        resblock: Literal["biggan", "ddpm"] = "biggan",
        filter: Filter = "fir",
        resample_with_conv: bool = True,
        progressive: Progressive = "none",
        progressive_input: ProgressiveInput = "residual",
        combine: Literal["sum", "cat"] = "sum",
        skip_rescale: bool = True,
        init_scale: float = 0.0,
        group: int = 4,
        gradient_checkpointing: bool = False,
        vector: int = 0,
        jumps: bool = False,
        labels_first: bool = False,
        augmentations: int = 0,
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise InputError("NCSNpp has no channels: give in_channels and out_channels, or data to take them from.")
        if spatial not in (1, 2, 3):
            raise InputError(f"spatial is {spatial}: NCSNpp works on grids of 1, 2 or 3 axes.")
        check_numbers(channels, multipliers, blocks, attention, dropout, embedding)
        if patch < 1:
            raise InputError(f"patch is {patch}: NCSNpp needs patches of at least 1 grid point.")
        self.patch, values = patch, patch**spatial
        if patch > 1 and out_channels * values > channels:
            raise InputError(
                f"A patch of {patch}^{spatial} points has {out_channels * values} values, but channels={channels}: "
                f"noise in the others would stay in every sample; take channels >= {out_channels * values} or a smaller patch."
            )
        self.spatial, self.cond_channels, self.labels = spatial, cond_channels, labels
        self.vector, self.jumps = vector, jumps
        self.levels = len(multipliers)
        self.filter: Filter = filter
        self.combine: Literal["sum", "cat"] = combine
        self.resblock, self.resample_with_conv = resblock, resample_with_conv
        self.progressive, self.progressive_input = progressive, progressive_input
        self.skip_rescale, self.init_scale, self.group = skip_rescale, init_scale, group
        self.checkpointing = gradient_checkpointing

        self.embedding = GaussianFourier(channels, fourier_scale) if embedding == "fourier" else Sinusoidal(channels)
        self.embed: nn.Sequential | None = None
        if conditional:
            self.embed = nn.Sequential(
                linear(self.embedding.channels, 4 * channels), nn.SiLU(), linear(4 * channels, 4 * channels)
            )
        if labels_first and not conditional:
            raise InputError(
                "labels_first needs conditional: there are no features of a noise label for the class to join."
            )
        if augmentations and not conditional:
            raise InputError(
                "augmentations needs conditional: there are no features of a noise label for them to join."
            )
        self.labels_first, self.augmentations = labels_first, augmentations
        width = self.embedding.channels if labels_first else 4 * channels
        self.classes = nn.Embedding(labels + 1, width) if labels else None  # the last row is the null class

        self._residual = partial(
            ResidualBlock,
            spatial,
            embedding=4 * channels if conditional or labels or vector or jumps else 0,
            dropout=dropout,
            filter=filter,
            rescale=skip_rescale,
            scale=init_scale,
            shortcut_scale=1.0 if resblock == "biggan" else 0.1,
            group=group,
        )
        widths = [channels * multiplier for multiplier in multipliers]
        seen = (in_channels + cond_channels) * values
        self.first = Convolution(spatial, seen, channels)
        self.down, skips = self._way_down(seen, channels, widths, blocks, attention)
        deepest = skips[-1]
        self.middle = nn.ModuleList([self._stage(deepest, deepest, attend=True), self._stage(deepest, deepest)])
        self.up = self._way_up(deepest, skips, widths, blocks, attention, out_channels * values)
        self.last = (
            None
            if progressive == "output_skip"
            else Head(spatial, widths[0], out_channels * values, init_scale, group=group)
        )
        del self._residual
        self.vectors = VectorEmbedding(vector, 4 * channels) if vector else None
        self.jump = JumpEmbedding(4 * channels) if jumps else None
        self.augment = AugmentEmbedding(augmentations, self.embedding.channels) if augmentations else None

    def _stage(self, width: int, out: int, *, attend: bool = False) -> Stage:
        attention = (
            Attention(out, rescale=self.skip_rescale, scale=self.init_scale, group=self.group) if attend else None
        )
        return Stage(self._residual(width, out), attention, checkpointing=self.checkpointing)

    def _resample(self, width: int, direction: Literal["down", "up"]) -> nn.Module:
        if self.resblock == "biggan":
            return Stage(self._residual(width, width, resample=direction), checkpointing=self.checkpointing)
        change = Downsample if direction == "down" else Upsample
        return change(self.spatial, width, width, filter=self.filter, convolve=self.resample_with_conv)

    def _way_down(
        self, seen: int, width: int, widths: list[int], blocks: int, attention: tuple[int, ...]
    ) -> tuple[nn.ModuleList, list[int]]:
        levels, skips = nn.ModuleList(), [width]
        for level, out in enumerate(widths):
            stages = []
            for _ in range(blocks):
                stages.append(self._stage(width, out, attend=level in attention))
                width = out
                skips.append(width)
            if level == self.levels - 1:
                levels.append(DownLevel(stages, None, None))
                break
            pyramid = None
            if self.progressive_input == "input_skip":
                pyramid = InputSkip(self.spatial, seen, width, filter=self.filter, combine=self.combine)
            elif self.progressive_input == "residual":
                pyramid = InputResidual(self.spatial, seen, width, filter=self.filter, rescale=self.skip_rescale)
                seen = width
            levels.append(DownLevel(stages, self._resample(width, "down"), pyramid))
            width = 2 * width if self.progressive_input == "input_skip" and self.combine == "cat" else width
            skips.append(width)
        return levels, skips

    def _way_up(
        self,
        width: int,
        skips: list[int],
        widths: list[int],
        blocks: int,
        attention: tuple[int, ...],
        out_channels: int,
    ) -> nn.ModuleList:
        levels, skips = nn.ModuleList(), list(skips)
        below = None
        for level, out in reversed(list(enumerate(widths))):
            stages = []
            for block in range(blocks + 1):
                stages.append(self._stage(width + skips.pop(), out, attend=level in attention and block == blocks))
                width = out
            pyramid = None
            if self.progressive == "output_skip":
                pyramid = OutputSkip(
                    self.spatial, width, out_channels, filter=self.filter, scale=self.init_scale, group=self.group
                )
            elif self.progressive == "residual":
                pyramid = (
                    OutputStart(self.spatial, width, group=self.group)
                    if below is None
                    else OutputResidual(self.spatial, below, width, filter=self.filter, rescale=self.skip_rescale)
                )
                below = width
            levels.append(UpLevel(stages, pyramid, self._resample(width, "up") if level else None))
        return levels

    def forward(
        self,
        x: Float[Tensor, "batch in_channels *grid"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels *grid"]:
        cond = cond or {}
        embedding = self._embed(label, cond)
        grid = x.shape[2:]
        h = self._arrange(torch.cat((x, cond["field"].to(x.dtype)), dim=1) if self.cond_channels else x)

        pyramid = h
        h = self.first(h)
        skips = [h]
        for level in self.down:
            h, pyramid, new = level(h, pyramid, embedding)
            skips += new
        for stage in self.middle:
            h = stage(h, embedding)
        out = None
        for level in self.up:
            h, out = level(h, out, last_skips(skips, level), embedding)
        h = cast(Tensor, out) if self.last is None else self.last(h)
        h = h if self.patch == 1 else spread_patches(h, self.patch)
        return h[(..., *(slice(size) for size in grid))].to(x.dtype)

    def _embed(self, label: Tensor, cond: Mapping[str, Tensor]) -> Tensor | None:
        """The activated embedding of noise label, class and vector, one for each sample."""
        embedding = classes = None
        with torch.autocast(label.device.type, enabled=False):
            if self.classes is not None:
                given = cond.get("label", torch.full(label.shape, -1, dtype=torch.long, device=label.device))
                classes = self.classes(torch.where(given < 0, self.labels, given))
            if self.embed is not None:
                early, classes = (classes, None) if self.labels_first else (None, classes)
                if self.augment is not None:
                    done = self.augment(cond, len(label))
                    early = done if early is None else early + done
                embedding = embedded(self.embedding, self.embed, label, early=early)
            if classes is not None:
                embedding = classes if embedding is None else embedding + classes
            more = summed((self.vectors, self.jump), cond, len(label))
            if more is not None:
                more = more.to(self.first.weight.dtype)
                embedding = more if embedding is None else embedding + more
            return None if embedding is None else F.silu(embedding)

    def _arrange(self, x: Tensor) -> Tensor:
        """Fill up to a size that halves at every level, and put channels innermost in memory for the layers to come."""
        missing = [-size % (self.patch * 2 ** (self.levels - 1)) for size in x.shape[2:]]
        if any(missing):
            x = F.pad(x, [side for extra in reversed(missing) for side in (0, extra)])
        x = x if self.patch == 1 else gather_patches(x, self.patch)
        return x.contiguous(memory_format=LAYOUTS[x.ndim]) if x.ndim in LAYOUTS else x
