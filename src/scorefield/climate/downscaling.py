"""Downscaling as a job: an ensemble of fine fields for every time of some predictors, in one file that others can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch

from scorefield.climate import Climate
from scorefield.climate.ensembles import Conserve, Ensemble, EvenChunks, FieldChunks
from scorefield.climate.fields import GriddedFields
from scorefield.climate.files import is_store
from scorefield.climate.output import Placed, beyond, format_of, frame_of, limits_of, validate
from scorefield.climate.persistence import check as check_persistence
from scorefield.climate.predictors import Driving, EnsembleInput, drive, first_of, with_levels
from scorefield.climate.series import Series, all_times
from scorefield.climate.split_predictors import predictors_of_split
from scorefield.climate.template import Template
from scorefield.climate.times import days_since_first
from scorefield.climate.trained_lines import elsewhere
from scorefield.climate.units import same_units
from scorefield.data.batch import Batch
from scorefield.data.moments import Matched, matched_to
from scorefield.data.source import Split
from scorefield.foundation.errors import InputError, brief
from scorefield.jobs.options import Drawing
from scorefield.run.runner import JOB, Job, Piece, Pieces, check_out, digest, is_done, run_job
from scorefield.run.verb import Count, CountOrZero, Seed, log, positional

Beyond = Literal["clip", "keep", "refuse"]
CUT = "scorefield_cut"  # the attribute that says where values were cut off
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, kw_only=True)
class DrawEnsemble(Drawing):
    """How ensembles of fine fields are drawn.

    Args:
        members: how many draws for every time.
        single: one draw for every time and no dimension of members, as of a deterministic run.
        seed: member m at time t depends on the seed, m and t alone.
        tile: draw a large domain in tiles of this size; 0 for whole; by default of the size of training.
        margin: points at inner edges of tiles that are not used; a quarter of the size by default.
        reach: values by more training ranges beyond the training's are counted and told; .inf for none.
        beyond: clip them there, keep them, or refuse the file.
        any_calendar: predictors may have another calendar than those of training; predictions have theirs.
        persistence: correlation of a member's noise from one step of time to the next, 0 to 0.99: members that go on as weather
            does, where the predictors alone do not make them.
    """

    members: Count = 10
    single: bool = False
    seed: Seed = 0
    tile: CountOrZero | None = None
    margin: CountOrZero | None = None
    reach: float = 1.0
    beyond: Beyond = "clip"
    any_calendar: bool = False
    persistence: float = 0.0

    def check(self) -> None:
        check_persistence(self.persistence)
        if not self.reach >= 0:
            raise InputError(f"--reach is {self.reach}: give a number of at least 0, or .inf.")
        if self.margin is not None and self.tile == 0:
            raise InputError("--margin is for tiles: leave it out, or --tile 0.")


@dataclass(frozen=True, kw_only=True)
class Downscale(DrawEnsemble):
    """Draw an ensemble of fine fields for every time of coarse predictors, into one CF file; call it again to go on.

    Args:
        predictors: NetCDF, Zarr or a pattern; a folder of such files; or train, valid, test: of the run's own data.
        further: {source: files} of further predictors that the run was trained on; a folder has the files of the same names.
        out: file to write, .nc or .zarr; for a folder, a folder.
        truth: with a split: write its targets there, too.
        most: with a split: at most so many of its fields, evenly spread.
        raw: write values in model space, too, as raw_NAME.
        conserve: make the means over the predictors' cells theirs: add what is missing, or multiply.
        elsewhere: predictors of another region than that of training, of points as far apart: for a model of tiles, which knows
            no places. Whether it holds there is not known.
        match: files of another driving model, whose moments at every point are replaced by those of the one trained on; --further
            has to have their times, too.
    """

    predictors: str = positional()
    further: dict[str, str] | None = None
    out: Path
    truth: Path | None = None
    most: Count | None = None
    raw: bool = False
    conserve: Conserve = "no"
    match: str | None = None
    elsewhere: bool = False

    def check(self) -> None:
        super().check()
        for name, value in (("--truth", self.truth), ("--most", self.most)):
            if value is not None and self.predictors not in SPLITS:
                raise InputError(f"{name} goes with train, valid or test for the predictors: leave it out.")
        if self.further and self.predictors in SPLITS:
            raise InputError(f"--further goes with files: {self.predictors} are of the run's own data. Leave it out.")
        if self.elsewhere and self.predictors in SPLITS:
            raise InputError(
                f"--elsewhere goes with files: {self.predictors} are of the run's own region. Leave it out."
            )
        if self.truth is not None and self.truth.resolve() == self.out.resolve():
            raise InputError(f"--truth and --out are one file, {self.out}: give another --truth.")

    def run(self) -> Path:
        wanted = mirrored(self.predictors, self.out)
        beside = [self._beside(predictors) for predictors, _ in wanted]
        for out in (*(out for _, out in wanted), *([self.truth] if self.truth else [])):
            check_out(out, folder=format_of(out).folder)
        _, _ = self.template, self.matched  # of all files: refused before the first
        failed = []
        for (predictors, out), further in zip(wanted, beside, strict=True):
            try:
                self._write(predictors, further, out)
            except InputError as error:
                if out == self.out:
                    raise
                log.warning("%s: %s", predictors, error)
                failed.append(Path(predictors).name)
        if failed:
            names = brief(", ".join(failed))
            raise InputError(f"{len(failed)} of {len(wanted)} files have no prediction, as said above: {names}.")
        return self.out

    def _beside(self, predictors: str) -> dict[str, str]:
        """The files of further predictors for one of the first: itself, or of a folder the one at the same place."""
        root, found = Path(self.predictors), dict(self.further or {})
        for name, path in found.items():
            folder = Path(path)
            if str(root) == predictors or not folder.is_dir() or is_store(folder):
                continue
            if not (one := folder / Path(predictors).relative_to(root)).exists():
                raise InputError(f"{predictors} has no further predictors {name}: {one} is not there.")
            found[name] = str(one)
        return found

    def _write(self, predictors: str, further: Mapping[str, str], out: Path) -> None:
        """One file, all that can be refused refused before its first byte."""
        given, targets = self._input(predictors, further)
        ensemble = self._drawn(given)
        given = ensemble.given
        checkpoint = self.checkpoint.checkpoint.sha256[:16]
        attributes = {"history": f"scorefield downscale, checkpoint {checkpoint}, seed {self.seed}"}
        duration = {} if targets is None or self.most is None else resolution(targets)
        jobs = [
            GriddedFile(out, self.template, ensemble, self.provenance, attributes | duration, self.reach, self.beyond)
        ]
        if self.truth is not None and targets is not None:
            jobs.insert(0, GriddedFile(self.truth, self.template, Targets(given, targets), attributes=duration))
        done = [is_done(job) for job in jobs]
        if not all(done):
            ensemble.check()
        for job in jobs:
            run_job(job, unit="field", title=job.out.name)
        if given.left_out:
            log.warning(
                "%d times of %s are left out: the times before or after them are not there", given.left_out, predictors
            )
        log.info("%d members of %d fields in %s", 1 if self.single else self.members, len(given), out)

    @cached_property
    def template(self) -> Template:
        """What the training data left in the checkpoint; for another region, with that in their place."""
        if not self.elsewhere:
            return self._trained
        if self.model.mean is not None:
            raise InputError("--elsewhere is for models that know no places, and this one has a mean: leave it out.")
        first, _ = mirrored(self.predictors, self.out)[0]
        return elsewhere(first_of(self.source, self._trained, first), self._trained)

    @cached_property
    def _trained(self) -> Template:
        return Template.read(self.model.template.cpu())

    @cached_property
    def source(self) -> Climate:
        """The training data; their files are needed for a split of theirs alone."""
        source = cast(Climate, self.checkpoint.source(self.trust))  # a model with a template was trained on them
        return replace(source, targets=with_levels(source.targets, self._trained.variables))

    @cached_property
    def matched(self) -> tuple[Matched, EnsembleInput] | None:
        """The correction of predictors of another driving model, and what it was found from."""
        if self.match is None:
            return None
        other = self._drive(self.match, self.further or {})
        fields = (Batch(other.field(i)[None]) for i in range(len(other)))
        return matched_to(self.model.predictors, fields), other

    def _drive(self, predictors: str, further: Mapping[str, str]) -> EnsembleInput:
        return drive(self.source, self.template, predictors, further, any_calendar=self.any_calendar)

    def _input(self, predictors: str, further: Mapping[str, str]) -> tuple[EnsembleInput, GriddedFields | None]:
        """What is predicted from, and the targets where there are any."""
        if predictors in SPLITS:
            given, targets = predictors_of_split(self.source, predictors, self.most)
        else:
            given, targets = self._drive(predictors, further), None
        if self.conserve != "no":
            check_conserved(given, self.template)
        if given.drivers > 1 and self.single:
            raise InputError(f"{predictors} has {given.drivers} members, and a --single draw none: give --members 1.")
        if self.matched is not None and self.matched[1].shape != given.shape:
            raise InputError(f"The fields of --match {self.match} are of another region than those of {predictors}.")
        return given, targets

    def _drawn(self, given: EnsembleInput) -> Ensemble | Series:
        """Fields of single times, or series of which the model has learnt windows."""
        window = self.template.facts.get("window", 1)
        if window == 1:
            return self._ensemble(given)
        odd = {"--truth": self.truth, "--most": self.most, "--raw": self.raw, "--persistence": self.persistence}
        odd |= {"--tile": self.tile, "--margin": self.margin, "--conserve": self.conserve != "no"}
        if named := [name for name, value in odd.items() if value]:
            raise InputError(
                f"The model draws {window} times jointly, which does not go with {named[0]}: leave it out."
            )
        windows = cast(Driving, given)  # there are no tiles of several times
        return Series(self._ensemble(all_times(windows, window)), windows, window)

    def _ensemble(self, given: EnsembleInput) -> Ensemble:
        grid = self.model.shape[1:]
        large = any(n > size for n, size in zip(given.shape, grid, strict=True))
        tile = (self.tile,) * 2 if self.tile else (() if self.tile == 0 or not large else tuple(grid))
        if self.margin is not None and not tile:
            raise InputError("--margin is for tiles, and the domain is drawn whole: leave it out, or give --tile.")
        matched, other = self.matched or (None, None)
        return Ensemble(
            model=self.model,
            given=given,
            known=given.known(self.template),
            members=0 if self.single else self.members,
            seed=self.seed,
            sampler=self.sampler_from(self.model.sampler),
            chunk=self.at_once(self.members * len(given), tile or given.shape),
            tile=tile,
            margin=(min(tile) // 4 if self.margin is None else self.margin) if tile else 0,
            conserve=self.conserve,
            matched=matched,
            history="" if other is None else other.digest(),
            raw=self.raw,
            persistence=self.persistence,
        )


def resolution(fields: GriddedFields) -> dict[str, str]:
    """The attribute that says how far apart the times of all fields are, as some of them do not: ISO 8601, such as PT60M."""
    times = fields.targets.times
    step = np.diff(np.unique(days_since_first(times))) if len(times) > 1 and times.dtype.kind in "MO" else np.zeros(0)
    return {"time_coverage_resolution": f"PT{round(float(step.min()) * 24 * 60)}M"} if len(step) else {}


def check_conserved(given: EnsembleInput, template: Template) -> None:
    """Refuse predictors whose means are not those of the targets: other variables, or other units."""
    own = template.facts["attributes"]
    wanted = [(name, str(own[name.split("@")[0]].get("units", "none"))) for name in template.variables]
    for index, (name, units) in enumerate(wanted):
        found, other = given.quantities[index] if index < len(given.quantities) else ("none", "")
        if found != name or not same_units(units, other):
            raise InputError(
                f"--conserve needs the targets as the first predictors, in their units: predictor {index + 1} is "
                f"{found} ({other}), and the target is {name} ({units}). Leave it out, or train on such predictors."
            )


def mirrored(predictors: str, out: Path) -> list[tuple[str, Path]]:
    """Predictors and the file to write for each: one pair, or for a folder the files below it, to be mirrored below `out`."""
    root = Path(predictors)
    if predictors in SPLITS or not root.is_dir() or is_store(root):
        return [(predictors, out)]
    stores = {path for path in root.rglob("*") if path.is_dir() and is_store(path)}
    files = {path for path in root.rglob("*.nc") if not stores.intersection(path.parents)}
    if not files and not stores:
        raise InputError(f"{root} is a folder without NetCDF files and Zarr stores: give predictors.")
    return [(str(path), out / path.relative_to(root).with_suffix(".nc")) for path in sorted(files | stores)]


@dataclass(frozen=True, eq=False)
class Targets(EvenChunks):
    """The targets of a split as predictions of it are laid out, without members."""

    given: EnsembleInput
    targets: GriddedFields
    members: int = 0
    chunk: int = 64
    raw: bool = False

    @property
    def record(self) -> dict[str, Any]:
        found = sha256(self.given.digest().encode())
        for start in self.starts:
            found.update(self.draw(start).tobytes())
        return {"truth": found.hexdigest()}

    def draw(self, start: int) -> np.ndarray:
        batch = self.targets.gather(torch.tensor([time for _, time in self.fields(start)]))
        return (batch.x if batch.mask is None else batch.x.where(batch.mask.expand_as(batch.x), torch.nan)).numpy()


@dataclass(frozen=True, eq=False)
class GriddedFile(Job):
    """Fields on the grid of the training data as one file.

    Args:
        out: the file, .nc or .zarr.
        template: of the training data.
        fields: what is in it.
        facts: what decides its values, beside the record of the fields.
        attributes: of the file.
        reach: by how many times the training range values may go beyond it; None for values that are the training's own.
        beyond: what becomes of those that go further.
    """

    out: Path
    template: Template
    fields: FieldChunks
    facts: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    reach: float | None = None
    beyond: Beyond = "clip"

    @cached_property
    def identity(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.fields.record | dict(self.facts)

    @property
    def sizes(self) -> list[int]:
        return [len(self.fields.fields(start)) for start in self.fields.starts]

    def compute(self, number: int) -> Piece:
        return {"x": self.fields.draw(self.fields.starts[number])}

    def assemble(self, pieces: Pieces, out: Path) -> None:
        attributes = {**self.attributes, JOB: digest(self.identity)} | self._beyond(pieces)
        given, kind = self.fields.given, format_of(self.out)
        frame = frame_of(self.template, given, self.fields.members, attributes, raw=self.fields.raw)
        frame = replace(frame, dtype=pieces[0]["x"].dtype)
        kind.write(out, frame, self._placed(pieces))
        if self.reach is None:
            return
        with kind.open(out) as found:
            try:
                validate(found, self.template, given, frame)
            except InputError as error:
                raise InputError(f"{self.out} is not written: {error}") from error

    @property
    def _variables(self) -> slice:
        """Which channels are in data units."""
        return slice(None, None, 2 if self.fields.raw else 1)

    def _beyond(self, pieces: Pieces) -> dict[str, str]:
        """Tell what lies beyond, and the attribute that says where it was cut off. InputError where it is to be refused."""
        if self.reach is None:
            return {}
        notes = beyond((piece["x"][:, self._variables] for piece in pieces), self.template, self.reach)
        if notes and self.beyond == "refuse":
            raise InputError(
                f"{self.out} is not written: {notes[0]}. Call again with --beyond clip or keep, or a larger --reach: what is "
                "drawn is kept."
            )
        for note in notes:
            log.warning("%s: %s; they are %s", self.out, note, "cut off there" if self.beyond == "clip" else "kept")
        return {CUT: self._cut} if notes and self.beyond == "clip" else {}

    @property
    def _cut(self) -> str:
        return f"values beyond {self.reach} training ranges are cut off"

    def _placed(self, pieces: Pieces) -> Iterator[Placed]:
        members, cases = self.fields.members, len(self.fields.given) // self.fields.given.drivers
        clip = self.reach is not None and self.beyond == "clip"
        low, high = np.array(limits_of(self.template, np.inf if self.reach is None else self.reach)).T[:, :, None, None]
        for start, piece in zip(self.fields.starts, pieces, strict=True):
            fields = piece["x"].copy()
            if clip:
                fields[:, self._variables] = fields[:, self._variables].clip(low, high)
            for (member, position), values in zip(self.fields.fields(start), fields, strict=True):
                driver, case = divmod(position, cases)
                yield (driver * members + member, case) if members else (case,), values

    def made_by(self) -> str | None:
        """The job of the file that is there; none that it might be where its values were cut off elsewhere."""
        kind = format_of(self.out)
        if (found := kind.made_by(self.out)) is None:
            return None
        with kind.open(self.out, decode_times=False) as dataset:
            cut = dataset.attrs.get(CUT)
        return found if cut in (None, self._cut) and (cut is None or self.beyond == "clip") else f"{found}, {cut}"
