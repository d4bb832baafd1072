"""Networks around a network: what it sees, and what is made of its result."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.nn.layers import Convolution
from scorefield.nn.network import Network


class Wrapper(Network):
    """A network around another one, which tells apart and needs what that one does."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net
        self.logits, self.labels, self.cond_channels = net.logits, net.labels, net.cond_channels
        self.vector, self.jumps, self.label_range = net.vector, net.jumps, net.label_range
        self.augmentations = net.augmentations


class Affine(Wrapper):
    """F(scale · x + shift, label, cond).

    For weights that were trained on x in [0, 1] and map it to 2x - 1 before the first convolution: as that convolution
    sees zeros outside the field, the map cannot be moved into its weights.

    Args:
        net: the network F.
        scale: factor of x.
        shift: summand.
    """

    def __init__(self, net: Network, scale: float = 2.0, shift: float = -1.0) -> None:
        super().__init__(net)
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor, label: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        return self.net(self.scale * x + self.shift, label, cond)


class Deterministic(Wrapper):
    """F(0, 0, cond): a deterministic network, whatever noise and noise level it is given.

    With `DataPrediction` for its preconditioner and the weight `Unweighted` its denoising loss is the mean squared error of
    regression, and a sampler of one step gives its prediction, E[x | cond] where it has learnt well.

    Args:
        net: the network F.
    """

    def __init__(self, net: Network) -> None:
        super().__init__(net)
        self.label_range = None

    def forward(self, x: Tensor, label: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        return self.net(torch.zeros_like(x), torch.zeros_like(label), cond)


class LearnedPositionMaps(Wrapper):
    """F(x, label, cond) with learnt maps of the grid beside what F is conditioned on (Addison et al. 2024, location parameters).

    The maps are parameters like any others: trained, clipped, averaged and stored with them. They belong to places, so that
    the network works on the grid it was trained on and on no other.

    Args:
        net: the network F; its `cond_channels` count the maps, too, or are 0 to be taken from the data.
        maps: how many.
        grid: rows and columns, or the sizes of as many axes as there are; taken from the data where empty.
    """

    def __init__(self, net: Network, maps: int = 1, grid: tuple[int, ...] = ()) -> None:
        super().__init__(net)
        if maps < 1 or not grid:
            raise InputError(
                "LearnedPositionMaps needs maps >= 1 and the sizes of the grid: give them, or data that have them."
            )
        if net.cond_channels < maps:
            raise InputError(
                f"LearnedPositionMaps adds {maps} maps to a network that takes {net.cond_channels} channels of conditions."
            )
        self.cond_channels = net.cond_channels - maps
        self.maps = nn.Parameter(torch.zeros(maps, *grid))

    def forward(self, x: Tensor, label: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        if x.shape[2:] != self.maps.shape[1:]:
            raise InputError(
                f"The network knows the places of a grid of {tuple(self.maps.shape[1:])} and is given {tuple(x.shape[2:])}."
            )
        own = self.maps.to(x).expand(len(x), *self.maps.shape)
        cond = dict(cond or {})
        given = [cond["field"].to(x)] if self.cond_channels else []
        return self.net(x, label, {**cond, "field": torch.cat([*given, own], dim=1)})


class OutputConvolution(Wrapper):
    """W * F(x, label, cond) + b with a convolution W over 3 points per axis.

    For weights of networks that work on all their channels, conditions included, to the end, and only then choose.

    Args:
        net: the network F.
        channels: channels of F's result.
        out_channels: channels of the result.
        spatial: number of grid axes.
    """

    def __init__(self, net: Network, channels: int, out_channels: int, spatial: int = 2) -> None:
        super().__init__(net)
        self.last = Convolution(spatial, channels, out_channels)

    def forward(self, x: Tensor, label: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        return self.last(self.net(x, label, cond))
