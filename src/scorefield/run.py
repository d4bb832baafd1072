"""A run: the objects of one experiment, built from a recipe, and the folder in which it lives.

config.yaml   the resolved configuration       checkpoints/  step-*.safetensors, each complete in itself
logs/         train.csv, valid.csv, TensorBoard samples/      grids of samples during training
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import register_type
from torch import Tensor

from scorefield import config as configuration
from scorefield.config import Parser
from scorefield.data.batch import Batch
from scorefield.data.fields import Fields
from scorefield.data.loader import Sequential
from scorefield.data.source import Source, Tensors
from scorefield.errors import AbsentDataError, InputError
from scorefield.files import write_text
from scorefield.model import Model
from scorefield.nn import NCSN, Encoder, NCSNpp, NCSNv2  # noqa: F401 - known to the parser by their short names
from scorefield.random import stream
from scorefield.train import checkpoint as checkpoints
from scorefield.train.checkpoint import Checkpoint
from scorefield.train.rehearsal import Rehearsal
from scorefield.train.trainer import Trainer

INITIAL = 202  # the stream of the initial weights
RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # where launchers say which process this is, the global number first
STAND_INS = 9  # random fields where a rehearsal finds no data
TERMINAL_SNR = 0.01  # signal power over noise power at t = 1 above which the prior is a poor start


# ------------------------------------------------------------------------------------------------------------- parsers
def _numbers(values: Any) -> Tensor:
    """A list of numbers as one object: entry by entry, jsonargparse would copy a table as often as it has entries."""
    if not isinstance(values, list | tuple) or not all(isinstance(value, int | float) for value in values):
        raise ValueError("not a list of numbers")
    return torch.tensor(values, dtype=torch.float64)


register_type(Tensor, serializer=Tensor.tolist, deserializer=_numbers)


def recipe_parser(prog: str = "scorefield train", description: str = "", *, data_required: bool = True) -> Parser:
    """The three groups of a recipe; without data where a base knows none and later arguments give them."""
    parser = Parser.named(prog, description)
    parser.add_class_arguments(Model, "model")
    parser.add_subclass_arguments(Source, "data", required=data_required)
    parser.add_class_arguments(Trainer, "train")
    return parser


def _model_parser() -> Parser:
    parser = Parser.named("model", "")
    parser.add_class_arguments(Model, "model")
    return parser


def _data_parser() -> Parser:
    parser = Parser.named("data", "")
    parser.add_subclass_arguments(Source, "data", required=True)
    return parser


def build(parser: Parser, settings: Namespace) -> Namespace:
    """The objects that a configuration describes. What a constructor refuses is the user's to fix."""
    try:
        return parser.instantiate(settings)
    except (TypeError, ValueError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__  # the parser wraps what a constructor says
        raise (cause or InputError(parser.explain(error))) from error


# ---------------------------------------------------------------------------------------------------------------- load
def load(path: str | Path, ema: bool = True, *, step: int | None = None, trust: Sequence[str] = ()) -> Model:
    """The model of a run folder or a checkpoint, in eval mode, from that file alone.

    Args:
        path: a run folder or a checkpoint file.
        ema: the averaged weights, or the last ones.
        step: of which checkpoint; the last one by default.
        trust: your own packages that the configuration may name.

    Raises:
        InputError: no checkpoint; truncated, corrupt or of another network; a configuration that names foreign code.
    """
    return open_checkpoint(Path(path), step).model(ema=ema, trust=trust)


@dataclass(frozen=True)
class Opened:
    """A checkpoint file and what it holds.

    Attributes:
        path: the file.
        checkpoint: its content, verified.
    """

    path: Path
    checkpoint: Checkpoint

    @property
    def config(self) -> dict[str, Any]:
        config = self.checkpoint.facts.get("config")
        if not (isinstance(config, Mapping) and isinstance(config.get("model"), Mapping)):
            raise InputError(f"{self.path} holds no configuration of a model: it is not a checkpoint of a run.")
        return dict(config)

    @property
    def provenance(self) -> dict[str, Any]:
        """Which weights these are."""
        return {"checkpoint": self.path.name, "step": self.checkpoint.facts["step"], "weights": self.checkpoint.sha256}

    def model(self, *, ema: bool, trust: Sequence[str] = ()) -> Model:
        """The model with its weights."""
        stored = {"model": self.config["model"]}
        configuration.check_trust(stored, {"model": Model, "data": Source}, trust, str(self.path))
        parser = _model_parser()
        model: Model = build(parser, parser.read_object(stored, str(self.path))).model
        weights = self.checkpoint.group("net") | (self.checkpoint.group("ema") if ema else {})
        load_strictly(model.denoiser.net, weights, str(self.path))
        load_strictly(model.normaliser, self.checkpoint.group("normaliser"), str(self.path))
        return model.eval().requires_grad_(False)

    def source(self, trust: Sequence[str] = ()) -> Source:
        """The data that the model was trained on. Raises InputError where its weights were imported without any."""
        if "data" not in self.config:
            raise InputError(f"{self.path} holds imported weights and does not know their data: give them by --data.")
        stored = {"data": self.config["data"]}
        configuration.check_trust(stored, {"model": Model, "data": Source}, trust, str(self.path))
        parser = _data_parser()
        return build(parser, parser.read_object(stored, str(self.path))).data


def open_checkpoint(path: Path, step: int | None = None) -> Opened:
    """Read and verify a checkpoint file, or that of a run folder."""
    file = find_checkpoint(path, step)
    return Opened(file, checkpoints.read(file))


def find_checkpoint(path: Path, step: int | None = None) -> Path:
    """The file itself, or a run folder's checkpoint of a step, the last one by default."""
    if path.is_file():
        return path
    folder = path / "checkpoints"
    found = checkpoints.steps(folder)
    if not found:
        raise InputError(
            f"{path} holds no checkpoint: give a run folder that `scorefield train` wrote, or a checkpoint file."
        )
    if step is not None and step not in found:
        raise InputError(f"{path} has no checkpoint of step {step}: there are {', '.join(map(str, found))}.")
    return checkpoints.path_of(folder, found[-1] if step is None else step)


def run_folder(checkpoint: Path) -> Path:
    """The run folder of a checkpoint file: the folder it lies in, or the one above `checkpoints`."""
    return checkpoint.parent.parent if checkpoint.absolute().parent.name == "checkpoints" else checkpoint.parent


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


# --------------------------------------------------------------------------------------------------------------- train
@dataclass(frozen=True)
class Experiment:
    """What training needs: data, a model with a fitted normaliser, a trainer, and the configuration they came from."""

    train: Fields
    valid: Fields
    model: Model
    trainer: Trainer
    config: dict[str, Any]


def prepare(
    parser: Parser,
    settings: Namespace,
    resume: Checkpoint | None = None,
    init: Opened | None = None,
    source: Source | None = None,
) -> Experiment:
    """Build an experiment; sizes that the recipe leaves open are taken from the data.

    Args:
        parser: from `recipe_parser`.
        settings: what it parsed.
        resume: a checkpoint of this run, which will be restored.
        init: a checkpoint of another run whose averaged weights and normaliser this one starts from.
        source: data that take the place of the recipe's own.
    """
    groups = Namespace({name: settings[name] for name in configuration.GROUPS})
    given: Source = source or build(_data_parser(), Namespace(data=groups.data)).data
    train, valid = given.load("train"), given.load("valid")
    _fill_sizes(groups, train)
    config = yaml.safe_load(parser.dump(groups, skip_validation=True))
    if groups.train.seed < 0:
        raise InputError(f"train.seed must be at least 0, not {groups.train.seed}.")
    torch.manual_seed(stream(groups.train.seed, INITIAL))
    built = build(parser, groups)
    model: Model = built.model
    if init is not None:
        load_strictly(model.denoiser.net, init.checkpoint.group("net") | init.checkpoint.group("ema"), str(init.path))
        load_strictly(model.normaliser, init.checkpoint.group("normaliser"), str(init.path))
    elif resume is None:
        model.normaliser.fit(Sequential(train))
    return Experiment(train, valid, model, built.train, config)


def configuration_of(parser: Parser, settings: Namespace) -> str:
    """The three groups of a recipe with every default written out, as YAML that is a recipe again."""
    return parser.dump(Namespace({name: settings[name] for name in configuration.GROUPS}), skip_validation=True)


def _fill_sizes(groups: Namespace, fields: Fields) -> None:
    """Write the shape of the data where the recipe leaves it open, and refuse a network that does not fit the data."""
    first = fields[0]
    nets = _from_outside(groups.model.net)
    inner, channels = nets[-1], first.x.shape[0]
    groups.model.shape = list(first.x.shape)
    _check_conditions(inner, fields, first)
    if "spatial" in inner:
        inner.spatial = first.x.ndim - 1
    if "classes" in inner and not inner.classes:
        inner.classes = len(fields.classes)
    for name, asked in (("in_channels", reversed(nets)), ("out_channels", nets)):
        net = next((net for net in asked if name in net), Namespace())
        if name in net and not net[name]:
            net[name] = channels
        elif net.get(name, channels) != channels:
            raise InputError(f"model.net.{name} is {net[name]}, but the data have {channels} channels: leave it 0.")


def _from_outside(net: Namespace) -> list[Namespace]:
    """The arguments of a network, and of those that it is around."""
    arguments = net.get("init_args", Namespace())
    return [arguments, *(_from_outside(arguments.net) if "net" in arguments else [])]


def _check_conditions(net: Namespace, fields: Fields, first: Batch) -> None:
    """Refuse a network that needs a field or labels that the data lack, or tells apart fewer classes than they have."""
    labels, classes = net.get("labels", 0), len(fields.classes)
    if net.get("cond_channels", 0) and "field" not in first.cond:
        raise InputError(
            f"model.net.cond_channels is {net.cond_channels}, but the data bring no field to condition on: give 0."
        )
    if labels and "label" not in first.cond:
        raise InputError(f"model.net.labels is {labels}, but the data have no labels: give 0, or data with labels.")
    if labels and labels < classes:
        raise InputError(f"model.net.labels is {labels}, but the data have {classes} classes: give {classes}.")


def train(
    parser: Parser,
    settings: Namespace,
    folder: Path,
    *,
    resume: bool = False,
    init: Opened | None = None,
    notify: Callable[[str], None] = warnings.warn,
) -> Model:
    """Train into a run folder; `resume` goes on from its last checkpoint, `init` starts from another run's weights.

    Args:
        parser: from `recipe_parser`.
        settings: what it parsed.
        folder: the run folder.
        resume: continue the run that the folder holds.
        init: the checkpoint of another run to start from; of no effect once there is something to resume.
        notify: is told what looks wrong with the data or the prior.
    """
    checkpoint = (
        checkpoints.read(find_checkpoint(folder)) if resume and checkpoints.steps(folder / "checkpoints") else None
    )
    leader = int(next((os.environ[name] for name in RANKS if name in os.environ), "0")) == 0
    if leader:
        check_free(folder, resume)
    experiment = prepare(parser, settings, checkpoint, None if checkpoint is not None else init)
    if checkpoint is not None:
        _check_same(checkpoint.facts["config"], experiment.config, folder)
    elif leader:
        for warning in suspicions(experiment.model, experiment.train):
            notify(warning)
    if leader:
        write_text(folder / "config.yaml", yaml.safe_dump(experiment.config, sort_keys=False))
    experiment.trainer.fit(
        experiment.model, experiment.train, experiment.valid, folder=folder, config=experiment.config, resume=checkpoint
    )
    return experiment.model


def rehearse(parser: Parser, settings: Namespace) -> Rehearsal:
    """What a run would cost, from a few real steps; writes nothing. Where its data are absent, random ones stand in."""
    try:
        experiment, notes = prepare(parser, settings), ()
    except AbsentDataError as error:
        experiment = prepare(parser, settings, source=_stand_ins(settings, error))
        notes = (f"Random fields of shape {list(experiment.model.shape)} stand in for the data. {error}",)
    found = experiment.trainer.rehearse(experiment.model, experiment.train)
    return found._replace(notes=(*notes, *found.notes))


def _stand_ins(settings: Namespace, error: AbsentDataError) -> Source:
    """Random bytes in the shape that the recipe says its data have."""
    shape, classes = settings.model.shape, settings.model.net.get("init_args", Namespace()).get("labels", 0)
    if not shape:
        raise InputError(f"{error} To rehearse without data, give their shape: --model.shape [channels,height,width].")
    x = torch.randint(256, (STAND_INS, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Tensors(x, labels=torch.arange(STAND_INS) % classes if classes else None, valid=1)


def check_free(folder: Path, resume: bool) -> None:
    """Refuse a folder that holds something else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give another --out.")
    used = folder.is_dir() and any(folder.iterdir())
    if used and not resume:
        raise InputError(f"{folder} is not empty: add --resume to go on with its run, or give another --out.")
    if resume and not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} holds no run to resume: leave --resume out to start one.")


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """A resumed run may change how it is trained, but not what is trained, on what."""
    for group in ("model", "data"):
        for key, old, new in differences(before[group], now[group], group):
            raise InputError(f"{folder} was trained with {key} = {old}, not {new}: use the same, or another --out.")
    for name in ("seed", "batch_size"):
        if before["train"][name] != now["train"][name]:
            raise InputError(
                f"{folder} was trained with train.{name} = {before['train'][name]}: use the same to resume."
            )


def differences(before: Any, now: Any, key: str) -> list[tuple[str, Any, Any]]:
    """The leaves in which two configurations differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = [*before, *(name for name in now if name not in before)]
        return [found for name in names for found in differences(before.get(name), now.get(name), f"{key}.{name}")]
    return [] if before == now else [(key, before, now)]


def suspicions(model: Model, fields: Fields, n: int = 512) -> list[str]:
    """What looks wrong before a step is made: a prior that does not match, data of an unexpected scale."""
    x = model.normaliser(fields.gather(torch.arange(min(n, len(fields)))).x)
    alpha, sigma = (float(scale) for scale in model.sde.schedule(torch.ones(())))
    found = []
    if (ratio := alpha**2 * float(x.square().mean()) / sigma**2) > TERMINAL_SNR:
        found.append(
            f"At t = 1 the data still have {ratio:.2g} of the noise's power (more than {TERMINAL_SNR}), so samples that start "
            "from noise start off the data's law: raise the schedule's largest noise, or scale the data down."
        )
    expected, std = model.denoiser.precondition.sigma_data, float(x.std())
    if expected is not None and not 0.5 <= std / expected <= 2:
        found.append(
            f"The normalised data have standard deviation {std:.3g}, but sigma_data is {expected:g}: "
            f"set model.precondition.sigma_data to {std:.2g}, and the loss weight's too, or normalise by Standardise."
        )
    return found
