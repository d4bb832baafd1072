"""A noise label as a vector of sines and cosines, and what numbers that a sample is conditioned on add to it.

What the label is (t, σ, log σ, an index) is for the preconditioner to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.foundation.precision import Precise
from scorefield.nn.layers import linear


class GaussianFourier(Precise):
    """(sin 2πwl, cos 2πwl) of the label l with fixed random frequencies w ~ N(0, scale²) (Tancik et al. 2020, eq. 5).

    Args:
        channels: number of frequencies; the embedding has twice as many entries.
        scale: standard deviation of the frequencies.
    """

    frequencies: Tensor

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.channels = 2 * channels
        self.register_buffer("frequencies", torch.randn(channels) * scale)

    def forward(self, label: Float[Tensor, " batch"]) -> Float[Tensor, "batch channels"]:
        phase = label[:, None] * self.frequencies * 2 * math.pi
        return torch.cat((phase.sin(), phase.cos()), dim=1)


class VectorEmbedding(Precise):
    """What a vector of numbers adds to the embedding of the noise level: W₂ silu(W₁ v + b₁) + b₂.

    A row of NaN, or no vector at all, is the null vector of classifier-free guidance and has an embedding of its own. In half
    precision the layers stay in float32, whose digits tell one year from the next.

    Args:
        entries: how many numbers.
        channels: length of the embedding.

    Raises:
        InputError: less than one entry, or a vector of another length.
    """

    def __init__(self, entries: int, channels: int) -> None:
        super().__init__()
        if entries < 1:
            raise InputError(f"vector is {entries}: give the number of entries of a vector, or 0 for none.")
        self.entries = entries
        self.layers = nn.Sequential(linear(entries, channels), nn.SiLU(), linear(channels, channels))
        self.null = nn.Parameter(torch.zeros(channels))

    def forward(self, cond: Mapping[str, Tensor], batch: int) -> Float[Tensor, "batch channels"]:
        """Of `cond["vector"]`, (batch, entries), about of unit variance."""
        if "vector" not in cond:
            return self.null.expand(batch, -1)
        vector = cond["vector"].to(self.null)
        if vector.shape != (batch, self.entries):
            raise InputError(
                f"cond['vector'] has shape {tuple(vector.shape)}, where {batch} rows of {self.entries} entries are needed."
            )
        null = vector.isnan().all(dim=1, keepdim=True)
        return torch.where(null, self.null, self.layers(torch.where(null, 0.0, vector)))


class JumpEmbedding(Precise):
    """What the end of a jump adds to the embedding of its start: W (h(l, m) − h(l, l)), h = silu(U features(l, m) + b).

    Nothing where both are the same, m = l, whatever the weights: there a network is the denoiser. Nothing at all at first, W = 0,
    so that any trained network can begin with it.

    Args:
        channels: length of the embedding.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = GaussianFourier(16, 0.5)
        self.hidden = linear(2 * self.features.channels, channels)
        self.out = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, cond: Mapping[str, Tensor], batch: int) -> Float[Tensor, "batch channels"]:
        """Of `cond["jump"]`, (batch, 2): a quarter of log(σ/α) where the jump starts, and where it ends."""
        if "jump" not in cond:
            return self.out.weight.new_zeros(batch, self.out.out_features)
        start, end = (self.features(level) for level in cond["jump"].to(self.out.weight).unbind(1))
        there, here = (F.silu(self.hidden(torch.cat((start, other), dim=1))) for other in (end, start))
        return self.out(there - here)


class AugmentEmbedding(nn.Module):
    """What augmentation has done to a sample joins the features of its noise label as W a, nothing where a = 0 or none is given.

    Nothing at all at first, W = 0, so that any trained network can go on with it (Karras et al. 2022, appendix F.2).

    Args:
        entries: of a.
        channels: features of the noise label.
    """

    def __init__(self, entries: int, channels: int) -> None:
        super().__init__()
        self.entries = entries
        self.weight = nn.Parameter(torch.zeros(channels, entries))

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Float[Tensor, "batch channels"]:
        """Of `cond["augment"]`, (batch, entries)."""
        given = (cond or {}).get("augment", self.weight.new_zeros(batch, self.entries))
        if given.shape != (batch, self.entries):
            raise InputError(
                f"cond['augment'] has shape {tuple(given.shape)}, where {batch} rows of {self.entries} entries are needed."
            )
        return F.linear(given.to(self.weight), self.weight)


def summed(
    parts: Iterable[VectorEmbedding | JumpEmbedding | None], cond: Mapping[str, Tensor] | None, batch: int
) -> Float[Tensor, "batch channels"] | None:
    """What all that is not the noise label adds to its embedding; None where there is nothing of the kind."""
    found = [part(cond or {}, batch) for part in parts if part is not None]
    return torch.stack(found).sum(0) if found else None


def embedded(
    features: nn.Module,
    layers: nn.Sequential,
    label: Float[Tensor, " batch"],
    more: Float[Tensor, "batch channels"] | None = None,
    early: Float[Tensor, "batch features"] | None = None,
) -> Float[Tensor, "batch channels"]:
    """What linear layers make of the features of a label, which keep its digits: half precision has too few for a phase.

    Args:
        features: of the label.
        layers: the last one is an activation, where there is more.
        label: the label.
        more: what is added before that last layer, so that the activation mixes both.
        early: what is added to the features.
    """
    h = features(label).to(next(layers.parameters()).dtype)
    h = h if early is None else h + early.to(h)
    if more is None:
        return layers(h)
    *first, last = layers
    for layer in first:
        h = layer(h)
    return last(h + more.to(h))


class Sinusoidal(nn.Module):
    """(sin wl, cos wl) of the label l with frequencies w falling geometrically from 1 to 1/10000 (Vaswani et al. 2017).

    Args:
        channels: length of the embedding, at least 4; an odd length is filled up with a zero.
        closed: whether the lowest frequency is 1/10000 itself, not the one before it in a sequence that ends there.
        cosines_first: (cos wl, sin wl).
    """

    def __init__(self, channels: int, closed: bool = True, cosines_first: bool = False) -> None:
        super().__init__()
        self.channels, self.closed, self.cosines_first = channels, closed, cosines_first

    def forward(self, label: Float[Tensor, " batch"]) -> Float[Tensor, "batch channels"]:
        half = self.channels // 2
        step = -math.log(10000) / (half - 1 if self.closed else half)
        phase = label[:, None] * torch.exp(torch.arange(half, dtype=label.dtype, device=label.device) * step)
        waves = (phase.cos(), phase.sin()) if self.cosines_first else (phase.sin(), phase.cos())
        return F.pad(torch.cat(waves, dim=1), (0, self.channels % 2))
