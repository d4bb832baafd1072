"""The mean of what is drawn: a model draws x − m(cond), of which much less is left to chance than of x itself.

With m(cond) = E[x | cond] the rest has mean 0 for every condition, and its spread is what the condition leaves open.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorefield.core.denoiser import Condition
from scorefield.data.batch import Batch
from scorefield.data.normalise import Standardise
from scorefield.foundation import precision
from scorefield.foundation.errors import InputError
from scorefield.nn.network import Network


class ConditionalMean(nn.Module, ABC):
    """m(cond) in model space, and the scale of what it leaves, which is fitted and stored: (x − m(cond) − shift)/scale.

    Attributes:
        vector: how many entries of `cond["vector"]` it needs; 0 without any.
    """

    vector: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.residual = Standardise()

    @abstractmethod
    def forward(self, x: Tensor, cond: Condition) -> Tensor:
        """m(cond) of the shape and type of x, in model space; x itself is not looked at."""

    def learn(self, batches: Iterable[Batch]) -> None:
        """Fit m itself to batches in model space, which can be gone through again; nothing where it is given."""

    def fit(self, batches: Iterable[Batch]) -> None:
        """Fit m, then the scale of what it leaves, to batches in model space, which can be gone through again."""
        with torch.no_grad():
            self.learn(batches)
            rest = (Batch(self._rest(batch, fitted=True), mask=batch.mask) for batch in batches)
            self.residual.fit(rest)

    def left_out(self, x: Tensor) -> Tensor | float:
        """By what the rest of a field is multiplied that m was fitted to, so that it is what an m without that field would leave.

        1 where m is given. It broadcasts against x, of which only the shape is looked at.
        """
        return 1.0

    def _rest(self, batch: Batch, *, fitted: bool) -> Tensor:
        rest = batch.x - self(batch.x, batch.cond)
        return rest * self.left_out(rest) if fitted else rest

    @torch.no_grad()
    def subtract(self, batch: Batch, *, fitted: bool = False) -> Batch:
        """What is left of a batch in model space, and its noise in the same units.

        Args:
            batch: in model space.
            fitted: whether m was fitted to these fields, which the rest has to show as little as that of new ones.
        """
        if batch.y is not None:
            raise InputError(
                "A mean is subtracted from fields, not from what was measured of them: leave model.mean out."
            )
        return replace(batch, x=self._rest(batch, fitted=fitted)).normalised(self.residual)

    @torch.no_grad()
    def add(self, rest: Tensor, cond: Condition) -> Tensor:
        """x in model space."""
        return self(rest, cond) + self.residual.inverse(rest)


class LinearMean(precision.Learnt, ConditionalMean):
    """m(cond) = a + B c by least squares: one B for all places, and at each an a of its own.

    c are the channels of cond["field"] at the place and, with a radius, at those around it, so that B is a filter; beyond an edge
    are the values of the edge. What a displaced or smooth predictor always gets wrong at a place is in a; all places share B
    ("fixed effects"), so that some ten fields are enough. Of the fields of the fit a network learns n/(n − 1) times what is left,
    n the number of fields known at a place: with B as it is, what would be left had a been found without the field.

    Args:
        radius: of the neighbourhood along each axis, in steps of `spacing`; 0 for the place alone.
        spacing: of the neighbours, in points: as far as the points of the predictors' own grid are from one another.
        places: whether a is a number of every place, on the grid of training; or one of the channel, on any grid.

    Raises:
        InputError: data without predictors, on another grid than that of training, or no target that is known.
    """

    weight: Tensor
    intercept: Tensor
    count: Tensor

    def __init__(self, radius: int = 0, spacing: int = 1, *, places: bool = True) -> None:
        super().__init__()
        if radius < 0 or spacing < 1:
            raise InputError(f"LinearMean needs radius >= 0 and spacing >= 1, not {radius} and {spacing}.")
        self.radius, self.spacing, self.places = radius, spacing, places
        for name in ("weight", "intercept", "count"):
            self.register_buffer(name, torch.empty(0))

    def learn(self, batches: Iterable[Batch]) -> None:
        """In two passes: the means at every place, or of all, then the products of what differs from them."""
        sums: list[Tensor] = []
        for batch in batches:
            x, c, known = self._known(batch)
            axes = [0] if self.places else [0, *range(3, c.ndim + 1)]
            both = torch.cat((c[:, None].expand(-1, x.shape[1], *c.shape[1:]), x[:, :, None]), 2)
            part = [both.where(known, 0).sum(axes, keepdim=True), known.sum(axes, keepdim=True)]
            sums = [a + b for a, b in zip(sums or [0, 0], part, strict=True)]
        means = sums[0] / sums[1].clamp(min=1)  # (1, targets, predictors and target, *grid)
        if not bool((sums[1] > 0).flatten(2).any(2).all()):
            raise InputError("LinearMean has no known values of a target to learn from: correct the data or the mask.")
        squares: Tensor | int = 0
        for batch in batches:
            x, c, known = self._known(batch)
            both = torch.cat((c[:, None].expand(-1, x.shape[1], *c.shape[1:]), x[:, :, None]), 2)
            away = (both - means).where(known, 0).transpose(0, 1).movedim(2, 1).flatten(2)
            squares = squares + away @ away.mT
        assert isinstance(squares, Tensor)
        scale = squares.diagonal(dim1=-2, dim2=-1).sqrt()
        scale = torch.where(scale > 0, scale, 1.0)[..., None]  # so that no predictor is small for its unit
        alike = squares / (scale * scale.mT)
        inverse = torch.linalg.pinv(
            alike[:, :-1, :-1], rtol=1e-10, hermitian=True
        )  # where two say the same, half of each
        slopes = (inverse @ alike[:, :-1, -1:] * scale[:, -1:] / scale[:, :-1])[..., 0]
        shape = slopes.shape + (1,) * (means.ndim - 3)
        kept = {"device": self.weight.device, "dtype": torch.float32}
        self.weight = slopes.to(**kept)
        self.intercept = (means[0, :, -1] - (slopes.reshape(shape) * means[0, :, :-1]).sum(1)).to(**kept)
        self.count = sums[1][0, :, 0].to(**kept)

    def left_out(self, x: Tensor) -> Tensor:
        n = self.count.to(x)
        return torch.where(n > 1, n / (n - 1), 1.0)

    def forward(self, x: Tensor, cond: Condition) -> Tensor:
        if not self.weight.numel():
            raise InputError("LinearMean is not fitted: train a model with it, or load a checkpoint that holds it.")
        c = self._around(cond)
        if self.places and c.shape[2:] != self.intercept.shape[1:]:
            own, given = (tuple(shape) for shape in (self.intercept.shape[1:], c.shape[2:]))
            raise InputError(
                f"LinearMean knows the places of a grid of {own} and is given one of {given}: take places=False for any grid."
            )
        if c.shape[1] != self.weight.shape[1]:
            raise InputError(
                f"LinearMean was fitted to {self.weight.shape[1]} predictors and is given {c.shape[1]}: use the same data."
            )
        c = c.to(torch.promote_types(c.dtype, torch.float32))
        found = precision.product(self.weight.to(c), c.flatten(2)).unflatten(2, c.shape[2:])
        return (found + self.intercept.to(c)).to(x)

    def _around(self, cond: Condition) -> Tensor:
        """The predictors at every place and around it, (batch, channels · neighbours, *grid)."""
        if "field" not in cond:
            raise InputError("LinearMean needs predictors, and the data have none: leave model.mean out.")
        c, reach = cond["field"], self.radius * self.spacing
        if not reach:
            return c
        wide = F.pad(c, (reach, reach) * (c.ndim - 2), mode="replicate")
        found = []
        for offset in product(range(0, 2 * reach + 1, self.spacing), repeat=c.ndim - 2):
            part = wide
            for axis, (start, size) in enumerate(zip(offset, c.shape[2:], strict=True), 2):
                part = part.narrow(axis, start, size)
            found.append(part)
        return torch.cat(found, 1)

    def _known(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Targets, predictors around them, and where the first are known, (batch, targets, 1, *grid) bool."""
        known = torch.ones_like(batch.x) if batch.mask is None else batch.mask.expand_as(batch.x)
        return batch.x.double(), self._around(batch.cond).double(), (known > 0)[:, :, None]


class Regression(ConditionalMean):
    """The prediction of a deterministic network that was trained before (`scorefield train --mean RUN`).

    Args:
        net: the network, `scorefield.nn.Deterministic` around one of any kind.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net, self.vector = net.eval().requires_grad_(False), net.vector

    def train(self, mode: bool = True) -> Regression:
        return super().train(False)  # no dropout in a mean, not even while the rest is trained

    def forward(self, x: Tensor, cond: Condition) -> Tensor:
        return self.net.evaluate(torch.zeros_like(x), x.new_zeros(len(x)), cond)
