"""Sampling towards a class: which (`--label`), by how much (`--guidance`), and with which classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from scorefield.core.classifier import ClassifierProtocol
from scorefield.core.denoiser import DenoiserProtocol
from scorefield.foundation.errors import InputError
from scorefield.guidance import Classified, ClassifierFree
from scorefield.jobs.options import Label, size_of
from scorefield.model import Model
from scorefield.run.loading import LoadedCheckpoint, open_checkpoint


@dataclass(frozen=True)
class Guidance:
    """What guides samples towards a class.

    Attributes:
        denoiser: to sample with; None for the model's own.
        classes: how many classes it knows beside those of the network.
        facts: what decides its result, for the identity of a job.
    """

    denoiser: DenoiserProtocol | None = None
    classes: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


def guidance_of(
    checkpoint: LoadedCheckpoint, model: Model, scale: float | None, classifier: Path | None, trust: Sequence[str]
) -> Guidance:
    """The guidance by a scale and a classifier's run, where either is given. InputError where they do not fit the model."""
    if scale is None and classifier is None:
        return Guidance()
    scale = 1.0 if scale is None else scale
    if classifier is None:
        _check_null_class(checkpoint, model)
        return Guidance(ClassifierFree(model.generative, scale), 0, {"guidance": {"scale": scale}})
    opened = open_checkpoint(classifier)
    other = _fitting(opened, model, trust)
    guided = Classified(model.generative, cast(ClassifierProtocol, other.denoiser), scale)
    return Guidance(guided, other.classes, {"guidance": {"scale": scale, "classifier": opened.provenance}})


def label_of(checkpoint: LoadedCheckpoint, model: Model, label: Label | None = None) -> Label | None:
    """The class; where none is given, each in turn if the network has never learnt to do without one."""
    return "each" if label is None and model.labels and not _knows_none(checkpoint) else label


def class_of(checkpoint: LoadedCheckpoint, model: Model, label: Label | None) -> Label | None:
    """The class; InputError where none is given, and the network has never learnt to do without one."""
    if label is None and model.labels and not _knows_none(checkpoint):
        raise InputError(
            f"The network has learnt its classes, and never to do without one: say which by --label, 0 to {model.labels - 1}."
        )
    return label


def _knows_none(checkpoint: LoadedCheckpoint) -> bool:
    """Whether a network with classes may have learnt the null class too."""
    training = checkpoint.config.get("train")
    return not isinstance(training, Mapping) or "DropLabel" in str(training.get("augment"))


def _check_null_class(checkpoint: LoadedCheckpoint, model: Model) -> None:
    """Refuse a network that cannot tell a class from none."""
    if not model.labels:
        raise InputError("The network knows no classes to stress: give --classifier, the run of one of noised fields.")
    if not _knows_none(checkpoint):
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
        sizes = f"fields of {size_of(other.shape)}, and the model makes those of {size_of(model.shape)}"
        raise InputError(f"{opened.path} classifies {sizes}.")
    own, its = model.normaliser.state_dict(), other.normaliser.state_dict()
    if own.keys() != its.keys() or any(not own[name].allclose(its[name]) for name in own):
        raise InputError(f"{opened.path} was trained on data in other units: train it on the data of the model.")
    return other
