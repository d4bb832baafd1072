"""Sampling as a job: chunks on disk, each written whole, so that any number of calls, one after another or at once, finish it."""

from __future__ import annotations

import json
import os
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import Namespace
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.picture import save_grid
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import write_text
from scorefield.foundation.locks import ChunkLocks
from scorefield.jobs.outputs import ArrayFile, Output, PictureFiles, Pixels
from scorefield.model import Model
from scorefield.run.configuration import Parser
from scorefield.run.experiment import RANKS
from scorefield.samplers import Corrector, Sampler, Step, TimeGrid

PICTURED = 64  # samples in the grid
RECORD = "sampling.json"

Label = int | Literal["each"]


def add_arguments(parser: Parser) -> None:
    """How to sample, where it is to differ from the model's own way."""
    parser.add_argument("--steps", type=int | None, default=None, help="steps from noise to data")
    parser.add_argument(
        "--sampler", type=Step | None, default=None, help="the step: Heun, DPMSolverPP2M, DDIM, Ancestral, ..."
    )
    parser.add_argument(
        "--grid", type=TimeGrid | None, default=None, help="where the steps are: EDMGrid, LogSNRGrid, UniformGrid"
    )
    parser.add_argument(
        "--corrector", type=Corrector | None, default=None, help="a step that stays on its level: Langevin"
    )
    parser.add_argument("--correct-first", type=bool | None, default=None, help="correct before predicting, or after")
    parser.add_argument("--denoise", type=bool | None, default=None, help="end with the denoised field")
    parser.add_argument(
        "--label",
        type=Label | None,
        default=None,
        help="the class, of a network with labels; each: all classes in turn",
    )
    parser.add_argument("--chunk", type=int, default=64, help="samples computed at once")
    parser.add_argument(
        "--device", type=device_argument, default="cpu", help="where to compute: cpu, cuda, cuda:1, mps"
    )


def add_output_arguments(parser: Parser) -> None:
    """How many samples, and where to."""
    parser.add_argument("-n", "--number", type=int, default=64, help="how many samples")
    parser.add_argument("--seed", type=int, default=0, help="sample i depends on (seed, i) alone")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; several calls at once share the work")
    parser.add_argument("--png", action="store_true", help="a PNG for each sample instead of one array")
    parser.add_argument(
        "--range", type=float, nargs=2, default=None, help="with --png: the values of black and white; 0 255 by default"
    )
    parser.add_argument("--trajectory", action="store_true", help="draw some samples on their way from noise, too")


def output_of(settings: Namespace, job: Job) -> Output:
    """The place that the arguments ask for."""
    shape = (job.n, *job.shape)
    if settings.png:
        return PictureFiles(settings.out, shape, None if settings.range is None else Pixels(*settings.range))
    if settings.range is not None:
        raise InputError("--range is for pictures: add --png, or leave it out.")
    return ArrayFile(settings.out, shape)


def device(name: str) -> str:
    """The name of a device to compute on, this process's own where there are several; InputError if there is none."""
    try:
        if name.split(":", maxsplit=1)[0] not in ("cpu", "cuda", "mps", "xpu"):
            raise ValueError("it is none of cpu, cuda, mps, xpu")
        torch.zeros(1, device=name).add(1)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"The device {name!r} cannot be used ({brief(error)}): give --device cpu, or cuda on a GPU."
        ) from error
    return local(name, int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count())


def local(name: str, rank: int, count: int) -> str:
    """The device of one process of several on a machine, which take turns with its GPUs where none is named by number."""
    return f"cuda:{rank % count}" if name == "cuda" and rank and count else name


def device_argument(name: str) -> str:
    """`device` for a parser, which would hide the message of any other error."""
    try:
        return device(name)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from error


def chosen(parser: Parser, settings: Namespace, own: Sampler) -> Sampler:
    """The model's sampler with what the arguments change."""
    built = parser.instantiate(settings)
    names = {"steps": "steps", "sampler": "step", "grid": "grid", "corrector": "corrector"}
    names |= {"correct_first": "correct_first", "denoise": "denoise"}
    changes = {field: built[name] for name, field in names.items() if built[name] is not None}
    return replace(own, **changes)


@dataclass(frozen=True)
class Job:
    """n samples in data units. They are drawn in chunks of one size, so that each is the same whoever draws it, and when.

    Args:
        model: what to sample.
        n: how many.
        seed: of the draws.
        sampler: how.
        chunk: how many at once.
        label: the class, of a network with labels, or each in turn; by default the null class.
        denoiser: one to sample with instead of the model's own; what decides its result belongs to the provenance.
        classes: how many classes that denoiser knows, where the network does not.
        grid: another than that of the training data.
        cond: what the samples are conditioned on, a batch of n; what decides it belongs to the provenance.
    """

    model: Model
    n: int
    seed: int
    sampler: Sampler
    chunk: int = 64
    label: Label | None = None
    denoiser: DenoiserProtocol | None = None
    classes: int = 0
    grid: tuple[int, ...] = ()
    cond: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        check(self.model, self.n, self.seed, self.chunk, self.label, self.classes, self.cond)

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *grid) of a sample."""
        return (self.model.shape[0], *self.grid) if self.grid else self.model.shape

    @property
    def condition(self) -> dict[str, Tensor]:
        """`cond` with the classes: sample i is of the class i modulo their number where each has its turn."""
        if self.label is None:
            return dict(self.cond or {})
        known = _known(self.model, self.classes)
        label = torch.arange(self.n) % known if self.label == "each" else torch.full((self.n,), self.label)
        return dict(self.cond or {}) | {"label": label}

    @property
    def starts(self) -> range:
        """The first sample of each chunk."""
        return range(0, self.n, self.chunk)

    @property
    def record(self) -> dict[str, Any]:
        """What decides the samples, beside the model."""
        facts = {"n": self.n, "seed": self.seed, "chunk": self.chunk, "shape": list(self.shape)}
        facts["sampler"] = repr(self.sampler)
        return facts if self.label is None else facts | {"label": self.label}

    def size(self, start: int) -> int:
        """How many samples a chunk has."""
        return min(self.chunk, self.n - start)

    def draw(self, start: int) -> Tensor:
        """A chunk. Samples that are not finite raise InputError."""
        options = (self.seed, self.sampler, self.shape, self.condition, self.chunk)
        x = next(self.model.chunks([start], self.n, *options, denoiser=self.denoiser))
        if not bool(torch.isfinite(x).all()):
            raise InputError(
                f"Samples {start} to {start + len(x) - 1} are not finite: take another --grid or --sampler, or more --steps."
            )
        return x


def sample_to(
    folder: Path,
    model: Model,
    n: int,
    *,
    seed: int,
    sampler: Sampler,
    chunk: int = 64,
    provenance: Mapping[str, Any],
    label: Label | None = None,
    progress: Callable[[int], object] = lambda _: None,
    denoiser: DenoiserProtocol | None = None,
    grid: tuple[int, ...] = (),
    cond: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Write n samples in data units to `samples.npy`, see `complete`; returns them, left on disk until they are used."""
    job = Job(model, n, seed, sampler, chunk, label, denoiser, grid=grid, cond=cond)
    output = ArrayFile(folder, (n, *job.shape))
    complete(job, output, provenance=provenance, progress=progress)
    return output.read()


def complete(
    job: Job, output: Output, *, provenance: Mapping[str, Any], progress: Callable[[int], object] = lambda _: None
) -> None:
    """Draw what an output lacks of a job, with a picture of the first samples and a record of how they were made.

    A folder that holds a part of the same job is completed; the files are the same, byte for byte, on the same machine. One
    that holds another job is left alone, with an error. Files of the job that cannot be read are made again. Any number of
    processes may do this at once: each takes chunks that no other is at, and returns when all are there. One that is killed
    loses its chunk, which another takes over.

    Args:
        job: what to draw.
        output: where to.
        provenance: facts of the model that decide the result; stored, and compared before a job is continued.
        progress: called with the number of samples that were found or made.
    """
    record = job.record | output.record | dict(provenance)
    _refuse_foreign(output.folder)
    claims = ChunkLocks(output.folder / ".claims")
    picture = output.folder / "samples.png"
    try:
        with claims.hold(len(job.starts), wait=True):
            _claim(output.folder, record)
        _draw_missing(job, output, claims, progress)
        with claims.hold(len(job.starts), wait=True):
            _put_together(job, output, claims)
            save_grid(picture, output.first(PICTURED))
    except OSError as error:
        raise InputError(
            f"Cannot write to {output.folder} ({error}): free some space, and call again to go on; "
            "what is complete is kept."
        ) from error
    finally:
        claims.close()


def _draw_missing(job: Job, output: Output, claims: ChunkLocks, progress: Callable[[int], object]) -> None:
    """Take chunks until all are there, our share of them first."""
    rank, processes = place_among()
    ours_first = sorted(range(len(job.starts)), key=lambda number: (number - rank) % processes)
    for number in claims.each(ours_first):
        start = job.starts[number]
        if not (output.complete or output.holds(start, job.size(start))):
            output.write(start, job.draw(start))
        progress(job.size(start))


def _put_together(job: Job, output: Output, claims: ChunkLocks) -> None:
    """Make the result, and delete what it does not need. Another process may still be looking at a chunk."""
    try:
        if not output.complete:
            output.finish(job.starts)
    except FileNotFoundError:  # where there are no locks, another may have done both meanwhile
        if not output.complete:
            raise
    for number, start in enumerate(job.starts):
        with claims.hold(number, wait=True):
            output.discard(start)
    for rest in output.folder.rglob(".*.partial"):  # of processes that were killed
        rest.unlink(missing_ok=True)
    claims.path.unlink(missing_ok=True)


def place_among() -> tuple[int, int]:
    """Which process this is of how many, by the word of torchrun or Slurm; 0 of 1 without."""
    rank, processes = (
        int(next((os.environ[name] for name in names if name in os.environ), default))
        for names, default in ((RANKS, "0"), (("WORLD_SIZE", "SLURM_NTASKS"), "1"))
    )
    return rank, processes


def check(
    model: Model,
    n: int,
    seed: int,
    chunk: int,
    label: Label | None,
    classes: int = 0,
    cond: Mapping[str, Tensor] | None = None,
) -> None:
    """Refuse a job that cannot be done, before anything is written."""
    for name, value, least in (("number", n, 1), ("chunk", chunk, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"The {name} is {value}: give {least} or more.")
    known = _known(model, classes)
    if label is not None and not known:
        raise InputError(f"The network knows no classes: leave out the label {label}.")
    if isinstance(label, int) and not 0 <= label < known:
        raise InputError(f"There is no class {label}: give a label from 0 to {known - 1}.")
    model.check_cond(cond)


def _known(model: Model, classes: int) -> int:
    """How many classes both the network and the denoiser that guides it know, where either knows any."""
    return min(filter(None, (model.labels, classes)), default=0)


@torch.no_grad()
def count_evaluations(model: Model, sampler: Sampler, cond: Mapping[str, Tensor] | None = None) -> int:
    """Network evaluations per sample, counted."""
    calls = []
    hook = model.denoiser.register_forward_hook(lambda *_: calls.append(1))
    one = {name: value[:1] for name, value in (cond or {}).items()}
    model.sample(1, sampler=sampler, chunk=1, shape=_shape(model, one), cond=one)
    hook.remove()
    return len(calls)


def _shape(model: Model, cond: Mapping[str, Tensor]) -> tuple[int, ...]:
    """That of the model's fields, on the grid of what they are conditioned on."""
    return (model.shape[0], *cond["field"].shape[2:]) if "field" in cond else model.shape


def _refuse_foreign(folder: Path) -> None:
    """Raise InputError for a folder that holds something else than samples."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give another --out.")
    others = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
    if others and not (folder / RECORD).is_file():  # asked last: another process may just have written it
        raise InputError(f"{folder} is not empty and holds no samples of ours: give another --out.")


def _claim(folder: Path, record: Mapping[str, Any]) -> None:
    """Make the folder this job's, or see that it is."""
    path = folder / RECORD
    if not path.is_file():
        write_text(path, json.dumps(record, indent=2) + "\n")
        return
    before = _recorded(path)
    for key, value in ({"label": None, "guidance": None, "png": None} | dict(record)).items():
        if before.get(key) != value:
            raise InputError(f"{folder} holds samples with {key} = {before.get(key)}, not {value}: give another --out.")


def _recorded(path: Path) -> dict[str, Any]:
    """The record of a job, or InputError."""
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        record = str(error)
    if not isinstance(record, dict):
        raise InputError(f"{path} is no record of samples: delete {path.parent} or give another --out.")
    return record
