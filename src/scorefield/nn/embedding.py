"""A noise label as a vector of sines and cosines.

What the label is (t, σ, log σ, an index) is for the preconditioner to say.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.foundation.precision import Precise


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


def embedded(
    features: nn.Module, layers: nn.Sequential, label: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channels"]:
    """What linear layers make of the features of a label, which keep its digits: half precision has too few for a phase."""
    return layers(features(label).to(next(layers.parameters()).dtype))


class Sinusoidal(nn.Module):
    """(sin wl, cos wl) of the label l with frequencies w falling geometrically from 1 to 1/10000 (Vaswani et al. 2017).

    Args:
        channels: length of the embedding, at least 4; an odd length is filled up with a zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, label: Float[Tensor, " batch"]) -> Float[Tensor, "batch channels"]:
        half = self.channels // 2
        step = -math.log(10000) / (half - 1)
        phase = label[:, None] * torch.exp(torch.arange(half, dtype=label.dtype, device=label.device) * step)
        return F.pad(torch.cat((phase.sin(), phase.cos()), dim=1), (0, self.channels % 2))
