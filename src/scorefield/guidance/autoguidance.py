"""Guidance away from a weaker model, and guidance at some noise levels alone."""

from __future__ import annotations

import math

import torch

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.flow_map import refuse_jumps
from scorefield.core.sde import SDE, Field, Time, expand_like
from scorefield.foundation.errors import InputError


class Autoguided:
    """x̂ = x̂_weak + w (x̂ − x̂_weak): on in the direction in which the model is better than a weaker one (Karras et al. 2024).

    The weaker model is of the same data and law: an earlier checkpoint, or a smaller network. Both are given the condition, so
    that what is stressed is not the class but what training taught. Two evaluations. It guides x̂ and no jump of a flow map.

    Args:
        denoiser: the model.
        weak: the weaker one.
        scale: w; 1 is the model itself.

    Raises:
        InputError: another law of x_t.
    """

    def __init__(self, denoiser: DenoiserProtocol, weak: DenoiserProtocol, scale: float = 2.0) -> None:
        self.denoiser, self.weak, self.scale = denoiser, weak, scale
        if weak.sde != denoiser.sde:
            raise InputError(
                f"The weaker model was trained for {weak.sde}, not {denoiser.sde}: take one of the same sde."
            )

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        refuse_jumps(cond)
        weak = self.weak(x_t, t, cond)
        return weak + self.scale * (self.denoiser(x_t, t, cond) - weak)


class Within:
    """A guided denoiser where low <= σ/α <= high, the plain one elsewhere (Kynkäänniemi et al. 2024).

    At the largest noise guidance costs diversity, at the smallest it does nothing but cost. One evaluation outside.

    Args:
        guided: x̂ with guidance.
        plain: x̂ without.
        low: smallest noise, in model space, at which it guides.
        high: largest.

    Raises:
        InputError: low > high or below 0.
    """

    def __init__(
        self, guided: DenoiserProtocol, plain: DenoiserProtocol, low: float = 0.0, high: float = math.inf
    ) -> None:
        self.guided, self.plain, self.low, self.high = guided, plain, low, high
        if not 0 <= low <= high:
            raise InputError(f"Guidance within an interval of noise needs 0 <= low <= high, not {low} and {high}.")

    @property
    def sde(self) -> SDE:
        return self.guided.sde

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        alpha, sigma = self.sde.schedule(t)
        inside = sigma >= self.low * alpha
        if math.isfinite(self.high):
            inside = inside & (sigma <= self.high * alpha)
        if not t.ndim:
            return (self.guided if bool(inside) else self.plain)(x_t, t, cond)
        return torch.where(expand_like(inside, x_t), self.guided(x_t, t, cond), self.plain(x_t, t, cond))
