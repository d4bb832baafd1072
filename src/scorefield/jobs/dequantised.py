"""Quantised fields with noise of a known density in their cells, as a model's flow takes them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scorefield.data.augment import draw
from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Stream
from scorefield.model import Model
from scorefield.samplers.dequantise import Dequantisation
from scorefield.samplers.learned_likelihood import LearnedLikelihood
from scorefield.samplers.likelihood import ProbabilityFlow


def begin(dequantisation: Dequantisation, flow: ProbabilityFlow, model: Model, fields: FieldDataset) -> ProbabilityFlow:
    """The flow from the level of noise which that of the cells stands for; as it is for continuous data."""
    if not fields.quantum > 0:
        return flow
    step = float(_steps(model, fields.gather(torch.tensor([0])), fields.quantum).double().log().mean().exp())
    found = dequantisation.begin(flow, step)
    if found != flow and not model.sde.noise.white:
        raise InputError(
            f"The model's noise is a field, and {dequantisation!r} is of white noise: take --dequantisation Uniform."
        )
    return found


def dequantised(
    dequantisation: Dequantisation,
    model: Model,
    batch: Batch,
    quantum: float,
    flow: ProbabilityFlow | LearnedLikelihood,
    seed: int,
) -> tuple[Batch, Tensor]:
    """A batch with its keys after noise was added, and the log density of the noise of each, in quanta (batch).

    Of continuous data, with a quantum of 0, the batch itself and 0.
    """
    if not quantum > 0:
        return batch, torch.zeros(len(batch), dtype=torch.float64)
    t_min, _ = flow.ends(model.sde.schedule)
    ratio = (-model.sde.schedule.log_snr(t_min) / 2).exp()
    spread = ratio.item() / _steps(model, batch, quantum).double().cpu()
    noise, log_density = dequantisation(draw(batch, seed, Stream.DEQUANTISE, batch.x.shape[1:]), spread)
    return replace(batch, x=batch.x + (quantum * noise).to(batch.x)), log_density


def _steps(model: Model, batch: Batch, quantum: float) -> Tensor:
    """How far neighbouring values are from one another in model space, for each element."""
    above, below = (model.prepare(replace(batch, x=batch.x + half)).x for half in (quantum / 2, -quantum / 2))
    return (above - below).abs().clamp(min=torch.finfo(above.dtype).tiny)
