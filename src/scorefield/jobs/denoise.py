"""Denoising as a job: E[x | y] of every field of some files, y = x + σ n."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.core.schedule import time_of_noise
from scorefield.core.sde import expand_like
from scorefield.data.arrays import ArrayFile
from scorefield.data.batch import Batch
from scorefield.data.magnitude import background_noise, without_bias
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
from scorefield.run.verb import Count, Positive, log, positional

NO_BACKGROUND = 2.5  # times the noise of the finest details, where 1.6 is the most that noise alone makes of it
DOUBTFUL = 1.5  # times the noise that fields themselves show, beyond which a given one is warned of


@dataclass(frozen=True, kw_only=True)
class Denoise(OnRun):
    """Denoise fields in files: the mean of all that each may have been, given white noise of a known or estimated strength.

    With a run that learnt from a few hundred noisy slices alone it is below BM3D (28.1 and 32.2 dB, benchmarks/sure.md).

    Args:
        files: images, .npy files of one field or several, or NIfTI volumes (axial slices).
        phases: NIfTI of the phase of each file, for models of complex images.
        noise: standard deviation in data units, per real component; by default estimated for each field.
        noise_map: a file .npy (of NIfTI a volume) with that of every point of the grid, for one field or for each: fields are
            divided by it, relative to its mean square, denoised, and multiplied again.
        magnitudes_of: the files hold magnitudes of so many coils, root sum of squares; 1 for those of Rice's distribution. Their
            noise is that of real and imaginary part, by default found in the background, and what it adds to the mean is taken
            away.
        out: folder to write.
        chunk: fields at once.
    """

    files: tuple[Path, ...] = positional()
    phases: tuple[Path, ...] = ()
    noise: Positive | None = None
    noise_map: Path | None = None
    magnitudes_of: Count | None = None
    out: Path
    chunk: Count = 16

    @property
    def estimates(self) -> bool:
        """Whether the noise is found in the fields."""
        return self.noise is None and self.noise_map is None

    def check(self) -> None:
        check_out(self.out, folder=True)
        names = [name_of(path) for path in self.files]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"Two files are called {twice}: denoise them into folders of their own.")
        if self.noise is not None and self.noise_map is not None:
            raise InputError("--noise and --noise-map contradict each other: leave one of them out.")
        if self.magnitudes_of is not None and (self.phases or self.noise_map is not None):
            raise InputError(
                "--magnitudes-of is for magnitudes alone, of one noise: leave out --phases and --noise-map."
            )
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
            relative, levels = self._noise_in(opened, path)
            if not bool((levels > 0).all()):
                raise InputError(f"{path} holds a field in which no noise can be found: give --noise.")
            check_levels(self.model, opened.fields, levels)
            yield Measured(name_of(path), opened, levels, relative, self.magnitudes_of)

    def _noise_in(self, opened: Array | Volume, path: Path) -> tuple[Tensor, Tensor]:
        """The noise of every point relative to its mean square, 1 where it is even, and the root of that mean of each field."""
        one = torch.ones(())
        if self.noise_map is not None:
            each = opened.map_of(self.noise_map)
            levels = each.square().flatten(1).mean(1).sqrt()
            return each / expand_like(levels, each), levels
        if self.magnitudes_of is None:
            found = estimate_noise(opened.fields)
        else:
            found = _of_magnitudes(opened, path, self.magnitudes_of, self.noise)
        if self.noise is None:
            return one, found
        levels = self.noise / opened.scale
        ratio = float((levels / found)[found > 0].median()) if bool((found > 0).any()) else 1.0
        if not 1 / DOUBTFUL < ratio < DOUBTFUL:
            log.warning(
                "%s: --noise is %.2g times what its %s look like. What is less leaves noise, what is more takes detail away.",
                path, ratio, "finest details" if self.magnitudes_of is None else "darkest pixels",
            )  # fmt: skip
        return one, levels

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
    relative: Tensor
    magnitudes_of: int | None = None

    def denoised(self, model: Model, chunk: int) -> Tensor:
        """E[x | y], or of magnitudes the x whose mean they have."""
        x = self.relative * model.denoise(self.opened.fields / self.relative, self.levels, chunk=chunk)
        if self.magnitudes_of is None:
            return x
        rows = zip(x, self.levels.tolist(), strict=True)
        return torch.stack([without_bias(row.clamp(min=0), level, self.magnitudes_of) for row, level in rows])


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
        how = self.how
        found = how.provenance | {"files": files, "noise": how.noise, "chunk": how.chunk}
        if how.magnitudes_of is not None:
            found |= {"magnitudes_of": how.magnitudes_of}
        if how.noise_map is not None:
            maps = [(part.relative * expand_like(part.levels, part.relative)).numpy() for part in self.measured]
            found |= {"noise_maps": [sha256(values.tobytes()).hexdigest() for values in maps]}
        return found

    @property
    def sizes(self) -> list[int]:
        return [1] * len(self.measured)

    def compute(self, number: int) -> Piece:
        part = self.measured[number]
        return {"x": part.denoised(self.how.model, self.how.chunk).numpy()}

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
            out / "denoising.json", {"model": self.how.provenance, "estimated": self.how.estimates, "files": files}
        )
        record_in(out, self.identity)


def _of_magnitudes(opened: Array | Volume, path: Path, coils: int, noise: float | None) -> Tensor:
    """σ of each field of magnitudes, by the background of all of them; that of `noise` where there is no background."""
    fields = opened.fields
    if fields.shape[1] != 1 or float(fields.min()) < 0:
        raise InputError(f"{path} holds no magnitudes, which are of one channel and >= 0: leave out --magnitudes-of.")
    try:
        found = background_noise(fields * expand_like(opened.scale, fields), coils) / opened.scale
    except InputError as error:
        if noise is None:
            raise InputError(f"{path}: {error}") from error
        return noise / opened.scale
    fine = estimate_noise(fields)
    ratio = float((found / fine)[fine > 0].median()) if bool((fine > 0).any()) else 1.0
    if noise is None and ratio > NO_BACKGROUND:
        log.warning(
            "%s: the darkest pixels look like noise %.2g times as strong as the finest details do. Either they are no background "
            "of noise, or the image was smoothed or interpolated: compare with --noise.", path, ratio,
        )  # fmt: skip
    return found


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

    def map_of(self, path: Path) -> Tensor:
        """The noise of every point of the grid, (1 or fields, 1, *grid), from a file .npy."""
        grid, found = tuple(self.fields.shape[2:]), np.asarray(ArrayFile(path).read("", "--noise-map"))
        shapes = (grid, (len(self.fields), *grid))
        if found.shape not in shapes or found.dtype.kind not in "iuf":
            raise InputError(
                f"{path} is to hold a standard deviation for every point, {shapes[0]} or {shapes[1]}; it is {found.dtype} "
                f"{found.shape}."
            )
        if not (np.isfinite(found) & (found > 0)).all():
            raise InputError(
                f"{path} is to hold standard deviations > 0; they go from {found.min():.3g} to {found.max():.3g}."
            )
        whole = torch.from_numpy(found.astype(np.float32)).reshape(-1, 1, *grid)
        return whole.expand(len(self.fields), *whole.shape[1:])

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
