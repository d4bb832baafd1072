"""Sampling as a job: chunks on disk, each written whole, so that an interrupted call is continued where it stopped."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from scorefield.config import Parser
from scorefield.data.arrays import BROKEN
from scorefield.data.picture import save_grid
from scorefield.denoiser import Denoises
from scorefield.errors import InputError
from scorefield.files import replacing, write_text
from scorefield.model import Model
from scorefield.sample import Corrector, Sampler, Step, TimeGrid

PICTURED = 64  # samples in the grid


def add_arguments(parser: Parser) -> None:
    """How to sample, where it is to differ from the model's own way."""
    parser.add_argument("--steps", type=int | None, default=None, help="steps from noise to data")
    parser.add_argument("--sampler", type=Step | None, default=None, help="the step: Heun, DPM2M, DDIM, Ancestral, ...")
    parser.add_argument(
        "--grid", type=TimeGrid | None, default=None, help="where the steps are: EDMGrid, LogSNRGrid, UniformGrid"
    )
    parser.add_argument(
        "--corrector", type=Corrector | None, default=None, help="a step that stays on its level: Langevin"
    )
    parser.add_argument("--correct-first", type=bool | None, default=None, help="correct before predicting, or after")
    parser.add_argument("--denoise", type=bool | None, default=None, help="end with the denoised field")
    parser.add_argument("--label", type=int | None, default=None, help="the class, of a network with labels")
    parser.add_argument("--chunk", type=int, default=64, help="samples computed at once")
    parser.add_argument(
        "--device", type=device_argument, default="cpu", help="where to compute: cpu, cuda, cuda:1, mps"
    )


def device(name: str) -> str:
    """The name itself, if there is such a device to compute on here; InputError if not."""
    try:
        if name.split(":", maxsplit=1)[0] not in ("cpu", "cuda", "mps", "xpu"):
            raise ValueError("it is none of cpu, cuda, mps, xpu")
        torch.zeros(1, device=name).add(1)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")[:120]
        raise InputError(
            f"The device {name!r} cannot be used ({reason}): give --device cpu, or cuda on a GPU."
        ) from error
    return name


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


def sample_to(
    folder: Path,
    model: Model,
    n: int,
    *,
    seed: int,
    sampler: Sampler,
    chunk: int = 64,
    provenance: Mapping[str, Any],
    label: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
    denoiser: Denoises | None = None,
) -> Tensor:
    """Write n samples in data units to `samples.npy`, with a picture and a record of how they were made.

    A folder that holds a part of the same job is completed; the result is the same, bit for bit, on the same machine. One that
    holds another job is left alone, with an error. Files of the job that cannot be read are made again.

    Args:
        folder: where to.
        model: what to sample.
        n: how many.
        seed: of the draws.
        sampler: how.
        chunk: how many at once.
        provenance: facts of the model that decide the result; stored, and compared before a job is continued.
        label: the class, of a network with labels; by default the null class.
        progress: called with the number of new samples.
        denoiser: one to sample with instead of the model's own; what decides its result belongs to `provenance`.
    """
    check(model, n, seed, chunk, label)
    record = {"n": n, "seed": seed, "chunk": chunk, "shape": list(model.shape), "sampler": repr(sampler), **provenance}
    record |= {} if label is None else {"label": label}
    _claim(folder, record)
    result = folder / "samples.npy"
    if not _holds(result, (n, *model.shape)):
        cond = None if label is None else {"label": torch.full((n,), label)}
        starts = range(0, n, chunk)
        sizes = {start: min(chunk, n - start) for start in starts}
        left = [start for start in starts if not _holds(_part(folder, start), (sizes[start], *model.shape))]
        progress(n - sum(sizes[start] for start in left))
        chunks = model.chunks(left, n, seed, sampler, None, cond, chunk, denoiser=denoiser)
        for start, x in zip(left, chunks, strict=True):
            if not bool(torch.isfinite(x).all()):
                raise InputError(
                    f"Samples {start} to {start + len(x) - 1} are not finite: take another --grid or --sampler, or more --steps."
                )
            with replacing(_part(folder, start)) as temporary, temporary.open("wb") as file:
                np.save(file, x.numpy())
            progress(len(x))
        whole = np.concatenate([np.load(_part(folder, start)) for start in starts])
        with replacing(result) as temporary, temporary.open("wb") as file:
            np.save(file, whole)
    samples = torch.from_numpy(np.load(result))
    save_grid(folder / "samples.png", samples[:PICTURED])
    for part in folder.glob("part-*.npy"):
        part.unlink()
    return samples


def check(model: Model, n: int, seed: int, chunk: int, label: int | None) -> None:
    """Refuse a job that cannot be done, before anything is written."""
    for name, value, least in (("number", n, 1), ("chunk", chunk, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"The {name} is {value}: give {least} or more.")
    if label is not None and not model.labels:
        raise InputError(f"The network knows no classes: leave out the label {label}.")
    if label is not None and not 0 <= label < model.labels:
        raise InputError(f"There is no class {label}: give a label from 0 to {model.labels - 1}.")
    model.check_cond(None)


@torch.no_grad()
def count_evaluations(model: Model, sampler: Sampler) -> int:
    """Network evaluations per sample, counted."""
    calls = []
    hook = model.denoiser.register_forward_hook(lambda *_: calls.append(1))
    model.sample(1, sampler=sampler, chunk=1)
    hook.remove()
    return len(calls)


def _part(folder: Path, start: int) -> Path:
    return folder / f"part-{start:09d}.npy"


def _holds(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file holds a whole array of a shape."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).shape == shape
    except (*BROKEN, AttributeError):  # the last for a .npz in its place
        return False


def _claim(folder: Path, record: Mapping[str, Any]) -> None:
    """Make the folder this job's, or see that it is."""
    path = folder / "sampling.json"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give another --out.")
    if folder.is_dir() and any(folder.iterdir()):
        if not path.is_file():
            raise InputError(f"{folder} is not empty and holds no samples of ours: give another --out.")
        before = _recorded(path)
        for key, value in ({"label": None} | dict(record)).items():
            if before.get(key) != value:
                raise InputError(
                    f"{folder} holds samples with {key} = {before.get(key)}, not {value}: give another --out."
                )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=2) + "\n")


def _recorded(path: Path) -> dict[str, Any]:
    """The record of a job, or InputError."""
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        record = str(error)
    if not isinstance(record, dict):
        raise InputError(f"{path} is no record of samples: delete {path.parent} or give another --out.")
    return record
