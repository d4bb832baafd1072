"""The Fourier neural operator as a score network: the same function of a function on every grid (Li et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from scorefield.errors import InputError
from scorefield.nn.network import Network
from scorefield.nn.operator import Level, NoiseLevel, inputs, mixer, pad
from scorefield.nn.spectral import Factorisation


class FNO(Network):
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
        fourier_scale: of the embedding of the noise label, about the inverse of the difference that it shall resolve.
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
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise InputError("FNO has no channels: give in_channels and out_channels, or data to take them from.")
        kept = mode_numbers(modes, fraction, spatial)
        if layers < 1 or channels < 1 or not 0 <= padding < 8 or not 0 < rank <= 1:
            raise InputError(
                f"FNO needs layers and channels of at least 1, padding >= 0 and 0 < rank <= 1, not {layers}, {channels}, "
                f"{padding:g} and {rank:g}."
            )
        self.cond_channels, self.padding, self.coordinates, self.domain = cond_channels, padding, coordinates, domain
        self.level = NoiseLevel(4 * channels, fourier_scale)
        seen = in_channels + cond_channels + (spatial if coordinates else 0)
        self.lift = mixer(seen, 2 * channels, channels)
        self.layers = nn.ModuleList(
            Level(channels, channels, kept, embedding=4 * channels, factorisation=factorisation, rank=rank,
                  last=number == layers - 1)
            for number in range(layers)
        )  # fmt: skip
        self.project = mixer(channels, 2 * channels, out_channels)

    def forward(
        self,
        x: Float[Tensor, "batch in_channels *grid"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels *grid"]:
        embedding = self.level(label)
        h = pad(self.lift(inputs(x, cond, self.cond_channels, self.coordinates, self.domain)), self.padding)
        for layer in self.layers:
            h = layer(h, embedding)
        h = h[(..., *(slice(n) for n in x.shape[2:]))]
        return self.project(h.contiguous()).to(x.dtype)


def mode_numbers(modes: int | Sequence[int], fraction: float, spatial: int) -> list[int]:
    """Modes per axis, or InputError."""
    numbers = [modes] * spatial if isinstance(modes, int) else list(modes)
    if spatial not in (1, 2, 3) or len(numbers) != spatial or not 0 < fraction <= 1 or min(numbers) < 1:
        raise InputError(
            f"A neural operator needs 1 to 3 axes, a number of modes for all or one each, of which a fraction in (0, 1] is kept, "
            f"not {spatial} axes, {modes} modes and {fraction:g}."
        )
    return [max(1, round(fraction * number)) for number in numbers]
