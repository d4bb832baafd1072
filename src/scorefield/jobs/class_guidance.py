"""Sampling towards a class: which (`--label`), by how much (`--guidance`), and with which classifier."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from scorefield.core.classifier import ClassifierProtocol
from scorefield.core.denoiser import DenoiserProtocol
from scorefield.foundation.errors import InputError, brief
from scorefield.guidance import Autoguided, Classified, ClassifierFree, Within
from scorefield.jobs.options import Label, Number, size_of
from scorefield.model import Model
from scorefield.run.loading import LoadedCheckpoint, open_checkpoint
from scorefield.run.verb import log


@dataclass(frozen=True)
class Guidance:
    """What guides samples towards a class.

    Attributes:
        denoiser: to sample with; None for the model's own.
        classes: how many classes it knows beside those of the network.
        names: of the classes, where the network has none.
        facts: what decides its result, for the identity of a job.
    """

    denoiser: DenoiserProtocol | None = None
    classes: int = 0
    names: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def guidance_of(
    model: Model,
    scale: float | None,
    classifier: Path | None,
    trust: Sequence[str],
    weak: Path | None = None,
    within: tuple[float, float] | None = None,
) -> Guidance:
    """The guidance by a scale, a classifier's or a weaker model's run, where any is given.

    Args:
        model: what is guided.
        scale: w.
        classifier: run of a classifier that guides.
        trust: own packages that the configurations of runs may name.
        weak: run of a weaker model, from which guidance leads away.
        within: the smallest and the largest σ/α at which it guides.

    Raises:
        InputError: they do not fit the model, or one another.
    """
    if scale is None and classifier is None and weak is None:
        if within is not None:
            raise InputError("--within is for guidance: add --guidance, --classifier or --weak, or leave it out.")
        return Guidance()
    if classifier is not None and weak is not None:
        raise InputError("Either a classifier guides or a weaker model does: give --classifier or --weak.")
    if weak is not None:
        found = _away_from(model, weak, 2.0 if scale is None else scale, trust)
    elif classifier is None:
        _check_null_class(model)
        found = Guidance(ClassifierFree(model.prior, _plain(scale)), facts={"guidance": {"scale": _plain(scale)}})
    else:
        found = _by_classifier(model, classifier, _plain(scale), trust)
    if within is None or found.denoiser is None:
        return found
    facts = {"guidance": {**found.facts["guidance"], "within": list(within)}}
    return replace(found, denoiser=Within(found.denoiser, model.prior, *within), facts=facts)


def _plain(scale: float | None) -> float:
    return 1.0 if scale is None else scale


def _away_from(model: Model, weak: Path, scale: float, trust: Sequence[str]) -> Guidance:
    """Away from a weaker model of the same fields."""
    opened = open_checkpoint(weak)
    other = _of_the_same(opened, opened.model(ema=True, trust=trust).to(model.device), model)
    if other.classes or other.labels != model.labels or other.vector != model.vector:
        raise InputError(f"{opened.path} is given other classes or vectors than the model: take one trained as it was.")
    _, cond = _probe(model)
    known = {name: value for name, value in cond.items() if value.is_floating_point()}
    own, its = model.given(known), other.given(known)
    if any(not own[name].double().allclose(its[name].double(), rtol=1e-4, atol=1e-4) for name in own):
        raise InputError(
            f"{opened.path} has its conditions in other units than the model: take one trained on its data."
        )
    facts = {"guidance": {"scale": scale, "weak": opened.provenance}}
    return Guidance(Autoguided(model.prior, other.prior, scale), facts=facts)


def _by_classifier(model: Model, classifier: Path, scale: float, trust: Sequence[str]) -> Guidance:
    """Towards a class of a classifier."""
    opened = open_checkpoint(classifier)
    other = _fitting(opened, model, trust)
    guided = Classified(model.prior, cast(ClassifierProtocol, other.denoiser), scale)
    own, its = model.class_names, other.class_names
    if own and its and own != its:
        raise InputError(
            f"{opened.path} has other classes than the model: {_known(its)}. Give one of the same data."[:300]
        )
    return Guidance(guided, other.classes, its, {"guidance": {"scale": scale, "classifier": opened.provenance}})


def number_of(label: Label | None, names: Sequence[str]) -> Number | None:
    """The number of a class that is given by its name or its number; a name comes first. InputError where there is no such name.

    Args:
        label: the class, or each.
        names: of the classes by their numbers, where they are known.
    """
    if label is None or label == "each":
        return None if label is None else "each"
    text = str(label)
    if text in names:
        number = names.index(text)
        if text.isdecimal() and int(text) != number:
            log.info("label %s is the name of the class of number %d", text, number)
        return number
    if re.fullmatch(r"-?[0-9]{1,9}", text):
        if names and not 0 <= int(text) < len(names):
            raise InputError(f"There is no class {text}: {_known(names)}."[:300])
        number = int(text)
        if near := [name for i, name in enumerate(names) if name.isdecimal() and int(name) == number != i]:
            raise InputError(
                f"Label {text} is the number of class {names[number]}, and nearly the name of class {near[0]}: give the name."
            )
        if names and names[number] != text:
            log.info("label %d is the class %s", number, names[number])
        return number
    known = _known(names) if names else "the run does not know their names, give a number"
    raise InputError(f"There is no class {brief(text)}: {known}."[:300])


def own_class(label: Label | None, model: Model) -> Number | None:
    """The number of a class that is given to a network; InputError where it tells none apart."""
    if label is not None and not model.labels:
        count = 0 if model.manifest is None else len(model.manifest.classes)
        advice = f", or train with --model.net.labels {count} to draw from a class" if count > 1 else ""
        raise InputError(f"The network knows no classes: leave out the label {brief(label)}{advice}.")
    return number_of(label, model.class_names)


def class_number(model: Model, label: Label) -> int:
    """The number of a single class that the network knows; InputError for any other."""
    number = own_class(label, model)
    if not isinstance(number, int) or not 0 <= number < model.labels:
        raise InputError(
            f"There is no class {brief(label)}: give the name of one, or a number from 0 to {model.labels - 1}."
        )
    return number


def _known(names: Sequence[str]) -> str:
    """The classes, as far as they fit into a line; only how many, where their names are their numbers."""
    if list(names) == [str(number) for number in range(len(names))]:
        return f"give a label from 0 to {len(names) - 1}"
    return "the classes are " + textwrap.shorten(
        ", ".join(f"{number} {brief(name)}" for number, name in enumerate(names[:50])), 180, placeholder=" ..."
    )


def class_facts(number: Number | None, names: Sequence[str]) -> dict[str, Any]:
    """The names of the classes that are drawn, for the record of a job; nothing where they are not known."""
    if number is None or not names:
        return {}
    return {"classes": list(names)} if number == "each" else {"class": names[int(number)]}


def label_of(model: Model, label: Label | None = None) -> Number | None:
    """The number of the class; where none is given, each in turn if the network has never learnt to do without one."""
    if label is None and model.labels and not model.knows_none:
        return "each"
    return own_class(label, model)


def class_of(model: Model, label: Label | None) -> Number | None:
    """The number of the class; InputError where none is given, and the network has never learnt to do without one."""
    if label is None and model.labels and not model.knows_none:
        raise InputError(
            f"The network has learnt its classes, and never to do without one: say which by --label, 0 to {model.labels - 1}."
        )
    return own_class(label, model)


def _check_null_class(model: Model) -> None:
    """Refuse a network that cannot tell a class, or a vector, from none."""
    if not model.labels and not model.vector:
        raise InputError(
            "The network knows no classes or vectors to stress: give --classifier, the run of one of noised fields."
        )
    if not model.knows_none:
        raise InputError(
            "The network has learnt its classes or vectors, and never to do without one: train it with "
            "train.augment: scorefield.data.DropLabel, or give --classifier."
        )


def _fitting(opened: LoadedCheckpoint, model: Model, trust: Sequence[str]) -> Model:
    """A classifier of the fields that the model makes."""
    other = opened.model(ema=True, trust=trust).to(model.device)
    if not other.classes:
        raise InputError(f"{opened.path} makes fields and classifies none: give the run of a classifier.")
    return _of_the_same(opened, other, model)


def _of_the_same(opened: LoadedCheckpoint, other: Model, model: Model) -> Model:
    """A model of the fields and in the units of another."""
    if tuple(other.shape) != tuple(model.shape):
        sizes = f"fields of {size_of(other.shape)}, and the model makes those of {size_of(model.shape)}"
        raise InputError(f"{opened.path} knows {sizes}.")
    z, cond = _probe(model)
    own, its = (part.leave(z.to(part.precision), cond).double() for part in (model, other))  # by the mean, too
    if not own.allclose(its, rtol=1e-4, atol=1e-4 * float(own.nan_to_num().abs().max()), equal_nan=True):
        raise InputError(f"{opened.path} was trained on data in other units: train it on the data of the model.")
    return other


def _probe(model: Model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Fields and conditions such as the network takes, of which no number is special."""
    z, cond = model.example(2)
    drawn = torch.Generator().manual_seed(1)
    return z, {
        name: torch.randn(value.shape, generator=drawn).to(value) if value.is_floating_point() else value
        for name, value in cond.items()
    }
