"""The U-shaped neural operator as a score network: Fourier layers on grids that coarsen and refine again (Rahman et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import resample
from scorefield.nn.operator import Level, NeuralOperator, mixer, mode_numbers
from scorefield.nn.spectral import Factorisation


class UNO(NeuralOperator):
    """Down and up again through grids of given sizes, with skip connections; resampled by Fourier modes.

    The sizes of the inner levels are absolute, numbers of points (and so of modes) of the whole domain, and not fractions of
    the grid of x: else a finer grid would make a different operator. The outermost level has the grid of x.

    Args:
        in_channels, out_channels: 0 takes them from the data.
        cond_channels: channels of `cond["field"]`, on the grid of x.
        spatial: number of grid axes.
        channels: width of the outermost level; it doubles whenever the size halves.
        modes: modes per axis of the outermost level, both signs counted; one number for all axes or one each.
        sizes: points per axis of the inner levels, falling, along every axis the same share of `modes`.
        fraction: of the modes that is kept, at every level.
        factorisation: of the weights: dense, tucker, cp or tt.
        rank: of the factorisation, a fraction of the dense parameters.
        padding: as for `FNO`.
        coordinates: append the coordinates in [0, 1) to the input.
        domain: lengths of the domain, to be checked where `cond["coords"]` gives coordinates.
        fourier_scale: of the embedding of the noise label.
        vector: entries of `cond["vector"]`, whose embedding joins the noise's before its activation: like it, it scales and
            shifts in every layer.
        jumps: whether it learns where a jump ends (`cond["jump"]`), for a flow map.
    """

    def __init__(
        self,
        in_channels: int = 0,
        out_channels: int = 0,
        cond_channels: int = 0,
        spatial: int = 2,
        channels: int = 24,
        modes: int | Sequence[int] = 32,
        sizes: Sequence[int] = (24, 16),
        fraction: float = 1.0,
        factorisation: Factorisation = "tucker",
        rank: float = 0.4,
        padding: float = 0.0,
        coordinates: bool = False,
        domain: Sequence[float] | None = None,
        fourier_scale: float = 1.0,
        vector: int = 0,
        jumps: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            cond_channels,
            spatial,
            channels,
            padding,
            coordinates,
            domain,
            fourier_scale,
            vector,
            jumps,
        )
        outermost = mode_numbers(modes, 1.0, spatial)
        largest = max(outermost)
        if not sizes or min(sizes) < 2 or any(b >= a for a, b in pairwise((largest + 1, *sizes))):
            raise InputError(
                f"UNO needs sizes that fall from at most {largest}, the modes, to at least 2: not {sizes}."
            )
        self.sizes = [[max(2, round(size * n / largest)) for n in outermost] for size in sizes]
        widths = [channels, *(round(channels * largest / size) for size in sizes)]
        kept = [mode_numbers(level, fraction, spatial) for level in (outermost, *self.sizes)]

        def layer(width: int, out: int, level: int, last: bool = False) -> Level:
            return Level(
                width, out, kept[level], embedding=4 * channels, factorisation=factorisation, rank=rank, last=last
            )

        depth = len(sizes)
        self.first = layer(channels, channels, 0)
        self.down = nn.ModuleList(layer(widths[i], widths[i + 1], i + 1) for i in range(depth))
        self.middle = layer(widths[-1], widths[-1], depth)
        self.up = nn.ModuleList(
            layer(widths[i + 1] + widths[i], widths[i], i, last=i == 0) for i in reversed(range(depth))
        )
        self.project = mixer(channels, 2 * channels, out_channels)

    def operate(self, h: Tensor, embedding: Tensor) -> Tensor:
        padded = list(h.shape[2:])
        h = self.first(h, embedding)
        skips = [h]
        for layer, size in zip(self.down, self.sizes, strict=True):
            h = layer(h, embedding, self._padded(size))
            skips.append(h)
        h = self.middle(h, embedding)
        skips.pop()
        for layer in self.up:
            skip = skips.pop()
            size = padded if not skips else list(skip.shape[2:])
            h = layer(torch.cat((resample(h, size), skip), dim=1), embedding)
        return h

    def _padded(self, size: Sequence[int]) -> list[int]:
        """The size of a level on the padded domain."""
        return [round(n * (1 + self.padding)) for n in size]
