"""A network that sees its conditions alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scorefield.nn.network import Network, Wrapper


class Deterministic(Wrapper):
    """F(0, 0, cond): a deterministic network, whatever noise and noise level it is given.

    With `DataPrediction` for its preconditioner and the weight `Unweighted` its denoising loss is the mean squared error of
    regression, and a sampler of one step gives its prediction, E[x | cond] where it has learnt well.

    Args:
        net: the network F.
    """

    def __init__(self, net: Network) -> None:
        super().__init__(net)
        self.label_range = None

    def forward(self, x: Tensor, label: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        return self.net(torch.zeros_like(x), torch.zeros_like(label), cond)
