"""Correction as a verb: the quantiles of samples mapped to the truth's in each grid box, after they were drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scorefield.climate.alignment import check_units, same_grid
from scorefield.climate.baselines.job import Drawn, FromTruth, read, values
from scorefield.climate.baselines.quantiles import QuantileMap
from scorefield.run.verb import positional


@dataclass(frozen=True, kw_only=True)
class Correct(FromTruth):
    """Map the quantiles of predictions to the truth's in each grid box; with --map.wet both are wet equally often.

    Args:
        samples: predictions to correct: NetCDF or Zarr, with members or without.
        train_samples: predictions of the period to learn from.
        train_truth: what happened in it; times need not be the same.
        map: how quantiles are mapped.
    """

    samples: Path = positional()
    train_samples: Path
    map: QuantileMap | None = None

    def drawn(self) -> Drawn:
        truth, role = read(self.train_truth, self.target), str(self.train_truth)
        aligned = []
        for path in (self.train_samples, self.samples):
            data = read(path, self.target, members=True)
            check_units(data, truth, (str(path), role))
            aligned.append(same_grid(truth, data, (role, str(path))))
        learnt, given = aligned
        source, found = values(learnt, self.target), values(given, self.target)
        fitted = (self.map or QuantileMap()).fit(source.reshape(-1, *source.shape[-2:]), values(truth, self.target))
        title = f"{self.target}, quantiles corrected in each grid box"
        return Drawn(fitted(found), given, truth, title, "scorefield correct")
