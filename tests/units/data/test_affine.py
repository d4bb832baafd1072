"""Affine maps of images are those of their formula, on fields in closed form, and the vector says what was done."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny
from scorefield.data import Batch, DropLabel, Loader, RandomAffine, Tensors
from scorefield.data.affine import ENTRIES, mapped
from scorefield.foundation.errors import InputError
from scorefield.run import experiment
from scorefield.training.trainer import Trainer

NOTHING = torch.zeros(ENTRIES, dtype=torch.float64)


def batch(n: int = 6, shape: tuple[int, ...] = (2, 8, 10)) -> Batch:
    x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))
    return Batch(x, key=torch.stack((torch.arange(n), torch.full((n,), 3)), dim=1))


def many(n: int) -> Batch:
    return Batch(torch.zeros(n, 1, 2, 2), key=torch.stack((torch.arange(n), torch.zeros(n, dtype=torch.long)), dim=1))


def vector(**entries: float) -> Tensor:
    """A vector with some entries other than 0."""
    names = ("left", "up", "size", "cos", "sin", "along", "across", "right", "down")
    out = NOTHING.clone()
    for name, value in entries.items():
        out[names.index(name)] = value
    return out[None]


def waves(r: Tensor, modes: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """A product of cosines at points r (..., 2) about the centre, right and down: its own mirror image at every edge."""
    height, width = grid
    across = (math.pi * modes[0] * (r[..., 0] / width + 0.5)).cos()
    return across * (math.pi * modes[1] * (r[..., 1] / height + 0.5)).cos()


def points(grid: tuple[int, int]) -> Tensor:
    down, right = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in grid)
    return torch.stack(torch.meshgrid(down, right, indexing="ij")[::-1], dim=-1)


def test_nothing_is_done_where_the_vector_is_zero() -> None:
    whole = batch()
    assert torch.equal(RandomAffine().applied(whole.x, NOTHING.expand(6, -1)), whole.x)
    changed = RandomAffine(probability=0.0)(whole, 0)
    vectors = changed.cond["augment"]
    assert not vectors[:, 1:].any() and torch.equal(changed.x[vectors[:, 0] == 0], whole.x[vectors[:, 0] == 0])


def test_flips_are_exact() -> None:
    x = batch().x
    change = RandomAffine()
    assert torch.equal(change.applied(x, vector(left=1).expand(6, -1)), x.flip(-1))
    assert torch.equal(change.applied(x, vector(up=1).expand(6, -1)), x.flip(-2))


@pytest.mark.parametrize(("quarters", "angle"), [(1, math.pi / 2), (2, math.pi), (3, -math.pi / 2)])
def test_quarter_turns_are_exact_to_rounding(quarters: int, angle: float) -> None:
    x = batch(2, (3, 9, 9)).x
    turned = RandomAffine().applied(x, vector(cos=math.cos(angle) - 1, sin=math.sin(angle)).expand(2, -1))
    torch.testing.assert_close(turned, x.rot90(-quarters, (-2, -1)), atol=2e-5, rtol=0)


@pytest.mark.parametrize("grid", [(32, 32), (24, 40), (21, 33)])
@pytest.mark.parametrize(
    "given",
    [
        {"size": 1.5},
        {"size": -1.0},
        {"cos": math.cos(0.7) - 1, "sin": math.sin(0.7)},
        {"along": 1.2 * math.cos(2.0), "across": 1.2 * math.sin(2.0)},
        {"right": 0.37, "down": -1.1},
        {"size": 0.5, "cos": math.cos(2.5) - 1, "sin": math.sin(2.5), "along": -0.9, "across": 0.4, "down": 0.8},
    ],
)
def test_waves_are_moved_as_the_formula_says(grid: tuple[int, int], given: dict[str, float]) -> None:
    """x'(r) = x(A⁻¹(r − b)), with A = stretch · turn · size by the paper's own matrices; waves of 10 points and more to 1 %."""
    modes, change, entries = (4, 3), RandomAffine(), vector(**given)
    x = waves(points(grid), modes, grid).float()[None, None]
    size = 2 ** (0.2 * given.get("size", 0.0))
    angle = math.atan2(given.get("sin", 0.0), given.get("cos", 0.0) + 1)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    along, across = given.get("along", 0.0), given.get("across", 0.0)
    n, place = math.hypot(along, across), math.atan2(across, along)
    axis = torch.tensor([[math.cos(place), -math.sin(place)], [math.sin(place), math.cos(place)]]).double()
    stretch = axis @ torch.tensor([2 ** (0.2 * n), 2 ** (-0.2 * n)]).double().diag() @ axis.T
    shift = torch.tensor([given.get("right", 0.0) * grid[1], given.get("down", 0.0) * grid[0]]).double() / 8
    sources = (points(grid) - shift) @ torch.linalg.inv(stretch @ turn * size).T
    expected = waves(sources, modes, grid).float()
    found = change.applied(x, entries)[0, 0]
    assert float((found - expected).square().mean().sqrt()) < 0.01
    inside = (slice(3, -3), slice(3, -3))  # at edges, waves that do not end level ring where modes are left out
    assert float((found - expected)[inside].abs().max()) < 0.02


def test_what_is_shrunk_keeps_no_wave_that_the_grid_has_not() -> None:
    """Waves of 2.3 points, shrunk to 1.7, are left out, not taken for longer ones."""
    grid = (32, 32)
    x = waves(points(grid), (28, 0), grid).float()[None]
    small = mapped(x, 0.75 * torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    assert float(small[0, 4:-4, 4:-4].square().mean()) < 0.05 * float(x.square().mean())


def test_the_vector_has_the_papers_law() -> None:
    """Means and variances of table 6 of Karras et al. (2022), each with its probability."""
    n, p = 40_000, 0.3
    found = RandomAffine(p)(replace(many(n), x=torch.zeros(n, 1, 1, 1)), 0).cond["augment"].double()
    half = {"left": (0.5, 0.25), "up": (p / 2, p / 2 * (1 - p / 2))}
    turn = {"cos": (-p, p * 1.5 - p**2), "sin": (0.0, p / 2)}
    rest = {"size": (0.0, p), "along": (0.0, p / 2), "across": (0.0, p / 2), "right": (0.0, p), "down": (0.0, p)}
    for name, (mean, variance) in (half | turn | rest).items():
        column = found[:, int(vector(**{name: 1.0}).argmax())]
        error = math.sqrt(variance / n)
        assert abs(float(column.mean()) - mean) < 5 * error, name
        assert float(column.var()) == pytest.approx(variance, rel=0.05), name
    done = torch.stack((found[:, 1] != 0, found[:, 2] != 0, found[:, 4] != 0, found[:, 5] != 0, found[:, 7] != 0), 1)
    expected = torch.tensor([p / 2, p, p, p, p]).double()
    assert (done.double().mean(0) - expected).abs().max() < 0.015
    joint = done.double().T @ done.double() / n  # independent of each other
    outer = expected[:, None] * expected
    assert (joint - outer)[~torch.eye(5, dtype=torch.bool)].abs().max() < 0.01


def test_a_sample_is_changed_alike_in_any_batch_and_by_any_seed_otherwise() -> None:
    whole, order, change = batch(8), torch.tensor([4, 0, 5]), RandomAffine(0.9)
    all_of_it = change(whole, 7)
    some = change(Batch(whole.x[order], key=whole.key[order]), 7)
    assert torch.equal(some.x, all_of_it.x[order]) and torch.equal(
        some.cond["augment"], all_of_it.cond["augment"][order]
    )
    assert not torch.equal(change(whole, 8).x, all_of_it.x)
    source = Tensors(whole.x)
    first, again = (Loader(source.load("train"), 4, seed=3, augment=[change]).batch(5) for _ in range(2))
    assert torch.equal(first.x, again.x) and torch.equal(first.cond["augment"], again.cond["augment"])


def test_a_conditioning_field_goes_along_and_labels_stay() -> None:
    whole = batch()
    both = replace(whole, cond={"field": 2 * whole.x[:, :1], "label": torch.arange(6)})
    changed = DropLabel(0.0)(RandomAffine(0.9)(both, 1), 1)
    torch.testing.assert_close(changed.cond["field"], 2 * changed.x[:, :1])
    assert torch.equal(changed.cond["label"], torch.arange(6))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mask": torch.ones(6, 1, 8, 10)}, "mask"),
        ({"y": torch.ones(6, 3)}, "y"),
        ({"noise": torch.ones(6)}, "noise"),
        ({"cond": {"field": torch.ones(6, 1, 2, 2)}}, "another"),
        ({"x": torch.ones(6, 1, 8)}, "1 grid axes"),
        ({"key": None}, "key"),
    ],
)
def test_what_cannot_be_changed_with_an_image_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        RandomAffine()(replace(batch(), **changes), 0)


@pytest.mark.parametrize("wrong", [{"probability": 1.5}, {"scale": -1.0}, {"translation": -0.1}])
def test_numbers_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="RandomAffine"):
        RandomAffine(**wrong)


@pytest.mark.parametrize("part", ["x", "field"])
def test_what_is_not_known_everywhere_is_refused(part: str) -> None:
    """A NaN, from which holes are learnt, would be one of the whole image."""
    whole = batch()
    field = whole.x.clone()
    given = replace(whole, cond={"field": field})
    (whole.x if part == "x" else field)[0, 0, 2, 3] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        RandomAffine()(given, 0)


def test_a_second_one_is_refused() -> None:
    """The network would be told of the last alone."""
    with pytest.raises(InputError, match="remove one"):
        RandomAffine()(RandomAffine()(batch(), 0), 0)


def test_a_network_that_takes_none_is_refused_before_training(tmp_path: Path) -> None:
    """Built by hand, where no recipe sees to it: the changes would be those of samples, too."""
    built = experiment.prepare(*tiny.settings(tiny.recipe(tmp_path), train__accelerator="cpu"))
    plan = Trainer(augment=[RandomAffine()], accelerator="cpu", loggers=[])
    with pytest.raises(InputError, match="augmentations=9"):
        plan.launch(built.model)
