"""Figures of predictions for the pairs of climate_data.py, with intervals over blocks, in one table for all systems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from scorefield.baselines.baseline import block_mean
from scorefield.verification.figures import added, draws
from scorefield.verification.pair import pair_up
from scorefield.verification.score import Options, Scored, score

REPLICATES, SEED = 1000, 0


@dataclass
class System:
    """The figures of one system.

    Args:
        name: what it is called.
        scored: of `scorefield.verification`.
        driving: correlation of every member, averaged onto the coarse grid, with the coarse field.
        above: share of values above the training maximum.
    """

    name: str
    scored: Scored
    driving: float
    above: float

    @property
    def figures(self) -> dict:
        """Over all times."""
        return self.scored.record["all"]


def system(
    name: str,
    members: np.ndarray,
    test: xr.Dataset,
    variable: str,
    blocks: str,
    highest: float,
    area: np.ndarray | None = None,
) -> System:
    """Score members (member, time, y, x) of a system against the test data."""
    pred = test[[variable]].copy()
    pred[variable] = (("member", "time", "y", "x"), members.astype(np.float32))
    options = Options(replicates=REPLICATES, seed=SEED)
    scored = score(pair_up(pred, test, {variable: variable}, blocks), options)[variable]
    coarse = test["coarse"].to_numpy()
    factor = members.shape[-2] // coarse.shape[-2], members.shape[-1] // coarse.shape[-1]
    means = block_mean(members, factor, area)
    driving = np.mean([np.corrcoef(one.ravel(), coarse.ravel())[0, 1] for one in means])
    return System(name, scored, float(driving), float((members > highest).mean()))


def ratio(one: System, other: System, of: str = "crps", over: str = "crps") -> tuple[float, float, float]:
    """A figure of one system over that of another, with the central 95 % when the same blocks are drawn for both."""

    def sums(times: np.ndarray) -> float:
        a, b = added(one.scored.sums, times), added(other.scored.sums, times)
        return float(a[of] / b[over])

    blocks = len(one.scored.sums["weight"])
    drawn = [sums(times) for times in draws(blocks, REPLICATES, SEED)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return sums(np.ones(blocks)), float(low), float(high)


def told(figure: dict, digits: int = 4) -> str:
    """A value with its interval."""
    interval = f" [{figure['low']:.{digits}g}, {figure['high']:.{digits}g}]" if "low" in figure else ""
    return f"{figure['value']:.{digits}g}{interval}"


def percent(values: tuple[float, float, float]) -> str:
    """A ratio as a difference in percent."""
    value, low, high = (100 * (v - 1) for v in values)
    return f"{value:+.1f} % [{low:+.1f}, {high:+.1f}]"


def members_of(path: Path, variable: str) -> np.ndarray:
    """Members of a file that `scorefield downscale` wrote."""
    data = xr.open_dataset(path)
    return data[variable].transpose("member", "time", ...).to_numpy()


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
