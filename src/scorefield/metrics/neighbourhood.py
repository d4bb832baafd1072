"""Fractions skill: whether as much of a neighbourhood reaches a threshold as in truth (Roberts and Lean 2008)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from scorefield.foundation.errors import InputError


def fractions(
    event: Float[Tensor, "*batch height width"], valid: Bool[Tensor, "*batch height width"], scale: int
) -> Tensor:
    """The mean of the valid elements in each window of scale×scale that lies within the grid; NaN in windows without any.

    Args:
        event: 1 where it happens, 0 where it does not, or its probability.
        valid: what is known.
        scale: side of the window, in grid points.
    """
    height, width = event.shape[-2:]
    if not 1 <= scale <= min(height, width):
        raise InputError(f"A window of {scale}×{scale} points does not fit a grid of {height}×{width}.")
    flat = torch.stack((torch.where(valid, event, 0.0), valid.to(event))).reshape(-1, 1, height, width)
    means = (
        avg_pool2d(avg_pool2d(flat, (scale, 1), stride=1), (1, scale), stride=1)
        .unflatten(0, (2, *event.shape[:-2]))
        .squeeze(-3)
    )
    return means[0] / means[1]


def fraction_errors(
    forecast: Float[Tensor, "*batch height width"],
    truth: Float[Tensor, "*batch height width"],
    threshold: float,
    scale: int,
) -> Float[Tensor, "*batch 2"]:
    """For each field Σ(f − o)² and Σf² + Σo² over windows, f and o the fractions that reach the threshold.

    Sums over fields of both give the fractions skill score of all of them, `fractions_skill`.
    """
    valid = forecast.isfinite() & truth.isfinite()
    f, o = (fractions((x >= threshold).to(forecast), valid, scale) for x in (forecast, truth))
    return torch.stack(((f - o).square().nansum((-2, -1)), (f.square() + o.square()).nansum((-2, -1))), -1)


def fractions_skill(errors: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """1 − Σ(f − o)² / (Σf² + Σo²): 1 for equal fractions, 0 where none overlap; NaN if nothing reaches the threshold."""
    return 1 - errors[..., 0] / errors[..., 1]
