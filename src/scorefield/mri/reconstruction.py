"""Reconstructing MR images: from a file of k-space to one of images, slice by slice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from scorefield.foundation.arithmetic import FULL, LOW
from scorefield.foundation.errors import InputError
from scorefield.foundation.lazy import require
from scorefield.guidance import Method
from scorefield.inverse import particle_sampler
from scorefield.jobs.options import Drawing
from scorefield.mri.assembling import assemble
from scorefield.mri.exporting import check_series, placed, write_dicom, write_nifti
from scorefield.mri.files import open_kspace, read_maps
from scorefield.mri.geometry import Slice, volume_affine
from scorefield.mri.images import Images
from scorefield.mri.kspace import KSpace, numbers_of
from scorefield.mri.masks import Sampling
from scorefield.mri.posterior import CENTRE, OWN_METHOD, Posterior, own_sampler
from scorefield.mri.predictive_check import MEMBERS
from scorefield.mri.reconstruction_report import table as reconstruction_table
from scorefield.mri.scan import Baselines
from scorefield.mri.scan_loading import Scans, sampling_of
from scorefield.mri.series_geometry import series_planes
from scorefield.run.runner import JOB, Job, Piece, Pieces, check_out, digest, run_job
from scorefield.run.verb import Between, Count, CountOrZero, Positive, Seed, log, option, positional
from scorefield.samplers import Sampler


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Drawing):
    """Reconstruct MR images from undersampled k-space: members of p(image | k-space), their mean and spread, and baselines.

    Args:
        kspace: k-space: .h5 (fastMRI or ISMRMRD), .npy, .npz or .mat (kspace), .cfl, or .dat (twix).
        out: file to write, .h5.
        format: hdf5 alone; or besides, for other programs, the magnitude of the mean where the slices are in the patient: nifti
            writes NAME.nii.gz, dicom a series in the folder NAME-dicom.
        geometry: with --format nifti or dicom, a DICOM series or NIfTI file of the same slices, for k-space that does not say
            where they are; how they are turned is found by comparing images.
        n: members to draw for each slice.
        seed: member i of slice s depends on (seed, s, i) alone.
        slices: which: 12, 4:9, 3,5,8 or 0:7,8:20; all by default.
        mask: of fully sampled k-space use a part only, and compare with the whole: RandomLines, PoissonDisc, ..., or a file .npy.
            k-space that was undersampled needs none.
        acceleration: instead of --mask: random lines at this R; of readouts off the grid every R-th by its angle.
        trajectory: where k-space off the grid (radial, spiral) was sampled, if the file does not say it.
        calibration: lines in the middle with --acceleration, a number or a share of all; by default 24, or where these were more
            than half of all that are used, 0.32/R of all.
        maps: coil maps: .npy, .h5, .npz or .mat (maps), or .cfl; else those of the file, or by ESPIRiT from its middle lines.
        cache: folder in which estimated maps are kept.
        noise: standard deviation of the noise of k-space per real component, equal and independent in all coils; else it is
            estimated, and made so.
        coils: compress to so many virtual coils.
        height: of the image in points, where the readout is oversampled and the file does not say so.
        method: Proximal, PiGDM, DPS, MomentMatching, ...
        centre: evaluations, of all members together, for an image that members are centred at; 0 for members as they are drawn.
            By default 24 with Proximal, with 4 --steps a member (8 under a prior of volumes or films), and 0 with other methods,
            with 8.
        particles: correct the method by so many weighted particles, of which -n are drawn, with an estimate of log p(k-space); it
            takes a step that is stochastic and evaluates once, by default DPM++ 2M SDE from noise on. For small problems: of
            k-space of several thousand numbers hardly any particle counts, and a warning says so. 0 takes the method as it is.
        volume: reconstruct slices, which follow one another without gaps, as one volume, by a prior of slices across several
            axes. A prior of volumes or films, which looks at windows of its size, always does.
        axes: across which a volume is cut for a prior of slices: 0 gives slices as they are measured, 1 cuts across their height,
            2 across their width.
        held_out: share of the acquired samples, whole lines, that up to 8 members more have to predict, to tell whether the
            prior is right for the scan. 0 for no such check; there is none of fewer than 4 members.
        inflate: widen std, interval and quantiles so that 90 % of what was held out lies in its interval.
        baselines: how the baselines are regularised; what is not given is chosen on the scan, see `tuning`.
        bf16: the same as --precision bf16-mixed.
    """

    kspace: Path = positional()
    out: Path
    format: Literal["hdf5", "nifti", "dicom"] = "hdf5"
    geometry: Path | None = None
    n: Count = option("-n", "--samples", default=8)
    seed: Seed = 0
    slices: str | None = None
    mask: Sampling | None = None
    acceleration: float | None = None
    calibration: int | float | None = None
    trajectory: Path | None = None
    maps: Path | None = None
    cache: Path | None = None
    noise: Positive | None = None
    coils: Count | None = None
    height: int | None = None
    method: Method = OWN_METHOD
    centre: CountOrZero | None = None
    particles: CountOrZero = 0
    volume: bool = False
    axes: tuple[int, ...] = (0, 1, 2)
    held_out: Annotated[float, Between(0.0, 0.25)] = 0.03
    inflate: bool = False
    baselines: Baselines = Baselines()
    bf16: bool = False

    @property
    def wanted_precision(self) -> str:
        return LOW if self.bf16 else self.precision

    def check(self) -> None:
        check_out(self.out)
        if self.bf16 and self.precision == FULL:
            raise InputError("--bf16 and --precision 32-true contradict each other: leave one of them out.")
        if self.out.suffix not in (".h5", ".hdf5"):
            raise InputError(
                f"{self.out} is to be HDF5: give a name that ends in .h5; --format nifti and dicom are written beside it."
            )
        if self.inflate and (not self.held_out or self.n < MEMBERS):
            raise InputError(f"--inflate goes by what is held out: give --held-out above 0 and -n {MEMBERS} or more.")
        if not self.volume and self.axes != (0, 1, 2):
            raise InputError("--axes are those across which a volume is cut: add --volume, or leave them out.")
        if self.volume and (not self.axes or sorted(set(self.axes) & {0, 1, 2}) != sorted(self.axes)):
            raise InputError(f"--axes {list(self.axes)} cuts no volume: give 0, 1 or 2, or several of them, each once.")
        if self.centre and not self.method.settles:
            raise InputError(
                f"--centre is for Proximal, whose image comes to rest: leave it out with {type(self.method).__name__}."
            )
        if self.centre and self.particles:
            raise InputError(
                "--particles are weighed as they are drawn, about no centre: leave out --centre, or --particles."
            )
        if self.geometry is not None and self.format == "hdf5":
            raise InputError("--geometry says where slices are: add --format nifti or --format dicom, or leave it out.")
        if self.format == "dicom":
            require("pydicom", "--format dicom", "mri")

    @property
    def exported(self) -> Path:
        """Where images for other programs are written."""
        return self.out.with_name(f"{self.out.stem}.nii.gz" if self.format == "nifti" else f"{self.out.stem}-dicom")

    @classmethod
    def spelled_out(cls, arguments: Sequence[str]) -> list[str]:
        """With `--mask FILE.npy`, as a path is what one types first, as `--mask MaskFile --mask.path FILE.npy`."""
        found: list[str] = []
        for word in arguments:
            name = (
                word.removeprefix("--mask=") if word.startswith("--mask=") else word if found[-1:] == ["--mask"] else ""
            )
            if not name.endswith(".npy") and not Path(name).is_file():
                found.append(word)
            elif not name.endswith(".npy"):
                raise InputError(f"--mask {name} is a file of no known kind: give a mask as .npy.")
            else:
                found = found[:-1] if found[-1:] == ["--mask"] else found
                found += ["--mask", "MaskFile", "--mask.path", name]
        return found

    def run(self) -> dict[str, Any]:
        kspace = open_kspace(self.kspace, self.trajectory)
        log.info(kspace.layout)
        if kspace.note:
            log.warning(kspace.note)
        source = self._scans(kspace)
        job = Reconstruction(self, source, numbers_of(self.slices, len(kspace), kspace.origin))
        slices = self._slices(job)
        run_job(job, unit="slice", title="reconstruct")
        log.info("images in %s, a picture beside it", self.out)
        if slices:
            self._export(slices)
        return json.loads(_attributes(self.out)["figures"])

    def _slices(self, job: Reconstruction) -> list[Slice]:
        """Where the slices are, if they are wanted for other programs; refused before the first one is computed."""
        if self.format == "hdf5":
            return []
        source, given = job.source, self.geometry
        plane = source.kspace.plane if given is None else series_planes(given, source.kspace, source.height)
        slices = placed([None if plane is None else plane(number) for number in job.numbers], self.exported)
        if self.format == "nifti":
            volume_affine(slices, (1, 1))
        else:
            check_series(self.exported, digest(job.identity))
        return slices

    def _export(self, slices: Sequence[Slice]) -> None:
        import h5py

        with h5py.File(self.out, "r") as file:
            images, job = np.asarray(file["magnitude"]), str(file.attrs[JOB])
        if self.format == "nifti":
            write_nifti(self.exported, images, slices, job)
            log.info("the magnitude of the mean in %s", self.exported)
        else:
            write_dicom(self.exported, images, slices, job, f"posterior mean of {self.n} members")

    def _scans(self, kspace: KSpace) -> Scans:
        """The scans of a file as the arguments want them."""
        maps = None if self.maps is None else read_maps(self.maps)
        width = None if kspace.trajectory is not None else kspace.shape[3]
        sampling = sampling_of(self.mask, self.acceleration, width, self.calibration)
        return Scans(kspace, sampling, maps, self.cache, self.noise, self.coils, self.height, self.baselines)

    def table(self, found: Any) -> str:
        return reconstruction_table(found, self.n)


@dataclass(frozen=True, eq=False)
class Reconstruction(Job):
    """Images of some slices, as one file; pictures beside it.

    Args:
        how: what to draw, by which prior.
        source: the scans.
        numbers: the slices.
    """

    how: Reconstruct
    source: Scans
    numbers: Sequence[int]

    def __post_init__(self) -> None:
        shape = self.how.model.shape
        if shape and shape[0] != 2:
            raise InputError(f"The run draws fields of {shape[0]} channels: a prior of complex images has 2.")
        gaps = self.together and list(self.numbers) != list(range(self.numbers[0], self.numbers[0] + len(self.numbers)))
        if self.window and self.how.axes != (0, 1, 2):
            raise InputError("The prior is one of volumes, which are not cut across axes: leave --axes out.")
        _ = self.posterior  # what is wrong with particles is said before anything is drawn
        if gaps:
            raise InputError("The slices of a volume follow one another without gaps: give --slices such as 10:40.")

    @property
    def out(self) -> Path:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.how.out

    @cached_property
    def sampler(self) -> Sampler:
        """How members are drawn."""
        how = self.how
        return how.sampler_from(particle_sampler(how.model) if how.particles else own_sampler(how.model, self.centre))

    @property
    def chunk(self) -> int:
        """How many members are drawn at once, or particles evaluated."""
        count = self.how.particles or self.how.n
        return min(self.how.at_once(count, self.how.model.shape[1:]), count)

    @property
    def centre(self) -> int:
        """Evaluations for the image that members are centred at."""
        own = CENTRE if self.how.method.settles and not self.how.particles else 0
        return own if self.how.centre is None else self.how.centre

    @cached_property
    def identity(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        how, source = self.how, self.source
        facts = {"slices": list(self.numbers), "members": how.n, "seed": how.seed, "chunk": self.chunk}
        facts |= {"method": repr(how.method), "sampler": repr(self.sampler), "bf16": how.model.drawn_in == LOW}
        facts |= {"centre": self.centre, "volume": [self.together, list(how.axes)]}
        decisive = {name: repr(getattr(source, name)) for name in ("sampling", "noise", "coils", "height", "baselines")}
        facts |= {"particles": how.particles} if how.particles else {}
        facts |= {"held_out": how.held_out, "inflate": how.inflate}
        weights = how.checkpoint.provenance | how.averaging  # as jobs begun before say it
        return facts | weights | decisive | {"measured": source.fingerprint(self.numbers)}

    @property
    def together(self) -> bool:
        """Whether slices are one volume."""
        return self.how.volume or bool(self.window)

    @property
    def window(self) -> tuple[int, ...]:
        """What a prior of volumes looks at, (slices, height, width); of one of slices ()."""
        grid = tuple(self.how.model.shape[1:])
        return grid if len(grid) == 3 else ()

    @property
    def sizes(self) -> list[int]:
        return [1] * (1 if self.together else len(self.numbers))

    @cached_property
    def posterior(self) -> Posterior:
        how = self.how
        return Posterior(how.model, how.method, self.sampler, self.chunk, centre=self.centre, particles=how.particles)

    @cached_property
    def images(self) -> Images:
        how = self.how
        return Images(self.posterior, self.source, how.n, how.seed, how.held_out, how.inflate, how.axes, self.window)

    def compute(self, number: int) -> Piece:
        """Everything about one slice, or about all of them as one volume."""
        return self.images.of_volume(self.numbers) if self.together else self.images.of_slice(self.numbers[number])

    def assemble(self, pieces: Pieces, out: Path) -> None:
        if not self.together:
            parts: Mapping[int, Piece] = dict(zip(self.numbers, pieces, strict=True))
        else:
            parts = {number: {} for number in self.numbers}
            for name, values in pieces[0].items():
                number, _, array = name.partition(".")
                parts[int(number)] = {**parts[int(number)], array: values}
        assemble(self.identity, parts, out, target=self.source.kspace.target_name, pictures=self.out)

    def made_by(self) -> str | None:
        return _attributes(self.out).get(JOB)


def _attributes(out: Path) -> dict[str, Any]:
    import h5py

    try:
        with h5py.File(out, "r") as file:
            return dict(file.attrs)
    except OSError as error:
        raise InputError(f"{out} exists and is no HDF5 file: give another --out.") from error
