"""Proper scores as losses: a network with noise for its input learns p(x | cond) by itself, and draws in one evaluation.

A score S(P, x) is proper where E S(P, x), x ~ Q, is least for P = Q. Those below have the form E d(X, x) − ½ E d(X, X'), X and X'
independent draws of P (Gneiting and Raftery 2007, section 5), and are estimated without bias from M draws, whatever M
(Ferro 2014): mean_i d(x_i, x) − Σ_{i<j} d(x_i, x_j)/(M(M − 1)). Their gradient is therefore 0 in the mean where the law is right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.loss import Loss

ROUND = 1e-6  # d = √(ROUND² + ‖z‖²), which has a slope at 0 and is proper as well: a Bernstein function of ‖z‖²


class Score(ABC):
    """A proper score of the fields that a network draws, by its distance d."""

    @abstractmethod
    def distance(
        self, z: Float[Tensor, "pairs batch channels *grid"], weight: Float[Tensor, "pairs batch channels *grid"]
    ) -> Float[Tensor, "pairs batch"]:
        """d of two fields by their difference z.

        Args:
            z: differences of fields in model space.
            weight: of each element; 0 where the truth is not known.
        """

    @abstractmethod
    def pairs(self, x: Float[Tensor, "n channels *grid"], y: Float[Tensor, "m channels *grid"]) -> Float[Tensor, "n m"]:
        """d of each field of one batch and each of another, all of them known everywhere.

        Args:
            x: fields in model space.
            y: others.
        """


@dataclass(frozen=True)
class EnergyScore(Score):
    """d = ‖z‖ of a patch, ‖z‖² the mean square over its elements, averaged over patches: sees how elements belong together.

    Of large patches the score hardly tells dependences apart (Pinson and Tastu 2013); small ones, and means over boxes, do.

    Args:
        patch: points along each side of a patch; 0 for the whole field.
        pool: of the means over boxes of so many points along each side, instead of the field.
        joint: all channels of a patch together, so that they are learnt jointly; else each by itself.
    """

    patch: int = 0
    pool: int = 1
    joint: bool = True

    def __post_init__(self) -> None:
        if self.patch < 0 or self.pool < 1:
            raise InputError(f"EnergyScore needs patch >= 0 and pool >= 1, not {self.patch} and {self.pool}.")

    def distance(self, z: Tensor, weight: Tensor) -> Tensor:
        z, weight = self._patches(z, weight)
        total = weight.sum(-1)
        square = (weight * z.square()).sum(-1) / total.clamp(min=ROUND)
        each = total * (square + ROUND**2).sqrt()
        return each.flatten(2).sum(2) / total.flatten(2).sum(2).clamp(min=ROUND)

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        _, weight = self._patches(torch.zeros_like(x[None, :1]), torch.ones_like(x[None, :1]))
        first, second = (self._patches(part[None], torch.ones_like(part[None]))[0] for part in (x, y))
        first, second, root = (part.flatten(2, -2)[0].transpose(0, 1) for part in (first, second, weight.sqrt()))
        total = root.square().sum(-1)[:, 0]
        exact = "donot_use_mm_for_euclid_dist"  # by products of matrices, small distances would be rounded away
        norms = torch.cdist(first * root, second * root, compute_mode=exact)
        return torch.einsum("p,pnm->nm", total.sqrt() / total.sum(), norms)

    def _patches(self, z: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The values that a patch has and their weights, (pairs, batch, ..., points)."""
        rank = z.ndim - 3
        if self.pool > 1:
            total = boxes(weight, self.pool, rank)
            z = boxes(weight * z, self.pool, rank).sum(-1) / total.sum(-1).clamp(min=ROUND)
            weight = total.mean(-1)  # of a box that is known in part, its share
        size = self.patch or max(z.shape[3:])
        z, weight = boxes(z, size, rank), boxes(weight, size, rank)
        if self.joint:
            z, weight = (part.movedim(2, -1).flatten(-2) for part in (z, weight))
        return z, weight


@dataclass(frozen=True)
class CRPS(Score):
    """d = |z| of each element: the continuous ranked probability score, which sees the law of every element by itself.

    Args:
        pool: of the means over boxes of so many points along each side, instead of the elements.
    """

    pool: int = 1

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise InputError(f"CRPS needs pool >= 1, not {self.pool}.")

    def distance(self, z: Tensor, weight: Tensor) -> Tensor:
        return EnergyScore(1, self.pool, joint=False).distance(z, weight)

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        return EnergyScore(1, self.pool, joint=False).pairs(x, y)


@dataclass(frozen=True)
class EnsembleScore(Loss):
    """Σ_k λ_k S_k of M draws D(x_1; 1, cond), x_1 = σ(1) ξ, against x: for a denoiser that is to draw in one evaluation.

    That is what a sampler of one step does, so that a network trained so is used like any other; see
    `scorefield.core.denoiser.OneStep`. M evaluations for each field of a batch.

    Args:
        scores: the S_k, with elements that are not known left out; by default the CRPS of each value.
        factors: the λ_k; 1 each by default.
        members: M.
    """

    scores: Sequence[Score] | None = None
    factors: Sequence[float] | None = None
    members: int = 2
    one_step = True

    def __post_init__(self) -> None:
        if not self.chosen or (self.factors is not None and len(self.factors) != len(self.chosen)):
            raise InputError("EnsembleScore needs at least one score, and a factor for each or none at all.")
        if self.members < 2:
            raise InputError(
                f"EnsembleScore needs members >= 2, not {self.members}: a single draw says nothing of spread."
            )

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        t = torch.ones((), dtype=torch.float64)
        known = torch.ones_like(batch.x) if batch.mask is None else batch.mask.expand_as(batch.x).to(batch.x)
        errors = []
        for _ in range(self.members):  # in turn: the zeros of dropout belong to the samples of a batch
            noise = denoiser.sde.prior(batch.x.shape, t, generator=generator, like=batch.x)
            errors.append((denoiser(noise, t, batch.cond) - batch.x).where(known > 0, 0))
        return fair(self.chosen, self.factors or [1.0] * len(self.chosen), errors, known)

    @property
    def chosen(self) -> Sequence[Score]:
        """The scores. A default that holds objects could not be written into a run's configuration."""
        return [CRPS()] if self.scores is None else self.scores


def fair(
    scores: Sequence[Score], factors: Sequence[float], errors: Sequence[Tensor], known: Tensor
) -> Float[Tensor, " batch"]:
    """Σ_k λ_k S_k, unbiased, by the differences of independent draws from the truth.

    Args:
        scores: the S_k.
        factors: the λ_k.
        errors: of each draw, 0 where the truth is not known.
        known: 1 where it is.
    """
    pairs = [first - second for first, second in combinations(errors, 2)]
    z, count = torch.stack([*errors, *pairs]), len(errors)
    share = torch.cat((z.new_full((count,), 1 / count), z.new_full((len(pairs),), -1 / (count * (count - 1)))))
    found = [f * score.distance(z, known.expand_as(z)) for f, score in zip(factors, scores, strict=True)]
    return (share[:, None] * torch.stack(found).sum(0)).sum(0)


def boxes(x: Float[Tensor, "*rest"], size: int, rank: int) -> Float[Tensor, "*places points"]:
    """The last `rank` axes cut into boxes of so many points along each, filled up with zeros: (..., *places, size^rank)."""
    first = x.ndim - rank
    x = F.pad(x, [part for n in reversed(x.shape[first:]) for part in (0, -n % size)])
    for axis in range(rank):
        x = x.unflatten(first + 2 * axis, (-1, size))
    places, points = (range(first + start, x.ndim, 2) for start in (0, 1))
    return x.permute(*range(first), *places, *points).flatten(first + rank)
