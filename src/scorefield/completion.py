"""Fields that are known in part, drawn whole: the first half of learning a prior from incomplete data.

With y_i = M_i x_i + n, each field seen through a mask of its own, expectation-maximisation (Dempster et al. 1977; Rozet et al.
2024) draws every x_i from p(x | y_i) under the prior that there is, and trains the next prior on these draws:

    θ_{k+1} = argmax E_i E_{x ~ p_θk(x | y_i)} log p_θ(x).

The likelihood of what was seen never falls. Where no mask shows an element, nothing can be learnt of it, and it is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.guidance import Guided, Measurement, Method, MomentMatching
from scorefield.inverse import units_of
from scorefield.model import Model
from scorefield.operators import Mask
from scorefield.samplers import Sampler


def completed(
    denoiser: DenoiserProtocol,
    y: Tensor,
    known: Tensor,
    noise: float | Tensor,
    *,
    method: Method = MomentMatching(),  # noqa: B008 - immutable
    sampler: Sampler,
    generator: Generators,
    cond: dict[str, Tensor] | None = None,
) -> Tensor:
    """A draw of p(x | y_i) for each field of a batch, in model space.

    Args:
        denoiser: E[x | x_t] of the prior.
        y: what was seen of each field, (batch, channels, *grid); anything where it is not known.
        known: where, (batch, 1 or channels, *grid).
        noise: its standard deviation, 0 for what is exact, or one for each element, (1, channels, *grid).
        method: how p(y | x_t) is approximated.
        sampler: how to draw.
        generator: one stream for each field.
        cond: what the prior is conditioned on, a batch of as many.
    """
    every = known.bool().expand(y.shape)
    seen = torch.where(every, y, 0)
    if isinstance(noise, Tensor):
        noise = torch.where(every, noise.to(y), torch.inf)
    guided = Guided(denoiser, Measurement(Mask(every), seen, noise), method)
    return sampler(guided, y.shape, generator=generator, like=y, cond=cond)


def complete(
    model: Model,
    batch: Batch,
    noise: float = 0.0,
    *,
    indices: Tensor,
    seed: int = 0,
    method: Method = MomentMatching(),  # noqa: B008 - immutable
    sampler: Sampler | None = None,
) -> Tensor:
    """A draw of p(x | y_i) for each field of a batch, in data units, (batch, channels, *grid).

    Args:
        model: the prior.
        batch: fields with a `mask` of what is known of each.
        noise: standard deviation of what is known, in data units.
        indices: of the fields, (batch): the draw of a field depends on (seed, index) alone.
        seed: of the draws.
        method: how p(y | x_t) is approximated.
        sampler: another than the model's own.

    Raises:
        InputError: a normaliser that is not affine.
    """
    scale, _ = units_of(model, batch.x.shape[1:], {name: value[:1] for name, value in batch.cond.items()})
    known = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask.bool()
    z, cond = model.enter(batch)
    generator = Generators((seed, index, Stream.COMPLETED) for index in indices.tolist())
    level = noise / scale.abs() if noise > 0 else 0.0
    found = completed(
        model.prior,
        z,
        known.to(z.device),
        level,
        method=method,
        sampler=sampler or model.stepwise,
        generator=generator,
        cond=cond or None,
    )
    x = model.leave(found, cond).cpu()
    return x if noise > 0 else torch.where(known.expand(x.shape), batch.x.to(x), x)


def refuse_unseen(shown: Tensor) -> None:
    """Refuse elements that no field shows.

    Args:
        shown: how many fields show each element, (channels, *grid).

    Raises:
        InputError: some are shown by none; how many, and where the first one is.
    """
    never = shown == 0
    if bool(never.any()):
        first = tuple(never.nonzero()[0].tolist())
        raise InputError(
            f"{int(never.sum())} of {never.numel()} elements are known in no field, the first at {first}: nothing can be learnt "
            "of them. Crop them, or give fields that show them."
        )
