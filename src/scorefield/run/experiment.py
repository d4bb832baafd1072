"""A run: the objects of one experiment, built from a recipe, and the folder in which it lives.

config.yaml   the resolved configuration       checkpoints/  step-*.safetensors, each complete in itself
logs/         train.csv, valid.csv, and others  samples/      grids of samples during training
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace

from scorefield.core.sde import SDE
from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.loader import Sequential
from scorefield.data.manifest import Manifest
from scorefield.data.normalise import Normaliser
from scorefield.data.precision import needed
from scorefield.data.source import Source, Tensors, say_notes
from scorefield.foundation.errors import AbsentDataError, InputError, NothingHeldOutError, brief
from scorefield.foundation.files import is_abandoned
from scorefield.foundation.launch import is_first
from scorefield.foundation.locks import OWNER, owned
from scorefield.foundation.random import Stream, seed_of
from scorefield.model import Model
from scorefield.run import configuration
from scorefield.run.aliases import renewed
from scorefield.run.configuration import Parser
from scorefield.run.defaults import completed
from scorefield.run.loading import LoadedCheckpoint, load_fixed, load_mean, load_strictly, take_mean
from scorefield.run.recipe import build, data_parser, fit_to_data, stated_shape
from scorefield.run.verb import log
from scorefield.training import checkpoint as checkpoints
from scorefield.training.checkpoint import Checkpoint
from scorefield.training.dry_run import Cost
from scorefield.training.loggers import SERVICES
from scorefield.training.loop import versions
from scorefield.training.trainer import Trainer

# What a training writes before its first checkpoint. Without any, it has nothing to lose, and a corrected call may begin anew.
BEGUN = re.compile(
    r"(data\.json|config\.yaml|checkpoints|samples|logs|averages)|averages/step-\d+\.safetensors|logs/((train|valid)\.csv|events\.out\.tfevents\..*)"
    rf"|{SERVICES}"
    r"|samples/step-\d+\.png|((checkpoints|samples|logs|averages)/)?\..*\.partial"
)
UNUSABLE = ".unusable"  # what the name of a checkpoint ends in that was set aside
STAND_INS = 9  # random fields where a dry run finds no data
NEW = {"jump", "augment"}  # parts that a network may have beside those of the run that it starts from, nothing at first
TERMINAL_SNR = 0.01  # signal power over noise power at t = 1 above which the prior is a poor start


@dataclass(frozen=True)
class Experiment:
    """What training needs: data, a model with a fitted normaliser, a trainer, and the configuration they came from."""

    train: FieldDataset
    valid: FieldDataset
    model: Model
    trainer: Trainer
    config: dict[str, Any]


def data_and_normaliser(settings: Namespace) -> tuple[FieldDataset, Normaliser]:
    """The training fields of a recipe, and its normaliser, which is not fitted."""
    parser = data_parser()
    parser.add_subclass_arguments(Normaliser, "normaliser", required=True)
    built = build(parser, Namespace(data=settings.data, normaliser=settings.model.normaliser))
    return built.data.load("train"), built.normaliser


def sde_of(settings: Namespace) -> SDE:
    """The process of a recipe."""
    parser = Parser.named("sde", "")
    parser.add_argument("--sde", type=SDE)
    return build(parser, Namespace(sde=settings.model.sde)).sde


def data_of(settings: Namespace) -> Source:
    """The data that a recipe names."""
    return build(data_parser(), Namespace(data=settings.data)).data


def prepare(
    parser: Parser,
    settings: Namespace,
    resume: Checkpoint | None = None,
    init: LoadedCheckpoint | None = None,
    source: Source | None = None,
    mean: LoadedCheckpoint | None = None,
) -> Experiment:
    """Build an experiment; sizes that the recipe leaves open are taken from the data.

    Args:
        parser: from `recipe_parser`.
        settings: what it parsed.
        resume: a checkpoint of this run, which will be restored.
        init: a checkpoint of another run whose averaged weights and normaliser this one starts from.
        source: data that take the place of the recipe's own.
        mean: a deterministic run whose prediction is taken off, and whose units are taken over.
    """
    groups = Namespace({name: settings[name] for name in configuration.GROUPS})
    if mean is not None:
        take_mean(groups, mean)
    given = source or data_of(groups)
    train = given.load("train")
    try:
        valid = given.load("valid")
    except NothingHeldOutError:
        valid = Subset(train, torch.arange(0))
    if is_first():
        say_notes(train, valid)
    fit_to_data(groups, train)
    config = yaml.safe_load(parser.written(groups))
    if groups.train.seed < 0:
        raise InputError(f"train.seed must be at least 0, not {groups.train.seed}.")
    torch.manual_seed(seed_of(groups.train.seed, Stream.WEIGHTS))
    built = build(parser, groups)
    model: Model = built.model
    if built.train.loss.one_step != model.denoiser.precondition.one_step:
        raise InputError(
            f"train.loss {type(built.train.loss).__name__} and model.precondition "
            f"{type(model.denoiser.precondition).__name__} do not go together: EnsembleScore and Wasserstein teach draws of one "
            "evaluation, which OneStep makes; the other losses a denoiser, which it does not. Change one of them."
        )
    for fields in (train, valid):
        fields.ready()  # settings are checked before all data are read
    if init is not None:
        new = {name: value for name, value in model.denoiser.net.state_dict().items() if NEW & set(name.split("."))}
        weights = new | init.checkpoint.group("net") | init.checkpoint.group("ema")
        _check_new(new.keys() - init.checkpoint.group("net").keys(), model, built.train, init)
        load_strictly(model.denoiser.net, weights, str(init.path))
        load_fixed(model, init.checkpoint, str(init.path))
    elif resume is None:
        if mean is not None:
            load_mean(model, mean)
        model.fit(Sequential(train))
    model.template = train.template
    model.manifest = given.manifest(train, valid)
    return Experiment(train, valid, model, built.train, config)


def _check_new(names: Set[str], model: Model, plan: Trainer, init: LoadedCheckpoint) -> None:
    """Refuse a part that the run before has not, is nothing at first, and would stay so, since its matrices do not learn."""
    weights = dict(model.denoiser.net.named_parameters())
    if still := sorted(name for name in names & weights.keys() if not plan.optimiser.learns(weights[name])):
        part = next(part for part in still[0].split(".") if part in NEW)
        first = "train flow-map on from it first, and give that run" if part == "jump" else "leave the augmentation out"
        raise InputError(
            f"{init.path} has no part {part!r}, which would stay as it is without train.optimiser.matrices: {first}."
        )


def train(
    parser: Parser,
    settings: Namespace,
    folder: Path,
    *,
    resume: bool = False,
    init: LoadedCheckpoint | None = None,
    mean: LoadedCheckpoint | None = None,
    accept_changed_data: bool = False,
) -> Model:
    """Train into a run folder; `resume` goes on from its last checkpoint, `init` starts from another run's weights.

    Args:
        parser: from `recipe_parser`.
        settings: what it parsed.
        folder: the run folder.
        resume: continue the run that the folder holds.
        init: the checkpoint of another run to start from; of no effect once there is something to resume.
        mean: the checkpoint of a deterministic run whose prediction is taken off; likewise.
        accept_changed_data: resume though the data are not those that the run was trained on.
    """
    leader = is_first()
    if leader:
        check_free(folder, resume)
    with owned(folder) if leader else nullcontext(True) as ours:
        if not ours:
            raise InputError(f"Another process is training in {folder}: wait for it, stop it, or give another --out.")
        if leader:
            check_free(folder, resume)  # nobody can have begun a run in it since
            remove_leftovers(folder)
        checkpoint, unusable = last_usable(folder) if resume else (None, {})
        begun = checkpoint is not None
        experiment = prepare(parser, settings, checkpoint, None if begun else init, mean=None if begun else mean)
        if checkpoint is not None:
            before = renewed(checkpoint.facts["config"])
            if not _only_moved(checkpoint, before, experiment):
                _check_same(before, experiment.config, folder, ("data",))
            _check_data(checkpoint, experiment, folder, accept_changed_data)
            _check_same(before, experiment.config, folder, ("model", "train"))
            _check_left(checkpoint, experiment.trainer.steps, folder)
        state = experiment.trainer.launch(experiment.model)
        if leader:
            if checkpoint is not None:
                _set_aside(unusable, checkpoint.facts["step"])
            if checkpoint is None:
                say_classes(experiment)
            news = (
                suspicions(experiment.model, experiment.train) if checkpoint is None else differing_versions(checkpoint)
            )
            for warning in news:
                log.warning(warning)
        experiment.trainer.fit(
            state, experiment.train, experiment.valid, folder=folder, config=experiment.config, resume=checkpoint
        )
    return experiment.model


def say_classes(experiment: Experiment) -> None:
    """Say how a network would tell the classes of its data apart, where it does not but could."""
    classes, net = len(experiment.train.classes), experiment.config["model"]["net"]
    if classes > 1 and not net.get("init_args", {}).get("labels", 1):
        log.info(
            "the data have %d classes: to draw from one of them, train with --model.net.labels %d", classes, classes
        )


def last_usable(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The last checkpoint of a run that can be read and is finite, None where there is none yet; and what is wrong with those
    after it.
    """
    place = folder / "checkpoints"
    checkpoint, wrong = checkpoints.first_usable(place, reversed(checkpoints.steps(place)))
    if checkpoint is None and wrong:
        raise InputError(f"No checkpoint of {folder} can be used. The last one: {next(iter(wrong.values()))}")
    return checkpoint, {checkpoints.path_of(place, step): problem for step, problem in wrong.items()}


def _set_aside(unusable: Mapping[Path, str], step: int) -> None:
    """Rename checkpoints that cannot be used, so that nothing takes one of them for the last of its run.

    Args:
        unusable: what is wrong with each.
        step: of the checkpoint that is used instead.
    """
    for path, problem in unusable.items():
        path.replace(path.with_suffix(UNUSABLE))
        reason = problem.partition(": delete it")[0].rstrip(".")
        log.warning(f"{reason}. Going on from step {step}; the file is now {path.with_suffix(UNUSABLE).name}.")


def differing_versions(checkpoint: Checkpoint) -> list[str]:
    """What a checkpoint was made with, where that is not what is installed."""
    before, now = checkpoint.facts.get("versions", {}), versions()
    changed = [name for name in now if name in before and before[name] != now[name]]
    if not changed:
        return []
    was, is_now = (", ".join(f"{name} {which[name]}" for name in changed) for which in (before, now))
    return [f"The run was trained with {was}, and goes on with {is_now}: numbers may differ in their last digits."]


def remove_leftovers(folder: Path) -> None:
    """Delete what a training that was killed left half written, and all pictures of one that made no checkpoint. Nobody else
    writes there while the folder is owned.
    """
    if _is_only_begun(folder):
        for path in (folder / "data.json", *(folder / "samples").glob("step-*.png")):
            path.unlink(missing_ok=True)
    for place in ("checkpoints", "logs", "samples", "averages"):
        for path in (folder / place).glob(".*.partial"):
            path.unlink(missing_ok=True)
    for path in (*folder.glob(".config.yaml.*.partial"), *(folder / "best").glob(".*.partial")):
        if is_abandoned(path):  # in these places other verbs write, too
            path.unlink(missing_ok=True)


def dry_run(parser: Parser, settings: Namespace) -> Cost:
    """What a run would cost, from a few real steps; writes nothing. Where its data are absent, random ones stand in."""
    try:
        experiment, notes = prepare(parser, settings), ()
    except AbsentDataError as error:
        experiment = prepare(parser, settings, source=_stand_ins(settings, error))
        notes = (f"Random fields of shape {list(experiment.model.shape)} stand in for the data. {error}",)
    found = experiment.trainer.dry_run(experiment.model, experiment.train)
    return found._replace(notes=(*notes, *found.notes))


def _stand_ins(settings: Namespace, error: AbsentDataError) -> Source:
    """Random bytes in the shape that the recipe says its data have."""
    net = settings.model.net.get("init_args", Namespace())
    shape, classes, entries = stated_shape(settings), net.get("labels", 0), net.get("vector", 0)
    if not shape:
        hint = "For a dry run without data, give their shape: --model.shape [channels,height,width]."
        raise InputError(f"{error} {hint}")
    x = torch.randint(256, (STAND_INS, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(STAND_INS) % classes if classes else None
    vector = torch.arange(STAND_INS * entries).view(STAND_INS, -1) if entries else None
    return Tensors(x, labels=labels, vector=vector, valid=1)


def check_free(folder: Path, resume: bool) -> None:
    """Refuse a folder that holds something else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give another --out.")
    used = folder.is_dir() and any(not _is_leftover(path) for path in folder.iterdir()) and not _is_only_begun(folder)
    if used and not resume:
        raise InputError(f"{folder} is not empty: add --resume to go on with its run, or give another --out.")
    if resume and not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} holds no run to resume: leave --resume out to start one.")


def _check_data(checkpoint: Checkpoint, experiment: Experiment, folder: Path, accept: bool) -> None:
    """A resumed run goes on with the data that it was trained on, unless others are explicitly accepted."""
    before, now = Manifest.read(checkpoint.facts.get("data"), str(folder)), experiment.model.manifest
    if now is None:
        return
    leader = is_first()
    if before is None:
        if leader:
            log.info("%s does not know what its data were made of: that they are still the same is not checked", folder)
        order = sorted(now.classes, key=lambda name: name.split("/"))  # as folders were numbered then
        if experiment.train.files is None or order == list(now.classes) or accept:
            return
        raise InputError(
            f"{folder} was trained when classes were numbered as text, {_some(order)}, and are now {_some(now.classes)}: name "
            "the folders so that both agree (01, 02, 10), or add --accept-changed-data."
        )
    changes = before.changes(now)
    if not changes:
        return
    what = "; ".join(changes[:4])[:150]
    if not accept:
        raise InputError(
            f"The data of {folder} have changed: {what}. Give it the data that it was trained on, or add "
            "--accept-changed-data to go on with these."
        )
    if leader:
        log.warning("the data have changed and are accepted: %s", what)


def _only_moved(checkpoint: Checkpoint, before: Mapping[str, Any], experiment: Experiment) -> bool:
    """Whether data are read from another place, where the same lie that the run was trained on."""
    then, now = Manifest.read(checkpoint.facts.get("data"), "the run"), experiment.model.manifest
    if then is None or now is None or not then.files or then.changes(now):
        return False
    changed = differences(completed(before["data"], experiment.config["data"]), experiment.config["data"], "data")
    return all(isinstance(old, str) and isinstance(new, str) and Path(new).exists() for _, old, new in changed)


def _some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(brief(name) for name in names[:4]) + (" ..." if len(names) > 4 else "")


def _is_leftover(path: Path) -> bool:
    """Whether a file is what a training leaves that is killed before it began."""
    return path.name == OWNER or (path.name.startswith(".config.yaml.") and path.suffix == ".partial")


def _is_only_begun(folder: Path) -> bool:
    """Whether all in a folder is of a training that failed or was stopped before its first checkpoint."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != OWNER)
    return (folder / "logs" / "train.csv").is_file() and all(map(BEGUN.fullmatch, names))


def _check_left(checkpoint: Checkpoint, steps: int, folder: Path) -> None:
    """A run cannot be trained for fewer steps than it has made."""
    made = checkpoint.facts["step"]
    if made > steps:
        raise InputError(f"{folder} is at step {made} already: give --train.steps {made} or more, or another --out.")


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path, groups: Sequence[str]) -> None:
    """A resumed run may change how it is trained, but not what is trained, on what."""
    for group in groups:
        for key, old, new in (
            differences(completed(before[group], now[group]), now[group], group) if group != "train" else ()
        ):
            raise InputError(f"{folder} was trained with {key} = {old}, not {new}: use the same, or another --out.")
    for name in ("seed", "batch_size") if "train" in groups else ():
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


def suspicions(model: Model, fields: FieldDataset, n: int = 512) -> list[str]:
    """What looks wrong before a step is made: a prior that does not match, data of an unexpected scale."""
    first = fields.gather(torch.arange(min(n, len(fields))))
    prepared = model.prepare(first)
    x = prepared.x if prepared.mask is None else prepared.x[prepared.mask.bool().expand_as(prepared.x)]
    alpha, sigma = (float(scale) for scale in model.sde.schedule(torch.ones(())))
    found: list[str] = []
    if (
        not model.denoiser.precondition.one_step
        and (ratio := alpha**2 * float(x.square().mean()) / sigma**2) > TERMINAL_SNR
    ):
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
    if needed(model.normaliser(first.x.to(model.device)).cpu().numpy(), "The data") == torch.float64:
        found.append(
            f"{type(model.normaliser).__name__} leaves an offset beside which float32, in which the model computes, rounds off "
            "what tells fields apart: take a normaliser that subtracts it, such as Standardise."
        )
    return found + masks_all_equal(first)


def masks_all_equal(batch: Batch) -> list[str]:
    """Whether all examples were measured in the same way, so that what no measurement sees is never learnt."""
    mask = batch.given.get("mask")
    if batch.y is None or mask is None or len(mask) < 2 or bool((mask != mask[:1]).any()):
        return []
    return ["All examples were sampled with the same mask: what it leaves out is never learnt. Vary the masks."]
