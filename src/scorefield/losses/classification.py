"""Cross entropy at every noise level: E w(t) (−log p(class | x_t)) is least for the true p(class | x_t)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.loss import Loss
from scorefield.losses.times import TimeDistribution, UniformTime
from scorefield.losses.weights import Unweighted, Weight


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """w(t) · (−log p(class | x_t)) in nats, for a model whose network gives logits (see `scorefield.core.classifier`).

    A sample of the null class, −1, counts nothing.

    Args:
        time: the law of t.
        weight: w(t).
    """

    time: TimeDistribution = field(default_factory=UniformTime)
    weight: Weight = field(default_factory=Unweighted)

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        if "label" not in batch.cond:
            raise InputError("A classifier learns from class labels, and the data have none: give data with labels.")
        schedule = denoiser.sde.schedule
        t = self.time(generator.rand((len(batch),), like=batch.x), schedule)
        x_t, _ = denoiser.sde.perturb(batch.x, t, generator=generator)
        logits = denoiser(x_t, t)
        if logits.ndim != 2:
            raise InputError("CrossEntropy trains a network that gives logits: give model.net: scorefield.nn.Encoder.")
        return self.weight(schedule, t) * F.cross_entropy(
            logits, batch.cond["label"], ignore_index=-1, reduction="none"
        )
