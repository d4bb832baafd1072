"""Training a model from a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from scorefield.foundation.errors import InputError
from scorefield.model import Model
from scorefield.run import configuration, experiment
from scorefield.run.configuration import Parser
from scorefield.run.loading import open_checkpoint
from scorefield.run.on_recipe import OnRecipe, groups_from
from scorefield.run.recipe import configuration_of, recipe_parser
from scorefield.run.verb import Verb, option
from scorefield.training.dry_run import Cost


@dataclass(frozen=True, kw_only=True)
class Train(OnRecipe):
    """Train a score model from a recipe or a YAML file; --GROUP.KEY VALUE overrides anything in it.

    Args:
        out: run folder to write.
        resume: go on from the last checkpoint in --out.
        init: run to take the model and its weights from.
        mean: deterministic run whose prediction is subtracted first.
        trust: your own package that the configuration of --init may name.
        dry_run: make a few real steps, print the costs, write nothing.
        print_config: print the whole configuration, as a recipe.
    """

    out: Path | None = None
    resume: bool = False
    init: Path | None = None
    mean: Path | None = None
    trust: tuple[str, ...] = option(repeat=True, default=())
    dry_run: bool = False
    print_config: bool = False

    def check(self) -> None:
        if self.out is None and not (self.dry_run or self.print_config):
            raise InputError("train needs --out RUN, the folder to write.")
        if self.recipe is None and self.init is None and self._own is None:
            raise InputError(
                "train needs a recipe first: scorefield train RECIPE --out RUN (scorefield recipes lists them)."
            )

    @property
    def _own(self) -> Path | None:
        """The configuration of the run that is resumed."""
        path = None if self.out is None else self.out / "config.yaml"
        return path if self.resume and path is not None and path.is_file() else None

    @cached_property
    def parser(self) -> Parser:
        return recipe_parser(data_required=self.init is None)

    @cached_property
    def settings(self) -> Namespace:
        path = None if self.recipe is None else configuration.find_recipe(str(self.recipe))
        path = path or self._own
        groups: dict[str, Any] = {} if path is None else configuration.read_recipe(path)
        if self.init is not None and self._own is None:
            groups = groups_from(self.init, groups, self.words, self.trust)
        return self.parser.read(self.words, self.parser.read_object(groups, str(path or self.init)))

    def run(self) -> Model | Cost | str:
        if self.print_config:
            return configuration_of(self.parser, self.settings)
        if self.dry_run:
            return experiment.dry_run(self.parser, self.settings)
        assert self.out is not None
        init = None if self.init is None else open_checkpoint(self.init)
        mean = None if self.mean is None else open_checkpoint(self.mean)
        return experiment.train(self.parser, self.settings, self.out, resume=self.resume, init=init, mean=mean)

    def table(self, found: Any) -> str:
        if self.dry_run:
            return found.table(self.settings.train.steps, self.settings.train.batch_size)
        return found.rstrip("\n") if self.print_config else ""


@dataclass(frozen=True, kw_only=True)
class Recipes(Verb):
    """List the recipes that come with scorefield."""

    def run(self) -> dict[str, str]:
        found = configuration.recipes()
        return {name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in found.items()}

    def table(self, found: dict[str, str]) -> str:
        width = max(map(len, found)) + 2
        return "\n".join(f"{name:{width}s}{text}" for name, text in found.items())
