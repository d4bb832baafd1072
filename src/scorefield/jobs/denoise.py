"""Denoising as a job: E[x | y] of every field of some files, y = x + σ n."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.core.schedule import time_of_noise
from scorefield.data.batch import Batch
from scorefield.data.nifti import Volume
from scorefield.data.noisy import estimate_noise
from scorefield.data.picture import save_panels
from scorefield.data.single import read_fields, stored_as
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.jobs.options import OnRun
from scorefield.jobs.outputs import write_array
from scorefield.model import Model
from scorefield.run.runner import Job, Piece, Pieces, check_out, record_in, run_job
from scorefield.run.verb import Count, Positive, positional


@dataclass(frozen=True, kw_only=True)
class Denoise(OnRun):
    """Denoise fields in files: the mean of all that each may have been, given white noise of a known or estimated strength.

    Args:
        files: images, .npy files of one field or several, or NIfTI volumes (axial slices).
        phases: NIfTI of the phase of each file, for models of complex images.
        noise: standard deviation in data units, per real component; by default estimated for each field.
        out: folder to write.
        chunk: fields at once.
    """

    files: tuple[Path, ...] = positional()
    phases: tuple[Path, ...] = ()
    noise: Positive | None = None
    out: Path
    chunk: Count = 16

    def check(self) -> None:
        check_out(self.out, folder=True)
        names = [name_of(path) for path in self.files]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"Two files are called {twice}: denoise them into folders of their own.")
        if self.phases and len(self.phases) != len(self.files):
            raise InputError(f"There are {len(self.files)} files and {len(self.phases)} of phase: give one for each.")

    def run(self) -> dict[str, Any]:
        job = Denoising(self, tuple(self._measured()))
        run_job(job, unit="file", title="denoise")
        return json.loads((self.out / "denoising.json").read_text(encoding="utf-8"))

    def _measured(self) -> Iterator[Measured]:
        """Every file with its noise, all that can be refused refused."""
        self.model.check_cond(None)
        for path, phase in zip(self.files, self.phases or [None] * len(self.files), strict=True):
            opened = _open(path, phase, self.model.shape)
            self.check_depth(path, stored_as(path))
            if not bool(opened.fields.isfinite().all()):
                raise InputError(
                    f"{path} holds values that are not finite: correct them, a denoiser needs every value."
                )
            levels = estimate_noise(opened.fields) if self.noise is None else self.noise / opened.scale
            if not bool((levels > 0).all()):
                raise InputError(f"{path} holds a field in which no noise can be found: give --noise.")
            check_levels(self.model, opened.fields, levels)
            yield Measured(name_of(path), opened, levels)

    def table(self, found: Any) -> str:
        """A line for each file."""
        how = "estimated" if found["estimated"] else "as given"
        lines = []
        for facts in found["files"].values():
            levels, removed = facts["noise"], facts["removed_over_noise"]
            span = f"{min(levels):.4g}" + (f" to {max(levels):.4g}" if max(levels) > min(levels) else "")
            written = ", ".join(str(self.out / name) for name in facts["written"])
            share = f"taken away: {sum(removed) / len(removed):.2f} of it"
            lines.append(f"{written}   {facts['fields']} fields, noise {span} ({how}); {share}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Measured:
    """The fields of a file, and their noise in the units of the model."""

    name: str
    opened: Array | Volume
    levels: Tensor


@dataclass(frozen=True, eq=False)
class Denoising(Job):
    """E[x | y] of every file, as NAME.npy, (fields, channels, *grid), or NAME.nii.gz, with a picture, in one folder."""

    how: Denoise
    measured: Sequence[Measured]

    @property
    def out(self) -> Path:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.how.out

    @property
    def identity(self) -> dict[str, Any]:
        files = {part.name: sha256(part.opened.fields.numpy().tobytes()).hexdigest() for part in self.measured}
        return self.how.provenance | {"files": files, "noise": self.how.noise, "chunk": self.how.chunk}

    @property
    def sizes(self) -> list[int]:
        return [1] * len(self.measured)

    def compute(self, number: int) -> Piece:
        part = self.measured[number]
        x = self.how.model.denoise(part.opened.fields, part.levels, chunk=self.how.chunk)
        return {"x": x.numpy()}

    def assemble(self, pieces: Pieces, out: Path) -> None:
        out.mkdir()
        files: dict[str, Any] = {}
        for part, piece in zip(self.measured, pieces, strict=True):
            x, y = torch.from_numpy(piece["x"]), part.opened.fields
            written = [file.name for file in part.opened.write(out / part.name, x)]
            _picture(out / f"{part.name}.png", y[:1], x[:1], float(part.levels[0]))
            removed, levels = (y - x).flatten(1).std(1) / part.levels, part.levels * part.opened.scale
            facts = {"fields": len(y), "noise": levels.tolist(), "removed_over_noise": removed.tolist()}
            files[part.name] = facts | {"written": written}
        write_json(
            out / "denoising.json", {"model": self.how.provenance, "estimated": self.how.noise is None, "files": files}
        )
        record_in(out, self.identity)


def check_levels(model: Model, y: Tensor, noise: Tensor) -> None:
    """Raise InputError for noise in data units that is no level of the model's schedule."""
    found = Batch(y[:1], noise=noise[:1]).normalised(model.normaliser.cpu()).noise
    model.normaliser.to(model.device)
    assert found is not None
    shares = noise / noise[:1]
    time_of_noise(model.sde.schedule, found * shares)


def name_of(path: Path) -> str:
    """The name of a file without its ending."""
    return path.name.removesuffix(".gz").removesuffix(path.suffix).removesuffix(".nii")


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
        write_array(path, x.shape, [x.numpy()])
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
