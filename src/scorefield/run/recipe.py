"""Recipes as objects: the parsers of their three groups, what they describe, and how they are made to fit the data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import register_type
from torch import Tensor

from scorefield.core.residual import Regression  # noqa: F401 - known to the parser by its short name
from scorefield.core.wiener import Wiener  # noqa: F401 - likewise
from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.normalise import Normaliser
from scorefield.data.source import Source
from scorefield.foundation.errors import InputError
from scorefield.losses.loss import Loss
from scorefield.model import Model
from scorefield.nn import (  # noqa: F401 - known to the parser by their short names
    FNO,
    NCSN,
    UNO,
    Deterministic,
    Encoder,
    LearnedPositionMaps,
    NCSNpp,
    NCSNv2,
    UNet,
)
from scorefield.run import configuration
from scorefield.run.configuration import Leaf, Parser, leaves_in, with_origin
from scorefield.run.defaults import import_class, named_in
from scorefield.training.loggers import TensorBoard
from scorefield.training.trainer import Trainer

log = logging.getLogger("scorefield")


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
    return _with_train(parser)


def model_parser() -> Parser:
    """The model group alone, as a checkpoint has it."""
    parser = Parser.named("model", "")
    parser.add_class_arguments(Model, "model")
    return parser


def data_parser() -> Parser:
    """The data group alone."""
    parser = Parser.named("data", "")
    parser.add_subclass_arguments(Source, "data", required=True)
    return parser


def train_parser() -> Parser:
    """The train group alone."""
    parser = Parser.named("train", "")
    return _with_train(parser)


def normaliser_parser() -> Parser:
    """The units of a model alone: of its targets and of its predictors."""
    parser = Parser.named("model", "")
    parser.add_subclass_arguments(Normaliser, "normaliser", required=True)
    parser.add_subclass_arguments(Normaliser, "predictors", required=True)
    return parser


def _with_train(parser: Parser) -> Parser:
    parser.add_class_arguments(Trainer, "train")
    parser.set_defaults(
        {"train.loggers": [{"class_path": f"scorefield.{TensorBoard.__name__}"}]}
    )  # objects cannot be written
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


def configuration_of(parser: Parser, settings: Namespace) -> str:
    """The three groups of a recipe with every default written out, as YAML that is a recipe again."""
    return parser.written(Namespace({name: settings[name] for name in configuration.GROUPS}))


def annotated(parser: Parser, settings: Namespace, recipe: Mapping[str, Leaf], words: Sequence[str]) -> str:
    """The text of `configuration_of` with what gave each value in a comment: a file, the command line, the data or a default.

    Args:
        parser: from `recipe_parser`.
        settings: what it parsed.
        recipe: values with their files, see `recipe_leaves`.
        words: the command line's arguments for the recipe.
    """
    text, before = configuration_of(parser, _fitted(settings)), configuration_of(parser, settings)
    values, unfitted = ({name: leaf.value for name, leaf in _leaves_of_text(part)} for part in (text, before))
    given = set(_given(parser.with_files(words)))

    def origin(name: str) -> str:
        parts = name.split(".")
        outer = [".".join(parts[:number]) for number in range(1, len(parts))]
        replaced = [
            key for key in outer if key in recipe and key in values and not _same_class(recipe[key], values[key])
        ]
        if values[name] != unfitted.get(name):
            return "the data"
        if name in given:
            return "command line"
        return recipe[name].origin if name in recipe and not replaced else "default"

    return _with_comments(text, {name: origin(name) for name in values})


def _fitted(settings: Namespace) -> Namespace:
    """The settings with the sizes that follow from their data; as they are where there are no data."""
    groups = Namespace({name: settings[name] for name in configuration.GROUPS}).clone()
    try:
        fit_to_data(groups, build(data_parser(), Namespace(data=groups.data)).data.load("train"))
    except InputError as error:
        log.warning("sizes that follow from the data are left open: %s", error)
        return settings
    return groups


def _leaves_of_text(text: str) -> Iterator[tuple[str, Leaf]]:
    return leaves_in(with_origin(yaml.safe_load(text), ""))


def _given(words: Sequence[str]) -> Iterator[str]:
    """The dotted names of all values that a command line gives, those within mappings included."""
    for word, following in pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        for name in named_in([option]):
            yield name
            content = yaml.safe_load(value if equals else following)
            if isinstance(content, Mapping):
                yield from (inner for inner, _ in leaves_in(with_origin(content, ""), name))


def _same_class(leaf: Leaf, path: Any) -> bool:
    """Whether a recipe names the class at a path, by its whole path or its last part."""
    return str(leaf.value).rpartition(".")[2] == str(path).rpartition(".")[2]


def _with_comments(text: str, comments: Mapping[str, str]) -> str:
    """A YAML text of mappings with a comment behind each value, or behind the key of a list."""
    lines = text.splitlines()

    def write(node: yaml.Node, name: str) -> None:
        for key, value in node.value:
            inner = name if key.value in ("class_path", "init_args") else f"{name}.{key.value}".lstrip(".")
            if isinstance(value, yaml.MappingNode) and value.value:
                write(value, inner)
            elif inner in comments and key.value != "init_args":  # which is empty here
                block = isinstance(value, yaml.SequenceNode) and not value.flow_style
                lines[(key if block else value).end_mark.line] += f"  # {comments[inner]}"

    write(yaml.compose(text, yaml.SafeLoader), "")
    return "\n".join(lines) + "\n"


def stated_shape(groups: Namespace) -> list[int]:
    """The shape of fields that a recipe states, or nothing."""
    shape: list[int] = list(groups.model.shape or ())
    if any(size < 1 for size in shape):
        raise InputError(
            f"model.shape is {shape}: give sizes of at least 1, or leave it out, for the data have theirs."
        )
    return shape


def fit_to_data(groups: Namespace, fields: FieldDataset) -> None:
    """Write the shape of the data where the recipe leaves it open, and refuse a network that does not fit the data."""
    first = fields[0]
    nets = _from_outside(groups.model.net)
    inner, channels = nets[-1], first.x.shape[0]
    given = stated_shape(groups)
    groups.model.shape = list(first.x.shape)
    if given and given != groups.model.shape:
        log.warning("model.shape is that of the data, %s, not %s", groups.model.shape, given)
    _fit_conditions(nets, first)
    _check_conditions(inner, fields, first)
    _fit_jumps(inner, import_class(groups.train.loss.class_path))
    _fit_augmentations(inner, groups.train.augment or [])
    _fit_critic(groups.train.loss, first)
    if "spatial" in inner:
        axes = first.x.ndim - 1
        if inner.spatial not in (2, axes):  # 2 is what a network has where nothing is said
            raise InputError(
                f"model.net.spatial is {inner.spatial}, but the data have grids of {axes} axes: leave it out."
            )
        inner.spatial = axes
    if "classes" in inner and not inner.classes:
        inner.classes = len(fields.classes)
    for name, order in (("in_channels", reversed(nets)), ("out_channels", nets)):
        net = next((net for net in order if name in net), Namespace())
        if name in net and not net[name]:
            net[name] = channels
        elif net.get(name, channels) != channels:
            raise InputError(
                f"model.net.{name} is {net[name]}, but the data have {channels} channels: give 0 where you set it; "
                "weights of another run (--init) need data of its channels."
            )


def _from_outside(net: Namespace) -> list[Namespace]:
    """The arguments of a network, and of those that it is around."""
    arguments = net.get("init_args", Namespace())
    return [arguments, *(_from_outside(arguments.net) if "net" in arguments else [])]


def _fit_conditions(nets: list[Namespace], first: Batch) -> None:
    """Write how many channels and numbers a network is conditioned on, maps of its own included, and the grid of these."""
    inner, own = nets[-1], sum(net.get("maps", 0) for net in nets)
    given = first.cond["field"].shape[0] if "field" in first.cond else 0
    if "cond_channels" in inner and not inner.cond_channels:
        inner.cond_channels = given + own
    elif given and inner.get("cond_channels", 0) not in (0, given + own):
        raise InputError(
            f"model.net.cond_channels is {inner.cond_channels}, but the data bring {given} channels to condition on: leave it 0."
        )
    entries = first.cond["vector"].shape[0] if "vector" in first.cond else 0
    if "vector" in inner and not inner.vector:
        inner.vector = entries
    elif inner.get("vector", 0) != entries:
        _refuse_vector(inner, entries)
    for net in nets:
        if "maps" in net and not net.grid:
            net.grid = list(first.x.shape[1:])


def _fit_jumps(inner: Namespace, loss: type[Loss]) -> None:
    """Let a network learn where a jump ends, for a loss that teaches it."""
    if loss.jumps and "jumps" not in inner:
        raise InputError(
            f"{loss.__name__} teaches a network where a jump ends, and this one cannot know it: "
            "take NCSNpp, DDPMUNet, UNet, FNO or UNO."
        )
    if loss.jumps:
        inner.jumps = True


def _fit_augmentations(inner: Namespace, changes: Sequence[Namespace]) -> None:
    """Let a network take what augmentation has done to each sample, where it says so."""
    for change in changes:
        kind = import_class(change.class_path)
        if kind.entries and "augmentations" not in inner:
            raise InputError(
                f"{kind.__name__} tells the network what it has done, which this one cannot take: take NCSNpp, DDPMUNet or UNet."
            )
        if kind.entries:
            inner.augmentations = kind.entries


def _fit_critic(loss: Namespace, first: Batch) -> None:
    """Write the channels and axes of a loss's own network, whose result is one number at each point."""
    critic = loss.get("init_args", Namespace()).get("critic")
    if critic is None:
        return
    arguments = critic.init_args
    sizes = {"in_channels": first.x.shape[0], "out_channels": 1, "spatial": first.x.ndim - 1}
    sizes["cond_channels"] = first.cond["field"].shape[0] if "field" in first.cond else 0
    for name, size in sizes.items():
        if name in arguments:
            arguments[name] = size


def _refuse_vector(net: Namespace, entries: int) -> None:
    """Refuse vectors of another length than the network's; say where the network takes none at all."""
    if "vector" not in net:
        log.warning(
            "the data bring vectors of %d numbers, which this network does not take: it will not see them", entries
        )
    elif entries:
        raise InputError(
            f"model.net.vector is {net.vector}, but the data bring vectors of {entries} numbers: leave it 0."
        )
    else:
        raise InputError(
            f"model.net.vector is {net.vector}, but the data bring no vectors: give 0, or data with vectors."
        )


def _check_conditions(net: Namespace, fields: FieldDataset, first: Batch) -> None:
    """Refuse a network that needs a field or labels that the data lack, or distinguishes fewer classes than they have."""
    labels, classes = net.get("labels", 0), len(fields.classes)
    if net.get("cond_channels", 0) and "field" not in first.cond:
        raise InputError(
            f"model.net.cond_channels is {net.cond_channels}, but the data bring no field to condition on: give 0."
        )
    if labels and "label" not in first.cond:
        raise InputError(f"model.net.labels is {labels}, but the data have no labels: give 0, or data with labels.")
    if labels and labels < classes:
        raise InputError(f"model.net.labels is {labels}, but the data have {classes} classes: give {classes}.")
