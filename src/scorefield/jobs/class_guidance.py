"""Sampling towards a class, as the command line asks for it: `--label`, by how much (`--guidance`), with which classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from jsonargparse import Namespace

from scorefield.core.classifier import ClassifierProtocol
from scorefield.core.denoiser import DenoiserProtocol
from scorefield.foundation.errors import InputError
from scorefield.guidance import Classified, ClassifierFree
from scorefield.jobs.sampling import Label
from scorefield.model import Model
from scorefield.run import loading
from scorefield.run.configuration import Parser
from scorefield.run.loading import LoadedCheckpoint


def add_arguments(parser: Parser) -> None:
    """By how much to stress the class, and by what."""
    parser.add_argument(
        "--guidance",
        type=float | None,
        default=None,
        help="w: how much to stress the class of --label, p(x | class)^w p(x)^(1-w); 1 is the plain law of the class",
    )
    parser.add_argument(
        "--classifier",
        type=Path | None,
        default=None,
        help="run of a classifier of noised fields that guides instead of the network's own classes",
    )


@dataclass(frozen=True)
class Steering:
    """What guides samples towards a class.

    Attributes:
        denoiser: to sample with; None for the model's own.
        classes: how many classes it knows beside those of the network.
        facts: what decides its result, for the record of the samples.
    """

    denoiser: DenoiserProtocol | None
    classes: int
    facts: Mapping[str, Any]


def steering(source: LoadedCheckpoint, model: Model, settings: Namespace) -> Steering:
    """The guidance that the arguments ask for. InputError where it lacks a class, or the model or classifier does not fit."""
    if settings.guidance is None and settings.classifier is None:
        return Steering(None, 0, {})
    if settings.label is None:
        raise InputError("Guidance stresses a class: add --label, or leave --guidance and --classifier out.")
    scale = 1.0 if settings.guidance is None else float(settings.guidance)
    if settings.classifier is None:
        _check_null_class(source, model)
        return Steering(ClassifierFree(model.generative, scale), 0, {"guidance": {"scale": scale}})
    opened = loading.open_checkpoint(settings.classifier)
    other = _fitting(opened, model, settings.trust)
    guided = Classified(model.generative, cast(ClassifierProtocol, other.denoiser), scale)
    facts = {"guidance": {"scale": scale, "classifier": opened.provenance}}
    return Steering(guided, other.classes, facts)


def label_of(source: LoadedCheckpoint, model: Model, asked: Label | None = None) -> Label | None:
    """The class asked for; where none is, each in turn if the network has never learnt to do without one."""
    return "each" if asked is None and model.labels and not _knows_none(source) else asked


def class_of(source: LoadedCheckpoint, model: Model, asked: Label | None) -> Label | None:
    """The class asked for; InputError where none is, and the network has never learnt to do without one."""
    if asked is None and model.labels and not _knows_none(source):
        raise InputError(
            f"The network has learnt its classes, and never to do without one: say which by --label, 0 to {model.labels - 1}."
        )
    return asked


def _knows_none(source: LoadedCheckpoint) -> bool:
    """Whether a network with classes may have learnt the null class too."""
    training = source.config.get("train")
    return not isinstance(training, Mapping) or "DropLabel" in str(training.get("augment"))


def _check_null_class(source: LoadedCheckpoint, model: Model) -> None:
    """Refuse a network that cannot tell a class from none."""
    if not model.labels:
        raise InputError("The network knows no classes to stress: give --classifier, the run of one of noised fields.")
    if not _knows_none(source):
        raise InputError(
            "The network has learnt its classes, and never to do without one: train it with "
            "train.augment: scorefield.data.DropLabel, or give --classifier."
        )


def _fitting(opened: LoadedCheckpoint, model: Model, trust: Sequence[str]) -> Model:
    """A classifier of the fields that the model makes."""
    other = opened.model(ema=True, trust=trust).to(model.device)
    if not other.classes:
        raise InputError(f"{opened.path} makes fields and classifies none: give the run of a classifier.")
    if tuple(other.shape) != tuple(model.shape):
        raise InputError(
            f"{opened.path} classifies fields of {_size(other)}, and the model makes those of {_size(model)}."
        )
    own, its = model.normaliser.state_dict(), other.normaliser.state_dict()
    if own.keys() != its.keys() or any(not own[name].allclose(its[name]) for name in own):
        raise InputError(f"{opened.path} was trained on data in other units: train it on the data of the model.")
    return other


def _size(model: Model) -> str:
    return " × ".join(map(str, model.shape))
