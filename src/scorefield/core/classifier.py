"""A noise-conditional classifier: log p(class | x_t) at every noise level, up to a constant per sample."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from scorefield.core.denoiser import Condition, Preconditioner
from scorefield.core.sde import SDE, Field, Time
from scorefield.nn.network import Network


@runtime_checkable
class ClassifierProtocol(Protocol):
    """What guidance asks for: logits (batch, classes) of x_t at time t."""

    @property
    def sde(self) -> SDE: ...

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor: ...


class Classifier(nn.Module):
    """The logits F(c_in x_t, c_noise) of a network with classes. Of the preconditioner, c_in and c_noise alone are used.

    It stands where a `Denoiser` does in a model and in training, which ask for no more than the network and the law of x_t.

    Args:
        net: the network F, with `logits`.
        sde: the law of x_t.
        precondition: how the network sees x_t and the noise level.
    """

    def __init__(self, net: Network, sde: SDE, precondition: Preconditioner) -> None:
        super().__init__()
        self.net, self.sde, self.precondition = net, sde, precondition

    def forward(self, x_t: Field, t: Time, cond: Condition | None = None) -> Float[Tensor, "batch classes"]:
        return self.precondition.evaluate(self.net, self.sde, x_t, t, cond)
