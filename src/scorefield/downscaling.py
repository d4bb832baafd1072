"""Downscaling as a job: an ensemble of fine fields for every time of some predictors, in one file that others can read.

Member m at time t depends on the seed, on m and on the date t alone. Draws lie in parts until all are there, each written whole:
a job that was killed is completed by the same call, and the file is the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from scorefield.claims import Claims
from scorefield.data.batch import Batch
from scorefield.data.climate import Climate
from scorefield.data.climate.driving import Given, drive
from scorefield.data.climate.fields import GriddedFields
from scorefield.data.climate.held import held
from scorefield.data.climate.output import frame_of, validate, writer_of
from scorefield.data.climate.template import Template
from scorefield.data.moments import Matched, matched_to
from scorefield.data.source import Split
from scorefield.denoiser import Denoises
from scorefield.errors import InputError
from scorefield.files import replacing, write_text
from scorefield.model import SAMPLING, Model
from scorefield.random import Generators
from scorefield.sample import Sampler
from scorefield.sample.tiled import Tiled

Conserve = Literal["no", "add", "multiply"]


@dataclass(frozen=True, eq=False)
class Job:
    """Members by times, drawn in chunks of one size.

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
        raw: keep values in model space, too.
    """

    model: Model
    given: Given
    known: np.ndarray
    members: int
    seed: int
    sampler: Sampler
    chunk: int = 16
    tile: tuple[int, ...] = ()
    margin: int = 0
    conserve: Conserve = "no"
    matched: Matched | None = None
    raw: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (("members", self.members, 1), ("chunk", self.chunk, 1), ("seed", self.seed, 0)):
            if value < least:
                raise InputError(f"The number of {name} is {value}: give {least} or more.")
        if self.conserve != "no" and self.given.variables < self.model.shape[0]:
            raise InputError(
                "--conserve needs the targets' own variables among the predictors, first and in the same order."
            )

    @property
    def size(self) -> int:
        """How many fields there are."""
        return self.members * len(self.given)

    @property
    def starts(self) -> range:
        """The first field of each chunk."""
        return range(0, self.size, self.chunk)

    @property
    def record(self) -> dict[str, Any]:
        """What decides the values, beside model and predictors."""
        facts = {"members": self.members, "seed": self.seed, "sampler": repr(self.sampler), "chunk": self.chunk}
        return facts | {
            "tile": list(self.tile),
            "margin": self.margin,
            "conserve": self.conserve,
            "raw": self.raw,
        }

    def fields(self, start: int) -> list[tuple[int, int]]:
        """Member and time of each field of a chunk: all members of a time, then those of the next."""
        return [(k % self.members, k // self.members) for k in range(start, min(start + self.chunk, self.size))]

    @torch.no_grad()
    def draw(self, start: int) -> np.ndarray:
        """A chunk in data units, (fields, variables, rows, columns); with `raw`, each variable before itself in model space."""
        wanted = self.fields(start)
        rows = [*wanted, *([wanted[-1]] * (self.chunk - len(wanted)))]  # last bits depend on the size of the batch
        given = {time: self._condition(time) for time in sorted({time for _, time in rows})}
        cond = {"field": torch.stack([given[time] for _, time in rows]).to(self.model.device)}
        keys = [(self.seed, member, *self.given.key(time), SAMPLING) for member, time in rows]
        cond = self.model.condition(cond)
        shape = (len(rows), self.model.shape[0], *self.given.shape)
        like = torch.empty(0, device=self.model.device)
        z = self.sampler(self._denoiser(), shape, generator=Generators(keys), like=like, cond=cond)
        x = self.model.restore(z, cond)[: len(wanted)].cpu().double().numpy()
        x = np.stack([self._conserved(field, time) for field, (_, time) in zip(x, wanted, strict=True)])
        x = np.where(self.known, x, np.nan).astype(np.float32)
        if not self.raw:
            return x
        return np.stack((x, z[: len(wanted)].cpu().numpy()), axis=2).reshape(len(x), -1, *x.shape[2:])

    def _condition(self, time: int) -> Tensor:
        field = self.given.field(time)
        return field if self.matched is None else self.matched(field[None])[0]

    def _denoiser(self) -> Denoises:
        own = self.model.generative
        return Tiled(own, self.tile, self.margin) if self.tile else own

    def _conserved(self, x: np.ndarray, time: int) -> np.ndarray:
        return x if self.conserve == "no" else self.given.conserved(time, x, multiply=self.conserve == "multiply")


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
    if predictors in get_args(Split):
        given, fields = held(source, predictors, most)  # type: ignore[arg-type]
    else:
        given = drive(source, template, predictors)
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
    job = Job(model, given, known, members, seed, sampler, chunk, size, margin or 0, conserve, matched, raw)
    return job, template, fields


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


def downscale(
    out: Path,
    job: Job,
    template: Template,
    *,
    provenance: Mapping[str, Any],
    attributes: Mapping[str, Any],
    reach: float = 1.0,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Write the prediction, validated; a call that was interrupted goes on where it stopped.

    Args:
        out: the file, .nc or .zarr.
        job: what to draw.
        template: of the training data.
        provenance: which weights and which predictors these are; compared before a job is continued.
        attributes: of the file.
        reach: by how many times the training range values may go beyond it.
        progress: called with the number of fields that were found or drawn.
    """
    writer = writer_of(out)
    parts = out.with_name(f".{out.name}.parts")
    if out.exists():
        raise InputError(f"{out} exists: delete it, or give another --out.")
    frame = frame_of(template, job.given, job.members, attributes, raw=job.raw)
    try:
        _claim(parts, {**job.record, **provenance})
        claims = Claims(parts / ".claims")
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


def _claim(parts: Path, record: Mapping[str, Any]) -> None:
    """Make the parts' folder this job's, or see that it is."""
    path, text = parts / "job.json", json.dumps(record, indent=2, sort_keys=True)
    if not path.is_file():
        write_text(path, text)
    elif path.read_text() != text:
        raise InputError(f"{parts} holds the parts of another job: delete it, or give another --out.")


def _draw_missing(job: Job, parts: Path, claims: Claims, progress: Callable[[int], object]) -> None:
    """Take chunks until all are there: first those that nobody is at, then those whose process may have died."""
    order = list(enumerate(job.starts))
    for wait in (False, True):
        left = []
        for number, start in order:
            with claims.hold(number, wait=wait) as ours:
                if not ours:
                    left.append((number, start))
                    continue
                path = parts / f"part-{start:09d}.npy"
                if not _whole(path):
                    values = job.draw(start)
                    with replacing(path) as temporary, temporary.open("wb") as file:
                        np.save(file, values)
            progress(len(job.fields(start)))
        order = left


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
