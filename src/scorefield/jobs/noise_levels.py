"""Noise levels chosen from data by the techniques of Song and Ermon (2020), and a recipe that has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from scorefield.core.schedule import langevin_step, level_number, level_ratio
from scorefield.data.fields import FieldDataset
from scorefield.data.loader import Sequential
from scorefield.data.normalise import Normaliser
from scorefield.data.statistics import largest_distance
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_text
from scorefield.run.configuration import fold
from scorefield.run.experiment import data_and_normaliser, sde_of
from scorefield.run.on_recipe import OnRecipe
from scorefield.run.recipe import configuration_of
from scorefield.run.runner import check_out
from scorefield.run.verb import Count, CountOrZero, Positive, log

AVERAGE = 0.999  # technique 5: the decay of the average of the weights
SEED = 0  # of the choice among more fields than are compared


@dataclass(frozen=True)
class Levels:
    """What the data ask for, in model space.

    Attributes:
        fields: how many were compared.
        dimension: D, how many values a field has.
        sigma_min: the smallest level, which is given and not chosen.
        sigma_max: technique 1, the largest distance between two fields.
        bound: technique 2, the ratio of neighbours at which they overlap by half.
        number: of levels.
        repeats: Langevin steps on each level, T, which is given too.
        step: technique 4, the step on the smallest level.
    """

    fields: int
    dimension: int
    sigma_min: float
    sigma_max: float
    bound: float
    number: int
    repeats: int
    step: float

    @property
    def ratio(self) -> float:
        """That of the levels: with a whole number of them, at most the bound."""
        return (self.sigma_max / self.sigma_min) ** (1 / (self.number - 1))

    def table(self) -> str:
        """The choices as text, one a line."""
        rows = {
            "largest level": f"{self.sigma_max:.6g}   the largest distance between two of {self.fields} fields (technique 1)",
            "smallest level": f"{self.sigma_min:g}   as given",
            "ratio": f"{self.ratio:.6f}   at most {self.bound:.6f}, for {self.dimension} dimensions (technique 2)",
            "levels": f"{self.number}",
            "Langevin step": f"{self.step:.4g}   on the smallest level, of {self.repeats} on each (technique 4)",
            "weights": f"averaged with decay {AVERAGE} (technique 5)",
        }
        return "\n".join(f"{name:<16}{text}" for name, text in rows.items())


def choose(
    fields: FieldDataset, normaliser: Normaliser, *, sigma_min: float = 0.01, repeats: int = 5, compare: int = 0
) -> Levels:
    """The levels for some fields.

    Args:
        fields: the training data.
        normaliser: fitted to them.
        sigma_min: the smallest level, in model space; 0.01 goes with images in [0, 1].
        repeats: Langevin steps on each level.
        compare: of how many fields, drawn at random, all pairs are compared; 0 for all there are.
    """
    if sigma_min <= 0 or repeats < 1 or compare < 0 or compare == 1:
        raise InputError("Levels need sigma_min > 0, repeats >= 1, and compare >= 2, or 0 for all fields.")
    if len(fields) < 2:
        raise InputError("The largest level is a distance between fields, and there are fewer than two of them.")
    n = min(compare or len(fields), len(fields))
    order = torch.randperm(len(fields), generator=torch.Generator().manual_seed(SEED))[:n].sort().values
    sigma_max = largest_distance(normaliser, fields, order)
    if sigma_max <= sigma_min:
        raise InputError(
            f"The largest distance between two fields is {sigma_max:.3g}, no more than the smallest level {sigma_min:g}: "
            "give a smaller --sigma-min, or a normaliser that divides by less."
        )
    dimension = fields[0].x.numel()
    bound = level_ratio(dimension)
    number = max(2, level_number(sigma_min, sigma_max, bound))
    ratio = (sigma_max / sigma_min) ** (1 / (number - 1))
    return Levels(n, dimension, sigma_min, sigma_max, bound, number, repeats, langevin_step(sigma_min, ratio, repeats))


def applied(recipe: Mapping[str, Any], levels: Levels) -> dict[str, Any]:
    """A whole recipe with these levels, sampled by annealed Langevin steps on each; its network and all else stay.

    Raises:
        InputError: a model that is not of the kind whose noise only grows (α = 1): there is no largest level to choose.
    """
    kind = recipe["model"]["sde"]["init_args"] if "init_args" in recipe["model"]["sde"] else recipe["model"]["sde"]
    path = str(kind["schedule"].get("class_path", ""))
    ends = {"sigma_min": levels.sigma_min, "sigma_max": levels.sigma_max}
    if path.endswith((".VE", ".EDM")):
        return fold(recipe, {"model": {"sde": {"schedule": {"init_args": ends}}}, "train": {"ema": AVERAGE}})
    if not path.endswith(".geometric"):
        raise InputError(
            f"The recipe's schedule is {path or 'unknown'}: noise levels are chosen for geometric, VE and EDM, where α = 1."
        )
    count = {"init_args": {"levels": levels.number}}
    return fold(
        recipe,
        {
            "model": {
                "sde": {"schedule": {"init_args": {**ends, "levels": levels.number}}},
                "precondition": {"init_args": {"label": count}},
                "sampler": {
                    "steps": levels.number,
                    "corrector": {
                        "class_path": "scorefield.NCSNLangevin",
                        "init_args": {"step": levels.step, "repeats": levels.repeats},
                    },
                },
            },
            "train": {"loss": {"init_args": {"time": count}}, "ema": AVERAGE},
        },
    )


@dataclass(frozen=True, kw_only=True)
class NoiseLevels(OnRecipe):
    """Choose the noise levels of a recipe from its data, and write the recipe with them, complete, to train with.

    Args:
        out: YAML file to write.
        sigma_min: the smallest level, in model space.
        repeats: Langevin steps on each level.
        compare: compare so many fields, drawn at random; 0 for all.
    """

    out: Path
    sigma_min: Positive = 0.01
    repeats: Count = 5
    compare: CountOrZero = 0

    def check(self) -> None:
        check_out(self.out)
        if self.out.exists():
            raise InputError(f"{self.out} exists: give another --out, or remove it.")

    def run(self) -> Levels:
        if not sde_of(self.settings).noise.white:
            raise InputError(
                f"noise-levels is for white noise, and that of {self.recipe or 'the recipe'} is a field, whose levels go by the "
                f"bands of its spectrum: scorefield suggest {self.recipe or 'RECIPE'}."
            )
        fields, normaliser = data_and_normaliser(self.settings)
        normaliser.fit(Sequential(fields))
        found = choose(fields, normaliser, sigma_min=self.sigma_min, repeats=self.repeats, compare=self.compare)
        whole = yaml.safe_load(configuration_of(self.parser, self.settings))
        write_text(self.out, yaml.safe_dump(applied(whole, found), sort_keys=False))
        log.info("recipe in %s: scorefield train %s --out RUN", self.out, self.out)
        return found

    def table(self, found: Any) -> str:
        return found.table()
