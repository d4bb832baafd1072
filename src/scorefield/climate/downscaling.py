"""Downscaling as a job: an ensemble of fine fields for every time of some predictors, in one file that others can read.

Draws lie in parts until all are there, each written whole: a job that was killed is completed by the same call, and the file
is the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from scorefield.climate import Climate
from scorefield.climate.ensembles import Conserve, Job
from scorefield.climate.fields import GriddedFields
from scorefield.climate.files import is_store
from scorefield.climate.output import attribute_of, frame_of, validate, writer_of
from scorefield.climate.predictors import EnsembleInput, drive
from scorefield.climate.split_predictors import held
from scorefield.climate.template import Template
from scorefield.climate.units import same_units
from scorefield.data.batch import Batch
from scorefield.data.moments import matched_to
from scorefield.data.source import Split
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing, write_text
from scorefield.foundation.locks import ChunkLocks
from scorefield.model import Model
from scorefield.samplers import Sampler

SPLITS: tuple[Split, ...] = get_args(Split)
JOB = "scorefield_job"  # the attribute of a file that tells which job made it


def prepare(
    model: Model,
    source: Climate,
    predictors: str,
    *,
    members: int = 10,
    seed: int = 0,
    sampler: Sampler | None = None,
    chunk: int = 16,
    tile: int | None = None,
    margin: int | None = None,
    conserve: Conserve = "no",
    match: str | None = None,
    raw: bool = False,
    most: int | None = None,
) -> tuple[Job, Template, GriddedFields | None]:
    """The job that some predictors make, with the template, and the fields where they are a split's.

    Args:
        model: trained on `Climate` data.
        source: these data; their files are needed for a split of theirs alone.
        predictors: files, or the name of a split.
        members: how many draws for every time.
        seed: of the draws.
        sampler: another than the model's own.
        chunk: fields drawn at once.
        tile: size of tiles; by default that of training, where it was on tiles and the domain is larger; 0 for none.
        margin: points at inner edges of tiles that are not used; a quarter of the size by default.
        conserve: make area means those of the predictors.
        match: files of the driving model, whose moments at every point are replaced by those of the model trained on.
        raw: keep values in model space, too.
        most: at most so many fields of a split, evenly spread.
    """
    template, fields = Template.read(model.template.cpu()), None
    if predictors in SPLITS:
        given, fields = held(source, predictors, most)
    else:
        given = drive(source, template, predictors)
    if conserve != "no":
        check_conserved(given, template)
    grid = model.shape[1:]
    large = any(n > size for n, size in zip(given.shape, grid, strict=True))
    size = (tile,) * 2 if tile else (() if tile == 0 or not large else tuple(grid))
    if size and margin is None:
        margin = min(size) // 4
    other = None if match is None else drive(source, template, match)
    matched = None if other is None else matched_to(
        model.predictors, (Batch(other.field(i)[None]) for i in range(len(other)))
    )  # fmt: skip
    known, sampler = given.known(template), sampler or model.sampler
    history = "" if other is None else other.digest()
    job = Job(model, given, known, members, seed, sampler, chunk, size, margin or 0, conserve, matched, history, raw)
    return job, template, fields


def check_conserved(given: EnsembleInput, template: Template) -> None:
    """Refuse predictors whose means are not those of the targets: other variables, or other units."""
    told = template.facts["attributes"]
    wanted = [(name, str(told[name.split("@")[0]].get("units", "none"))) for name in template.variables]
    for index, (name, units) in enumerate(wanted):
        found, other = given.quantities[index] if index < len(given.quantities) else ("none", "")
        if found != name or not same_units(units, other):
            raise InputError(
                f"--conserve needs the targets as the first predictors, in their units: predictor {index + 1} is "
                f"{found} ({other}), and the target is {name} ({units}). Leave it out, or train on such predictors."
            )


def write_truth(out: Path, job: Job, template: Template, fields: GriddedFields | None) -> None:
    """Write the targets of a split as the predictions of it are written, without members."""
    if fields is None:
        raise InputError(
            "--truth goes with train, valid or test for the predictors: files of predictors have no truth."
        )
    if out.exists():
        raise InputError(f"{out} exists: delete it, or give another --truth.")
    frame = frame_of(template, job.given, 0, {}, raw=False)

    def pieces() -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        for index in range(len(fields)):
            batch = fields.gather(torch.tensor([index]))
            x = batch.x if batch.mask is None else batch.x.where(batch.mask.expand_as(batch.x), torch.nan)
            yield (index,), x[0].numpy()

    writer_of(out).write(out, frame, pieces())


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


def downscale(
    out: Path,
    job: Job,
    template: Template,
    *,
    provenance: Mapping[str, Any],
    attributes: Mapping[str, Any],
    reach: float = 1.0,
    skip: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Write the prediction, validated; a call that was interrupted goes on where it stopped.

    Args:
        out: the file, .nc or .zarr.
        job: what to draw.
        template: of the training data.
        provenance: which weights these are; compared, with the job's own record, before it is continued.
        attributes: of the file.
        reach: by how many times the training range values may go beyond it.
        skip: leave a file that this job has finished as it is, and do not refuse to go on.
        progress: called with the number of fields that were found or drawn.
    """
    writer, parts = writer_of(out), out.with_name(f".{out.name}.parts")
    text = json.dumps({**job.record, **provenance}, indent=2, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    frame = frame_of(template, job.given, job.members, {**attributes, JOB: digest}, raw=job.raw)
    if out.exists() and not parts.exists():
        if skip and attribute_of(out, JOB) == digest:
            progress(job.size)
            return
        raise InputError(f"{out} exists: delete it, or give another --out.")
    try:
        _claim(parts, text)
        if not out.exists():  # else it was written, and the call ended before it was checked, or it did not pass
            claims = ChunkLocks(parts / ".claims")
            try:
                _draw_missing(job, parts, claims, progress)
            finally:
                claims.close()
            writer.write(out, frame, _pieces(job, parts))
        validate(out, template, job.given, frame, reach=reach)
    except OSError as error:
        raise InputError(
            f"Cannot write {out} ({error}): free some space, and call again to go on; what is drawn is kept."
        ) from error
    shutil.rmtree(parts, ignore_errors=True)


def _claim(parts: Path, text: str) -> None:
    """Make the parts' folder that of a job, or see that it is."""
    path = parts / "job.json"
    if not path.is_file():
        write_text(path, text)
    elif path.read_text() != text:
        raise InputError(f"{parts} holds the parts of another job: delete it, or give another --out.")


def _draw_missing(job: Job, parts: Path, claims: ChunkLocks, progress: Callable[[int], object]) -> None:
    """Draw the chunks that are not there yet, each once."""
    for number in claims.each(range(len(job.starts))):
        start = job.starts[number]
        path = parts / f"part-{start:09d}.npy"
        if not _whole(path):
            values = job.draw(start)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, values)
        progress(len(job.fields(start)))


def _whole(path: Path) -> bool:
    """Whether a part is there and can be read."""
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return True


def _pieces(job: Job, parts: Path) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    for start in job.starts:
        values: Iterable[np.ndarray] = np.load(parts / f"part-{start:09d}.npy", mmap_mode="r", allow_pickle=False)
        for where, field in zip(job.fields(start), values, strict=True):
            yield where, np.asarray(field)
