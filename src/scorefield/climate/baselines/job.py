"""Baselines and the correction of quantiles as verbs: learnt from files, and written for others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scorefield.climate.alignment import (
    MEMBERS,
    TIMES,
    canonical,
    coarse_boxes,
    grid_in,
    in_units_of,
    same_grid,
    same_times,
    single_member,
    with_grid,
)
from scorefield.climate.baselines.baseline import Baseline, When
from scorefield.climate.baselines.further import beside, sources_of
from scorefield.climate.baselines.grids import AnyGrids, Blocks, Grids
from scorefield.climate.baselines.mapped import Dressed
from scorefield.climate.baselines.quantiles import QuantileMap
from scorefield.climate.files import check_filled, digest_of, identity_of, open_dataset, packing_of
from scorefield.climate.output import NetCDF
from scorefield.climate.source import FurtherPredictors
from scorefield.climate.times import dates_of
from scorefield.foundation.errors import InputError, brief
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
        identity = self.identity
        made_by = {JOB: digest(identity)}
        job = WholeJob(self.out, identity, lambda path: self._write(path, self.drawn(), made_by), NetCDF().made_by)
        run_job(job, unit="field", title=self.target)
        log.info("%s is in %s", self.target, self.out)
        return self.out

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result."""
        return identity_of(self)

    @abstractmethod
    def drawn(self) -> Drawn:
        """What is to be written. InputError for files that cannot be used."""

    def _write(self, path: Path, found: Drawn, made_by: Mapping[str, str]) -> None:
        """Write a CF file with the times of what was given on the grid of the truth. InputError for values not finite
        where the truth is ever known.
        """
        import xarray

        name, (drawn, given, truth, title, history) = self.target, found
        known = np.isfinite(values(truth, [name])[:, 0]).any(0)  # elsewhere, as on sea, there is nothing to learn
        if broken := int((~np.isfinite(drawn[..., known])).sum()):
            raise InputError(f"{broken} of the {drawn.size} values drawn of {name} are not finite: nothing is written.")
        drawn = np.where(known, drawn, np.float32(np.nan))
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
    """Fit what a downscaling model has to beat - Bilinear, HourlyResidual, Ridge, Analogues, BCSD, MappedBilinear, each with
    --dressed, DressedBilinear, DressedRidge - and write what it draws. The grids may be any two that overlap.

    Args:
        baseline: such as DressedBilinear or BCSD.
        dressed: add errors of days left out, each point by itself, so that members differ.
        predictors: coarse fields to draw fine ones for: NetCDF or Zarr.
        train_predictors: coarse fields to learn from.
        train_truth: fine fields that belong to them.
        predictor: names of the coarse variables, if others, on one grid; the first is that of the target.
        train_further: {source: {path, names, levels, ...}} of more fields to learn from, each on a grid of its own.
        further: {source: file} of those to draw for.
        members: how many fine fields for each time.
        seed: of the draws.
    """

    baseline: Baseline
    predictors: Path = positional()
    train_predictors: Path
    predictor: tuple[str, ...] = ()
    train_further: dict[str, FurtherPredictors] | None = None
    further: dict[str, Path] | None = None
    dressed: bool = False
    members: Count = 10
    seed: Seed = 0

    @classmethod
    def spelled_out(cls, arguments: Sequence[str]) -> list[str]:
        """With the name of a baseline, which comes first, as `--baseline NAME`."""
        named = bool(arguments) and not arguments[0].startswith("-")
        given = any(word.split("=")[0] == "--baseline" for word in arguments)
        return ["--baseline", *arguments] if named and not given else list(arguments)

    @property
    def identity(self) -> dict[str, Any]:
        files = [Path(file) for one in (self.train_further or {}).values() for file in one.files()]
        return identity_of(self) | ({"train_further": [digest_of(file) for file in files]} if files else {})

    def drawn(self) -> Drawn:
        names = list(self.predictor or (self.target,))
        more = sources_of(self.train_further or {}, self.further or {})
        fine = read(self.train_truth, [self.target])
        coarse = same_times(fine, read(self.train_predictors, names))
        given = read(self.predictors, names)
        roles = str(self.train_predictors), str(self.train_truth)
        if self.baseline.same_quantity:
            own = in_units_of(coarse[names[:1]], fine, roles)[names[0]]
            coarse = coarse.assign({names[0]: own})
        given = in_units_of(given, coarse[names], (str(self.predictors), roles[0]))
        coarse, grids = grids_of(coarse, fine, roles)
        given = same_grid(coarse, given, (roles[0], str(self.predictors)))
        baseline = Dressed(self.baseline) if self.dressed else self.baseline
        grid, times = grid_in(coarse), (coarse["time"].to_numpy(), given["time"].to_numpy())
        learnt = [values(coarse, names), *(beside(one.learnt, one.variables, times[0], grid) for one in more)]
        found = [values(given, names), *(beside(one.given, one.variables, times[1], grid) for one in more)]
        baseline.fit(np.concatenate(learnt, 1), values(fine, [self.target])[:, 0], when(fine), grids)
        drawn = baseline.draw(np.concatenate(found, 1), self.members, self.seed, when(given))
        title = f"{self.target} by {'dressed ' if self.dressed else ''}{type(self.baseline).__name__}"
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
        name, role = [self.target], str(self.train_truth)
        truth = read(self.train_truth, name)
        learnt, given = (
            in_units_of(read(path, name, members=True), truth, (str(path), role))
            for path in (self.train_samples, self.samples)
        )
        if same_cells(truth, learnt):
            learnt = same_grid(truth, learnt, (role, str(self.train_samples)))
            given = same_grid(truth, given, (role, str(self.samples)))
            source, found = values(learnt, name)[:, :, 0], values(given, name)[:, :, 0]
        else:
            learnt, grids = grids_of(learnt, truth, (str(self.train_samples), role))
            given = same_grid(learnt, given, (str(self.train_samples), str(self.samples)))
            source, found = (grids.up(values(data, name)[:, :, 0]) for data in (learnt, given))
        fitted = (self.map or QuantileMap()).fit(source.reshape(-1, *source.shape[-2:]), values(truth, name)[:, 0])
        title = f"{self.target}, quantiles corrected in each grid box"
        return Drawn(fitted(found), given, truth, title, "scorefield correct")


def same_cells(one: Dataset, other: Dataset) -> bool:
    """Whether cells are as large, so that the grids should be one: nothing is interpolated then."""
    ours, theirs = grid_in(one), grid_in(other)
    return ours.shape == theirs.shape or bool(np.isclose(ours.step, theirs.step, rtol=1e-3).all())


def grids_of(coarse: Dataset, fine: Dataset, roles: tuple[str, str]) -> tuple[Dataset, Grids]:
    """How fields come from one grid to the other, and the coarse ones in the order that this needs."""
    given, wanted = grid_in(coarse), grid_in(fine)
    if all(n % m == 0 for n, m in zip(wanted.shape, given.shape, strict=True)):
        try:
            return coarse_boxes(coarse, fine, roles), Blocks.of(np.empty(given.shape), np.empty(wanted.shape))
        except InputError as error:
            log.info("%s They are interpolated.", brief(error))
    found = AnyGrids(given, wanted)
    found.up(np.zeros(given.shape))  # refused where one does not cover the other
    log.info("%s, %d×%d points, is interpolated to the %d×%d of %s", roles[0], *given.shape, *wanted.shape, roles[1])
    return coarse, found


def read(path: Path, names: Sequence[str], *, members: bool = False) -> Dataset:
    """Variables of a file on one grid, dimensions (time, y, x), or with `members` (member, time, y, x)."""
    data = open_dataset(path)
    for name in names:
        if name not in data.data_vars:
            raise InputError(f"{path} has no variable {name}, only {', '.join(map(str, data.data_vars))}.")
        if data[name].dims[-2:] != data[names[0]].dims[-2:]:
            raise InputError(f"{path}: {name} is on another grid than {names[0]}: bring them onto one.")
    found = canonical(with_grid(data, names), str(path))
    found.attrs["origin"] = str(path)
    found.attrs["axes"] = [d for d in data[names[0]].dims if d not in (*MEMBERS, *TIMES)][-2:]
    if members:
        found = found if "member" in found.dims else found.expand_dims("member")
        return found.transpose("member", "time", "y", "x", ...)
    return single_member(found, str(path)).transpose("time", "y", "x", ...)


def values(data: Dataset, names: Sequence[str]) -> np.ndarray:
    """All of some variables as float32, ([member,] time, variable, y, x), in their units.

    Raises:
        InputError: none is known, some are infinite, or some can only stand for unknown, and the file does not say so.
    """
    found = [data[name].transpose(..., "y", "x").to_numpy().astype(np.float32) for name in names]
    for name, one in zip(names, found, strict=True):
        check_filled(one, f"{data.attrs['origin']}: {name}", packing_of(data[name]))
        if np.isinf(one).any() or not np.isfinite(one).any():
            raise InputError(f"{name} has infinite values, or none that is a number: mask or replace them.")
    return np.stack(found, -3)


def when(data: Dataset) -> When:
    """What baselines know of time."""
    dates = dates_of(data)
    return When(dates.hour.astype(int), dates.day)
