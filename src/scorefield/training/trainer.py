"""Training a model by a plan: starts the devices, and hands over to the loop, which can be stopped and resumed anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from scorefield.data.fields import FieldDataset
from scorefield.data.loader import Loader
from scorefield.foundation.files import write_json, write_text
from scorefield.foundation.signals import deferred_signals
from scorefield.model import Model
from scorefield.training import checkpoint as checkpoints
from scorefield.training import dry_run
from scorefield.training.dry_run import Cost
from scorefield.training.loop import Loop
from scorefield.training.plan import Plan
from scorefield.training.state import State, launch


class Trainer(Plan):
    """Carries out a plan; its arguments are those of `Plan`."""

    # ---------------------------------------------------------------------------------------------------------- public
    def launch(self, model: Model) -> State:
        """The devices and processes, started, with the model on them. InputError where they are not there."""
        fabric = launch(self.accelerator, self.devices, self.nodes, self.precision)
        net = model.denoiser.net
        state = State(model, self.optimiser, self.ema, self.seed, fabric)
        if self.compile:
            net.compile()
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
        with deferred_signals() as stop_requested:  # from the first byte on: what was begun can be gone on with
            loop = Loop(self, state, valid, valid if len(valid) else train, folder, config, stop_requested)
            if resume is not None:
                loop.restore(resume)
            if state.fabric.is_global_zero:
                write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
                if (data := state.model.manifest) is not None:
                    write_json(folder / "data.json", data.record())
            loop.run(lambda: self._loader(train, state))

    def dry_run(self, model: Model, train: FieldDataset) -> Cost:
        """What a step costs, from real steps where they fit into memory and some seconds; saves nothing."""
        state = self.launch(model)
        busy = dry_run.load_warning(state.fabric.device)
        share = self.batch_size // (self.devices * self.nodes)
        batches = iter(self._loader(train, state))

        def step(size: int) -> None:
            """One optimiser step of this process, of its whole share or of a smaller batch."""
            part = [Loader(train, size, seed=self.seed, augment=self.augment).batch(state.step)]
            micro = islice(batches, self.accumulate) if size == share else part
            float(state.advance(micro, self.loss, clip=self.clip, steps=self.steps)[0])  # waits for the device

        first = Loader(train, 1, seed=self.seed, augment=self.augment).batch(0)
        one = dry_run.probe(state, self.loss, first)
        found = dry_run.cost(state, one, step, share, share // self.accumulate)
        return found._replace(notes=(*found.notes, *busy))

    # --------------------------------------------------------------------------------------------------------- private
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
