"""What a trainer asks of a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.denoiser import Denoises
from scorefield.random import Generators


class Loss(ABC):
    """A loss per sample; the trainer averages over the global batch."""

    @abstractmethod
    def __call__(self, denoiser: Denoises, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]: ...
