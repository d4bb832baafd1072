"""What happens between optimiser steps: logs, validation, pictures, checkpoints, and stopping at a signal."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.loader import Loader, Sequential
from scorefield.data.picture import save_grid
from scorefield.foundation.errors import InputError
from scorefield.foundation.progress import progress
from scorefield.foundation.signals import Stopped
from scorefield.training import checkpoint as checkpoints
from scorefield.training.log import Log, read_table
from scorefield.training.plan import Plan
from scorefield.training.state import State
from scorefield.training.validation import VALIDATION_EPOCH

PREVIEWED = 16  # samples in a picture


class Loop:
    """One call of `fit`: what happens between optimiser steps.

    Args:
        plan: what happens when.
        state: what is trained.
        valid: validation data.
        folder: the run folder.
        config: the resolved configuration, stored in every checkpoint.
        log: the logs of the first process; None in the others.
        pending: the sum and the number of losses since the last row of the log.
        stop_requested: the number of the signal that asks to stop, or 0.
    """

    def __init__(
        self,
        plan: Plan,
        state: State,
        valid: FieldDataset,
        folder: Path,
        config: Mapping[str, Any],
        log: Log | None,
        pending: list[Any],
        stop_requested: Callable[[], int],
    ) -> None:
        self.plan, self.state, self.fabric, self.valid = plan, state, state.fabric, valid
        self.folder, self.config, self.log, self.stop_requested = folder, config, log, stop_requested
        self.loss_sum = torch.tensor(pending[0], device=self.fabric.device)
        self.loss_count: int = pending[1]
        self.rate = Rate(plan.batch_size)
        self.saved = state.step  # the step of the last checkpoint

    def run(self, loader: Loader) -> None:
        """Step until the end. Raises `Stopped` after a signal."""
        plan, state = self.plan, self.state
        batches = iter(loader)
        try:
            self._catch_up()
            with self._bar() as bar:
                while state.step < plan.steps:
                    self._step(batches, bar)
                    if self._due(plan.checkpoint_every):
                        self._save()
                    self._check_signal(self.stop_requested())
                    with self.rate.paused():
                        if self._due(plan.validate_every):
                            self._validate()
                        if self._due(plan.preview_every) and not state.model.classes:
                            self._preview()
        except Stopped:
            self._save()
            raise

    def _step(self, batches: Iterator[Batch], bar: tqdm) -> None:
        plan = self.plan
        micro = islice(batches, plan.accumulate)
        loss, norm = self.state.advance(micro, plan.loss, clip=plan.clip, steps=plan.steps)
        self.loss_sum += loss
        self.loss_count += 1
        self.rate.count()
        bar.update()
        if self._due(plan.log_every):
            self._log(norm, bar)

    def _catch_up(self) -> None:
        """Validate and draw what was due at the step of the checkpoint, where the run was stopped before it was done."""
        if not self.state.step:
            return
        unvalidated = self.log is not None and self.log.validated < self.state.step
        if self._due(self.plan.validate_every) and self._agree(int(unvalidated)):
            self._validate()
        undrawn = self.fabric.is_global_zero and not self.state.model.classes and not self._picture().exists()
        if self._due(self.plan.preview_every) and self._agree(int(undrawn)):
            self._preview()
        self.rate.per_second()

    def _check_signal(self, number: int) -> None:
        """Stop all processes at the same place if any received a signal."""
        number = self._agree(number)
        if number:
            raise Stopped(number, self.state.step)

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.plan.steps

    def _bar(self) -> tqdm:
        shown = self.fabric.is_global_zero
        return progress(total=self.plan.steps, initial=self.state.step, unit="step", title="train", shown=shown)

    def _agree(self, number: int) -> int:
        """The largest number of any process."""
        if self.fabric.world_size == 1:
            return number
        return int(
            torch.as_tensor(self.fabric.all_reduce(torch.tensor(number, device=self.fabric.device), reduce_op="max"))
        )

    def _on_rank_zero(self, work: Callable[[], object]) -> None:
        """The first process works, and all wait for it. If it fails, all do: none is left waiting for another."""
        failure = None
        if self.fabric.is_global_zero:
            try:
                work()
            except (InputError, OSError) as error:
                failure = error
        if self._agree(int(failure is not None)):
            raise failure or InputError("Process 0 failed: its own message says why.")

    def _log(self, norm: Tensor, bar: tqdm) -> None:
        mean = self.fabric.all_reduce(self.loss_sum / self.loss_count, reduce_op="mean")
        loss = float(torch.as_tensor(mean))
        self.loss_sum.zero_()
        self.loss_count = 0
        if not math.isfinite(loss):
            raise InputError(
                f"The loss is {loss} at step {self.state.step}: check the data for NaN (scorefield check-data), lower "
                "train.optimiser.lr or set train.clip. The checkpoints before are whole."
            )
        rate = self.rate.per_second()
        bar.set_postfix(loss=f"{loss:.4f}", rate=f"{rate:.0f} samples/s")
        if self.log is not None:
            factor = self.plan.optimiser.schedule(self.state.step - 1, self.plan.steps)
            self.log.train(
                {
                    "step": self.state.step,
                    "samples": self.state.step * self.plan.batch_size,
                    "loss": loss,
                    "gradient_norm": float(norm),
                    "learning_rate": self.plan.optimiser.lr * factor,
                    "samples_per_second": round(rate, 2),
                }
            )

    def _save(self) -> None:
        """Every process has the same weights: the first one writes, and all wait for it."""
        if self.saved == self.state.step:
            return
        if self._agree(int(not torch.isfinite(self.loss_sum))):
            raise InputError(
                f"The loss is not finite at step {self.state.step}: nothing is saved over good checkpoints."
            )
        mean = float(torch.as_tensor(self.fabric.all_reduce(self.loss_sum, reduce_op="mean")))
        self._on_rank_zero(lambda: self._write(mean))
        self.saved = self.state.step

    def _write(self, mean: float) -> None:
        facts = self.state.facts() | {
            "config": self.config,
            "pending": [mean, self.loss_count],
            "samples": self.state.step * self.plan.batch_size,
            "versions": versions(),
        }
        folder = self.folder / "checkpoints"
        checkpoints.write(checkpoints.path_of(folder, self.state.step), self.state.tensors(), facts)
        checkpoints.prune(folder, self.plan.keep)

    @torch.no_grad()
    def _validate(self) -> None:
        """The loss at fixed noise and fixed times, so that two steps can be compared: of the weights and of their average."""
        with evaluating(self.state.model.denoiser):
            raw = self._validation_loss()
            with self.state.ema.applied():
                averaged, figures = self._validation_loss(), self._figures()
        if not math.isfinite(raw + averaged):
            raise InputError(
                f"The validation loss is {raw} ({averaged} of the averaged weights) at step {self.state.step}: check the "
                "held-out data for NaN (scorefield check-data). The checkpoints before are whole."
            )
        if self.log is not None:
            samples = self.state.step * self.plan.batch_size
            self.log.valid({"step": self.state.step, "samples": samples, "loss": raw, "loss_ema": averaged, **figures})
            self._keep_best()

    def _keep_best(self) -> None:
        """Of the validated checkpoints that are left, the one with the least loss of averaged weights is not to be pruned."""
        folder, rows = self.folder / "checkpoints", read_table(self.folder / "logs" / "valid.csv")
        left = set(checkpoints.steps(folder))
        losses = {int(row["step"]): float(row["loss_ema"]) for row in rows if int(row["step"]) in left}
        if losses:
            checkpoints.keep_best(folder, min(losses, key=lambda step: (losses[step], -step)), "loss")
            checkpoints.prune(folder, self.plan.keep)

    def _validation_loss(self) -> float:
        total = torch.zeros(2, dtype=torch.float64)
        for batch in self._held_out():
            losses = self.state.loss(self.plan.loss, self.state.model.denoiser, batch)
            total += torch.tensor([float(losses.double().sum()), len(losses)])
        summed = self._summed(total)
        return float(summed[0] / summed[1])

    def _figures(self) -> dict[str, float]:
        """The metrics that the loss reports of held-out fields beside its value."""
        wanted = self.plan.loss.figures
        if not wanted:
            return {}
        total = torch.zeros(len(wanted), 2, dtype=torch.float64)
        for batch in self._held_out():
            total += self.state.figures(self.plan.loss, batch)
        error, power = self._summed(total).unbind(1)
        return {
            figure.name: float(value) for figure, value in zip(wanted, (error / power).clamp(min=0).sqrt(), strict=True)
        }

    def _held_out(self) -> Iterator[Batch]:
        """The share of the validation data that this process has; all processes check for signals at the same places."""
        fabric = self.fabric
        fields = Subset(self.valid, torch.arange(min(self.plan.validate_on, len(self.valid))))
        size = max(1, min(self.plan.batch_size // fabric.world_size, 256))
        batches = iter(
            Sequential(fields, size, epoch=VALIDATION_EPOCH, rank=fabric.global_rank, ranks=fabric.world_size)
        )
        rounds = math.ceil(math.ceil(len(fields) / fabric.world_size) / size)  # of the process that has the most
        for batch in (next(batches, None) for _ in range(rounds)):
            self._check_signal(self.stop_requested())
            if batch is not None:
                yield batch

    def _summed(self, total: Tensor) -> Tensor:
        """The sum over all processes."""
        return torch.as_tensor(self.fabric.all_reduce(total.to(self.fabric.device), reduce_op="sum"))

    def _preview(self) -> None:
        """The first process draws samples, and all wait for it."""
        numbers = [0]
        self._on_rank_zero(lambda: numbers.append(self._draw()))
        self._check_signal(numbers[-1])

    def _draw(self) -> int:
        """Returns the number of the signal that cut it short, or 0."""

        def stop(*_: object) -> None:
            if number := self.stop_requested():
                raise Stopped(number, self.state.step)

        model = self.state.model
        cond = self.valid.gather(
            torch.arange(min(PREVIEWED, len(self.valid)))
        ).cond  # what the network is conditioned on
        try:
            with evaluating(model), self.state.ema.applied(), self.fabric.autocast():
                fields = model.sample(PREVIEWED, seed=self.plan.seed, cond=cond, chunk=PREVIEWED, callback=stop)
        except Stopped as stopped:
            return stopped.number
        save_grid(self._picture(), fields)
        return 0

    def _picture(self) -> Path:
        return self.folder / "samples" / f"step-{self.state.step:08d}.png"


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout inside; back to training afterwards, even after an error."""
    module.eval()
    try:
        yield
    finally:
        module.train()


class Rate:
    """Samples per second of training, without the time for validation and pictures."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._since, self._steps = time.perf_counter(), 0

    def count(self) -> None:
        self._steps += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def per_second(self) -> float:
        """Since the last call."""
        now = time.perf_counter()
        rate = self._steps * self.batch_size / max(now - self._since, 1e-9)
        self._since, self._steps = now, 0
        return rate


def versions() -> dict[str, str]:
    """What a checkpoint was made with."""
    return {"scorefield": version("scorefield"), "torch": torch.__version__, "python": platform.python_version()}
