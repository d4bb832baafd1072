"""What happens between optimiser steps: logs, validation, pictures, checkpoints, and stopping at a signal."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
from scorefield.foundation.arithmetic import uncompiled
from scorefield.foundation.errors import InputError
from scorefield.foundation.progress import progress
from scorefield.foundation.signals import Stopped
from scorefield.training import checkpoint as checkpoints
from scorefield.training import snapshots
from scorefield.training.health import RETURNS, Health, Stretch
from scorefield.training.log import Log, read_table
from scorefield.training.plan import Plan
from scorefield.training.state import State
from scorefield.training.validation import VALIDATION_EPOCH

log = logging.getLogger("scorefield")

PREVIEWED = 16  # samples in a picture
UNREAD = 50  # steps after which their losses are read at the latest
AGREED = 10  # steps after which several processes ask each other for signals: to ask is to wait for all of them
SLOW = 20.0  # seconds of a first step from which on it is said what that makes of the whole


class Loop:
    """One call of `fit`: what happens between optimiser steps.

    Args:
        plan: what happens when.
        state: what is trained.
        valid: validation data; none where nothing is validated.
        shown: whose conditions pictures are drawn for.
        folder: the run folder.
        config: the resolved configuration, stored in every checkpoint.
        stop_requested: the number of the signal that asks to stop, or 0.
    """

    def __init__(
        self,
        plan: Plan,
        state: State,
        valid: FieldDataset,
        shown: FieldDataset,
        folder: Path,
        config: Mapping[str, Any],
        stop_requested: Callable[[], int],
    ) -> None:
        self.plan, self.state, self.fabric, self.valid, self.shown = plan, state, state.fabric, valid, shown
        self.folder, self.config, self.stop_requested = folder, config, stop_requested
        self.log: Log | None = None  # of the first process
        self.rate = Rate(plan.batch_size)
        self.begun = False  # whether a step was made since this loop was
        self.saved = state.step  # the step of the last checkpoint
        self.health = Health()
        self.loss_sum, self.loss_count = 0.0, 0  # since the last row of the log
        self.unread: list[Tensor] = []  # of steps that are not checked yet: loss, norm, and whether it may overflow

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Go on from a checkpoint."""
        self.state.restore(checkpoint)
        self.loss_sum, self.loss_count = checkpoint.facts["pending"]
        self.health = Health.from_facts(checkpoint.facts.get("health", {}))
        self.state.use_stream(self.health.stream)
        self.saved = self.state.step

    def run(self, loader: Callable[[], Loader]) -> None:
        """Step until the end, with batches from where the state is. Raises `Stopped` after a signal."""
        try:
            while True:
                self._open_log()
                self._on_rank_zero(lambda: snapshots.drop_after(self.folder, self.state.step))
                try:
                    self._catch_up()
                    self._train(loader())
                    break
                except Stretch as stretch:
                    self._go_back(str(stretch))
        except Stopped:
            with suppress(Stretch):  # what came after the last checkpoint is left out, and comes again on resuming
                self._save()
            raise
        finally:
            if self.log is not None:
                self.log.close(whole=self.state.step == self.plan.steps)

    def _train(self, loader: Loader) -> None:
        plan, state = self.plan, self.state
        batches = loader.on(self.fabric.device)
        with self._bar() as bar:
            while state.step < plan.steps:
                self._step(batches, bar)
                if plan.ema_widths and plan.keeps_averages(state.step):
                    self._keep_averages()
                if self._due(plan.checkpoint_every):
                    self._save()
                if self.fabric.world_size == 1 or state.step % AGREED == 0 or state.step == plan.steps:
                    self._check_signal(self.stop_requested())
                with self.rate.paused():
                    if self._validation_is_due():
                        self._validate()
                    if self._due(plan.preview_every) and not state.model.classes:
                        self._preview()

    def _step(self, batches: Iterator[Batch], bar: tqdm) -> None:
        plan = self.plan
        micro = islice(batches, plan.accumulate)
        may_overflow, started, begun = self.state.finds_scale, time.perf_counter(), self.begun
        loss, norm = self.state.advance(micro, plan.loss, clip=plan.clip, steps=plan.steps)
        self.unread.append(torch.stack((loss, norm, may_overflow)))
        self.rate.count()
        bar.update()
        self.begun = True
        if not begun and (seconds := time.perf_counter() - started) > SLOW and self.fabric.is_global_zero:
            left = plan.steps - self.state.step
            log.info(
                f"the first step took {seconds:.0f} s, at which the other {left} take {seconds * left / 3600:.2g} h: train "
                "--dry-run tells what a step takes; a smaller network or train.batch_size takes less."
            )
        if self._due(plan.log_every):
            self._log(bar)
        elif len(self.unread) >= UNREAD:
            self._read()

    def _read(self) -> float:
        """Check the steps since the last time. Only here do device and host wait for each other, so not at every step.

        Returns the norm of the last step's gradient; raises `Stretch`.
        """
        if not self.unread:
            return math.nan
        read = torch.stack(self.unread)
        read[:, 0] = self.state.over_all(read[:, 0].clone(), "sum") / self.fabric.world_size
        figures = read.tolist()
        first = self.state.step - len(figures) + 1
        problems = []
        for step, (loss, norm, may_overflow) in enumerate(figures, first):
            sound = math.isfinite(loss) and (math.isfinite(norm) or bool(may_overflow))
            if problem := self.health.check(loss, sound, has_scale=self.plan.loss.adversary is None):
                problems.append(f"Step {step}: {problem}")
            if sound:
                self.loss_sum += loss
                self.loss_count += 1
            if self.health.is_bad:
                break
        self.unread.clear()
        if problems and self.fabric.is_global_zero:
            more = f", and {len(problems) - 1} more steps are bad" if len(problems) > 1 else ""
            log.warning(f"{problems[0]}{more}; {self.health.skipped} steps were left out so far.")
        if self.health.is_bad:
            raise Stretch(problems[-1])
        return figures[-1][1]

    def _go_back(self, cause: str) -> None:
        """To the last good checkpoint, and on with other random numbers. InputError where that was done often enough."""
        health, step, folder = self.health, self.state.step, self.folder / "checkpoints"
        advice = "lower train.optimiser.lr, set train.clip, or look at the data (scorefield check-data)"
        found = sorted(checkpoints.steps(folder), key=lambda step: (step != health.good, -step))
        checkpoint = checkpoints.first_usable(folder, found)[0]
        if checkpoint is None:
            raise InputError(f"Training broke down before its first checkpoint. {cause}: {advice}.")
        back: int = checkpoint.facts["step"]
        self._on_rank_zero(lambda: checkpoints.drop_after(folder, back))
        if health.good == back and health.returns >= RETURNS:
            raise InputError(
                f"Training broke down again, after going back to step {back} {RETURNS} times. {cause}: {advice}. "
                f"The checkpoint of step {back} is whole."
            )
        self.restore(checkpoint)
        then, self.health = self.health, health
        health.went_back(back, then)
        self.state.use_stream(health.stream)
        self.unread.clear()
        if self.fabric.is_global_zero:
            log.warning(f"{cause}: going back from step {step} to step {back}, and on with other random numbers.")

    def _open_log(self) -> None:
        """The logs as they were at this step."""
        if self.log is not None:
            self.log.close(whole=False)
            self.log = None
        self._on_rank_zero(self._make_log)

    def _make_log(self) -> None:
        figures = tuple(figure.name for figure in self.plan.loss.figures)
        self.log = Log(self.folder, self.state.step, figures, self.plan.loggers, self.config)

    def _catch_up(self) -> None:
        """Validate and draw what was due at the step of the checkpoint, where the run was stopped before it was done."""
        if not self.state.step:
            return
        unvalidated = self.log is not None and self.log.validated < self.state.step
        if self._validation_is_due() and self._agree(int(unvalidated)):
            self._validate()
        elif self.log is not None and self.log.validated:
            self._keep_best()  # it may have been stopped between a row of the log and the best checkpoint
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
        """Whether this step is one of every so many, or the last; never where `every` is 0."""
        return every > 0 and (self.state.step % every == 0 or self.state.step == self.plan.steps)

    def _validation_is_due(self) -> bool:
        return self._due(self.plan.validate_every) and len(self.valid) > 0

    def _bar(self) -> tqdm:
        shown = self.fabric.is_global_zero
        return progress(total=self.plan.steps, initial=self.state.step, unit="step", title="train", shown=shown)

    def _agree(self, number: int) -> int:
        """The largest number of any process."""
        if self.fabric.world_size == 1:
            return number
        return int(self.state.over_all(torch.tensor(number, device=self.fabric.device), "max"))

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

    def _log(self, bar: tqdm) -> None:
        norm = self._read()
        if not self.loss_count:  # all steps since the last row were left out
            return
        loss, self.loss_sum, self.loss_count = self.loss_sum / self.loss_count, 0.0, 0
        rate = self.rate.per_second()
        bar.set_postfix(loss=f"{loss:.4f}", rate=f"{rate:.0f} samples/s", refresh=False)
        if self.log is not None:
            factor = self.plan.optimiser.schedule(self.state.step - 1, self.plan.steps)
            self.log.train(
                {
                    "step": self.state.step,
                    "samples": self.state.step * self.plan.batch_size,
                    "loss": loss,
                    "gradient_norm": norm,
                    "learning_rate": self.plan.optimiser.lr * factor,
                    "samples_per_second": round(rate, 2),
                    "skipped": self.health.skipped,
                }
            )

    def _save(self) -> None:
        """The first process writes, and all wait for it. Raises `Stretch` rather than save what is not finite."""
        if self.saved == self.state.step:
            return
        self._read()
        tensors = self.state.tensors()
        if self._agree(int(not self.state.sound(tensors))):
            raise Stretch(f"The weights are not finite at step {self.state.step}")
        if self.state.step % self.plan.checkpoint_every == 0:
            self.health.saved(self.state.step)
        whole = self.state.whole(tensors)
        self._on_rank_zero(lambda: self._write(whole))
        self.saved = self.state.step

    def _write(self, tensors: Mapping[str, Tensor]) -> None:
        facts = self.state.facts() | {
            "config": self.config,
            "pending": [self.loss_sum, self.loss_count],
            "samples": self.state.step * self.plan.batch_size,
            "versions": versions(),
            "health": self.health.facts(),
        }
        folder = self.folder / "checkpoints"
        checkpoints.write(checkpoints.path_of(folder, self.state.step), tensors, facts)
        checkpoints.prune(folder, self.plan.keep, self.plan.checkpoint_every, self.health.good)

    def _keep_averages(self) -> None:
        """A snapshot of the averages by powers of time, of which others are made after training."""
        whole = self.state.whole(self.state.averages())
        self._on_rank_zero(lambda: snapshots.write(self.folder, self.state.step, self.plan.ema_widths, whole))
        if self.state.step == self.plan.steps and self.fabric.is_global_zero:
            log.info(
                "averages of the weights kept in %s: %.3g MB",
                self.folder / "averages",
                snapshots.size(self.folder) / 1e6,
            )

    @torch.no_grad()
    def _validate(self) -> None:
        """The loss at fixed noise and fixed times, so that two steps can be compared: of the weights and of their average."""
        self._read()
        self.state.share_buffers()
        with evaluating(self.state.model.denoiser):
            raw = self._validation_loss()
            with self.state.ema.applied():
                averaged, figures = self._validation_loss(), self._figures()
        if not math.isfinite(raw + averaged):
            if self.health.in_a_row:
                raise Stretch(f"The validation loss is {raw} at step {self.state.step}")
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
            checkpoints.prune(folder, self.plan.keep, self.plan.checkpoint_every, self.health.good)

    def _validation_loss(self) -> float:
        total = torch.zeros(2, dtype=torch.float64)
        for batch, counts in self._held_out():
            losses = self.state.loss(self.plan.loss.held_out, self.state.model.denoiser, batch)
            if counts:
                total += torch.tensor([float(losses.double().sum()), len(losses)])
        summed = self.state.over_all(total.to(self.fabric.device), "sum")
        return float(summed[0] / summed[1])

    def _figures(self) -> dict[str, float]:
        """The metrics that the loss reports of held-out fields beside its value."""
        wanted = self.plan.loss.figures
        if not wanted:
            return {}
        total = torch.zeros(len(wanted), 2, dtype=torch.float64)
        for batch, counts in self._held_out():
            figures = self.state.figures(self.plan.loss, batch)
            if counts:
                total += figures
        error, power = self.state.over_all(total.to(self.fabric.device), "sum").unbind(1)
        return {
            figure.name: float(value) for figure, value in zip(wanted, (error / power).clamp(min=0).sqrt(), strict=True)
        }

    def _held_out(self) -> Iterator[tuple[Batch, bool]]:
        """The share of the validation data that this process has; all processes check for signals at the same places.

        Where weights are shared, a process that is done goes on with batches that do not count: the others need its weights.
        """
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
                yield batch, True
            elif self.state.sharded:
                yield Sequential(fields, 1, epoch=VALIDATION_EPOCH).batch(0), False

    def _preview(self) -> None:
        """The first process draws samples, and all wait for it; where each has a share of the weights, all draw the same."""
        drawn: list[Tensor] = []
        if self.state.sharded:
            drawn += self._draw()
        else:
            self._on_rank_zero(lambda: drawn.extend(self._draw()))
        self._on_rank_zero(lambda: [self._show(fields) for fields in drawn])
        self._check_signal(self.stop_requested())

    def _draw(self) -> list[Tensor]:
        """A batch of fields; none where a signal cut it short."""

        def stop(*_: object) -> None:
            number = self.stop_requested()
            if number := self._agree(number) if self.state.sharded else number:
                raise Stopped(number, self.state.step)

        model = self.state.model
        first = torch.arange(min(PREVIEWED, len(self.shown)))
        cond = model.taken(self.shown.gather(first).cond)
        n = len(first) if cond else PREVIEWED
        try:
            with evaluating(model), self.state.ema.applied(), self.fabric.autocast():
                return [model.sample(n, seed=self.plan.seed, cond=cond, chunk=PREVIEWED, callback=stop)]
        except Stopped:
            return []

    def _show(self, fields: Tensor) -> None:
        save_grid(self._picture(), fields)
        if self.log is not None:
            self.log.picture(self.state.step, self._picture())
        log.info("samples at step %d: %s", self.state.step, self._picture())

    def _picture(self) -> Path:
        return self.folder / "samples" / f"step-{self.state.step:08d}.png"


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout inside, nor what was compiled for the shapes of training; back to it afterwards, even after an error."""
    module.eval()
    try:
        with uncompiled():
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
