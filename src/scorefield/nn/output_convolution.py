"""A network with one more convolution at its end."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scorefield.nn.layers import Convolution
from scorefield.nn.network import Network, Wrapper


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
