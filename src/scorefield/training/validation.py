"""The loss of fields under fixed times and fixed noise, so that any two checkpoints can be compared."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.batch import Batch
from scorefield.foundation.random import Generators, Stream
from scorefield.losses.loss import Loss
from scorefield.model import Model

VALIDATION_EPOCH = 2**31  # the epoch in the keys of validation data: never reached by training


def losses_of(
    loss: Loss,
    denoiser: DenoiserProtocol,
    model: Model,
    batch: Batch,
    *,
    seed: int,
    autocast: AbstractContextManager[object],
    stream: Stream = Stream.LOSS,
) -> Tensor:
    """The loss per sample of a batch in data units, (batch); its draws depend on the seed and each sample's key alone.

    Args:
        loss: what is minimised.
        denoiser: the model's own, or what wraps it.
        model: brings the batch into its own units.
        batch: with the key of each sample.
        seed: of the run.
        autocast: the precision of the network.
        stream: of the draws.
    """
    if batch.key is None:
        raise ValueError("a training batch carries the key of each sample")
    generator = Generators((seed, *key, stream) for key in batch.key.tolist())
    prepared = model.prepare(batch, fitted=model.denoiser.training)
    with autocast:
        return loss(denoiser, prepared, generator=generator)
