"""Moments of every point of a grid: to standardise by, and to give the fields of one model the moments of another's."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.normalise import Normaliser, in_type_of
from scorefield.data.precision import of_offset
from scorefield.data.statistics import measure
from scorefield.foundation.errors import InputError

Values = Float[Tensor, "batch channels *grid"]


class PixelStandardise(Normaliser):
    """(x − mean) / std with a mean and a standard deviation of every point of the grid and every channel.

    A point that is never known, or always the same, is only shifted.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("std", torch.empty(0))

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        if self.fitted:
            raise InputError("PixelStandardise is fitted already: make a new one for other data.")
        self.mean, self.std = in_type_of(self.mean, *pixel_moments(batches))
        return self

    @property
    def precision(self) -> torch.dtype:
        return of_offset(self.mean, self.std)

    def forward(self, x: Values) -> Values:
        self._check(x)
        return (x - self.mean) / self.std

    def inverse(self, x: Values) -> Values:
        self._check(x)
        return x * self.std + self.mean

    def log_det(self, x: Values) -> Float[Tensor, " batch"]:
        self._check(x)
        return (-self.std.double().log().sum()).to(x.dtype).expand(len(x))

    def _check(self, x: Tensor) -> None:
        if not self.fitted:
            raise InputError("PixelStandardise is not fitted: call fit, or load a checkpoint that holds it.")
        if x.shape[1:] != self.mean.shape:
            raise InputError(
                f"PixelStandardise was fitted to fields {tuple(self.mean.shape)} and is given {tuple(x.shape[1:])}: "
                "its moments belong to places, so that it fits no tiles and no other grid."
            )


class MatchMoments(Normaliser):
    """Standardised by the moments of each channel; and for fields of another origin, first (x − μ)/s · S + M at
    every point: their moments μ, s are replaced by those of the training fields, M, S (bias correction).

    By itself it is `Standardise` that has kept the moments of every point; `matched_to` makes the correction of them.
    """

    mean: Tensor
    std: Tensor
    level: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean", "std", "level", "spread"):
            self.register_buffer(name, torch.empty(0))

    def fit(self, batches: Iterable[Batch]) -> Normaliser:
        if self.fitted:
            raise InputError("MatchMoments is fitted already: make a new one for other data.")
        whole = measure(batches).check()
        self.mean, self.std = in_type_of(self.mean, *pixel_moments(batches))
        level, spread = in_type_of(self.level, whole.mean, whole.std.clamp(min=1e-30))
        shape = (-1, *(1,) * (self.mean.ndim - 1))
        self.level, self.spread = level.reshape(shape), spread.reshape(shape)
        return self

    @property
    def precision(self) -> torch.dtype:
        return of_offset(self.level, self.spread)

    def forward(self, x: Values) -> Values:
        return (x - self.level) / self.spread

    def inverse(self, x: Values) -> Values:
        return x * self.spread + self.level

    def log_det(self, x: Values) -> Float[Tensor, " batch"]:
        points = x[0, 0].numel()
        return (-points * self.spread.double().log().sum()).to(x.dtype).expand(len(x))


class Matched:
    """(x − μ)/s · S + M at every point: a field of one model with the first two moments of another's."""

    def __init__(self, mean: Tensor, std: Tensor, new_mean: Tensor, new_std: Tensor) -> None:
        self.mean, self.std, self.new_mean, self.new_std = mean, std, new_mean, new_std

    def __call__(self, x: Values) -> Values:
        return (x - self.mean) / self.std * self.new_std + self.new_mean


def matched_to(normaliser: Normaliser, batches: Iterable[Batch]) -> Matched:
    """The correction of fields of another model, which have the moments of these batches, for one trained with a normaliser
    that has kept the moments of every point: `MatchMoments` or `PixelStandardise`, alone or first in a chain.
    """
    kept = {name.rpartition(".")[2]: value for name, value in normaliser.named_buffers() if value.ndim > 1}
    if not {"mean", "std"} <= kept.keys():
        raise InputError(
            "To correct another model's fields, moments of every point are needed, and the run has kept none: train with "
            "model.predictors MatchMoments."
        )
    mean, std = (value.to(kept["mean"]) for value in pixel_moments(batches))
    if mean.shape != kept["mean"].shape:
        raise InputError(
            f"The other model's fields are {tuple(mean.shape)}, those trained on {tuple(kept['mean'].shape)}."
        )
    return Matched(mean, std, kept["mean"], kept["std"])


def pixel_moments(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of known values at every point, (channels, *grid) float64; 0 and 1 where there are none."""
    count = mean = squares = torch.zeros(())
    for batch in batches:
        x = batch.x.double()
        good = x.isfinite() if batch.mask is None else x.isfinite() & batch.mask.bool().expand_as(x)
        n = good.sum(0).double()
        part = x.where(good, 0.0).sum(0) / n.clamp(min=1)
        deviations = (x - part).where(good, 0.0).square().sum(0)
        total = count + n
        shift, share = part - mean, n / total.clamp(min=1)
        squares = squares + deviations + shift.square() * count * share
        mean, count = mean + shift * share, total
    if count.ndim == 0:
        raise InputError("There are no data to measure: correct the source or its split.")
    std = (squares / count.clamp(min=1)).sqrt()
    return mean, std.where(std > 1e-12 * mean.abs().clamp(min=1e-12), 1.0)
