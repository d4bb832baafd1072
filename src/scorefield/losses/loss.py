"""What a trainer asks of a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.batch import Batch
from scorefield.foundation.random import Generators
from scorefield.nn.network import Network


class Metric(ABC):
    """A relative error that is logged, not minimised: √(Σ error/Σ power) over all samples, 0 where the estimate is negative.

    Attributes:
        name: that of its column in the log.
    """

    name: str

    @abstractmethod
    def __call__(
        self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """The mean square of an error, and of what it is compared with."""


class Loss(ABC):
    """A loss per sample; the trainer averages over the global batch.

    Attributes:
        one_step: whether it teaches draws of one evaluation, and not a denoiser.
        jumps: whether it teaches the two-time denoiser of a flow map, and not the denoiser alone.
    """

    one_step: bool = False
    jumps: bool = False

    @property
    def together(self) -> int:
        """How many samples it has to be given at once, to say anything of them."""
        return 1

    @property
    def adversary(self) -> Adversary | None:
        """What a network of the loss's own minimises, which is trained against the denoiser; None without any."""
        return None

    @property
    def held_out(self) -> Loss:
        """What held-out fields are judged by: the loss itself, unless its value means nothing without its critic."""
        return self

    @property
    def figures(self) -> tuple[Metric, ...]:
        """What else is worth knowing of held-out fields; nothing, unless a loss says so."""
        return ()

    @abstractmethod
    def __call__(
        self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators
    ) -> Float[Tensor, " batch"]: ...


class Adversary(Loss):
    """The loss of a critic, a network that is trained against the denoiser and changes no weight of it.

    Attributes:
        rate: its learning rate, in parts of the model's.
    """

    rate: float = 1.0

    @property
    @abstractmethod
    def network(self) -> Network:
        """The critic."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps of the critic before each step of the denoiser, among which a batch is shared out."""
