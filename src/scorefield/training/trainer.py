"""Training a model by a plan: starts the devices, and hands over to the loop, which can be stopped and resumed anywhere."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.loader import Loader
from scorefield.foundation.arithmetic import Choice, Seconds, choose, machine_of, synchronise, timed, uncompiled
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json, write_text
from scorefield.foundation.signals import deferred_signals
from scorefield.model import Model
from scorefield.training import checkpoint as checkpoints
from scorefield.training import dry_run
from scorefield.training.dry_run import Cost
from scorefield.training.loop import Loop, evaluating
from scorefield.training.plan import Plan
from scorefield.training.state import State, launch
from scorefield.training.validation import losses_of

log = logging.getLogger("scorefield")

COPIES = 3  # of a batch that every step has: the fields, the noised ones, and what the network makes of them
COMPARED = 3  # passes with compiled code and without


class Trainer(Plan):
    """Carries out a plan; its arguments are those of `Plan`."""

    # ---------------------------------------------------------------------------------------------------------- public
    def launch(self, model: Model) -> State:
        """The devices and processes, started, with the model on them. InputError where they are not there, or a logger is not."""
        for logger in self.loggers:
            logger.check()
        net = model.denoiser.net
        for change in self.augment:
            if change.entries not in (0, net.augmentations):
                raise InputError(
                    f"{type(change).__name__} tells the network what it has done in {change.entries} numbers, and it takes "
                    f"{net.augmentations}: build it with augmentations={change.entries}."
                )
        fabric = launch(self.accelerator, self.devices, self.nodes, self.precision, self.strategy)
        state = State(model, self.optimiser, self.ema, self.seed, fabric, self.loss.adversary, self.ema_widths)
        if self.compile:
            net.compile(dynamic=False)  # training has one shape
        return state

    def fit(
        self,
        state: State,
        train: FieldDataset,
        valid: FieldDataset,
        *,
        folder: Path,
        config: Mapping[str, Any],
        resume: checkpoints.Checkpoint | None = None,
    ) -> None:
        """Train until `steps`, writing configuration, logs, pictures and checkpoints. Raises `Stopped` on a signal.

        Args:
            state: what `launch` gave, of a model with a fitted normaliser.
            train: training data.
            valid: validation data; may be empty.
            folder: the run folder.
            config: the resolved configuration, stored in every checkpoint.
            resume: where to go on.
        """
        self.check_batch(state, train)
        if resume is not None:
            state.restore_fixed(resume)
        self.settle_precision(state, train, resume)
        if self.compile:
            self._compile(state, train)
        with deferred_signals() as stop_requested:  # from the first byte on: what was begun can be gone on with
            loop = Loop(self, state, valid, valid if len(valid) else train, folder, config, stop_requested)
            if resume is not None:
                loop.restore(resume)
            if state.fabric.is_global_zero:
                write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
                if (data := state.model.manifest) is not None:
                    write_json(folder / "data.json", data.record())
            loop.run(lambda: self._loader(train, state))

    def check_batch(self, state: State, train: FieldDataset) -> None:
        """Refuse batches of which no step fits into memory, and say it of those that are larger than the data."""
        share = self.batch_size // (self.processes * self.accumulate)
        needed = COPIES * 4 * share * math.prod(state.model.shape)
        if needed > (room := dry_run.available_memory(state.fabric.device)):
            raise InputError(
                f"train.batch_size = {self.batch_size} does not fit into memory: a step needs more than "
                f"{needed / 2**30:.3g} GiB of {room / 2**30:.3g}. Make it smaller, or raise train.accumulate."
            )
        if self.batch_size > len(train) and state.fabric.is_global_zero:
            log.warning(
                f"train.batch_size = {self.batch_size}, but there are {len(train)} fields to train on: each step sees some of "
                "them more than once."
            )

    def dry_run(self, model: Model, train: FieldDataset) -> Cost:
        """What a step costs, from real steps where they fit into memory and some seconds; saves nothing."""
        state = self.launch(model)
        load, before = dry_run.load(), dry_run.Use.so_far()
        precision = self.settle_precision(state, train)
        chosen = (f"train.precision=auto is {precision}.",) if self.precision == "auto" else ()
        share = self.batch_size // self.processes
        batches = iter(self._loader(train, state))

        def step(size: int) -> None:
            """One optimiser step of this process, of its whole share or of a smaller batch."""
            part = [Loader(train, size, seed=self.seed, augment=self.augment).batch(state.step)]
            micro = islice(batches, self.accumulate) if size == share else part
            float(state.advance(micro, self.loss, clip=self.clip, steps=self.steps)[0])  # waits for the device

        if self.compile:
            chosen = (*chosen, "These are times without train.compile: what it saves is measured when training begins.")
        first = Loader(train, 1, seed=self.seed, augment=self.augment).batch(0)
        with uncompiled():  # it would be compiled anew for each size
            one = dry_run.probe(state, self.loss, first)
            found = dry_run.cost(state, one, step, share, share // self.accumulate)
        busy = dry_run.busy(load, os.cpu_count() or 1, dry_run.Use.since(before), found.seconds_per_step)
        return found._replace(notes=(*found.notes, *chosen, *(busy if state.fabric.device.type == "cpu" else ())))

    def settle_precision(
        self, state: State, train: FieldDataset, resume: checkpoints.Checkpoint | None = None
    ) -> Choice:
        """Choose what the state computes in: what the run began with on a machine of this kind, or what a short trial finds.

        Args:
            state: what is trained; a trial leaves it as it is.
            train: training data.
            resume: where the run goes on.
        """
        fabric = state.fabric
        before = None if resume is None else Choice.read(resume.facts.get("precision"))
        share = self.batch_size // (self.processes * self.accumulate)

        def batch(size: int) -> Batch:
            return Loader(train, size, seed=self.seed, augment=self.augment).batch(0)

        def work(given: Batch, autocast: AbstractContextManager[object]) -> None:
            self._pass(state, given, autocast)

        def trial() -> Seconds:
            """Without dropout, which would change no ratio, and without compiling, which would take longer than all else."""
            with evaluating(state.model.denoiser):
                return timed(work, batch, fabric.device, share, clock=clock)

        began, agreed = time.perf_counter(), dry_run.largest(state)

        def clock() -> float:
            now = time.perf_counter() - began
            return agreed(now) if state.sharded else now  # of all, that have to make the same passes

        found = None
        if fabric.is_global_zero or state.sharded:
            machine = fabric.broadcast(machine_of(fabric.device)) if state.sharded else machine_of(fabric.device)
            say = log.warning if fabric.is_global_zero else log.debug
            found = choose("train.precision", self.precision, machine, trial, before, say=say)
        choice: Any = fabric.broadcast(found)  # in which all processes have to agree
        state.compute_in(choice)
        if self.precision == "auto" and fabric.is_global_zero:
            log.info("train.precision=auto is %s", choice)
        return choice

    # --------------------------------------------------------------------------------------------------------- private
    def _pass(self, state: State, batch: Batch, autocast: AbstractContextManager[object]) -> None:
        """The loss of a batch and its gradient, of which nothing stays."""
        given = batch.to(state.fabric.device)
        losses = losses_of(self.loss, state.model.denoiser, state.model, given, seed=self.seed, autocast=autocast)
        if state.sharded:  # what is gathered for a pass is none of the weights that have a gradient afterwards
            losses.mean().backward()
            state.optimiser.zero_grad()
            return
        weights = [parameter for parameter in state.model.denoiser.parameters() if parameter.requires_grad]
        torch.autograd.grad(losses.mean(), weights, allow_unused=True)

    def _compile(self, state: State, train: FieldDataset) -> None:
        """Compile the network for the one shape that training has, and say what that takes and whether it pays."""
        share = self.batch_size // (self.processes * self.accumulate)
        batch = Loader(train, share, seed=self.seed, augment=self.augment).batch(0)

        def seconds(context: AbstractContextManager[object]) -> float:
            synchronise(state.fabric.device)
            started = time.perf_counter()
            with context, state.keyed(batch):
                self._pass(state, batch, state.fabric.autocast())
            synchronise(state.fabric.device)
            return time.perf_counter() - started

        say = log.info if state.fabric.is_global_zero else log.debug
        say("compiling the network for batches of %d, which may take minutes; validation and pictures need none", share)
        once = seconds(nullcontext())
        pairs = [(seconds(uncompiled()), seconds(nullcontext())) for _ in range(COMPARED)]
        plain, compiled = map(min, zip(*pairs, strict=True))
        saved = (plain - compiled) * self.accumulate
        pays = f"pays after {once / saved:.0f} steps" if saved > 0 else "does not pay here: leave train.compile out"
        say("compiled in %.3g s: a pass takes %.3g s instead of %.3g s, which %s", once, compiled, plain, pays)

    def _loader(self, fields: FieldDataset, state: State) -> Loader:
        return Loader(
            fields,
            self.batch_size,
            seed=state.draws,
            augment=self.augment,
            start=state.step,
            rank=state.fabric.global_rank,
            ranks=state.fabric.world_size,
            accumulate=self.accumulate,
            workers=self.workers,
        )
