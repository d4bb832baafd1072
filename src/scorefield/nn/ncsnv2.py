"""NCSNv2: a RefineNet that does not see the noise level (Song & Ermon 2020, appendix B)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.nn.network import Network
from scorefield.nn.refine import Activation, Depth, RefineNet


class NCSNv2(Network):
    """The network of NCSNv2, F = σ · score; dividing by σ is the preconditioner's part.

    Args:
        in_channels: channels of x.
        out_channels: channels of the result.
        cond_channels: channels of `cond["field"]`, which is concatenated to x.
        spatial: number of grid axes, 1 to 3.
        channels: channels of the first stage.
        depth: "low" for grids up to 64, "medium" up to 128, "large" from 256 on: 4, 5 and 6 stages.
        activation: between convolutions.

    Raises:
        InputError: if no channels are given.
    """

    def __init__(
        self,
        in_channels: int = 0,
        out_channels: int = 0,
        cond_channels: int = 0,
        spatial: int = 2,
        channels: int = 128,
        depth: Depth = "low",
        activation: Activation = "elu",
    ) -> None:
        super().__init__()
        check_sizes("NCSNv2", in_channels, out_channels, spatial, channels)
        self.cond_channels = cond_channels
        self.body = RefineNet(
            spatial, in_channels + cond_channels, out_channels, channels=channels, depth=depth, activation=activation
        )

    def forward(
        self,
        x: Float[Tensor, "batch in_channels *grid"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels *grid"]:
        return self.body(with_field(x, cond) if self.cond_channels else x, label)


def with_field(x: Tensor, cond: Mapping[str, Tensor] | None) -> Tensor:
    """x and the field that it is conditioned on, as channels of one field."""
    if cond is None or "field" not in cond:
        raise InputError("This network is conditioned on a field: give cond={'field': ...}.")
    return torch.cat((x, cond["field"].to(x.dtype)), dim=1)


def check_sizes(name: str, in_channels: int, out_channels: int, spatial: int, channels: int) -> None:
    """Refuse sizes that no network can have."""
    if in_channels < 1 or out_channels < 1:
        raise InputError(f"{name} has no channels: give in_channels and out_channels, or data to take them from.")
    if spatial not in (1, 2, 3):
        raise InputError(f"spatial is {spatial}: {name} works on grids of 1, 2 or 3 axes.")
    if channels < 2:
        raise InputError(f"channels is {channels}: {name} compares the means of channels and needs at least 2.")
