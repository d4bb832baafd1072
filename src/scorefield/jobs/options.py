"""Groups of arguments that several verbs have: which run, which of its checkpoints, and how to draw from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from types import MethodType
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from scorefield.data.manifest import summary_of
from scorefield.data.source import Source
from scorefield.foundation.arithmetic import FULL, LOW, Choice, Seconds, allow_tf32, at_once, choose, machine_of, timed
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.launch import place_here
from scorefield.jobs import tuned_samplers
from scorefield.model import Model
from scorefield.run.checkpoint_choice import best_step
from scorefield.run.loading import LoadedCheckpoint, open_checkpoint
from scorefield.run.shipped import results_of
from scorefield.run.verb import Count, CountOrZero, Positive, Verb, log, option, positional
from scorefield.samplers import Corrector, EDMGrid, Sampler, Step, TimeGrid

Number = int | Literal["each"]
Label = str | int  # the name of a class, its number, or "each"


class Usable:
    """The rule of a device: it is there, and computes."""

    def check(self, name: str, value: str, _whole: bool) -> None:
        """Raise InputError for any other device."""
        try:
            if str(value).split(":", maxsplit=1)[0] not in ("cpu", "cuda", "mps", "xpu"):
                raise ValueError("it is none of cpu, cuda, mps, xpu")
            torch.zeros(1, device=value).add(1)
        except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"The device {str(value)[:40]!r} cannot be used ({brief(error)}): give {name} cpu, or cuda on a GPU."
            ) from error


Device = Annotated[str, Usable()]


def own_device(name: str, rank: int | None = None, count: int | None = None) -> str:
    """The device of one process of several on a machine, which take turns with its GPUs where none is named by number."""
    rank = place_here().number if rank is None else rank
    count = torch.cuda.device_count() if count is None else count
    return f"cuda:{rank % count}" if name == "cuda" and rank and count else name


@dataclass(frozen=True, kw_only=True)
class OnRun(Verb):
    """What works on a run.

    Args:
        run: run folder, checkpoint file, or the name of a shipped model (scorefield models).
        step: of which checkpoint; the last one by default.
        best: instead of it, the checkpoint with the best recorded figure: loss (of validation), fid, ...; NAME:min or NAME:max
            for others.
        ema: use the averaged weights.
        ema_width: an average of another width: its standard deviation over time, in parts of the training, as 0.1; of a run that
            tracked some (train.ema_widths).
        trust: your own packages that the run's configuration may name.
        device: where to compute: cpu, cuda, cuda:1, mps.
    """

    run: InitVar[Path] = positional(default=...)  # kept as `folder`, since `run` is what a verb does
    folder: Path = field(init=False)
    step: CountOrZero | None = None
    best: str | None = None
    ema: bool = True
    ema_width: Positive | None = None
    trust: tuple[str, ...] = option(repeat=True, default=())
    device: Device = "cpu"

    def __post_init__(self, run: Any) -> None:
        if isinstance(run, MethodType):  # `dataclasses.replace` gives what `run` is on the verb before
            run = getattr(run.__self__, "folder")  # noqa: B009
        if run is ...:
            raise InputError("The run is missing: give a run folder, or a checkpoint file.")
        if not isinstance(run, str | PathLike) or not str(run):
            raise InputError(f"The run is {brief(repr(run))}: give the path of a run folder, or of a checkpoint file.")
        object.__setattr__(self, "folder", Path(run))
        super().__post_init__()
        if self.best is not None and self.step is not None:
            raise InputError("--step and --best both choose a checkpoint: give one of them.")

    @cached_property
    def checkpoint(self) -> LoadedCheckpoint:
        """The checkpoint, read and verified."""
        step = self.step if self.best is None else best_step(self.folder, self.best, self.ema, self.ema_width)
        found = open_checkpoint(self.folder, step)
        log.debug(
            "checkpoint: %s of step %s, weights %s",
            found.path,
            found.checkpoint.facts.get("step"),
            found.checkpoint.sha256,
        )
        return found

    @cached_property
    def model(self) -> Model:
        """Its model on the device."""
        return self.checkpoint.model(ema=self.ema, ema_width=self.ema_width, trust=self.trust).to(
            own_device(self.device)
        )

    def source(self, given: Source | None) -> Source:
        """The data that are given, or those of training; that the files of these have changed since is said."""
        if given is not None:
            return given
        source, before = self.checkpoint.source(self.trust), self.checkpoint.manifest
        absent = [str(path) for path in source.files_read() if not path.exists()]
        if absent and results_of(self.checkpoint.path) is not None:
            raise InputError(
                f"{self.folder} comes without {brief(', '.join(absent))}, which it was trained on: give --data."
            )
        if before is not None:
            for change in before.changes_of_files(**summary_of(source.files())):
                log.warning("the data have changed since the run was trained on them: %s", change)
        return source

    def check_depth(self, what: object, stored: object, advice: str = "save it with {bits} bits") -> None:
        """Refuse images of another depth than those of training: white is 255 for the one and 65535 for the other.

        Args:
            what: the images, for the message.
            stored: their number type.
            advice: what is to be done to have `bits`.
        """
        trained = "" if self.checkpoint.manifest is None else self.checkpoint.manifest.dtype
        if {str(stored), trained} == {"uint8", "uint16"}:
            given, bits = (str(name).removeprefix("uint") for name in (stored, trained))
            raise InputError(f"{what}: {given} bits, where those of training had {bits}: {advice.format(bits=bits)}.")

    @property
    def provenance(self) -> dict[str, Any]:
        """Which weights these are, for the identity of a job."""
        return self.checkpoint.provenance | self.averaging

    @property
    def averaging(self) -> dict[str, Any]:
        """Which average of the weights."""
        return {"ema": self.ema} | ({} if self.ema_width is None else {"ema_width": self.ema_width})


@dataclass(frozen=True, kw_only=True)
class Drawing(OnRun):
    """How samples are drawn, where it is to differ from the model's own way.

    Args:
        steps: steps from noise to data.
        sampler: the step: Heun, DPMSolverPP2M, DDIM, Ancestral, ...
        grid: where the steps are: EDMGrid, LogSNRGrid, UniformGrid.
        corrector: a step that stays on its level: Langevin.
        correct_first: correct before predicting, or after.
        denoise: end with the denoised field.
        tuned: the sampler that scorefield tune-sampler fitted to the run for as many --steps.
        chunk: samples computed at once; by default up to 256, of 65,536 points together, and of 1,048,576 on GPUs.
        precision: of the network; auto: bf16-mixed where the run was not trained in float32 by its own wish, this machine has
            instructions for it and a short trial finds it faster, else 32-true.
        compile: compile the network by torch.compile, for the one size that all chunks have: for long draws on a GPU.
    """

    steps: Count | None = None
    sampler: Step | None = None
    grid: TimeGrid | None = None
    corrector: Corrector | None = None
    correct_first: bool | None = None
    denoise: bool | None = None
    tuned: bool = False
    chunk: Count | None = None
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    compile: bool = False

    @cached_property
    def model(self) -> Model:
        model = super().model
        model.drawn_in = self._chosen(model).precision
        if self.compile:
            log.info("compiling the network, which may take minutes")
            model.denoiser.net.compile(dynamic=False)
        return model

    @property
    def provenance(self) -> dict[str, Any]:
        """Which weights these are, and in what precision they draw where that is not float32."""
        return super().provenance | ({"precision": LOW} if self.model.drawn_in == LOW else {})

    @property
    def wanted_precision(self) -> str:
        """The precision that is asked for."""
        return self.precision

    def _chosen(self, model: Model) -> Choice:
        """What the network draws in: as in training on a machine of the same kind, else as a trial finds, once it is allowed."""
        training = self.checkpoint.config.get("train")
        asked = self.wanted_precision
        if asked == "auto":
            allow_tf32(model.device)
            if not isinstance(training, Mapping) or training.get("precision") not in ("auto", LOW):
                asked = FULL
        machine, before = machine_of(model.device), Choice.read(self.checkpoint.checkpoint.facts.get("precision"))

        def trial() -> Seconds:
            t = torch.full((), 1.0 if model.denoiser.precondition.one_step else 0.5, device=model.device)

            @torch.no_grad()
            def work(given: tuple[Tensor, dict[str, Tensor]], autocast: AbstractContextManager[object]) -> None:
                with autocast:
                    model.generative(given[0], t, given[1])

            return timed(work, model.example, model.device, self.at_once(64, model.shape[1:]))

        if not model.shape:  # of imported weights: nothing is known to try them on
            return Choice(LOW if asked == LOW else FULL, machine.kind)
        known = before if before is not None and before.kind == machine.kind else None
        return choose("--precision", asked, machine, trial, known)

    def at_once(self, n: int, grid: Sequence[int]) -> int:
        """How many of n fields on a grid are drawn at once."""
        return self.chunk or at_once(n, grid, self.model.device)

    def sampler_from(self, own: Sampler) -> Sampler:
        """A sampler with what the arguments change."""
        if self.tuned:
            return self._tuned()
        if self.correct_first is not None and self.corrector is None and own.corrector is None:
            raise InputError("--correct-first is for a --corrector: add one, or leave it out.")
        changes = {
            "steps": self.steps,
            "step": self.sampler,
            "grid": self.grid,
            "corrector": self.corrector,
            "correct_first": self.correct_first,
            "denoise": self.denoise,
        }
        if self.sampler is not None and own.step.jumps and not self.sampler.jumps:
            own = replace(
                own, grid=EDMGrid()
            )  # levels between jumps end far from the data, where other steps have to go
        found = replace(own, **{name: value for name, value in changes.items() if value is not None})
        self.model.check_sampler(found)
        return found

    def _tuned(self) -> Sampler:
        """The sampler that was fitted to the run."""
        others = (self.sampler, self.grid, self.corrector, self.correct_first, self.denoise)
        if self.steps is None or any(other is not None for other in others):
            raise InputError(
                "--tuned is a sampler with its grid: give --steps and none of the others, or leave it out."
            )
        return tuned_samplers.read(self.checkpoint.path, self.provenance, self.steps)


def check_shape(shape: Sequence[int], model: Model) -> None:
    """Refuse fields (channels, *grid) that have other channels or another number of axes than the model's."""
    if len(shape) != len(model.shape) or shape[0] != model.shape[0]:
        sizes = f"The data are fields of {size_of(shape)}, and the model's of {size_of(model.shape)}"
        raise InputError(f"{sizes}: give its own.")


def size_of(shape: Sequence[int]) -> str:
    """A shape for people."""
    return "×".join(map(str, shape))
