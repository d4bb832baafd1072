"""Ensembles of fine fields for coarse ones: member m at time t depends on the seed, on m and on the date t alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scorefield.climate.persistence import persistent, steps_of
from scorefield.climate.predictors import EnsembleInput
from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.moments import Matched
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.model import Model
from scorefield.samplers import Sampler
from scorefield.samplers.tiled import Tiled

Conserve = Literal["no", "add", "multiply"]


class FieldChunks(ABC):
    """Fields for each time of some predictors, made in chunks, each chunk the same whenever it is made.

    Attributes:
        given: what the fields belong to.
        members: how many for each time; 0 for fields that are one for each and no ensemble.
        raw: whether each variable is followed by itself in model space.
    """

    given: EnsembleInput
    members: int
    raw: bool

    @property
    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What decides the values, beside the model."""

    @abstractmethod
    def draw(self, start: int) -> np.ndarray:
        """The chunk that begins with a field, in data units, (fields, variables, rows, columns)."""

    @property
    @abstractmethod
    def starts(self) -> range:
        """The first field of each chunk, or its number."""

    @abstractmethod
    def fields(self, start: int) -> list[tuple[int, int]]:
        """Member and time of each field of a chunk."""


class EvenChunks(FieldChunks):
    """Chunks of one size, of all members of a time, then those of the next.

    Attributes:
        chunk: fields made at once.
    """

    chunk: int

    @property
    def starts(self) -> range:
        """The first field of each chunk."""
        return range(0, max(self.members, 1) * len(self.given), self.chunk)

    def fields(self, start: int) -> list[tuple[int, int]]:
        """Member and time of each field of a chunk: all members of a time, then those of the next."""
        members = max(self.members, 1)
        last = min(start + self.chunk, members * len(self.given))
        return [(k % members, k // members) for k in range(start, last)]


@dataclass(frozen=True, eq=False)
class Ensemble(EvenChunks):
    """Members by times.

    Args:
        model: what to draw from.
        given: what to draw it from.
        known: where there is anything to predict, (rows, columns) bool.
        members: how many for each time.
        seed: of the draws.
        sampler: how.
        chunk: fields drawn at once.
        tile: size of the tiles in which a large domain is drawn; empty to draw it whole.
        margin: points at inner edges of a tile that are not used.
        conserve: make the means over the cells of the predictors' grid theirs: add what is missing, or multiply.
        matched: the correction of predictors of another driving model.
        history: the digest of what it was found from.
        raw: keep values in model space, too.
        persistence: correlation of the noise of a member from one step of time to the next.
    """

    model: Model
    given: EnsembleInput
    known: np.ndarray
    members: int
    seed: int
    sampler: Sampler
    chunk: int = 16
    tile: tuple[int, ...] = ()
    margin: int = 0
    conserve: Conserve = "no"
    matched: Matched | None = None
    history: str = ""
    raw: bool = False
    persistence: float = 0.0

    @property
    def record(self) -> dict[str, Any]:
        return self.facts | {"predictors": self.given.digest()}

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the values, beside the model and the predictors."""
        facts = {
            name: getattr(self, name) for name in ("members", "seed", "chunk", "margin", "conserve", "raw", "history")
        }
        facts |= {"persistence": self.persistence} if self.persistence else {}
        return facts | {"sampler": repr(self.sampler), "tile": list(self.tile)}

    def check(self) -> None:
        """Refuse predictors of any time, or tiles, that cannot be used."""
        _ = self._denoiser(), self._generators(self.fields(0))
        zeros = np.zeros((self.model.shape[0], *self.given.shape))
        for time in range(len(self.given)):
            self._condition(time)
            self._conserved(zeros, time)

    @torch.no_grad()
    def draw(self, start: int) -> np.ndarray:
        wanted = self.fields(start)
        rows = [*wanted, *([wanted[-1]] * (self.chunk - len(wanted)))]  # last bits depend on the size of the batch
        given = {time: self._condition(time) for time in sorted({time for _, time in rows})}
        cond = {"field": torch.stack([given[time] for _, time in rows])}
        shape, generator = (self.model.shape[0], *self.given.shape), self._generators(rows)
        drawn = self.model.draw(generator, shape, sampler=self.sampler, cond=cond, denoiser=self._denoiser())
        x, z = (part[: len(wanted)].cpu() for part in drawn)
        x = x.double().numpy()
        x = np.stack([self._conserved(field, time) for field, (_, time) in zip(x, wanted, strict=True)])
        if np.isnan(x[..., self.known]).any():
            raise InputError(
                f"Fields of {self.given.name(wanted[0][1])} are no numbers: take another --sampler or --grid."
            )
        kept = np.float64 if self.model.normaliser.precision == torch.float64 else np.float32
        x = np.where(self.known, x, np.nan).astype(kept)
        if not self.raw:
            return x
        return np.stack((x, z.numpy()), axis=2).reshape(len(x), -1, *x.shape[2:])

    @cached_property
    def _steps(self) -> np.ndarray:
        return steps_of(self.given)

    def _generators(self, rows: list[tuple[int, int]]) -> Generators:
        """The noise of members at times."""
        if not self.persistence:
            return Generators((self.seed, member, *self.given.key(time), Stream.SAMPLE) for member, time in rows)
        series = [((member, *self.given.key(time)[1:]), int(self._steps[time])) for member, time in rows]
        return persistent(series, self.seed, self.persistence)

    def _condition(self, time: int) -> Tensor:
        return self.corrected(self.given.field(time))

    def corrected(self, field: Tensor) -> Tensor:
        """Predictors of another driving model as those of the one trained on."""
        return field if self.matched is None else self.matched(field[None])[0]

    def _denoiser(self) -> DenoiserProtocol:
        own = self.model.generative
        return Tiled(own, self.tile, self.margin) if self.tile else own

    def _conserved(self, x: np.ndarray, time: int) -> np.ndarray:
        return x if self.conserve == "no" else self.given.conserved(time, x, multiply=self.conserve == "multiply")
