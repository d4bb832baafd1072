"""A network that knows positions: maps over the grid that it learns itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.nn.network import Network, Wrapper


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
