"""Where the figures, the pictures and the configuration of a run go beside `logs/*.csv`, for people who watch it.

`train.loggers: [TensorBoard, WandB]` names them. The tables are always written: a run goes on, and chooses its best checkpoint,
by them. A run that is resumed goes on in the same run of a service.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import write_json
from scorefield.foundation.lazy import require

log = logging.getLogger("scorefield")

TEXT = 500  # characters of a parameter that MLflow keeps
SERVICES = "logs/(wandb|mlflow).*"  # what these leave in a run folder, a regular expression


class Writer(ABC):
    """An open log of one run. Steps only grow, unless training went back to a checkpoint."""

    @abstractmethod
    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name, such as `train/loss`."""

    @abstractmethod
    def picture(self, step: int, path: Path) -> None:
        """A grid of samples."""

    @abstractmethod
    def close(self, whole: bool) -> None:
        """No more is to come: the run is whole, or was stopped."""


class Logger(ABC):
    """A kind of log."""

    def check(self) -> None:  # noqa: B027 - most need nothing
        """Raise InputError where what it needs is not installed."""

    @abstractmethod
    def open(self, folder: Path, start: int, config: Mapping[str, Any]) -> Writer:
        """Begin, or go on with, the log of a run.

        Args:
            folder: the run folder, which holds what the log is known by.
            start: the step at which the run begins; at 0 it has no log yet.
            config: the resolved configuration.

        Raises:
            InputError: the service refuses.
        """


# --------------------------------------------------------------------------------------------------------- TensorBoard
@dataclass(frozen=True)
class TensorBoard(Logger):
    """Event files in `RUN/logs`: `tensorboard --logdir RUN/logs`."""

    def open(self, folder: Path, start: int, config: Mapping[str, Any]) -> Writer:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, needed here alone

        board = SummaryWriter(str(folder / "logs"), purge_step=start + 1)
        if not start:
            board.add_text("configuration", f"```yaml\n{_text(config)}\n```", 0)
        return _Board(board)


class _Board(Writer):
    def __init__(self, board: Any) -> None:
        self.board = board

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def picture(self, step: int, path: Path) -> None:
        with Image.open(path) as image:
            self.board.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self, whole: bool) -> None:
        self.board.close()


# ---------------------------------------------------------------------------------------------------- Weights & Biases
@dataclass(frozen=True)
class WandB(Logger):
    """Weights & Biases, by the extra `wandb`. Its files are in `RUN/logs/wandb`; code is never sent.

    Args:
        project: that the run belongs to.
        entity: user or team; by default the one that is logged in.
        name: of the run; by default the run folder's.
        mode: offline writes files alone, for `wandb sync`; by default what WANDB_MODE says, else online.
    """

    project: str = "scorefield"
    entity: str | None = None
    name: str | None = None
    mode: Literal["online", "offline"] | None = None

    def check(self) -> None:
        require("wandb", "WandB among train.loggers", "wandb")

    def open(self, folder: Path, start: int, config: Mapping[str, Any]) -> Writer:
        wandb = require("wandb", "WandB among train.loggers", "wandb")
        identity = _identity(folder / "logs" / "wandb.json", start, lambda: {"id": secrets.token_hex(4)})
        try:
            run = wandb.init(
                project=self.project,
                entity=self.entity,
                name=self.name or folder.resolve().name,
                id=identity["id"],
                resume="allow",
                mode=self.mode,
                dir=str(folder / "logs"),
                settings=wandb.Settings(console="off", disable_code=True, disable_git=True, silent=True),
            )
            run.config.update(dict(config), allow_val_change=True)  # a resumed run may have more steps
            run.define_metric("*", step_metric="step")  # its own steps could not go back
        except wandb.Error as error:
            raise InputError(
                f"Weights & Biases: {brief(error)}. Call `wandb login`, or set WANDB_MODE=offline and sync the run later."
            ) from error
        return _Bias(run, wandb.Image)


class _Bias(Writer):
    def __init__(self, run: Any, image: Callable[[str], Any]) -> None:
        self.run, self.image = run, image

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def picture(self, step: int, path: Path) -> None:
        self.run.log({"step": step, "samples": self.image(str(path))})

    def close(self, whole: bool) -> None:
        self.run.finish(exit_code=0 if whole else 1)


# -------------------------------------------------------------------------------------------------------------- MLflow
@dataclass(frozen=True)
class MLflow(Logger):
    """MLflow, by the extra `mlflow`. What cannot be sent while training goes on is warned of and left out.

    Args:
        experiment: that the run belongs to.
        name: of the run; by default the run folder's.
        uri: of the tracking server or database; by default what MLFLOW_TRACKING_URI says, else `RUN/logs/mlflow.db`.
    """

    experiment: str = "scorefield"
    name: str | None = None
    uri: str | None = None

    def check(self) -> None:
        require("mlflow.tracking", "MLflow among train.loggers", "mlflow")
        if not self._address:
            require("alembic", "MLflow without a server", "mlflow")
            require("sqlalchemy", "MLflow without a server", "mlflow")

    @property
    def _address(self) -> str | None:
        return self.uri or os.environ.get("MLFLOW_TRACKING_URI")

    def open(self, folder: Path, start: int, config: Mapping[str, Any]) -> Writer:
        mlflow = require("mlflow.tracking", "MLflow among train.loggers", "mlflow")
        errors = require("mlflow.exceptions", "MLflow among train.loggers", "mlflow")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logs = (folder / "logs").resolve()
        address = self._address or f"sqlite:///{logs / 'mlflow.db'}"
        where = None if self._address else (logs / "mlflow").as_uri()
        try:
            client = mlflow.MlflowClient(tracking_uri=address)
            found = client.get_experiment_by_name(self.experiment)
            experiment = client.create_experiment(self.experiment, where) if found is None else found.experiment_id

            def new() -> dict[str, str]:
                run = client.create_run(experiment, run_name=self.name or logs.parent.name).info.run_id
                for name, value in _flat(config):
                    client.log_param(run, name, str(value)[:TEXT])
                return {"id": run}

            identity = _identity(logs / "mlflow.json", start, new)["id"]
            client.set_terminated(identity, "RUNNING")
            client.log_text(identity, _text(config), "config.yaml")
        except (errors.MlflowException, OSError) as error:
            raise InputError(
                f"MLflow at {address}: {brief(error)}. Look at train.loggers and MLFLOW_TRACKING_URI."
            ) from error
        return _Flow(client, identity, (errors.MlflowException, OSError))


class _Flow(Writer):
    def __init__(self, client: Any, run: str, errors: tuple[type[Exception], ...]) -> None:
        self.client, self.run, self.errors = client, run, errors
        self.failed = False

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._send(lambda name=name, value=value: self.client.log_metric(self.run, name, value, step=step))

    def picture(self, step: int, path: Path) -> None:
        self._send(lambda: self.client.log_artifact(self.run, str(path), "samples"))

    def close(self, whole: bool) -> None:
        self._send(lambda: self.client.set_terminated(self.run, "FINISHED" if whole else "KILLED"))

    def _send(self, call: Callable[[], object]) -> None:
        """A training does not end because a server is away."""
        try:
            call()
        except self.errors as error:
            if not self.failed:
                log.warning(f"MLflow: {brief(error)}. What it could not take is in logs/*.csv; training goes on.")
            self.failed = True


# -------------------------------------------------------------------------------------------------------------- shared
def _identity(path: Path, start: int, new: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What a service knows a run by: as it was written when the run began, or new."""
    if start and path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return {"id": str(found["id"])}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} does not say which run to go on with: delete it to begin another.") from error
    made = new()
    write_json(path, made)
    return made


def _text(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False)


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a configuration by dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
