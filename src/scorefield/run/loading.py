"""What a run left behind, read back: its model, its data and its facts, from one checkpoint alone."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from scorefield.data.manifest import Manifest
from scorefield.data.source import Source
from scorefield.foundation.errors import InputError, brief
from scorefield.model import Model
from scorefield.nn.size import limited_to
from scorefield.run import configuration
from scorefield.run.aliases import renewed
from scorefield.run.recipe import build, data_parser, model_parser, train_parser
from scorefield.run.shipped import known_models, results_of, weights_of
from scorefield.run.verb import log
from scorefield.training import checkpoint as checkpoints
from scorefield.training.checkpoint import Checkpoint
from scorefield.training.plan import Plan
from scorefield.training.snapshots import averaged
from scorefield.training.trainer import Trainer


def load(
    path: str | Path,
    ema: bool = True,
    *,
    step: int | None = None,
    ema_width: float | None = None,
    trust: Sequence[str] = (),
) -> Model:
    """The model of a run folder or a checkpoint, in eval mode, from that file alone.

    Args:
        path: a run folder, a checkpoint file, or the name of a model that comes with scorefield.
        ema: the averaged weights, or the last ones.
        step: of which checkpoint; the last one by default.
        ema_width: instead, the weights averaged by powers of time with this width, of a run that tracked such averages.
        trust: your own packages that the configuration may name.

    Raises:
        InputError: no checkpoint; truncated, corrupt or of another network; a configuration that names foreign code.
    """
    if not isinstance(path, str | PathLike):
        raise InputError(f"The run is {brief(repr(path))}: give the path of a run folder, or of a checkpoint file.")
    return open_checkpoint(Path(path), step).model(ema=ema, ema_width=ema_width, trust=trust)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint file and what it holds.

    Attributes:
        path: the file.
        checkpoint: its content, verified.
    """

    path: Path
    checkpoint: Checkpoint

    @property
    def config(self) -> dict[str, Any]:
        config = renewed(self.checkpoint.facts.get("config"))
        if not (isinstance(config, Mapping) and isinstance(config.get("model"), Mapping)):
            raise InputError(f"{self.path} holds no configuration of a model: it is not a checkpoint of a run.")
        return dict(config)

    @property
    def provenance(self) -> dict[str, Any]:
        """Which weights these are."""
        return {"checkpoint": self.path.name, "step": self.checkpoint.facts["step"], "weights": self.checkpoint.sha256}

    def weights(self, ema: bool, ema_width: float | None = None) -> dict[str, Tensor]:
        """The network's: the last, their average, or an average of another width, see `scorefield.training.snapshots`."""
        if ema_width is None:
            return self.checkpoint.group("net") | (self.checkpoint.group("ema") if ema else {})
        if not ema:
            raise InputError("An average of a width is wanted, and no average: leave --ema-width out, or --ema true.")
        average = averaged(run_folder(self.path), self.checkpoint, ema_width, str(self.path))
        return self.checkpoint.group("net") | average

    def model(self, *, ema: bool, ema_width: float | None = None, trust: Sequence[str] = ()) -> Model:
        """The model with its weights."""
        stored = {"model": self.config["model"]}
        configuration.check_trust(stored, {"model": Model, "data": Source}, trust, str(self.path))
        parser = model_parser()
        settings = parser.read_object(stored, str(self.path))
        with limited_to(self.checkpoint.tensors.values(), str(self.path)):
            model: Model = build(parser, settings).model
        weights = self.weights(ema, ema_width)
        if not checkpoints.all_finite(weights.values()):
            raise InputError(f"{self.path} holds weights that are not finite: take an earlier checkpoint.")
        load_strictly(model.denoiser.net, weights, str(self.path))
        load_fixed(model, self.checkpoint, str(self.path))
        training = self.config.get("train")
        model.knows_none = not isinstance(training, Mapping) or "DropLabel" in str(training.get("augment"))
        return model.eval().requires_grad_(False)

    @property
    def manifest(self) -> Manifest | None:
        """What the data of training were made of; None in a run of before, and for imported weights."""
        return Manifest.read(self.checkpoint.facts.get("data"), str(self.path))

    def source(self, trust: Sequence[str] = ()) -> Source:
        """The data that the model was trained on. Raises InputError where its weights were imported without any."""
        if "data" not in self.config:
            raise InputError(f"{self.path} holds imported weights and does not know their data: give them by --data.")
        stored = {"data": self.config["data"]}
        configuration.check_trust(stored, {"model": Model, "data": Source}, trust, str(self.path))
        parser = data_parser()
        return build(parser, parser.read_object(stored, str(self.path))).data

    def plan(self, trust: Sequence[str] = ()) -> Plan:
        """How the model was trained. Raises InputError where the checkpoint does not say it."""
        if not isinstance(self.config.get("train"), Mapping):
            raise InputError(f"{self.path} does not say how its weights were trained, and so knows no loss.")
        stored = {"train": self.config["train"]}
        configuration.check_trust(stored, {"train": Trainer}, trust, str(self.path))
        parser = train_parser()
        return build(parser, parser.read_object(stored, str(self.path))).train


def open_checkpoint(path: Path, step: int | None = None) -> LoadedCheckpoint:
    """Read and verify a checkpoint file, that of a run folder, or that of a model that comes with scorefield."""
    file = find_checkpoint(path, step)
    if weights_of(path) is not None and results_of(file) is None:
        log.info("%s is your own, and not the model of that name that `scorefield models` lists", path)
    found = LoadedCheckpoint(file, checkpoints.read(file))
    if step is not None and results_of(file) is not None and found.checkpoint.facts["step"] != step:
        raise InputError(f"{path} is there as of step {found.checkpoint.facts['step']} alone, not {step}.")
    return found


def find_checkpoint(path: Path, step: int | None = None) -> Path:
    """The file itself, or a run folder's checkpoint of a step, the last one by default; or that of a model that comes with
    scorefield, where there is nothing of its name in the working directory.
    """
    if path.is_file():
        return path
    shipped = weights_of(path)
    if shipped is not None and not path.exists():
        return shipped
    folder = path / "checkpoints"
    found = checkpoints.steps(folder)
    if not found:
        close = difflib.get_close_matches(str(path), known_models(), n=1)
        advice = "give a run folder that `scorefield train` wrote, a checkpoint file, or one of `scorefield models`."
        if shipped is not None:
            advice = "it hides the model of that name. Call from elsewhere, or rename it."
        elif close and not path.exists():
            advice = f"did you mean {close[0]}, one of `scorefield models`?"
        raise InputError(f"{path} holds no checkpoint: {advice}")
    if step is not None and step not in found:
        raise InputError(f"{path} has no checkpoint of step {step}: there are {', '.join(map(str, found))}.")
    return checkpoints.path_of(folder, found[-1] if step is None else step)


def run_folder(checkpoint: Path) -> Path:
    """The run folder of a checkpoint file: the folder it lies in, or the one above `checkpoints` or `best`. Of a model that comes
    with scorefield, NAME-results in the working directory.
    """
    if (results := results_of(checkpoint)) is not None:
        return results
    inside = checkpoint.absolute().parent.name in ("checkpoints", "best")
    return checkpoint.parent.parent if inside else checkpoint.parent


def load_fixed(model: Model, checkpoint: Checkpoint, origin: str) -> None:
    """Load what a model has stored beside its network."""
    for group, part in model.fixed():
        load_strictly(part, checkpoint.group(group), origin)
    model.template = checkpoint.group("data").get("template", model.template)
    model.manifest = Manifest.read(checkpoint.facts.get("data"), origin)


def take_mean(groups: Namespace, opened: LoadedCheckpoint, trust: Sequence[str] = ()) -> None:
    """Write the network of a deterministic run as the mean of a model, and that run's units as its own."""
    given = {"model": opened.config["model"]}
    configuration.check_trust(given, {"model": Model}, trust, str(opened.path))
    if not str(given["model"]["net"].get("class_path", "")).endswith(".Deterministic"):
        raise InputError(
            f"{opened.path} is no deterministic run: give one whose model.net is scorefield.nn.Deterministic."
        )
    stored = model_parser().read_object(given, str(opened.path)).model
    groups.model.mean = Namespace(class_path="scorefield.core.residual.Regression", init_args=Namespace(net=stored.net))
    groups.model.normaliser, groups.model.predictors = stored.normaliser, stored.predictors


def load_mean(model: Model, opened: LoadedCheckpoint) -> None:
    """The averaged network of a deterministic run as the mean of a model, with that run's units. See `take_mean`."""
    checkpoint, origin = opened.checkpoint, str(opened.path)
    if model.mean is None:
        raise InputError("The model has no mean to load: leave --mean out.")
    weights = checkpoint.group("net") | checkpoint.group("ema")
    own = model.mean.state_dict()
    rest = {name: value for name, value in own.items() if name.startswith("residual.")}
    load_strictly(model.mean, rest | {f"net.{name}": value for name, value in weights.items()}, origin)
    load_strictly(model.normaliser, checkpoint.group("normaliser"), origin)
    load_strictly(model.predictors, checkpoint.group("predictors"), origin)
    if model.vectors is not None and model.mean.vector:
        load_strictly(model.vectors, checkpoint.group("vector"), origin)


def load_strictly(module: torch.nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Load weights, or say in one line which names or shapes do not fit."""
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [n for n in own.keys() & weights.keys() if own[n].numel() and own[n].shape != weights[n].shape]
    problems = []
    for names, what in ((missing, "lacks"), (unknown, "has the unknown"), (sorted(shapes), "has another shape of")):
        if names:
            problems.append(f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}")
    if problems:
        raise InputError(f"{origin} is of another network: it {'; it '.join(problems)}.")
    module.load_state_dict(dict(weights), strict=True)
