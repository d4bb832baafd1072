"""NCSN: a RefineNet whose normalisations belong to the noise level (Song & Ermon 2019, appendix A)."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.nn.ncsnv2 import check_sizes, with_field
from scorefield.nn.network import Network
from scorefield.nn.refine import Activation, Depth, RefineNet


class NCSN(Network):
    """The network of NCSN, conditioned on the number of a noise level by its normalisations.

    The label is a position in the table of levels (`Index`); between two entries the normalisations are mixed, so that
    any time can be asked for.

    Args:
        in_channels: channels of x.
        out_channels: channels of the result.
        cond_channels: channels of `cond["field"]`, which is concatenated to x.
        levels: number of noise levels.
        spatial: number of grid axes, 1 to 3.
        channels: channels of the first stage.
        depth: as of `NCSNv2`; the published network is "low".
        activation: between convolutions.

    Raises:
        InputError: if no channels or no levels are given.
    """

    def __init__(
        self,
        in_channels: int = 0,
        out_channels: int = 0,
        cond_channels: int = 0,
        levels: int = 10,
        spatial: int = 2,
        channels: int = 128,
        depth: Depth = "low",
        activation: Activation = "elu",
    ) -> None:
        super().__init__()
        check_sizes("NCSN", in_channels, out_channels, spatial, channels)
        if levels < 1:
            raise InputError(f"levels is {levels}: NCSN needs the number of noise levels.")
        self.label_range = (0.0, levels - 1.0)
        self.cond_channels = cond_channels
        self.body = RefineNet(
            spatial,
            in_channels + cond_channels,
            out_channels,
            channels=channels,
            depth=depth,
            activation=activation,
            levels=levels,
        )

    def forward(
        self,
        x: Float[Tensor, "batch in_channels *grid"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels *grid"]:
        return self.body(with_field(x, cond) if self.cond_channels else x, label)
