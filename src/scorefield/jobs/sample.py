"""Drawing samples from a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.fields import ArrayFields
from scorefield.data.single import read_axes, read_fields
from scorefield.data.source import Source
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import replacing
from scorefield.foundation.launch import is_first
from scorefield.guidance import Method, MomentMatching
from scorefield.jobs import resolution
from scorefield.jobs.class_guidance import class_facts, guidance_of, label_of, number_of
from scorefield.jobs.draws import Draws, read_samples
from scorefield.jobs.options import Drawing, Label
from scorefield.jobs.outputs import Pixels
from scorefield.jobs.pictures import trajectory
from scorefield.jobs.rollout import Rollout
from scorefield.jobs.trajectories import Observed, Trajectories
from scorefield.jobs.vectors import Vector, vector_of
from scorefield.model import Model
from scorefield.run.runner import check_out, run_job
from scorefield.run.verb import Count, NonNegative, Seed, log, option
from scorefield.samplers import Finer


@dataclass(frozen=True, kw_only=True)
class Sample(Drawing):
    """Draw samples from a run into a folder; an interrupted call is completed by calling it again, and several share the work.

    Args:
        n: how many samples.
        seed: sample i depends on (seed, i) alone.
        out: folder to write.
        label: the class by its name or number, of a network with labels; each: all classes in turn.
        vector: the numbers to draw at, in the units of the data, of a network with vectors: 0.3,1.2.
        guidance: w: how much to stress the class of --label or the numbers of --vector, c, p(x | c)^w p(x)^(1-w); 1 is the plain
            law given c.
        classifier: run of a classifier of noised fields that guides instead of the network's own classes.
        weak: run or earlier checkpoint of a weaker model of the same data, away from which --guidance leads; 2 by default.
        within: the smallest and the largest noise σ/α, in model space, at which guidance acts.
        resolution: points along the longest axis, or along each: the domain of training on another grid.
        beyond: on a finer grid, the modes that the training grid lacks: Continued (the default where the noise has
            modes and nothing is given: the spectrum of the training data by each field's own power), WienerBeyond (the spectrum
            alone), Extrapolate (what the network makes of them) or BandLimited (no noise in them).
        given: condition sample i on what goes with field i of this split of the data, train or valid; or on field i of a file, an
            image or (fields, channels, *grid) in a .npy, .npz, HDF5, NetCDF, Zarr, .mat or .pt file, in the units of the data;
            over again where there are fewer. Its coordinates are kept in coordinates.npz.
        rollout: draw sequences of so many fields, each given those before it, of a run on `Forecasts`; with --given.
        joint: draw sequences of so many fields, all together, of a run on `Windows` with `together`; with --given the fields that
            windows are given go with the first held-out sequences, or a file has them, (sequences, fields, *grid).
        observed: with --joint: what is known of every sequence, a .npy (fields, *grid) in data units, NaN where nothing is.
        noise: standard deviation of --observed.
        method: how p(y | x_t) is approximated, with --observed.
        png: a PNG for each sample instead of one array.
        range: with --png: the values of black and white; by default those of the images of training, 16 bits where these were.
        trajectory: draw some samples on their way from noise, too.
    """

    n: Count = option("-n", "--number", default=64)
    seed: Seed = 0
    out: Path
    label: Label | None = None
    vector: Vector | None = None
    guidance: NonNegative | None = None
    classifier: Path | None = None
    weak: Path | None = None
    within: tuple[float, float] | None = None
    resolution: tuple[Count, ...] = ()
    beyond: Finer | None = None
    given: str | Path | None = None
    rollout: Count | None = None
    joint: Count | None = None
    observed: Path | None = None
    noise: float | None = None
    method: Method = MomentMatching()
    png: bool = False
    range: tuple[float, float] | None = None
    trajectory: bool = False

    def check(self) -> None:
        check_out(self.out, folder=True)
        if self.range is not None and not self.png:
            raise InputError("--range is for pictures: add --png, or leave it out.")
        if self.rollout is not None and (self.given is None or self.png or self.trajectory):
            raise InputError(
                "--rollout goes on from fields, into an array: add --given, and leave out --png and --trajectory."
            )
        if self.joint is not None:
            others = (self.rollout, self.label, self.vector, self.guidance, self.classifier, self.weak)
            if self.png or self.trajectory or any(other is not None for other in others):
                raise InputError(
                    "--joint draws sequences into an array, by the model alone: leave out --rollout, --png, --trajectory, "
                    "--label, --vector, --guidance, --classifier and --weak."
                )
        elif self.observed is not None or self.noise is not None:
            raise InputError("--observed and --noise are for sequences that are drawn together: add --joint.")
        if self.noise is not None and self.observed is None:
            raise InputError("--noise is that of --observed: add it, or leave --noise out.")
        if self.beyond is not None and not self.resolution:
            raise InputError("--beyond is for a finer grid: add --resolution, or leave it out.")
        if self.classifier is not None and self.label is None:
            raise InputError("A classifier guides towards a class: add --label, or leave --classifier out.")
        asked = (self.label, self.vector, self.given, self.weak)
        if self.guidance is not None and all(part is None for part in asked):
            raise InputError("Guidance stresses a class or a vector: add --label or --vector, or leave --guidance out.")

    def run(self) -> Tensor | None:
        if self.joint is not None:
            run_job(self._trajectories(self.joint), unit="sample", title="sequences")
            self._carry(self.joint)
            log.info("%d sequences of %d fields in %s", self.n, self.joint, self.out)
            return read_samples(self.out)
        job = self.job()
        if self.rollout is not None:
            if self.checkpoint.source(self.trust).past * job.shape[0] != self.model.generative.net.cond_channels:
                raise InputError(
                    "--rollout is for a run on Forecasts, whose fields are given those before: leave it out."
                )
            run_job(Rollout(job, self.rollout, self._known), unit="sample", title="sequences")
            self._carry(job.model.generative.net.cond_channels)
            log.info("%d sequences of %d fields in %s", self.n, self.rollout, self.out)
            return read_samples(self.out)
        run_job(job, unit="sample", title="sample")
        self._carry(job.model.generative.net.cond_channels)
        if self.trajectory and is_first() and not (path := self.out / "trajectory.png").exists():
            trajectory(job.of_the_first(8), path)
        log.info("%d samples in %s", self.n, self.out)
        return None if self.png else read_samples(self.out)

    def job(self, given: tuple[dict[str, Tensor] | None, str | None] | None = None) -> Draws:
        """What is to be drawn, all that can be refused refused.

        Args:
            given: what samples are conditioned on, and how that is said; by default what --given says.
        """
        model, source = self.model, self.checkpoint
        guidance = guidance_of(model, self.guidance, self.classifier, self.trust, self.weak, self.within)
        if self.given is not None and not model.generative.net.cond_channels and not model.vector:
            raise InputError(
                "--given is for networks that are conditioned on fields or vectors, as this one is not: leave it out."
            )
        grid = resolution.grid_of(model.shape[1:], self.resolution)
        resolution.warn_of_mesh(model, grid)
        beyond = resolution.fitted(self.beyond, model, lambda split: source.source(self.trust).load(split), grid)
        cond, told = given or self._given(model, grid)
        facts = self.provenance | dict(guidance.facts)
        label = number_of(self.label, guidance.names) if guidance.names else label_of(model, self.label)
        facts |= class_facts(label, model.class_names or guidance.names)
        facts |= {"given": told, "beyond": None if beyond is None else repr(beyond)}
        return Draws(
            out=self.out,
            model=model,
            sampler=self.sampler_from(model.sampler),
            n=self.n,
            seed=self.seed,
            chunk=self.at_once(self.n, grid or model.shape[1:]),
            label=label,
            denoiser=resolution.beyond_grid(beyond, model, guidance.denoiser),
            classes=guidance.classes,
            grid=grid,
            cond=cond,
            pixels=self._pixels(),
            vector=vector_of(model, self.vector, given=cond is not None),
            facts=facts,
        )

    def _given(self, model: Model, grid: tuple[int, ...]) -> tuple[dict[str, Tensor] | None, str | None]:
        """What samples are conditioned on, and how the identity of the job says it: a file by its content."""
        if self.given is None:
            return None, None
        if (split := str(self.given)) in ("train", "valid"):
            fields = self.checkpoint.source(self.trust).load(split)
            return resolution.conditions(fields, torch.arange(self.n), grid), split
        channels = model.generative.net.cond_channels
        if not channels:
            raise InputError(
                f"--given {brief(split)} is a file of fields, of which the network takes none: give --vector."
            )
        return self._from_file(model, channels, self.n, grid)

    def _from_file(
        self, model: Model, channels: int, n: int, grid: tuple[int, ...]
    ) -> tuple[dict[str, Tensor], str | None]:
        fields = self._fields((channels, *model.shape[1:]))
        known = tuple(fields[0].x.shape[1:])
        resolution.check_domain(model.shape[1:], known)
        _, turned, odd = self._axes(known)
        for line in (*fields.notes, *odd):
            log.warning(line)
        cond, content = resolution.given_by(
            fields, n, grid or model.shape[1:], lambda: self.checkpoint.source(self.trust).load("train"), turned
        )
        if channels == model.generative.net.cond_channels:
            resolution.warn_of_units(model, cond["field"])
        return cond, content

    def _axes(self, known: tuple[int, ...]) -> tuple[dict[str, np.ndarray], tuple[int, ...], tuple[str, ...]]:
        """Coordinates along a grid in the file of --given, beside those of training: see `resolution.directed`."""
        path = Path(str(self.given))
        try:
            trained = self.checkpoint.source(self.trust).axes()
        except InputError:  # what the run was trained on is not at hand
            trained = {}
        return resolution.directed(read_axes(path, known, trained), trained, str(path), known)

    def _fields(self, shape: tuple[int, ...]) -> ArrayFields:
        """Those of the file that --given names, of several arrays the one of the name that the run was trained with."""
        path = Path(str(self.given))
        try:
            source = self.checkpoint.source(self.trust)
            name = source.given
        except InputError:  # what the run was trained on is not known here
            return read_fields(path, shape)
        try:
            order, units = source.order(), source.units()
        except InputError:  # nor is it at hand
            order, units = (), ""
        return read_fields(path, shape, name, order, units)

    def _carry(self, channels: int) -> None:
        """The coordinates that --given has beside its fields of so many channels, for the grid of the samples, as
        `coordinates.npz`.
        """
        path, model = self.out / "coordinates.npz", self.model
        by_file = channels and self.given is not None and str(self.given) not in ("train", "valid")
        if not by_file or path.exists() or not is_first():
            return
        fields = self._fields((channels, *model.shape[1:]))
        known = tuple(fields[0].x.shape[1:])
        grid = resolution.grid_of(model.shape[1:], self.resolution)
        if axes := resolution.axes_on(self._axes(known)[0], len(fields), known, grid):
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **axes)

    @property
    def _known(self) -> int:
        """How many fields --given has, n of them at most."""
        if (split := str(self.given)) in ("train", "valid"):
            return min(self.n, len(self.checkpoint.source(self.trust).load(split)))
        shape = (self.model.generative.net.cond_channels, *self.model.shape[1:])
        return min(self.n, len(self._fields(shape)))

    def _trajectories(self, times: int) -> Trajectories:
        """Sequences drawn together, all that can be refused refused."""
        model, source = self.model, self.checkpoint.source(self.trust)
        window = source.window
        if not window or model.shape[0] % window:
            raise InputError("--joint is for a run on Windows with `together`, of several times at once: leave it out.")
        grid, observed = resolution.grid_of(model.shape[1:], self.resolution), None
        if self.observed is not None:
            shape = (model.shape[0] // window, *grid)
            observed = Observed.read(self.observed, shape, times, self.noise, self.method)
        given, told, sequences = self._windows(model, source, times, grid)
        first = dict(given(torch.zeros(1, dtype=torch.int64)))
        return Trajectories(self.job((first or None, told)), window, times, given, sequences, observed)

    def _windows(
        self, model: Model, source: Source, times: int, grid: tuple[int, ...]
    ) -> tuple[Callable[[Tensor], dict[str, Tensor]], str | None, int]:
        """What the windows of some sequences are given, how the identity says it, and how many sequences that is of."""
        window, split = source.window, str(self.given)
        each = torch.arange(max(times - window + 1, 1))
        if self.given is None:
            return lambda rows: {}, None, 0
        if split in ("train", "valid"):
            fields = source.load(split)
            if fields.windows_each < len(each):
                most = fields.windows_each + window - 1
                raise InputError(
                    f"The sequences of {split} have {most} fields, not {times}: give --joint {most} at most."
                )
            sequences = len(fields) // fields.windows_each

            def of_data(rows: Tensor) -> dict[str, Tensor]:
                starts = (rows % sequences) * fields.windows_each
                return resolution.conditions(fields, (starts[:, None] + each).flatten(), grid)

            return of_data, split, min(self.n, sequences)
        if model.generative.net.cond_channels not in (0, window):  # of 0 --given is refused
            raise InputError("--joint takes a file of one field for each time: give train or valid instead.")
        cond, content = self._from_file(model, times, self.n, grid)
        x, sequences = cond["field"], min(self.n, len(self._fields((times, *model.shape[1:]))))

        def of_file(rows: Tensor) -> dict[str, Tensor]:
            return {"field": x[rows % sequences].unfold(1, window, 1).movedim(-1, 2).flatten(0, 1)}

        return of_file, content, sequences

    def _pixels(self) -> Pixels | None:
        if not self.png:
            return None
        if self.range is not None:
            return Pixels(*self.range)
        known = self.checkpoint.checkpoint.facts.get("data")
        return Pixels.as_stored(known.get("dtype") if isinstance(known, dict) else None)
