"""A network that sees its input shifted and scaled."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scorefield.nn.network import Network, Wrapper


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
