"""Sampling as a job: chunks on disk, each written whole, so that an interrupted call is continued where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from scorefield.config import Parser
from scorefield.data.picture import save_grid
from scorefield.errors import InputError
from scorefield.files import replacing, write_text
from scorefield.model import Model
from scorefield.sample import Sampler, Step, TimeGrid

PICTURED = 64  # samples in the grid


def add_arguments(parser: Parser) -> None:
    """How to sample, where it is to differ from the model's own way."""
    parser.add_argument("--steps", type=int | None, default=None, help="steps from noise to data")
    parser.add_argument("--sampler", type=Step | None, default=None, help="the step: Heun, DPM2M, DDIM, Ancestral, ...")
    parser.add_argument(
        "--grid", type=TimeGrid | None, default=None, help="where the steps are: EDMGrid, LogSNRGrid, UniformGrid"
    )
    parser.add_argument("--corrector", type=Step | None, default=None, help="a step that stays on its level: Langevin")
    parser.add_argument("--correct-first", type=bool | None, default=None, help="correct before predicting, or after")
    parser.add_argument("--denoise", type=bool | None, default=None, help="end with the denoised field")
    parser.add_argument("--chunk", type=int, default=64, help="samples computed at once")
    parser.add_argument("--device", type=str, default="cpu", help="where to compute: cpu, cuda, mps")


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
    progress: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """Write n samples in data units to `samples.npy`, with a picture and a record of how they were made.

    A folder that holds a part of the same job is completed; the result is the same, bit for bit, on the same machine. One that
    holds another job is left alone, with an error.

    Args:
        folder: where to.
        model: what to sample.
        n: how many.
        seed: of the draws.
        sampler: how.
        chunk: how many at once.
        provenance: facts of the model that decide the result; stored, and compared before a job is continued.
        progress: called with the number of new samples.
    """
    record = {"n": n, "seed": seed, "chunk": chunk, "shape": list(model.shape), "sampler": repr(sampler), **provenance}
    _claim(folder, record)
    result = folder / "samples.npy"
    if not result.exists():
        starts = range(0, n, chunk)
        left = [start for start in starts if not _part(folder, start).exists()]
        progress(sum(min(chunk, n - start) for start in starts if start not in left))
        for start, x in zip(left, model.chunks(left, n, seed, sampler, None, None, chunk), strict=True):
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


def _claim(folder: Path, record: Mapping[str, Any]) -> None:
    """Make the folder this job's, or see that it is."""
    path = folder / "sampling.json"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give another --out.")
    if folder.is_dir() and any(folder.iterdir()):
        if not path.is_file():
            raise InputError(f"{folder} is not empty and holds no samples of ours: give another --out.")
        before = json.loads(path.read_text())
        for key, value in record.items():
            if before.get(key) != value:
                raise InputError(
                    f"{folder} holds samples with {key} = {before.get(key)}, not {value}: give another --out."
                )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=2) + "\n")
