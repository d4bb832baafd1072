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
from scorefield.run.verb import log
from scorefield.samplers.dequantise import Dequantisation, Uniform
from scorefield.samplers.learned_likelihood import LearnedLikelihood
from scorefield.samplers.likelihood import ProbabilityFlow

UNEVEN = 1.05  # the largest step of a channel in parts of its smallest that rounding makes
APART = 3.0  # scales of channels, from which on one noise does not suit all


def begin(dequantisation: Dequantisation, flow: ProbabilityFlow, model: Model, fields: FieldDataset) -> ProbabilityFlow:
    """The flow from the level of noise which that of the cells stands for; as it is for continuous data.

    Raises:
        InputError: a law of cells for data without any, noise that is a field, or cells that are not alike in model space.
    """
    if not fields.quantum > 0:
        if dequantisation != Uniform():
            raise InputError(
                f"The data are continuous: leave --dequantisation out, {dequantisation!r} is of quantised ones."
            )
        return flow
    found = dequantisation.begin(flow, 1.0)
    if found == flow:
        return flow
    if not model.sde.noise.white:
        raise InputError(
            f"The model's noise is a field, and {dequantisation!r} is of white noise: take --dequantisation Uniform."
        )
    steps = _steps(model, fields.gather(torch.tensor([0])), fields.quantum).double()[0].flatten(1)
    if not bool(steps.isfinite().all()) or bool((steps.amax(1) > UNEVEN * steps.amin(1)).any()):
        raise InputError(
            f"Neighbouring values are not equally far apart in the units of {type(model.normaliser).__name__}, and "
            f"{dequantisation!r} is of one strength: take --dequantisation Uniform."
        )
    each = steps.mean(1)
    if each.max() > APART * each.min():
        log.warning(
            "channels differ in scale, a quantum is %.2g to %.2g in model space: %r may be looser than Uniform",
            float(each.min()), float(each.max()), dequantisation,
        )  # fmt: skip
    return dequantisation.begin(flow, float(each.log().mean().exp()))


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
    x = _fine(batch.x, quantum)
    return replace(batch, x=x + (quantum * noise).to(x)), log_density


def _steps(model: Model, batch: Batch, quantum: float) -> Tensor:
    """How far neighbouring values are from one another in model space, for each element."""
    x = _fine(batch.x, quantum)
    above, below = (model.prepare(replace(batch, x=x + half)).x for half in (quantum / 2, -quantum / 2))
    return (above - below).abs().clamp(min=torch.finfo(above.dtype).tiny)


def _fine(x: Tensor, quantum: float) -> Tensor:
    """Values in a type that has a thousand parts of a quantum: in float32 16 bits have but 128."""
    return x.double() if float(x.abs().max()) * torch.finfo(x.dtype).eps > quantum / 1000 else x
