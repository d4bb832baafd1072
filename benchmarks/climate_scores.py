"""Figures of several systems for the same fields, with intervals over blocks, in one table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from climate_data import Part
from scorefield.climate.regrid import block_mean
from scorefield.climate.verification.figures import draws
from scorefield.climate.verification.pair import pair_up
from scorefield.climate.verification.score import Options, Scored, score

REPLICATES, SEED = 1000, 0


@dataclass
class System:
    """The figures of one system.

    Args:
        name: what it is called.
        scored: of `scorefield.climate.verification`.
        driving: correlation of the members, averaged over blocks, with the coarse field, mean over members.
        above: share of values above the training maximum.
    """

    name: str
    scored: Scored
    driving: float
    above: float

    @property
    def figures(self) -> dict:
        """Over all fields."""
        return self.scored.record["all"]


class Judge:
    """Scores members for the fields of a part.

    Args:
        part: of the test data.
        units: of its fields.
        highest: the largest value in training.
        latitude: of the rows, if area is to weigh.
    """

    def __init__(self, part: Part, units: str, highest: float, latitude: np.ndarray | None = None) -> None:
        self.part, self.highest, self.latitude = part, highest, latitude
        coords = {"block": ("time", part.block)}
        if latitude is not None:
            coords |= {"lat": ("lat", latitude, {"units": "degrees_north"})}
        self.truth = xr.Dataset({"field": (("time", "lat", "lon"), part.fine, {"units": units})}, coords)

    def __call__(self, name: str, members: np.ndarray) -> System:
        """Score (member, time, y, x)."""
        pred = self.truth.copy()
        pred["field"] = (("member", "time", "lat", "lon"), members.astype(np.float32), self.truth["field"].attrs)
        scored = score(pair_up(pred, self.truth, None, "block"), Options(replicates=REPLICATES, seed=SEED))["field"]
        coarse = self.part.coarse
        factor = (members.shape[-2] // coarse.shape[-2], members.shape[-1] // coarse.shape[-1])
        weight = (
            None if self.latitude is None else np.cos(np.deg2rad(self.latitude))[:, None] * np.ones(members.shape[-1])
        )
        means = block_mean(members, factor, weight)
        driving = np.mean([np.corrcoef(one.ravel(), coarse.ravel())[0, 1] for one in means])
        return System(name, scored, float(driving), float((members > self.highest).mean()))


def ratio(one: System, other: System, of: str = "crps", over: str = "crps") -> tuple[float, float, float]:
    """A figure of one system over that of another, with the central 95 % when the same blocks are drawn for both."""

    def at(times: np.ndarray) -> float:
        return float((times @ ours) / (times @ theirs))

    ours, theirs = one.scored.sums[of].numpy(), other.scored.sums[over].numpy()
    blocks = len(ours)
    low, high = np.quantile([at(times) for times in draws(blocks, REPLICATES, SEED)], (0.025, 0.975))
    return at(np.ones(blocks)), float(low), float(high)


def told(figure: dict, digits: int = 4) -> str:
    """A value with its interval."""
    interval = f" [{figure['low']:.{digits}g}, {figure['high']:.{digits}g}]" if "low" in figure else ""
    return f"{figure['value']:.{digits}g}{interval}"


def percent(values: tuple[float, float, float]) -> str:
    """A ratio as a difference in percent."""
    value, low, high = (100 * (v - 1) for v in values)
    return f"{value:+.1f} % [{low:+.1f}, {high:+.1f}]"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
