"""Recipes from Python, by what the command line takes: a name or a file, and values by their dotted names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from scorefield.model import Model
from scorefield.run import experiment
from scorefield.run.configuration import Parser, find_recipe, fold_bases, read_recipe
from scorefield.run.loading import load, open_checkpoint
from scorefield.run.recipe import configuration_of, recipe_parser

Recipe = str | Path | Mapping[str, Any]


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    init: str | Path | None = None,
    mean: str | Path | None = None,
    **values: Any,
) -> Model:
    """Train a model into a run folder, as `scorefield train` does, and return it with its averaged weights, ready to sample.

    `scorefield.train("digits", "runs/a", **{"train.steps": 10, "model.sde.schedule": "VP"})`

    Args:
        recipe: the name of one, the path of a YAML file, or what would be in it.
        out: the run folder.
        resume: go on with the run that the folder holds.
        init: a run or a checkpoint to take the first weights from.
        mean: a deterministic run whose prediction is to be subtracted.
        values: what is to differ from the recipe, by dotted names.

    Raises:
        InputError: a recipe or a value that cannot be used, data that are absent, a folder that holds something else.
    """
    parser, settings = _settings(recipe, values)
    opened = [None if run is None else open_checkpoint(Path(run)) for run in (init, mean)]
    experiment.train(parser, settings, Path(out), resume=resume, init=opened[0], mean=opened[1])
    return load(out)


def recipe(recipe: Recipe, /, **values: Any) -> dict[str, Any]:
    """What a recipe says, with every default written out: the groups model, data and train, which make a recipe again.

    `scorefield.recipe("cifar10-ncsnpp-ve")["model"]["sde"]["schedule"]`

    Args:
        recipe: the name of one, the path of a YAML file, or what would be in it.
        values: what is to differ from it, by dotted names.
    """
    return yaml.safe_load(configuration_of(*_settings(recipe, values)))


def _settings(recipe: Recipe, values: Mapping[str, Any]) -> tuple[Parser, Namespace]:
    """A recipe as it was parsed, and by what."""
    parser = recipe_parser("scorefield.train")
    if isinstance(recipe, Mapping):
        content, origin = fold_bases(recipe, "the recipe"), "the recipe"
    else:
        path = find_recipe(str(recipe))
        content, origin = read_recipe(path), str(path)
    given = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value, default=str)}"
        for name, value in values.items()
    ]
    return parser, parser.read(given, parser.read_object(content, origin))
