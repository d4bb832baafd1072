"""Figures of draws given what goes with held-out fields, against these fields; and of simple forecasts of the same fields.

crps            fair continuous ranked probability score, mean over elements, in data units; of a single forecast |x − y|
energy          fair energy score of whole fields, in data units
rmse            of the mean of the members, over all elements
relative_l2     ‖mean − y‖ / ‖y‖, mean over fields
spread_skill    1 if the truth might be a member
interval        how often the truth lies between the k-th members from below and from above, k/(M + 1) being 0.05 or, of few
                members, the least there is: `nominal` is how often it would if it were a member
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.data.fields import FieldDataset
from scorefield.jobs.draws import Draws, read_samples
from scorefield.jobs.resolution import spread
from scorefield.metrics.ensemble import fair_crps, fair_energy_score, spread_skill
from scorefield.run.runner import run_job

VALUES = 2**24  # of members in memory
CLIMATE = 50  # training fields that stand for the climatology
ORDER = ("crps", "energy", "rmse", "relative_l2", "spread_skill", "interval", "nominal")


@dataclass(frozen=True)
class Sums:
    """Sums of the figures over fields, which add up.

    Attributes:
        fields: per field: crps, energy, relative_l2.
        elements: over all elements: variance, squared error, how often in the interval, count.
    """

    fields: Tensor
    elements: Tensor


def sums(members: Tensor, truth: Tensor) -> Sums:
    """The sums of a batch: members (M, n, channels, *grid), truth (n, channels, *grid); NaN of the truth counts nowhere."""
    count, known = len(members), truth.isfinite()
    weight = torch.ones(truth.shape[1:])
    error = (members.double().mean(0) - truth).where(known, 0.0)
    size = truth.where(known, 0.0).double().flatten(1).norm(dim=1)
    crps = fair_crps(members, truth).double().flatten(1).nanmean(1)
    energy = fair_energy_score(members, truth, weight)
    relative = torch.where(
        size > 0, error.flatten(1).norm(dim=1) / size, torch.nan
    )  # of a field of zeros there is none
    rows = torch.stack((crps, energy, relative), dim=1)
    variance = members.double().var(0) if count > 1 else torch.zeros_like(error)
    low, high = (members.kthvalue(k, dim=0).values for k in (rank(count), count + 1 - rank(count)))
    inside = (low <= truth) & (truth <= high) & known
    elements = (variance.where(known, 0.0), error.square(), inside, known)
    return Sums(rows, torch.stack([part.double().sum() for part in elements]))


def rank(count: int) -> int:
    """k of the interval that M members give."""
    return max(1, round(0.05 * (count + 1)))


def figures(parts: Sequence[Sums], count: int) -> dict[str, float | None]:
    """The figures of all batches, with the standard error of crps over fields."""
    rows = torch.cat([part.fields for part in parts])
    variance, error, inside, known = torch.stack([part.elements for part in parts]).sum(0)
    crps, energy, relative = rows.nanmean(0).tolist()  # over fields of which anything is known
    found: dict[str, float | None] = {
        "crps": crps,
        "energy": energy,
        "rmse": math.sqrt(error / known),
        "relative_l2": relative,
        "spread_skill": None,
        "interval": None,
        "nominal": None,
        "crps_error": standard_error(rows[:, 0]),
    }
    if count > 1:
        skill = float(spread_skill(variance, error, count))
        found |= {"spread_skill": skill, "interval": float(inside / known)}
        found["nominal"] = (count + 1 - 2 * rank(count)) / (count + 1)
    return found


def standard_error(values: Tensor) -> float | None:
    """Of the mean of those that are known; None of fewer than two."""
    known = values[values.isfinite()]
    return float(known.std() / math.sqrt(len(known))) if len(known) > 1 else None


@dataclass(frozen=True)
class Paired:
    """Forecasts of held-out fields, each an ensemble.

    Args:
        draws: by name, those of a model given what goes with the first fields, `members` of the first, then of the next.
        fields: the held-out fields.
        train: fields of training, of which some stand for the climatology.
        n: how many of the held-out fields.
        members: draws for each.
    """

    draws: Mapping[str, Draws]
    fields: FieldDataset
    train: FieldDataset
    n: int
    members: int

    def record(self) -> dict[str, Any]:
        """The figures of every forecast."""
        found = {}
        for name, job in self.draws.items():
            run_job(job, unit="sample", title=f"members of {name}")
            found[name] = self._figures(lambda rows, job=job: self._drawn(job, rows), self.members)
        climate = self.train.gather(spread(len(self.train), CLIMATE)).x
        if climate.shape[1:] == self.fields[0].x.shape:
            found["climatology"] = self._figures(
                lambda rows: climate[:, None].expand(-1, len(rows), *climate.shape[1:]), len(climate)
            )
        for name in self.fields.forecasts(torch.arange(1)):
            found[name] = self._figures(lambda rows, name=name: self.fields.forecasts(rows)[name][None], 1)
        return {"n": self.n, "members": self.members, "forecasts": found}

    def _drawn(self, job: Draws, rows: Tensor) -> Tensor:
        samples = read_samples(job.out)
        first, last = int(rows[0]) * self.members, (int(rows[-1]) + 1) * self.members
        return samples[first:last].unflatten(0, (len(rows), self.members)).transpose(0, 1)

    def _figures(self, members: Callable[[Tensor], Tensor], count: int) -> dict[str, float | None]:
        size = max(1, VALUES // (count * self.fields[0].x.numel()))
        parts = [sums(members(rows), truth_of(self.fields, rows)) for rows in torch.arange(self.n).split(size)]
        return figures(parts, count)


def truth_of(fields: FieldDataset, rows: Tensor) -> Tensor:
    """Held-out fields, NaN where they are not known."""
    batch = fields.gather(rows)
    return batch.x if batch.mask is None else batch.x.where(batch.mask.bool(), torch.nan)


def repeated(cond: Mapping[str, Tensor], members: int) -> dict[str, Tensor]:
    """Each row as often as there are members."""
    return {name: value.repeat_interleave(members, dim=0) for name, value in cond.items()}


def table(record: Mapping[str, Any]) -> str:
    """A line for each forecast."""
    names = [*record["forecasts"]]
    width = max(map(len, names)) + 2
    lines = [
        f"{record['n']} held-out fields, {record['members']} members each",
        " " * width + "".join(f"{name:>14}" for name in ORDER),
    ]
    for name, found in record["forecasts"].items():
        cells = ("" if found[key] is None else f"{found[key]:.4g}" for key in ORDER)
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)
