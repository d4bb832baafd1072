"""The plan of a training run: what is minimised, how, in how many steps, and what happens at which of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scorefield.data.augment import Augment
from scorefield.foundation.arithmetic import FULL, Precision
from scorefield.foundation.errors import InputError
from scorefield.foundation.launch import started
from scorefield.losses.denoising import Denoising
from scorefield.losses.loss import Loss
from scorefield.training.loggers import Logger, TensorBoard
from scorefield.training.optimiser import Adam, Optimiser
from scorefield.training.profiles import exponent

Strategy = Literal["auto", "ddp", "fsdp"]
COUNTS = (
    *("steps", "batch_size", "accumulate", "devices", "nodes", "keep", "ema_snapshots"),
    *("log_every", "validate_on", "checkpoint_every"),
)


@dataclass(frozen=True)
class Plan:
    """How a model is trained.

    Args:
        loss: what is minimised.
        optimiser: how.
        steps: optimiser steps of the whole run.
        batch_size: samples per optimiser step, over all processes and micro-batches.
        accumulate: micro-batches per optimiser step on each process; saves memory.
        ema: decay of the average of the weights; 0 for none.
        ema_widths: of averages by powers of time that are tracked beside it, as [0.05, 0.1]: of them any width can be made after
            training (--ema-width).
        ema_snapshots: how many times in a run they are kept for that, in half precision.
        clip: largest norm of the gradient; null for no limit.
        augment: random changes of each training sample, in order.
        precision: of the network's arithmetic; auto: bf16-mixed where the machine has instructions for it and a short trial finds
            it faster, else 32-true. Times and noise levels are never cast.
        accelerator: cpu, cuda, or auto: cuda where there is any, else cpu. (mps has no float64, which schedules need.)
        devices: processes per node, one device each; torchrun and srun say it themselves, and `nodes`.
        nodes: machines.
        strategy: of several processes. ddp and auto: each has all weights; fsdp: each has a share of the weights, of their
            gradient, of what the optimiser keeps and of the average, and gathers a block of the network when it computes.
        compile: compile the network for training with torch.compile; what that takes and saves is measured and said.
        workers: processes that read ahead; 0 reads in the training process.
        seed: of all draws.
        log_every: steps between rows of the training log.
        validate_every: steps between validation losses; 0 for none.
        validate_on: at most so many validation fields.
        preview_every: steps between grids of samples; 0 for none.
        checkpoint_every: steps between checkpoints.
        loggers: where figures, pictures and the configuration go beside logs/*.csv: TensorBoard, WandB, MLflow.
        keep: how many checkpoints to keep, beside the best one and the one that training would go back to.
    """

    loss: Loss = field(default_factory=Denoising)
    optimiser: Optimiser = field(default_factory=Adam)
    steps: int = 100_000
    batch_size: int = 128
    accumulate: int = 1
    ema: float = 0.9999
    ema_widths: list[float] = field(default_factory=list)
    ema_snapshots: int = 8
    clip: float | None = 1.0
    augment: list[Augment] = field(default_factory=list)
    precision: Precision = FULL
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Strategy = "auto"
    compile: bool = False
    workers: int = 0
    seed: int = 0
    log_every: int = 50
    validate_every: int = 1000
    validate_on: int = 512
    preview_every: int = 5000
    checkpoint_every: int = 5000
    keep: int = 3
    loggers: list[Logger] = field(default_factory=lambda: [TensorBoard()])

    def __post_init__(self) -> None:
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} must be at least 1, not {getattr(self, name)}.")
        self._check_batch()
        for name in ("seed", "workers", "validate_every", "preview_every"):
            if getattr(self, name) < 0:
                raise InputError(f"train.{name} must be at least 0, not {getattr(self, name)}.")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"train.clip must be positive, or null for no limit, not {self.clip}.")
        if not 0 <= self.ema < 1:
            raise InputError(f"train.ema must lie in [0, 1), not {self.ema}.")
        if len({f"{width:g}" for width in self.ema_widths}) < len(self.ema_widths):
            raise InputError(f"train.ema_widths has a width twice: {self.ema_widths}.")
        for width in self.ema_widths:
            exponent(width)
        if (adversary := self.loss.adversary) is not None:
            self._check_critic(adversary.steps)
        for wrong, what in (
            (self.compile, "train.compile"),
            (self.precision == "16-mixed", "train.precision=16-mixed"),
            (self.optimiser.needs_whole, f"{type(self.optimiser).__name__}, which needs whole matrices"),
        ):
            if self.strategy == "fsdp" and wrong:
                raise InputError(f"train.strategy=fsdp does not go with {what}: leave one of them out.")

    def keeps_averages(self, step: int) -> bool:
        """Whether averages are kept at a step: at `ema_snapshots` of the run, evenly spaced, the last one too."""
        return step * self.ema_snapshots // self.steps > (step - 1) * self.ema_snapshots // self.steps

    def _check_batch(self) -> None:
        shares = self.processes * self.accumulate
        if self.batch_size % shares:
            raise InputError(
                f"train.batch_size={self.batch_size} cannot be shared by {self.processes} processes × "
                f"{self.accumulate} micro-batches: give a multiple of {shares}."
            )
        if (share := self.batch_size // shares) < (fewest := self.loss.together):
            raise InputError(
                f"{type(self.loss).__name__} compares {fewest} fields or more at once, and each of {self.processes} processes × "
                f"{self.accumulate} micro-batches has {share}: raise train.batch_size, or lower train.accumulate."
            )

    def _check_critic(self, rounds: int) -> None:
        """Refuse what a critic's steps do not go with."""
        name = type(self.loss).__name__
        for wrong, what in (
            (self.processes > 1, "several processes"),
            (self.accumulate > 1, "train.accumulate"),
            (self.precision == "16-mixed", "train.precision=16-mixed"),
            (self.compile, "train.compile"),
        ):
            if wrong:
                raise InputError(f"{name}, which trains a critic, does not go with {what}: leave that out.")
        if self.batch_size % rounds:
            raise InputError(
                f"train.batch_size={self.batch_size} cannot be shared among {rounds} steps of the critic: give a multiple."
            )

    @property
    def processes(self) -> int:
        """How many there are, or are to be. InputError where others were started than are wanted."""
        wanted, those = self.devices * self.nodes, started()
        if those is not None and wanted not in (1, those.count):
            raise InputError(
                f"{those.by} started {those.count} processes, but train.devices × train.nodes is {wanted}: leave both out."
            )
        return wanted if those is None else those.count
