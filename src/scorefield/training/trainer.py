"""The training loop: counts optimiser steps and samples, and can be stopped and resumed anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from scorefield.data.augment import Augment
from scorefield.data.fields import FieldDataset
from scorefield.data.loader import Loader
from scorefield.foundation.errors import InputError
from scorefield.foundation.signals import stops_requested
from scorefield.losses.denoising import Denoising
from scorefield.losses.loss import Loss
from scorefield.model import Model
from scorefield.training import checkpoint as checkpoints
from scorefield.training import dry_run as rehearsal
from scorefield.training.dry_run import Rehearsal
from scorefield.training.log import Log
from scorefield.training.loop import Loop
from scorefield.training.optimiser import Adam, Optimiser
from scorefield.training.state import State, launch

COUNTS = (
    *("steps", "batch_size", "accumulate", "devices", "nodes", "keep"),
    *("log_every", "validate_every", "validate_on", "preview_every", "checkpoint_every"),
)


@dataclass(frozen=True)
class Trainer:
    """How a model is trained.

    Args:
        loss: what is minimised.
        optimiser: how.
        steps: optimiser steps of the whole run.
        batch_size: samples per optimiser step, over all processes and micro-batches.
        accumulate: micro-batches per optimiser step on each process; saves memory.
        ema: decay of the average of the weights; 0 for none.
        clip: largest norm of the gradient; null for no limit.
        augment: random changes of each training sample, in order.
        precision: of the network's arithmetic; times and noise levels are never cast.
        accelerator: cpu, cuda, or auto: cuda where there is any, else cpu. (mps has no float64, which schedules need.)
        devices: processes per node, one device each.
        nodes: machines.
        compile: compile the network with torch.compile.
        workers: processes that read ahead; 0 reads in the training process.
        seed: of all draws.
        log_every: steps between rows of the training log.
        validate_every: steps between validation losses.
        validate_on: at most so many validation fields.
        preview_every: steps between grids of samples.
        checkpoint_every: steps between checkpoints.
        keep: how many checkpoints to keep.
    """

    loss: Loss = field(default_factory=Denoising)
    optimiser: Optimiser = field(default_factory=Adam)
    steps: int = 100_000
    batch_size: int = 128
    accumulate: int = 1
    ema: float = 0.9999
    clip: float | None = 1.0
    augment: list[Augment] = field(default_factory=list)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    compile: bool = False
    workers: int = 0
    seed: int = 0
    log_every: int = 50
    validate_every: int = 1000
    validate_on: int = 512
    preview_every: int = 5000
    checkpoint_every: int = 5000
    keep: int = 3

    def __post_init__(self) -> None:
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} must be at least 1, not {getattr(self, name)}.")
        shares = self.devices * self.nodes * self.accumulate
        if self.batch_size % shares:
            raise InputError(
                f"train.batch_size={self.batch_size} cannot be shared by {self.devices * self.nodes} processes × "
                f"{self.accumulate} micro-batches: give a multiple of {shares}."
            )
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise InputError(f"train.{name} must be at least 0, not {getattr(self, name)}.")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"train.clip must be positive, or null for no limit, not {self.clip}.")
        if not 0 <= self.ema < 1:
            raise InputError(f"train.ema must lie in [0, 1), not {self.ema}.")

    # ---------------------------------------------------------------------------------------------------------- public
    def fit(
        self,
        model: Model,
        train: FieldDataset,
        valid: FieldDataset,
        *,
        folder: Path,
        config: Mapping[str, Any],
        resume: checkpoints.Checkpoint | None = None,
    ) -> None:
        """Train until `steps`, writing logs, samples and checkpoints into the folder. Raises `Stopped` on a signal.

        Args:
            model: with a fitted normaliser.
            train: training data.
            valid: validation data.
            folder: the run folder.
            config: the resolved configuration, stored in every checkpoint.
            resume: where to go on.
        """
        state = self._launch(model)
        if resume is not None:
            state.restore(resume)
        pending = list(resume.facts["pending"]) if resume is not None else [0.0, 0]
        figures = tuple(figure.name for figure in self.loss.figures)
        log = Log(folder, state.step, figures) if state.fabric.is_global_zero else None
        loop = Loop(self, state, valid, folder, config, log, pending)
        with stops_requested() as asked:
            loop.run(self._loader(train, state), asked)
        if log is not None:
            log.close()

    def rehearse(self, model: Model, train: FieldDataset, steps: int = 3) -> Rehearsal:
        """Say what a step costs by making a few, or by what one sample costs where a step takes too much; save nothing."""
        state = self._launch(model)
        first = Loader(train, 1, seed=self.seed, augment=self.augment).batch(0)
        share = self.batch_size // (self.devices * self.nodes)
        one = rehearsal.probe(state, self.loss, first)
        if (found := rehearsal.extrapolated(state, one, share, share // self.accumulate)) is not None:
            return found
        batches = iter(self._loader(train, state))

        def advance() -> Tensor:
            return state.advance(islice(batches, self.accumulate), self.loss, clip=self.clip, steps=self.steps)[0]

        return rehearsal.measured(state, advance, steps)

    # --------------------------------------------------------------------------------------------------------- private
    def _launch(self, model: Model) -> State:
        fabric = launch(self.accelerator, self.devices, self.nodes, self.precision)
        net = model.denoiser.net
        state = State(model, self.optimiser, self.ema, self.seed, fabric)
        if self.compile:
            net.compile()
        return state

    def _loader(self, fields: FieldDataset, state: State) -> Loader:
        return Loader(
            fields,
            self.batch_size,
            seed=self.seed,
            augment=self.augment,
            start=state.step,
            rank=state.fabric.global_rank,
            ranks=state.fabric.world_size,
            accumulate=self.accumulate,
            workers=self.workers,
        )
