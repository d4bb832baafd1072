"""Baselines and the correction of quantiles as verbs: learnt from files, and written for others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scorefield.climate.alignment import (
    MEMBERS,
    TIMES,
    canonical,
    coarse_boxes,
    in_units_of,
    same_grid,
    same_times,
    single_member,
    with_grid,
)
from scorefield.climate.baselines.baseline import Baseline, When
from scorefield.climate.baselines.quantiles import QuantileMap
from scorefield.climate.files import identity_of, open_dataset
from scorefield.climate.output import NetCDF
from scorefield.climate.times import dates_of
from scorefield.foundation.errors import InputError
from scorefield.run.runner import JOB, WholeJob, check_out, digest, run_job
from scorefield.run.verb import Count, Seed, Verb, log, positional

if TYPE_CHECKING:
    from xarray import Dataset


class Drawn(NamedTuple):
    """Fields to write.

    Args:
        fields: (members, time, y, x), in the units of the truth.
        given: fields whose times they have.
        truth: fields whose grid and attributes they have.
        title: of the file.
        history: how they came about; the date is added.
    """

    fields: np.ndarray
    given: Dataset
    truth: Dataset
    title: str
    history: str


@dataclass(frozen=True, kw_only=True)
class FromTruth(Verb):
    """What learns from a truth, and writes fields on its grid. The same call again finds its file, and does nothing.

    Args:
        train_truth: what happened, to learn from.
        target: name of the variable.
        out: file to write, .nc.
    """

    train_truth: Path
    target: str
    out: Path

    def check(self) -> None:
        check_out(self.out)
        if self.out.suffix != ".nc":
            raise InputError(f"--out {self.out} is no NetCDF file: give it the ending .nc.")

    def run(self) -> Path:
        identity = identity_of(self)
        made_by = {JOB: digest(identity)}
        job = WholeJob(self.out, identity, lambda path: self._write(path, self.drawn(), made_by), NetCDF().made_by)
        run_job(job, unit="field", title=self.target)
        log.info("%s is in %s", self.target, self.out)
        return self.out

    @abstractmethod
    def drawn(self) -> Drawn:
        """What is to be written. InputError for files that cannot be used."""

    def _write(self, path: Path, found: Drawn, made_by: Mapping[str, str]) -> None:
        """Write a CF file with the times of what was given on the grid of the truth. InputError for values not finite."""
        import xarray

        name, (drawn, given, truth, title, history) = self.target, found
        if broken := int((~np.isfinite(drawn)).sum()):
            raise InputError(f"{broken} of the {drawn.size} values drawn of {name} are not finite: nothing is written.")
        coords = {axis: value for axis, value in truth.coords.items() if "time" not in value.dims and value.dims}
        coords |= {axis: value for axis, value in given.coords.items() if value.dims == ("time",)}
        coords["member"] = ("member", np.arange(len(drawn)), {"standard_name": "realization", "units": "1"})
        kept = ("units", "long_name", "standard_name")
        attrs = {key: value for key, value in truth[name].attrs.items() if key in kept}
        data = xarray.Dataset({name: (("member", "time", "y", "x"), drawn, attrs)}, coords)
        data = data.rename(dict(zip("yx", truth.attrs["axes"], strict=True)))
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        data.attrs = {"Conventions": "CF-1.8", "title": title, "history": f"{stamp} {history}", **made_by}
        content = data.to_netcdf(engine="h5netcdf", encoding={name: {"zlib": True, "complevel": 4}})
        path.write_bytes(content)  # HDF5 itself crashes on a full disk


@dataclass(frozen=True, kw_only=True)
class DrawBaseline(FromTruth):
    """Fit what a downscaling model has to beat - Bilinear, DressedBilinear, HourlyResidual, Ridge, DressedRidge, BCSD - and
    write what it draws.

    Args:
        baseline: such as DressedBilinear or BCSD.
        predictors: coarse fields to draw fine ones for: NetCDF or Zarr.
        train_predictors: coarse fields to learn from.
        train_truth: fine fields that belong to them.
        predictor: name of the coarse variable, if another.
        members: how many fine fields for each time.
        seed: of the draws.
    """

    baseline: Baseline
    predictors: Path = positional()
    train_predictors: Path
    predictor: str | None = None
    members: Count = 10
    seed: Seed = 0

    @classmethod
    def spelled_out(cls, arguments: Sequence[str]) -> list[str]:
        """With the name of a baseline, which comes first, as `--baseline NAME`."""
        named = bool(arguments) and not arguments[0].startswith("-")
        given = any(word.split("=")[0] == "--baseline" for word in arguments)
        return ["--baseline", *arguments] if named and not given else list(arguments)

    def drawn(self) -> Drawn:
        predictor = self.predictor or self.target
        fine = read(self.train_truth, self.target)
        coarse = same_times(fine, read(self.train_predictors, predictor))
        given = read(self.predictors, predictor)
        roles = str(self.train_predictors), str(self.train_truth)
        if self.baseline.same_quantity:
            coarse = in_units_of(coarse, fine, roles)
        given = in_units_of(given, coarse, (str(self.predictors), roles[0]))
        coarse = coarse_boxes(coarse, fine, roles)
        given = same_grid(coarse, given, (roles[0], str(self.predictors)))
        found = values(given, predictor)
        self.baseline.fit(values(coarse, predictor), values(fine, self.target), when(fine))
        drawn = self.baseline.draw(found, self.members, self.seed, when(given))
        title = f"{self.target} by {type(self.baseline).__name__}"
        return Drawn(drawn, given, fine, title, f"scorefield baseline, seed {self.seed}")


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
            data = in_units_of(data, truth, (str(path), role))
            aligned.append(same_grid(truth, data, (role, str(path))))
        learnt, given = aligned
        source, found = values(learnt, self.target), values(given, self.target)
        fitted = (self.map or QuantileMap()).fit(source.reshape(-1, *source.shape[-2:]), values(truth, self.target))
        title = f"{self.target}, quantiles corrected in each grid box"
        return Drawn(fitted(found), given, truth, title, "scorefield correct")


def read(path: Path, name: str, *, members: bool = False) -> Dataset:
    """One variable of a file, dimensions (time, y, x), or with `members` (member, time, y, x)."""
    data = open_dataset(path)
    if name not in data.data_vars:
        raise InputError(f"{path} has no variable {name}, only {', '.join(map(str, data.data_vars))}.")
    found = canonical(with_grid(data, [name]), str(path))
    found.attrs["axes"] = [d for d in data[name].dims if d not in (*MEMBERS, *TIMES)][-2:]
    if members:
        found = found if "member" in found.dims else found.expand_dims("member")
        return found.transpose("member", "time", "y", "x", ...)
    return single_member(found, str(path)).transpose("time", "y", "x", ...)


def values(data: Dataset, name: str) -> np.ndarray:
    """All of a variable as float32, ([member,] time, y, x), in its units. InputError for NaN, which baselines cannot use."""
    found = data[name].to_numpy().astype(np.float32)
    if gaps := int(np.isnan(found).sum()):
        raise InputError(f"{name} has {gaps} NaN, and a baseline needs complete fields: select a region without.")
    return found


def when(data: Dataset) -> When:
    """What baselines know of time."""
    dates = dates_of(data)
    return When(dates.hour.astype(int), dates.day)
