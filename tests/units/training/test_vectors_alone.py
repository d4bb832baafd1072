"""Adam without matrices: scales and biases learn and nothing else, whatever stops the run in between."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from scorefield.foundation.errors import InputError
from scorefield.training import Adam
from scorefield.training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("unchecked")
OPTIONS = {"train__optimiser": "Adam", "train__optimiser__matrices": "false", "train__preview_every": 0}


def read(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return checkpoints.read(checkpoints.path_of(folder / "checkpoints", step)).tensors


def test_only_vectors_change_and_a_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    options = OPTIONS | {"train__checkpoint_every": 3, "train__keep": 9}
    tiny.train(tmp_path, tmp_path / "whole", train__steps=6, **options)
    first, last = (read(tmp_path / "whole", step) for step in (3, 6))
    net = {name[4:]: value for name, value in last.items() if name.startswith("net.")}
    changed = {name for name, value in net.items() if not torch.equal(value, first[f"net.{name}"])}
    learnt = {name for name in net if f"optimiser.exp_avg.{name}" in last}
    assert changed and changed <= learnt
    assert not any(value.ndim > 1 for name, value in last.items() if name.startswith("optimiser."))
    later = tmp_path / "later"
    tiny.train(tmp_path, later, train__steps=6, **options)
    for path in (later / "checkpoints").glob("*00006*"):
        path.unlink()
    tiny.train(tmp_path, later, train__steps=6, resume=True, **options)
    again = read(later, 6)
    assert again.keys() == last.keys() and all(torch.equal(again[name], last[name]) for name in last)


@pytest.mark.parametrize(("before", "after"), [("false", "true"), ("true", "false")])
def test_a_run_does_not_go_on_with_other_weights(tmp_path: Path, before: str, after: str) -> None:
    """Weights that begin to learn have no average, and of those that end to learn it would be lost."""
    name = "train__optimiser__matrices"
    tiny.train(tmp_path, tmp_path / "run", train__steps=2, **OPTIONS | {name: before})
    with pytest.raises(InputError, match="Other weights learn"):
        tiny.train(tmp_path, tmp_path / "run", train__steps=4, resume=True, **OPTIONS | {name: after})


def test_a_network_of_matrices_alone_is_refused() -> None:
    weights = [*nn.Linear(3, 2, bias=False).parameters()]
    for weight in weights:
        weight.requires_grad_(Adam(matrices=False).learns(weight))
    with pytest.raises(InputError, match="nothing to learn"):
        Adam(matrices=False).build(weights, fused=False)
