"""Guidance towards a class or a vector c: p(x | c)^w p(x)^(1−w) at every noise level, with a classifier or without one."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.core.classifier import ClassifierProtocol
from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.flow_map import refuse_jumps
from scorefield.core.sde import SDE, Field, Time, expand_like
from scorefield.foundation.errors import InputError
from scorefield.guidance.measurement import gain, with_signal

NULLS = {"label": -1, "vector": torch.nan}  # what stands for none


class ClassifierFree:
    """x̂ = x̂(null) + w (x̂(c) − x̂(null)), both from one batched evaluation (Ho and Salimans 2022, eq. 6, whose w is ours − 1).

    c is a class, a vector or both. The network must have learnt the null class, label −1, or the null vector, NaN, beside the
    others: train it with `scorefield.data.DropLabel`.

    Args:
        denoiser: of a network with labels or vectors.
        scale: w; 1 is the plain conditional denoiser, 0 the unconditional one.
    """

    def __init__(self, denoiser: DenoiserProtocol, scale: float = 1.5) -> None:
        self.denoiser, self.scale = denoiser, scale

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        given = dict(cond or {})
        if not {"label", "vector"} & set(given):
            raise InputError(
                'Guidance needs a class or a vector for each sample: give cond={"label": ...} or {"vector": ...}.'
            )
        nulls = {name: torch.full_like(given[name], null) for name, null in NULLS.items() if name in given}
        twice = {name: torch.cat((value, nulls.get(name, value))) for name, value in given.items()}
        times = torch.cat((t, t)) if t.ndim else t
        conditional, free = self.denoiser(torch.cat((x_t, x_t)), times, twice).chunk(2)
        return free + self.scale * (conditional - free)


class Classified:
    """x̂ + w (σ²/α) C ∇log p(class | x_t) with a noise-conditional classifier (Song et al. 2021, eq. 14).

    Label −1 leaves a sample unguided. The denoiser is given the class too, where it knows classes itself.

    Args:
        denoiser: x̂.
        classifier: log p(class | x_t), of the same law of x_t: the same schedule, and data in the same units.
        scale: w.
    """

    def __init__(self, denoiser: DenoiserProtocol, classifier: ClassifierProtocol, scale: float = 1.0) -> None:
        self.denoiser, self.classifier, self.scale = denoiser, classifier, scale
        if classifier.sde != denoiser.sde:
            raise InputError(
                f"The classifier was trained for {classifier.sde}, not {denoiser.sde}: train it with the model's sde."
            )

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        refuse_jumps(cond)
        label = label_of(cond)
        near, s = with_signal(self.sde.schedule, x_t, t)
        with torch.enable_grad():
            point = near.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._log_likelihood(point, s, label), point)
        gradient = torch.where(expand_like(label < 0, x_t), 0, gradient)
        push = gain(self.sde, x_t, s) * self.sde.noise.covariance(gradient)
        return self.denoiser(x_t, t, cond) + self.scale * push

    def _log_likelihood(self, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Σ log p(class | x_t) over the batch."""
        log_p = self.classifier(x_t, t).log_softmax(1)
        return log_p.gather(1, label.clamp(min=0)[:, None]).sum()


def label_of(cond: Condition | None) -> Tensor:
    """The classes asked for, one per sample."""
    if not cond or "label" not in cond:
        raise InputError('Guidance towards a class needs one for each sample: give cond={"label": ...}, -1 for none.')
    return cond["label"]
