"""What a class's name alone stands for is written into a run's configuration, and read back as the same."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields

import pytest
import yaml

import scorefield
from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses import CRPS, Loss
from scorefield.losses.ensemble import Score
from scorefield.run import recipe


def by_name() -> list[str]:
    """The losses that need no arguments."""
    found = (getattr(scorefield, name) for name in scorefield.__all__)
    losses = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Loss) and kind is not Loss]
    plain = [
        kind
        for kind in losses
        if all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(kind))
    ]
    return sorted(kind.__name__ for kind in plain)


@pytest.mark.parametrize("name", by_name())
def test_a_loss_by_its_name_is_read_back_as_it_was_written(name):
    parser = recipe.train_parser()
    settings = parser.read_object({"train": {"loss": {"class_path": f"scorefield.{name}"}}}, "a recipe")
    text = parser.written(settings)
    assert parser.written(parser.read_object(yaml.safe_load(text), "a file")) == text
    assert type(parser.instantiate(settings).train.loss).__name__ == name


@dataclass(frozen=True)
class Unwritable(Loss):
    """A loss of a user's own whose default holds objects."""

    scores: list[Score] = field(default_factory=lambda: [CRPS(3)])

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators):
        return batch.x.flatten(1).sum(1)


def test_a_default_that_cannot_be_written_is_told_before_a_run_has_it():
    parser = recipe.train_parser()
    settings = parser.read_object({"train": {"loss": {"class_path": f"{__name__}.Unwritable"}}}, "a recipe")
    with pytest.raises(InputError, match=r"default CRPS\(pool=3\) cannot be written"):
        parser.written(settings)
