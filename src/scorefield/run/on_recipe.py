"""Verbs that work on a recipe, and how one is read: a file, the values that override it, and the runs that it starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from scorefield.data.source import Source
from scorefield.foundation.errors import InputError
from scorefield.model import Model
from scorefield.run import configuration
from scorefield.run.configuration import GROUPS, Parser
from scorefield.run.loading import open_checkpoint
from scorefield.run.numbers import is_number
from scorefield.run.recipe import recipe_parser
from scorefield.run.verb import Verb, option, positional
from scorefield.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class OnRecipe(Verb):
    """What works on a recipe.

    Args:
        recipe: name of a recipe (scorefield recipes) or path of a YAML file; in Python also what would be in it.
        overrides: anything in it by its name: --GROUP.KEY VALUE on the command line, {"train.steps": 100} in Python.
    """

    recipe: str | Path | Mapping[str, Any] | None = positional(default=None)
    overrides: tuple[str, ...] | Mapping[str, Any] = option("--overrides", repeat=True, default=())

    @classmethod
    def spelled_out(cls, arguments: Sequence[str]) -> list[str]:
        """With what is meant for the recipe, `--train.steps 10`, as `--overrides=--train.steps --overrides=10`."""
        found, inside = [], False
        for word in arguments:
            if word.startswith("-") and not is_number(word):
                head, dot, _ = word.removeprefix("--").split("=")[0].partition(".")
                inside = head in GROUPS or (bool(dot) and head.replace("-", "_") not in cls.__dataclass_fields__)
            found.append(f"--overrides={word}" if inside else word)
        return found

    @classmethod
    def more_help(cls) -> str:
        """What the recipe's own groups take."""
        return "\n" + recipe_parser("scorefield").format_help().partition("\n\n")[2]

    @property
    def words(self) -> list[str]:
        """The overrides as a command line has them."""
        if not isinstance(self.overrides, Mapping):
            return list(self.overrides)
        return [
            f"--{name}={value if isinstance(value, str | Path) else json.dumps(value, default=str)}"
            for name, value in self.overrides.items()
        ]

    @cached_property
    def parser(self) -> Parser:
        """That of the recipe."""
        return recipe_parser()

    @property
    def path(self) -> Path | None:
        """The file of the recipe, where it is one."""
        return configuration.find_recipe(str(self.recipe)) if isinstance(self.recipe, str | Path) else None

    @cached_property
    def groups(self) -> dict[str, Any]:
        """The recipe without the overrides."""
        if isinstance(self.recipe, Mapping):
            return configuration.fold_bases(self.recipe, "the recipe")
        if self.path is None:
            raise InputError("A recipe comes first: scorefield train RECIPE --out RUN (scorefield recipes lists them).")
        return configuration.read_recipe(self.path)

    @cached_property
    def settings(self) -> Namespace:
        """The recipe with the overrides."""
        return self.parser.read(self.words, self.parser.read_object(self.groups, str(self.path or "the recipe")))


def further(stored: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    """The model of a run, and of the rest what a recipe says, or, where it says nothing, the run.

    A recipe without a network is for what is trained already: what it says of the model changes that of the run.
    """
    model, changes = stored["model"], groups.get("model", {})
    return {**(groups or stored), "model": model if "net" in changes else configuration.fold(model, changes)} | (
        {"data": stored["data"]} if "data" in stored and "data" not in groups else {}
    )


def groups_from(init: Path, groups: dict[str, Any], words: Sequence[str], trust: Sequence[str]) -> dict[str, Any]:
    """The model of a run with the data and the training of a recipe, or, where there are none, with its own."""
    opened = open_checkpoint(init)
    stored = opened.config
    wanted = GROUPS if not groups else [name for name in ("model", "data") if name == "model" or name not in groups]
    taken = {name: stored[name] for name in wanted if name in stored}
    configuration.check_trust(taken, {"model": Model, "data": Source, "train": Trainer}, trust, str(opened.path))
    groups = further(stored, groups)
    if "data" not in groups and not any(word.split("=")[0] == "--data" for word in words):
        raise InputError(f"{init} does not know the data that it was trained on: give some by --data.")
    return {name: groups[name] for name in GROUPS if name in groups}
