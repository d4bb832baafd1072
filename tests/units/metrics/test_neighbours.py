"""Nearest neighbours: chance for equal laws, certainty for distant ones, and copies that give themselves away."""

import math

import pytest
import torch
from scipy.spatial.distance import cdist

from scorefield.foundation.errors import InputError
from scorefield.metrics import neighbours
from scorefield.metrics.coverage import class_coverage
from scorefield.metrics.neighbours import memorisation_ratio, nearest, two_sample_accuracy


def normal(n: int, dim: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("itself", [True, False])
def test_distances_are_exact_in_any_blocks(monkeypatch, itself) -> None:
    x, others = 1e3 + normal(50), 1e3 + normal(50, seed=1)
    others = others if itself else x
    exact = torch.from_numpy(cdist(x.double(), others.double()))
    if not itself:
        exact.fill_diagonal_(torch.inf)
    for block in (1, 130, 10**6):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        torch.testing.assert_close(nearest(x, others, itself=itself), exact.amin(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dim", [1, 6, 200])
def test_equal_laws_cannot_be_told_apart(dim) -> None:
    result = two_sample_accuracy(normal(800, dim, 1), normal(800, dim, 2))
    assert result.n == 800 and result.standard_error == pytest.approx(1 / math.sqrt(3200))
    assert abs(result.accuracy - 0.5) < 3 * result.standard_error


def test_the_standard_error_is_an_upper_bound_of_the_spread() -> None:
    found = torch.tensor([two_sample_accuracy(normal(60, 2, s), normal(60, 2, 1000 + s)).accuracy for s in range(200)])
    assert 0.5 / math.sqrt(240) < found.std() < 1.1 / math.sqrt(240)
    assert abs(found.mean() - 0.5) < 0.02


def test_distant_laws_are_told_apart() -> None:
    assert two_sample_accuracy(normal(100), normal(100, seed=1) + 50)[:3] == (1, 1, 1)


def test_a_collapsed_set_shows_on_its_own_side() -> None:
    result = two_sample_accuracy(normal(300), 0.01 * normal(300, seed=1))
    assert result.second > 0.99 and result.first < result.second


def test_copies_score_below_chance() -> None:
    x = normal(200)
    assert two_sample_accuracy(x, x.clone())[:3] == (0, 0, 0)
    half = torch.cat((x[:100], normal(100, seed=3)))
    assert two_sample_accuracy(x, half).accuracy < 0.35


def test_ties_count_as_half() -> None:
    x = torch.zeros(10, 3)
    assert two_sample_accuracy(x, x)[:3] == (0.5, 0.5, 0.5)


def test_fields_of_any_shape() -> None:
    x, y = normal(40, 12), normal(40, 12, 1)
    assert two_sample_accuracy(x.reshape(40, 1, 3, 4), y.reshape(40, 1, 3, 4)) == two_sample_accuracy(x, y)


def test_unequal_sets_are_refused() -> None:
    for first, second in ((normal(10), normal(11)), (normal(1), normal(1)), (normal(10, 3), normal(10, 4))):
        with pytest.raises(InputError, match="equal size"):
            two_sample_accuracy(first, second)


def test_fresh_samples_are_as_far_from_the_training_data_as_held_out_ones() -> None:
    result = memorisation_ratio(normal(400, seed=1), normal(400, seed=2), normal(1000))
    assert abs(result.mean - 1) < 0.1 and abs(result.median - 1) < 0.1 and result.closer < 0.02
    assert (result.n_generated, result.n_held_out, result.n_train) == (400, 400, 1000)


def test_copies_have_ratio_zero() -> None:
    train = normal(1000) + 1e4
    result = memorisation_ratio(train[:300], normal(400, seed=2) + 1e4, train)
    assert (result.mean, result.median, result.closer) == (0, 0, 1)


def test_planted_copies_are_detected() -> None:
    train = normal(1000)
    generated = torch.cat((train[:120] + 1e-3 * normal(120, seed=5), normal(280, seed=1)))
    result = memorisation_ratio(generated, normal(400, seed=2), train)
    assert result.closer == pytest.approx(0.3, abs=0.02) and result.mean == pytest.approx(0.7, abs=0.05)


def test_useless_sets_are_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        memorisation_ratio(normal(0), normal(4), normal(4))
    with pytest.raises(InputError, match="copies of training"):
        memorisation_ratio(normal(4, seed=1), normal(4), normal(4))


def test_coverage_counts_classes() -> None:
    result = class_coverage(torch.tensor([0, 0, 1, 3]), 4)
    assert (result.counts, result.n, result.missing) == ((2, 1, 0, 1), 4, (2,))
    assert result.distance == pytest.approx(0.25)
    assert result.entropy == pytest.approx(-(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)))
    assert class_coverage(torch.arange(40) % 4, 4).entropy == pytest.approx(math.log(4))
    labels = torch.tensor([0, 0, 0, 1])
    assert class_coverage(labels, 4, labels).distance == 0
    for bad in (torch.tensor([4]), torch.tensor([], dtype=torch.int64)):
        with pytest.raises(InputError, match="from 0 to 3"):
            class_coverage(bad, 4)


def test_coverage_by_chance_is_expected() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [class_coverage(torch.randint(10, (500,), generator=generator), 10) for _ in range(200)]
    mean = sum(result.distance for result in drawn) / len(drawn)
    assert mean == pytest.approx(drawn[0].expected_distance, rel=0.05)
