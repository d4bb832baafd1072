"""Denoising as a job: E[x | y] of every field of some files, y = x + σ n."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data.nifti import Volume
from scorefield.data.noisy import estimate_noise
from scorefield.data.picture import save_panels
from scorefield.data.single import read_fields
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing, write_text
from scorefield.model import Model
from scorefield.run.configuration import Parser


def add_arguments(parser: Parser) -> None:
    """What to denoise, and how noisy it is."""
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        help="images, .npy files of one field or several, or NIfTI volumes (axial slices)",
    )
    parser.add_argument(
        "--phases",
        type=Path,
        nargs="+",
        default=[],
        help="NIfTI of the phase of each file, for models of complex images",
    )
    parser.add_argument(
        "--noise",
        type=float | None,
        default=None,
        help="standard deviation in data units, per real component; by default estimated for each field",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--chunk", type=int, default=16, help="fields at once")
    parser.add_argument("--device", type=str, default="cpu", help="where to compute: cpu, cuda")


def denoise(
    folder: Path,
    model: Model,
    files: Sequence[Path],
    *,
    noise: float | None,
    chunk: int,
    provenance: Mapping[str, Any],
    phases: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write NAME.npy, (fields, channels, *grid), or NAME.nii.gz, and a picture for every file; returns and writes what was done.

    Args:
        folder: where to.
        model: of the fields.
        files: what to denoise.
        phases: of NIfTI volumes, one for each file, where the model is of complex images.
        noise: its standard deviation; None to estimate it for each field.
        chunk: how many fields at once.
        provenance: facts of the model.

    Raises:
        InputError: results that are there already, files of one name, or files that hold no such fields.
    """
    names = [path.name.removesuffix(".gz").removesuffix(path.suffix).removesuffix(".nii") for path in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"Two files are called {twice}: denoise them into folders of their own.")
    results = (folder / f"{name}{ending}" for name in names for ending in (".npy", ".nii.gz"))
    if there := next((path for path in results if path.exists()), None):
        raise InputError(f"{there} exists: give another --out, or remove it.")
    if noise is not None and not noise > 0:
        raise InputError(f"The noise is a standard deviation > 0, not {noise}.")
    if phases and len(phases) != len(files):
        raise InputError(f"There are {len(files)} files and {len(phases)} of phase: give one for each.")
    record: dict[str, Any] = {"model": dict(provenance), "estimated": noise is None, "files": {}}
    for place, (path, name) in enumerate(zip(files, names, strict=True)):
        opened = _open(path, phases[place] if phases else None, model.shape)
        y = opened.fields
        levels = estimate_noise(y) if noise is None else noise / opened.scale
        if not bool((levels > 0).all()):
            raise InputError(f"{path} holds a field in which no noise can be found: give --noise.")
        x = model.denoise(y, levels, chunk=chunk)
        written = opened.write(folder / name, x)
        _picture(folder / f"{name}.png", y[:1], x[:1], float(levels[0]))
        removed, levels = (y - x).flatten(1).std(1) / levels, levels * opened.scale
        facts = {"fields": len(y), "noise": levels.tolist(), "removed_over_noise": removed.tolist()}
        record["files"][name] = facts | {"written": [str(file) for file in written]}
    write_text(folder / "denoising.json", json.dumps(record, indent=2) + "\n")
    return record


def _open(path: Path, phase: Path | None, shape: Sequence[int]) -> Array | Volume:
    """What a file holds, in the units of a model of fields of a shape."""
    if path.name.endswith((".nii", ".nii.gz")):
        return Volume.read(path, phase, shape[0])
    if phase is not None:
        raise InputError(f"{path} is no NIfTI volume: its phase is part of it, as complex numbers or two channels.")
    fields = read_fields(path, shape)
    return Array(fields.gather(torch.arange(len(fields))).x)


@dataclass(frozen=True)
class Array:
    """Fields in the units of their file."""

    fields: Tensor

    @property
    def scale(self) -> Tensor:
        return torch.ones(len(self.fields))

    def write(self, stem: Path, x: Tensor) -> list[Path]:
        """Write them as .npy."""
        path = stem.with_name(stem.name + ".npy")
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, x.numpy())
        return [path]


def _picture(path: Path, y: Tensor, x: Tensor, noise: float) -> None:
    """Before, after and what was taken away, as magnitudes where there are two channels."""
    seen = [_shown(value) for value in (y, x)]
    high = float(seen[1].max()) or 1.0
    low = min(0.0, float(seen[1].min()))
    removed = _shown(y - x)
    panels = [("measured", seen[0], low, high), ("denoised", seen[1], low, high)]
    save_panels(
        path, [*panels, (f"taken away, σ {noise:.3g}", removed, float(removed.min()), float(removed.max()) or 1.0)]
    )


def _shown(x: Tensor) -> Tensor:
    return x.norm(dim=1, keepdim=True) if x.shape[1] == 2 else x


def table(record: Mapping[str, Any]) -> str:
    """A line for each file."""
    how = "estimated" if record["estimated"] else "as given"
    lines = []
    for facts in record["files"].values():
        levels, removed = facts["noise"], facts["removed_over_noise"]
        span = f"{min(levels):.4g}" + (f" to {max(levels):.4g}" if max(levels) > min(levels) else "")
        share = sum(removed) / len(removed)
        lines.append(
            f"{', '.join(facts['written'])}   {facts['fields']} fields, noise {span} ({how}); taken away: {share:.2f} of it"
        )
    return "\n".join(lines)
