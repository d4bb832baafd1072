"""DDPM's U-Net (Ho et al. 2020, appendix B) with the switches that others have trained it with since."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.nn.embedding import AugmentEmbedding, JumpEmbedding, Sinusoidal, VectorEmbedding, embedded, summed
from scorefield.nn.layers import Attention, Convolution, Downsample, ResidualBlock, Upsample, linear
from scorefield.nn.lowprecision import LAYOUTS
from scorefield.nn.ncsnpp import DownLevel, Head, Stage, UpLevel, check_numbers, last_skips
from scorefield.nn.network import Network


class DDPMUNet(Network):
    """Levels of residual blocks, each followed by attention on some levels, on the way up after every block, too.

    By default the network of Ho et al. for CIFAR-10. A grid that is no multiple of 2^(levels − 1) is filled up with zeros at its
    far ends and cut back.

    Args:
        in_channels: channels of x.
        out_channels: channels of the result.
        cond_channels: channels of `cond["field"]`, which is concatenated to x.
        labels: number of classes; the embedding of `cond["label"]` is added to the noise's, for -1 or none a row of its own.
        spatial: number of grid axes, 1 to 3.
        widths: channels of each level, from the finest.
        blocks: residual blocks per level on the way down; one more on the way up.
        attention: levels with attention on the way down, 0 being the finest.
        attention_up: on the way up; the same by default.
        attention_middle: whether the bottleneck has it.
        head: channels of each head of attention; 0 for a single head.
        dropout: probability of a zero before the second convolution of a block.
        groups: of channels that are normalised together.
        epsilon: added to the variance there.
        centred: whether halving the size keeps the points of even number, see `Downsample`.
        closed: see `Sinusoidal`.
        cosines_first: see `Sinusoidal`.
        vector: entries of `cond["vector"]`, whose embedding is added to the noise's.
        jumps: whether it learns where a jump ends (`cond["jump"]`), for a flow map.
        augmentations: entries of `cond["augment"]`, see `scorefield.RandomAffine`.

    Raises:
        InputError: no channels, or numbers that contradict each other.
    """

    def __init__(
        self,
        in_channels: int = 0,
        out_channels: int = 0,
        cond_channels: int = 0,
        labels: int = 0,
        spatial: int = 2,
        widths: tuple[int, ...] = (128, 256, 256, 256),
        blocks: int = 2,
        attention: tuple[int, ...] = (1,),
        attention_up: tuple[int, ...] | None = None,
        attention_middle: bool = True,
        head: int = 0,
        dropout: float = 0.1,
        groups: int = 32,
        epsilon: float = 1e-6,
        centred: bool = False,
        closed: bool = True,
        cosines_first: bool = False,
        vector: int = 0,
        jumps: bool = False,
        augmentations: int = 0,
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1 or spatial not in (1, 2, 3):
            raise InputError(
                "DDPMUNet needs in_channels and out_channels, or data to take them from, and 1 to 3 grid axes."
            )
        upward = attention if attention_up is None else attention_up
        for places in (attention, upward):
            check_numbers(min(widths, default=0), widths, blocks, places, dropout, "positional")
        self.cond_channels, self.labels, self.vector, self.jumps = cond_channels, labels, vector, jumps
        self.levels = len(widths)
        size, first = 4 * widths[0], widths[0]
        self.embedding = Sinusoidal(first, closed, cosines_first)
        self.embed = nn.Sequential(linear(first, size), nn.SiLU(), linear(size, size))
        self.classes = nn.Embedding(labels + 1, size) if labels else None  # the last row is the null class
        norm = {"groups": groups, "epsilon": epsilon}
        residual = partial(
            ResidualBlock,
            spatial,
            embedding=size,
            dropout=dropout,
            filter="box",
            rescale=False,
            shortcut_scale=0.1,
            **norm,
        )

        def stage(width: int, out: int, attended: bool) -> Stage:
            heads = out // head if head else 1
            return Stage(residual(width, out), Attention(out, rescale=False, heads=heads, **norm) if attended else None)

        change = {"filter": "box", "convolve": True}
        self.first = Convolution(spatial, in_channels + cond_channels, first)
        self.down, skips, width = nn.ModuleList(), [first], first
        for level, out in enumerate(widths):
            stages = [stage(width if block == 0 else out, out, level in attention) for block in range(blocks)]
            last, width = level == self.levels - 1, out
            half = None if last else Downsample(spatial, out, out, centred=centred, **change)
            self.down.append(DownLevel(stages, half, None))
            skips += [out] * (blocks + (not last))
        self.middle = nn.ModuleList([stage(width, width, attention_middle), stage(width, width, False)])
        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            stages = []
            for _ in range(blocks + 1):
                stages.append(stage(width + skips.pop(), out, level in upward))
                width = out
            self.up.append(UpLevel(stages, None, Upsample(spatial, out, out, **change) if level else None))
        self.last = Head(spatial, first, out_channels, 0.0, **norm)
        self.vectors = VectorEmbedding(vector, size) if vector else None
        self.jump = JumpEmbedding(size) if jumps else None
        self.augmentations = augmentations
        self.augment = AugmentEmbedding(augmentations, first) if augmentations else None

    def forward(
        self,
        x: Float[Tensor, "batch in_channels *grid"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels *grid"]:
        cond = cond or {}
        embedding, grid = self._embed(label, cond), x.shape[2:]
        h = torch.cat((x, cond["field"].to(x.dtype)), dim=1) if self.cond_channels else x
        missing = [-size % 2 ** (self.levels - 1) for size in grid]
        if any(missing):
            h = F.pad(h, [side for extra in reversed(missing) for side in (0, extra)])
        h = self.first(h.contiguous(memory_format=LAYOUTS[h.ndim]) if h.ndim in LAYOUTS else h)
        skips = [h]
        for level in self.down:
            h, _, new = level(h, h, embedding)
            skips += new
        for part in self.middle:
            h = part(h, embedding)
        for level in self.up:
            h, _ = level(h, None, last_skips(skips, level), embedding)
        return self.last(h)[(..., *(slice(size) for size in grid))].to(x.dtype)

    def _embed(self, label: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """The activated embedding of noise label, class, vector and jump, one for each sample."""
        with torch.autocast(label.device.type, enabled=False):
            early = None if self.augment is None else self.augment(cond, len(label))
            found = embedded(self.embedding, self.embed, label, early=early)
            if self.classes is not None:
                given = cond.get("label", torch.full(label.shape, -1, dtype=torch.long, device=label.device))
                found = found + self.classes(torch.where(given < 0, self.labels, given))
            more = summed((self.vectors, self.jump), cond, len(label))
            return F.silu(found if more is None else found + more.to(found))
