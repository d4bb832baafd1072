"""What neural operators have in common: blocks of neuraloperator modulated by the noise level, padding, coordinates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Size, Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.nn.embedding import GaussianFourier, JumpEmbedding, VectorEmbedding, embedded, summed
from scorefield.nn.layers import linear
from scorefield.nn.network import Network, check_layer
from scorefield.nn.spectral import MISSING, Factorisation, SpectralConvolution


class Level(nn.Module):
    """One layer of neuraloperator's `FNOBlocks` behind a feature-wise modulation x (1 + a) + b (Perez et al. 2018).

    a and b are linear in the embedding of each sample's noise level; neuraloperator's own adaptive normalisation has one
    embedding per batch. After the last layer there is no activation.

    Args:
        in_channels, out_channels: channels in and out.
        modes: of the spectral convolution, per axis.
        embedding: length of the embedding.
        factorisation: of its weights.
        rank: of the factorisation.
        expansion: hidden channels of the block's perceptron, per channel.
        last: without activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        *,
        embedding: int,
        factorisation: Factorisation = "dense",
        rank: float = 1.0,
        expansion: float = 0.5,
        last: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < rank <= 1:
            raise InputError(f"The rank of a factorisation is a fraction in (0, 1] of the dense weights, not {rank:g}.")
        try:
            from neuralop.layers.fno_block import FNOBlocks
        except ImportError as error:
            raise InputError(MISSING.format(error)) from error
        self.modulate = linear(embedding, 2 * in_channels, scale=0.0)
        self.last = last
        self.block = FNOBlocks(
            in_channels,
            out_channels,
            list(modes),
            n_layers=1,
            channel_mlp_expansion=expansion,
            channel_mlp_skip="soft-gating" if in_channels == out_channels else "linear",
            factorization=factorisation,
            rank=rank,
            implementation="reconstructed",
            conv_module=SpectralConvolution,  # pyright: ignore[reportArgumentType] - of the same signature
        )

    def forward(self, x: Tensor, embedding: Tensor, size: Sequence[int] | Size | None = None) -> Tensor:
        scale, shift = self.modulate(embedding).reshape(len(x), -1, *(1,) * (x.ndim - 2)).chunk(2, dim=1)
        # A list, and its own size where that is unchanged: neuraloperator compares shapes with `==`.
        x = self.block((x * (1 + scale) + shift).to(x.dtype), output_shape=None if size is None else list(size))
        return x if self.last else F.gelu(x)


class NoiseLevel(nn.Module):
    """The activated embedding of a noise label, one vector per sample.

    Args:
        channels: its length.
        scale: standard deviation of the Fourier features' frequencies.
    """

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.features = GaussianFourier(channels // 2, scale)
        self.layers = nn.Sequential(
            linear(self.features.channels, channels), nn.SiLU(), linear(channels, channels), nn.SiLU()
        )

    def forward(
        self, label: Float[Tensor, " batch"], more: Float[Tensor, "batch channels"] | None = None
    ) -> Float[Tensor, "batch channels"]:
        with torch.autocast(label.device.type, enabled=False):
            return embedded(self.features, self.layers, label, more)


class NeuralOperator(Network):
    """A point-wise lift, layers on the padded domain and a point-wise projection; abstract, the layers are left open.

    Args:
        in_channels: channels of x; 0 where they are to be taken from the data.
        out_channels: channels out; 0 likewise.
        cond_channels: channels of `cond["field"]`.
        spatial: number of grid axes.
        channels: width of the outermost layers.
        padding: zeros after the end of every axis, in lengths of the domain.
        coordinates: append the coordinates in [0, 1) to the input.
        domain: lengths of the domain, to be checked where `cond["coords"]` gives coordinates.
        fourier_scale: of the embedding of the noise label.
        vector: entries of `cond["vector"]`.
        jumps: whether it learns where a jump ends (`cond["jump"]`), for a flow map.
    """

    project: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_channels: int,
        spatial: int,
        channels: int,
        padding: float,
        coordinates: bool,
        domain: Sequence[float] | None,
        fourier_scale: float,
        vector: int,
        jumps: bool,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if in_channels < 1 or out_channels < 1:
            raise InputError(f"{name} has no channels: give in_channels and out_channels, or data to take them from.")
        if channels < 1 or not 0 <= padding < 8:
            raise InputError(f"{name} needs channels >= 1 and 0 <= padding < 8, not {channels} and {padding:g}.")
        check_layer(channels)
        self.cond_channels, self.padding, self.coordinates, self.domain = cond_channels, padding, coordinates, domain
        self.vector, self.jumps = vector, jumps
        self.level = NoiseLevel(4 * channels, fourier_scale)
        self.vectors = VectorEmbedding(vector, 4 * channels) if vector else None
        self.jump = JumpEmbedding(4 * channels) if jumps else None
        self.lift = mixer(in_channels + cond_channels + (spatial if coordinates else 0), 2 * channels, channels)

    @abstractmethod
    def operate(self, h: Tensor, embedding: Tensor) -> Tensor:
        """What the layers make of the lifted field on the padded domain, given the embedding of the noise level."""

    def forward(
        self,
        x: Float[Tensor, "batch in_channels *grid"],
        label: Float[Tensor, " batch"],
        cond: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels *grid"]:
        seen = inputs(x, cond, self.cond_channels, self.coordinates, self.domain)
        with torch.autocast(label.device.type, enabled=False):
            more = summed((self.vectors, self.jump), cond, len(x))
        h = self.operate(pad(self.lift(seen), self.padding), self.level(label, more))
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


def mixer(in_channels: int, hidden: int, out_channels: int) -> nn.Module:
    """neuraloperator's two-layer perceptron over the channels of every point."""
    try:
        from neuralop.layers.channel_mlp import ChannelMLP
    except ImportError as error:
        raise InputError(MISSING.format(error)) from error
    return ChannelMLP(in_channels, out_channels, hidden, n_layers=2)


def pad(x: Tensor, padding: float) -> Tensor:
    """x with zeros after its end along every axis, so many of its lengths: room for a field that is not periodic.

    Raises:
        InputError: the padding is no whole number of points, and so would be another length on another grid.
    """
    if not padding:
        return x
    widths = [round(padding * n) for n in x.shape[2:]]
    for n, width in zip(x.shape[2:], widths, strict=True):
        if abs(padding * n - width) > 1e-9 * n:
            near, step = Fraction(max(width, 1), n), Fraction(padding).limit_denominator(1000).denominator
            raise InputError(
                f"A padding of {padding:g} is {padding * n:g} points of {n}, and points must be whole at every resolution "
                f"that is used: the nearest padding is {near} = {float(near):.8g}. With {padding:g} take a multiple of {step}."
            )
    return F.pad(x, [side for width in reversed(widths) for side in (0, width)])


def inputs(
    x: Tensor,
    cond: Mapping[str, Tensor] | None,
    cond_channels: int,
    coordinates: bool,
    domain: Sequence[float] | None = None,
) -> Tensor:
    """x, the field that it is conditioned on and, if asked for, its coordinates in (0, 1), as channels.

    Args:
        x: the field.
        cond: with "field" and perhaps "coords", (batch or 1, axes, *grid), of a regular grid.
        cond_channels: channels of the field to condition on.
        coordinates: append them.
        domain: lengths of the domain that the network was made for; given coordinates must span them.
    """
    cond = cond or {}
    parts = [x]
    if cond_channels:
        given = cond["field"].to(x)
        parts.append(given)
    if "coords" in cond:
        check_regular(cond["coords"], x.shape[2:], domain)
    if coordinates:
        axes = [(torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / n for n in x.shape[2:]]  # of cells' centres
        parts.append(torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(x), -1, *x.shape[2:]))
    return torch.cat(parts, dim=1)


def check_regular(coordinates: Tensor, grid: Size, domain: Sequence[float] | None) -> None:
    """Refuse coordinates, (batch or 1, axes, *grid), of points on no regular grid, or on another domain."""
    if coordinates.shape[1:] != (len(grid), *grid):
        raise InputError(f"Coordinates of a grid {tuple(grid)} have the shape (batch, {len(grid)}, *grid): give those.")
    for axis, n in enumerate(grid):
        values = coordinates[:, axis].double()
        line = values.movedim(axis + 1, -1).reshape(len(values), -1, n)
        step = (line[:, :1, -1:] - line[:, :1, :1]) / max(n - 1, 1)
        even = line[:, :1, :1] + step * torch.arange(n, device=line.device)
        if not bool(((line - even).abs() <= 1e-3 * step.abs()).all()):
            raise InputError(
                f"The points are no regular grid along axis {axis}: a neural operator on Fourier modes needs one; "
                "interpolate the fields onto a grid."
            )
        if domain is not None and bool((step[0] * n - domain[axis]).abs().max() > 1e-3 * domain[axis]):
            raise InputError(
                f"The fields span {float(step[0] * n):g} along axis {axis}, and the network was made for {domain[axis]:g}: "
                "it knows the same domain on other grids, no other domain."
            )
