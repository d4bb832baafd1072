"""Reconstructing as a job: from a file of k-space to one of images, slice by slice, so that an interrupted call goes on.

Beside FILE.h5 a folder FILE.h5.parts holds the slices that are done; at the end they are put together, and it is deleted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jsonargparse import Namespace

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing, write_text
from scorefield.foundation.locks import ChunkLocks
from scorefield.guidance import Method, Proximal
from scorefield.jobs import sampling
from scorefield.model import Model
from scorefield.mri.assembling import assemble
from scorefield.mri.files import read_maps
from scorefield.mri.kspace import EmptySliceError, KSpace
from scorefield.mri.masks import Sampling
from scorefield.mri.reconstruction_report import misfit, summary
from scorefield.mri.scan import Baselines, draw
from scorefield.mri.scan_loading import Scans, sampling_of
from scorefield.run.configuration import Parser
from scorefield.samplers import DPMSolverPP2M, EDMGrid, Sampler

OWN_METHOD = Proximal(sigma_data=0.35, spread=1.5, iterations=30)
LEAST, MOST = 0.005, 3.0  # σ/α at which members end and begin
OWN = Sampler(20, DPMSolverPP2M(1.0), EDMGrid(ratio_min=LEAST, ratio_max=MOST))


def add_arguments(parser: Parser) -> None:
    """What was measured, what of it is used, and how to reconstruct it."""
    parser.add_argument("kspace", type=Path, help="k-space: .h5 (fastMRI or ISMRMRD), .npy, or .cfl")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .h5")
    parser.add_argument("-n", "--samples", type=int, default=8, help="members to draw for each slice")
    parser.add_argument(
        "--slices", type=str | None, default=None, help="which: 12, 4:9, 3,5,8 or 0:7,8:20; all by default"
    )
    parser.add_argument(
        "--mask", type=Sampling, default=None, help="use a part of k-space only: RandomLines, PoissonDisc, ..."
    )
    parser.add_argument(
        "--acceleration", type=float, default=None, help="instead of --mask: random lines, 24 in the middle"
    )
    parser.add_argument(
        "--maps", type=Path | None, default=None, help="coil maps: .npy, .h5 (maps) or .cfl; else by ESPIRiT"
    )
    parser.add_argument("--cache", type=Path | None, default=None, help="folder in which estimated maps are kept")
    parser.add_argument(
        "--noise",
        type=float | None,
        default=None,
        help="its standard deviation per real component; else it is estimated",
    )
    parser.add_argument("--coils", type=int | None, default=None, help="compress to so many")
    parser.add_argument(
        "--height", type=int | None, default=None, help="of the image, where the readout is oversampled"
    )
    parser.add_argument("--method", type=Method, default=OWN_METHOD, help="Proximal, PiGDM, DPS, MomentMatching, ...")
    parser.add_argument("--baselines", type=Baselines, default=Baselines(), help="how the baselines are regularised")
    parser.add_argument("--bf16", action="store_true", help="evaluate the network in bfloat16")
    parser.add_argument("--seed", type=int, default=0, help="member i of slice s depends on (seed, s, i) alone")
    sampling.add_arguments(parser)


def own_sampler(model: Model) -> Sampler:
    """The default, which ends no lower than the model's own sampler: a prior from noisy images knows nothing of less noise."""
    schedule, sampler = model.sde.schedule, model.sampler
    last = sampler.grid(schedule, max(sampler.steps + (not sampler.denoise), 2))[-1:]
    ratio = float(schedule.sigma(last) / schedule.alpha(last))
    return replace(OWN, grid=EDMGrid(ratio_min=max(LEAST, ratio), ratio_max=MOST))


def numbers_of(text: str | None, count: int, origin: str) -> list[int]:
    """`12`, `4:9` or `3,5,8`, or several of these such as `0:7,8:20`, as numbers of slices; all of them by default."""
    if text is None:
        return list(range(count))
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, colon, last = part.partition(":")
            numbers += range(int(first), int(last)) if colon else [int(first)]
    except ValueError:
        numbers = []
    if not numbers:
        raise InputError(f"--slices {text} names no slices: give 12, 4:9, 3,5,8 or 0:7,8:20.")
    numbers = list(dict.fromkeys(numbers))
    if wrong := [number for number in numbers if not 0 <= number < count]:
        raise InputError(f"{origin} has slices 0 to {count - 1}, no {wrong[0]}.")
    return numbers


@dataclass(frozen=True, eq=False)
class Job:
    """What to draw of which slices.

    Args:
        model: the prior.
        source: the scans.
        numbers: the slices.
        method: how p(y | x_t) is approximated.
        sampler: how members are drawn.
        members: how many.
        seed: of the draws.
        chunk: how many at once.
        bf16: evaluate the network in bfloat16.
        facts: what decides the result, beside these.
    """

    model: Model
    source: Scans
    numbers: Sequence[int]
    method: Method
    sampler: Sampler
    members: int
    seed: int
    chunk: int
    bf16: bool
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name, value, least in (("samples", self.members, 1), ("chunk", self.chunk, 1), ("seed", self.seed, 0)):
            if value < least:
                raise InputError(f"The number of {name} is {value}: give {least} or more.")
        if self.model.shape and self.model.shape[0] != 2:
            raise InputError(
                f"The run draws fields of {self.model.shape[0]} channels: a prior of complex images has 2."
            )

    @property
    def record(self) -> dict[str, Any]:
        """What decides the result."""
        facts = {"slices": list(self.numbers), "members": self.members, "seed": self.seed, "chunk": self.chunk}
        facts |= {"method": repr(self.method), "sampler": repr(self.sampler), "bf16": self.bf16}
        return json.loads(json.dumps(facts | dict(self.facts)))

    def compute(self, number: int) -> tuple[dict[str, np.ndarray], list[str]]:
        """Everything about one slice; of one that is all zeros no images."""
        try:
            scan, reference, notes = self.source.scan(number)
        except EmptySliceError as error:
            return {"empty": np.array(True)}, [f"{error} Its images are 0, and it counts in no figure."]
        members = draw(
            self.model,
            scan,
            method=self.method,
            sampler=self.sampler,
            members=self.members,
            seed=self.seed,
            number=number,
            chunk=min(self.chunk, self.members),
            bf16=self.bf16,
        )
        baselines = scan.baseline_images()
        found = summary(members) | {name.replace("-", "_"): x for name, x in baselines.items()}
        fit = scan.chi_square(members)
        wrong = misfit(float(fit.mean()), float(scan.chi_square(baselines["CG-SENSE"][None])))
        notes = [*notes, wrong] if wrong else notes
        found |= {"chi_square": fit, "mask": scan.mask, "maps": scan.unit * scan.maps}
        found |= {"noise": torch.tensor(scan.unit * scan.noise), "scale": torch.tensor(scan.scale)}
        if reference is not None:
            found["reference"] = reference
        if (target := self.source.target(number)) is not None:
            found["target"] = torch.from_numpy(target)
        return {name: x.cpu().numpy() for name, x in found.items()}, notes


def job_of(model: Model, kspace: KSpace, settings: Namespace, *, sampler: Sampler, facts: Mapping[str, Any]) -> Job:
    """The job that arguments describe, see `add_arguments`."""
    maps = None if settings.maps is None else read_maps(settings.maps)
    source = Scans(
        kspace,
        sampling_of(settings.mask, settings.acceleration),
        maps,
        settings.cache,
        settings.noise,
        settings.coils,
        settings.height,
        settings.baselines,
    )
    numbers = numbers_of(settings.slices, len(kspace), kspace.origin)
    decisive = {name: repr(getattr(source, name)) for name in ("sampling", "noise", "coils", "height", "baselines")}
    measured = source.fingerprint(numbers)
    return Job(
        model,
        source,
        numbers,
        settings.method,
        sampler,
        settings.samples,
        settings.seed,
        settings.chunk,
        settings.bf16,
        {**facts, **decisive, "measured": measured},
    )


def reconstruct(
    job: Job,
    out: Path,
    *,
    say: Callable[[str], object] = lambda _: None,
    progress: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Write a file of images, see `Job.compute`; returns the figures of its `slices`, and of the `volume` where there is a
    reference. The same call completes what was interrupted.

    Args:
        job: what to draw.
        out: the file, .h5.
        say: called with what is odd about slices.
        progress: called with the number of slices that are done.
    """
    if out.suffix not in (".h5", ".hdf5"):
        raise InputError(f"{out} is to be HDF5: give a name that ends in .h5.")
    if out.exists():
        if _record_of(out) != job.record:
            raise InputError(f"{out} exists and holds another reconstruction: give another --out, or delete it.")
        return json.loads(_attributes(out)["figures"])
    parts = out.with_name(out.name + ".parts")
    _claim(parts, job.record)
    claims, said = ChunkLocks(parts / ".claims"), set()
    try:
        for wait in (False, True):
            for place, number in enumerate(job.numbers):
                path = parts / f"slice-{number:05d}.npz"
                with claims.hold(place, wait=wait) as ours:
                    if ours and not _readable(path):
                        found, notes = job.compute(number)
                        for note in notes:
                            if note not in said:  # of most slices the same holds
                                say(f"slice {number}: {note}")
                        said.update(notes)
                        with replacing(path) as temporary, temporary.open("wb") as file:
                            np.savez(file, **cast(Any, found))
                        progress(1)
        with claims.hold(len(job.numbers), wait=True):
            if not out.exists():
                done = {number: parts / f"slice-{number:05d}.npz" for number in job.numbers}
                assemble(job.record, done, out, target=job.source.kspace.target_name)
    finally:
        claims.close()
        if not any(parts.glob("slice-*")):  # nothing to go on from
            shutil.rmtree(parts, ignore_errors=True)
    shutil.rmtree(parts, ignore_errors=True)
    return json.loads(_attributes(out)["figures"])


def _claim(parts: Path, record: Mapping[str, Any]) -> None:
    """Make the folder of parts this job's, or see that it is."""
    path = parts / "record.json"
    if not path.is_file():
        write_text(path, json.dumps(record, indent=2) + "\n")
    elif json.loads(path.read_text()) != record:
        raise InputError(f"{parts} holds parts of another reconstruction: give another --out, or delete it.")


def _readable(path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as part:
            return bool(part.files) and all(part[name] is not None for name in part.files)
    except Exception:  # broken files raise errors of many kinds: it is made again
        return False


def _attributes(out: Path) -> dict[str, Any]:
    import h5py

    try:
        with h5py.File(out, "r") as file:
            return dict(file.attrs)
    except OSError as error:
        raise InputError(f"{out} exists and is no HDF5 file: give another --out.") from error


def _record_of(out: Path) -> Any:
    return json.loads(_attributes(out).get("record", "null"))
