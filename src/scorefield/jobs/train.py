"""Training a model from a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import resolved
from scorefield.model import Model
from scorefield.run import configuration, experiment
from scorefield.run.configuration import Leaf, Parser, leaves_in, with_origin
from scorefield.run.defaults import named_in
from scorefield.run.loading import load, open_checkpoint
from scorefield.run.on_recipe import OnRecipe, further, groups_from
from scorefield.run.recipe import annotated, configuration_of, recipe_parser
from scorefield.run.verb import Verb, log, option
from scorefield.training.dry_run import Cost

Recipe = str | Path | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Train(OnRecipe):
    """Train a score model from a recipe or a YAML file; --GROUP.KEY VALUE overrides anything in it.

    Args:
        out: run folder to write.
        resume: go on from the last checkpoint in --out.
        or_start: with --resume: start where --out holds no run yet, so that one call does both, as a queue repeats it.
        init: run to take the model and its weights from.
        mean: deterministic run whose prediction is subtracted first.
        accept_changed_data: with --resume: go on though the data are not those that the run was trained on.
        trust: your own package that the configuration of --init may name.
        dry_run: make a few real steps, print the costs, write nothing.
        print_config: print the whole configuration, as a recipe.
        origins: with --print-config: behind each value, the file or else what gave it.
    """

    out: Path | None = None
    resume: bool = False
    or_start: bool = False
    init: Path | None = None
    mean: Path | None = None
    accept_changed_data: bool = False
    trust: tuple[str, ...] = option(repeat=True, default=())
    dry_run: bool = False
    print_config: bool = False
    origins: bool = False

    def check(self) -> None:
        if self.origins and not self.print_config:
            raise InputError("--origins goes with --print-config.")
        for given, name in ((self.accept_changed_data, "--accept-changed-data"), (self.or_start, "--or-start")):
            if given and not self.resume:
                raise InputError(f"{name} goes with --resume.")
        if self.out is None and not (self.dry_run or self.print_config):
            raise InputError("train needs --out RUN, the folder to write.")
        if self.recipe is None and self.init is None and self._own is None:
            raise InputError(
                "train needs a recipe first: scorefield train RECIPE --out RUN (scorefield recipes lists them)."
            )
        if self.init is None and self._own is None and not self._has_network:
            raise InputError(f"{self.recipe} trains a run further, and has no network: give --init RUN.")

    @property
    def _has_network(self) -> bool:
        return "net" in super().groups.get("model", {}) or not {"model", "model.net"}.isdisjoint(named_in(self.words))

    @property
    def _own(self) -> Path | None:
        """The configuration of the run that is resumed."""
        path = None if self.out is None else self.out / "config.yaml"
        return path if self.resume and path is not None and path.is_file() else None

    @cached_property
    def parser(self) -> Parser:
        return recipe_parser(data_required=self.init is None)

    @property
    def path(self) -> Path | None:
        return self._own if self.recipe is None else super().path

    @cached_property
    def groups(self) -> dict[str, Any]:
        if self._own is not None and self.recipe is not None and "net" not in super().groups.get("model", {}):
            return further(configuration.read_recipe(self._own), super().groups)
        if self.init is None or self._own is not None:
            return super().groups
        return groups_from(self.init, {} if self.recipe is None else super().groups, self.words, self.trust)

    @property
    def _leaves(self) -> dict[str, Leaf]:
        """The values of `groups`, each with the file or the run that gave it."""
        leaves = {} if self.path is None else configuration.recipe_leaves(self.path)
        if self.init is not None and self._own is None:
            said = {name.split(".")[0] for name in leaves} - {"model"}
            inherited = {name: value for name, value in self.groups.items() if name not in said}
            if any(name.split(".")[:2] == ["model", "net"] for name in leaves):  # the run's own model is taken as it is
                leaves = {name: leaf for name, leaf in leaves.items() if name.split(".")[0] != "model"}
            leaves = dict(leaves_in(with_origin(inherited, str(self.init)))) | leaves
        return leaves

    def run(self) -> Model | Cost | str:
        if self.origins:
            return annotated(self.parser, self.settings, self._leaves, self.words)
        if self.print_config:
            return configuration_of(self.parser, self.settings)
        if self.dry_run:
            return experiment.dry_run(self.parser, self.settings)
        assert self.out is not None
        resolved(self.out)
        log.debug("configuration:\n%s", configuration_of(self.parser, self.settings))
        init = None if self.init is None else open_checkpoint(self.init)
        mean = None if self.mean is None else open_checkpoint(self.mean)
        return experiment.train(
            self.parser,
            self.settings,
            self.out,
            resume=self.resume and not (self.or_start and self._own is None),
            init=init,
            mean=mean,
            accept_changed_data=self.accept_changed_data,
        )

    def table(self, found: Any) -> str:
        if self.dry_run:
            return found.table(self.settings.train.steps, self.settings.train.batch_size)
        return found.rstrip("\n") if self.print_config else ""


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    init: str | Path | None = None,
    mean: str | Path | None = None,
    accept_changed_data: bool = False,
    trust: Sequence[str] = (),
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
        accept_changed_data: resume though the data are not those that the run was trained on.
        trust: your own packages that the configuration of `init` may name.
        values: what is to differ from the recipe, by dotted names.

    Raises:
        InputError: a recipe or a value that cannot be used, data that are absent, a folder that holds something else.
    """
    Train(
        recipe=recipe,
        out=Path(out),
        resume=resume,
        init=None if init is None else Path(init),
        mean=None if mean is None else Path(mean),
        accept_changed_data=accept_changed_data,
        trust=tuple(trust),
        overrides=values,
    ).run()
    return load(out, trust=trust)


def recipe(recipe: Recipe, /, **values: Any) -> dict[str, Any]:
    """What a recipe says, with every default written out: the groups model, data and train, which make a recipe again.

    `scorefield.recipe("cifar10-ncsnpp-ve")["model"]["sde"]["schedule"]`

    Args:
        recipe: the name of one, the path of a YAML file, or what would be in it.
        values: what is to differ from it, by dotted names.
    """
    return yaml.safe_load(str(Train(recipe=recipe, overrides=values, print_config=True).run()))


@dataclass(frozen=True, kw_only=True)
class Recipes(Verb):
    """List the recipes that come with scorefield."""

    def run(self) -> dict[str, str]:
        found = configuration.recipes()
        return {name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in found.items()}

    def table(self, found: dict[str, str]) -> str:
        width = max(map(len, found)) + 2
        return "\n".join(f"{name:{width}s}{text}" for name, text in found.items())
