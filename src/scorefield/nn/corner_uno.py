"""The U-shaped neural operator of score-based diffusion in function space as its authors' code computes it, for their weights.

`UNO` is the one to train: this one repeats what theirs does with grids. Where the size changes, modes of negative frequency
along the first axis are cut or filled at the end of the axis; skips are interpolated by cubic splines; and the network does not
look at the noise level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.foundation.precision import Precise, wide
from scorefield.nn.network import Network
from scorefield.nn.operator import pad

BLOCKS = 8


class CornerUNO(Network):
    """U-NO (Rahman et al. 2022, U-NO) of Lim et al. (2023), in two dimensions: eight blocks on grids of 1, ¾, ½, ¼, ½, ¾, 1 and 1
    times the points, each joined to that of the same grid before.

    Args:
        in_channels: channels of x; 0 where they are to be taken from the data.
        out_channels: channels out; 0 likewise.
        channels: width of the first and the last block.
        multipliers: widths of the first four blocks, in these.
        points: of the padded grid of training along each axis, from which the sizes of the others are rounded.
        fraction: of the modes of a block's grid that it keeps.
        padding: zeros after the end of both axes, in lengths of the domain.
        ranks: of the Tucker factors (in, out, first axis, last axis) of each block's weights; none for dense weights.
    """

    def __init__(
        self,
        in_channels: int = 0,
        out_channels: int = 0,
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        points: int = 128,
        fraction: float = 0.5,
        padding: float = 0.0,
        ranks: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise InputError("CornerUNO has no channels: give in_channels and out_channels, or data to take them from.")
        sides = [points, points, int(points * 0.75), points // 2, points // 4]
        if channels < 1 or len(multipliers) != 4 or min(multipliers) < 1 or not 0 < fraction <= 1 or padding < 0:
            raise InputError("CornerUNO needs channels, 4 multipliers and padding >= 0, and a fraction in (0, 1].")
        if len(ranks) not in (0, BLOCKS):
            raise InputError(f"CornerUNO needs the ranks of {BLOCKS} blocks or none, not of {len(ranks)}.")
        if int(sides[-1] * fraction) < 2:
            raise InputError(f"A fraction of {fraction:g} keeps no mode of the smallest grid, of {sides[-1]} points.")
        self.padding = padding
        one, two, three, four = (channels * multiplier for multiplier in multipliers)
        widths = [(channels, one), (one, two), (two, three), (three, four)]
        widths += [(four, three), (2 * three, two), (2 * two, one), (2 * one, channels)]
        sides = [*sides, *sides[-2:0:-1], points][: BLOCKS + 1]
        self.first = nn.Conv2d(in_channels + 2, channels, 1)
        self.blocks = nn.ModuleList(
            CornerBlock(*width, before, after, fraction, ranks[number] if ranks else ())
            for number, (width, before, after) in enumerate(zip(widths, sides[:-1], sides[1:], strict=True))
        )
        self.last = nn.Conv2d(2 * channels, out_channels, 1)

    def forward(
        self,
        x: Float[Tensor, "batch in_channels height width"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        axes = [torch.linspace(0, 1, n, device=x.device, dtype=x.dtype) for n in x.shape[2:]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(x), -1, -1, -1)
        lifted = pad(self.first(torch.cat((x, grid), dim=1)), self.padding)
        h, kept = lifted, [lifted]
        for number, block in enumerate(self.blocks):
            h = block(h)
            if number < 3:
                kept.append(h)
            elif number > 3:
                h = torch.cat((h, kept.pop()), dim=1)
        return self.last(h[..., : x.shape[2], : x.shape[3]])


class CornerBlock(nn.Module):
    """GELU of a spectral convolution and a pointwise linear skip, both on the grid of the next block."""

    def __init__(
        self, in_channels: int, out_channels: int, before: int, after: int, fraction: float, ranks: Sequence[int]
    ) -> None:
        super().__init__()
        self.factor = after / before
        self.convolution = CornerConvolution(in_channels, out_channels, int(before * fraction) // 2, ranks)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        size = [round(n * self.factor) for n in x.shape[2:]]
        skip = self.skip(x)
        skip = F.interpolate(skip.to(wide(skip.dtype)), size=size, mode="bicubic", align_corners=True, antialias=True)
        return F.gelu(self.convolution(x, size) + skip.to(x.dtype))


class CornerConvolution(Precise):
    """Modes 0..h − 1 of both axes and −h..−1 of the first times weights of their own; the rest is dropped.

    Args:
        in_channels, out_channels: channels in and out.
        half: h.
        ranks: of the Tucker factors of both weights, or none for dense ones.
    """

    def __init__(self, in_channels: int, out_channels: int, half: int, ranks: Sequence[int]) -> None:
        super().__init__()
        self.modes = half
        shape = (in_channels, out_channels, half, half)
        self.corners = nn.ModuleList(TuckerWeight(shape, ranks) if ranks else DenseWeight(shape) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        h = self.modes
        if x.shape[2] < h or x.shape[3] // 2 + 1 < h:
            raise InputError(
                f"A grid of {tuple(x.shape[2:])} inside the network has not its {h} modes: take a finer one."
            )
        with torch.autocast(x.device.type, enabled=False):
            modes = torch.fft.rfft2(x.to(wide(x.dtype)), norm="forward")
            found = modes.new_zeros((len(x), len(self.bias), *modes.shape[2:]))
            found[:, :, :h, :h] = self.corners[0](modes[:, :, :h, :h])
            found[:, :, -h:, :h] = self.corners[1](modes[:, :, -h:, :h])
            result = torch.fft.irfft2(found, s=list(size), norm="forward") + self.bias  # cuts or fills found at the end
        return result.to(x.dtype)


class DenseWeight(nn.Module):
    """W (in, out, first, last), complex numbers as pairs."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape, 2) / shape[0] ** 0.5)

    def forward(self, modes: Tensor) -> Tensor:
        return torch.einsum("bixy,ioxy->boxy", modes, torch.view_as_complex(self.weight).to(modes.dtype))


class TuckerWeight(nn.Module):
    """W as a core (r, s, p, q) times a matrix (size, rank) along each axis, complex numbers as pairs; W is never made whole."""

    def __init__(self, shape: Sequence[int], ranks: Sequence[int]) -> None:
        super().__init__()
        self.core = nn.Parameter(torch.randn(*ranks, 2) / shape[0] ** 0.5)
        pairs = zip(shape, ranks, strict=True)
        self.factors = nn.ParameterList(nn.Parameter(torch.randn(size, rank, 2) / rank**0.5) for size, rank in pairs)

    def forward(self, modes: Tensor) -> Tensor:
        core, *factors = (torch.view_as_complex(part).to(modes.dtype) for part in (self.core, *self.factors))
        into, out, first, last = factors
        kernel = torch.einsum("rspq,xp,yq->rsxy", core, first, last)
        modes = torch.einsum("bixy,ir->brxy", modes, into)
        modes = torch.einsum("brxy,rsxy->bsxy", modes, kernel)
        return torch.einsum("bsxy,os->boxy", modes, out)
