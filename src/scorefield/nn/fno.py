"""The Fourier neural operator as a score network: the same function of a function on every grid (Li et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.nn.operator import Level, NeuralOperator, mixer, mode_numbers
from scorefield.nn.spectral import Factorisation


class FNO(NeuralOperator):
    """Layers y = W x + F⁻¹ R_k F x, each modulated by the noise level, between point-wise perceptrons.

    R has weights for the modes |k_i| < modes_i/2, whatever the grid; what a finer grid has beyond them passes through W and the
    perceptrons alone.

    Args:
        in_channels, out_channels: 0 takes them from the data.
        cond_channels: channels of `cond["field"]`, on the grid of x.
        spatial: number of grid axes.
        channels: width of the layers.
        modes: modes per axis, both signs counted; one number for all axes or one each. Give the points of the training grid.
        fraction: of these modes that is kept.
        layers: number of layers.
        factorisation: of the weights R: dense, tucker, cp or tt.
        rank: of the factorisation, a fraction of the dense parameters.
        padding: zeros after the end of every axis, in lengths of the domain, for fields that are not periodic; times the number
            of points it must be a whole number on every grid that is used.
        coordinates: append the coordinates in [0, 1) to the input.
        domain: lengths of the domain, to be checked where `cond["coords"]` gives coordinates.
        fourier_scale: of the embedding of the noise label, about the inverse of the difference that it should resolve.
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
        channels: int = 32,
        modes: int | Sequence[int] = 32,
        fraction: float = 1.0,
        layers: int = 4,
        factorisation: Factorisation = "dense",
        rank: float = 1.0,
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
        kept = mode_numbers(modes, fraction, spatial)
        if layers < 1:
            raise InputError(f"FNO needs layers >= 1, not {layers}.")
        self.layers = nn.ModuleList(
            Level(channels, channels, kept, embedding=4 * channels, factorisation=factorisation, rank=rank,
                  last=number == layers - 1)
            for number in range(layers)
        )  # fmt: skip
        self.project = mixer(channels, 2 * channels, out_channels)

    def operate(self, h: Tensor, embedding: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(h, embedding)
        return h
