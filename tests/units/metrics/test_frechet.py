"""The Fréchet distance against closed forms, other implementations, and itself in pieces."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid

from scorefield.foundation.errors import InputError
from scorefield.metrics.frechet import Moments, frechet_distance, note_on
from scorefield.metrics.statistics import Statistics


def features(n: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator, dtype=torch.float64) / dim**0.5
    return torch.randn(n, dim, generator=generator, dtype=torch.float64) @ mixing + 0.3 * seed


def moments(n: int = 500, dim: int = 24, seed: int = 0) -> Moments:
    return of(features(n, dim, seed))


def of(x: torch.Tensor) -> Moments:
    state = Statistics()
    for part in x.split(64):
        state.update(part)
    return state.moments


def gaussian(mean: torch.Tensor, covariance: torch.Tensor) -> Moments:
    return Moments(10**6, mean.double(), covariance.double())


def test_parity_with_torchmetrics_and_scipy() -> None:
    one, other = moments(seed=0), moments(seed=1)
    ours = frechet_distance(one, other)
    theirs = float(_compute_fid(one.mean, one.covariance, other.mean, other.covariance))
    root = scipy.linalg.sqrtm(one.covariance.numpy() @ other.covariance.numpy()).real
    direct = float((one.mean - other.mean).square().sum() + one.covariance.trace() + other.covariance.trace())
    assert ours == pytest.approx(theirs, abs=1e-6) and ours == pytest.approx(direct - 2 * np.trace(root), abs=1e-6)


def test_closed_forms() -> None:
    a, b = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 0.1, 0.5])
    shift = torch.tensor([1.0, -2.0, 0.0])
    expected = float(shift.square().sum() + (a - b).square().sum())
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    one, other = (
        gaussian(torch.zeros(3), turn @ (a**2).diag().double() @ turn.T),
        gaussian(turn @ shift.double(), turn @ (b**2).diag().double() @ turn.T),
    )
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    # commuting or not, for 2×2 matrices Tr √M = √(Tr M + 2 √det M)
    c, d = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double(), torch.tensor([[1.0, -0.9], [-0.9, 3.0]]).double()
    trace = math.sqrt(float((c @ d).trace()) + 2 * math.sqrt(float((c @ d).det())))
    found = frechet_distance(gaussian(torch.zeros(2), c), gaussian(torch.zeros(2), d))
    assert found == pytest.approx(float(c.trace() + d.trace()) - 2 * trace, rel=1e-12)


def test_it_is_a_distance() -> None:
    sets = [moments(seed=s) for s in range(3)]
    for a in sets:
        assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
        for b in sets:
            assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-10)
            for c in sets:  # the triangle inequality is that of its root
                root = [max(0.0, frechet_distance(*pair)) ** 0.5 for pair in ((a, c), (a, b), (b, c))]
                assert root[0] <= root[1] + root[2] + 1e-6


def test_fewer_samples_than_dimensions_are_handled_and_labelled() -> None:
    reference, few = moments(2000, 32, 0), moments(20, 32, 1)
    trace = np.sqrt(np.maximum(np.linalg.eigvals(reference.covariance.numpy() @ few.covariance.numpy()).real, 0)).sum()
    total = (few.mean - reference.mean).square().sum() + few.covariance.trace() + reference.covariance.trace()
    assert frechet_distance(few, reference) == pytest.approx(float(total) - 2 * trace, abs=1e-5)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-10)
    assert "20 ≤ 32" in note_on(20, 32) and "n = 120 < 10000" in note_on(120, 32) and note_on(10_000, 32) == ""


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="5 and 6 dimensions"):
        frechet_distance(moments(dim=5), moments(dim=6))
    one, other = (Moments(9, torch.zeros(3), torch.eye(3), name) for name in "ab")
    with pytest.raises(InputError, match="different features"):
        frechet_distance(one, other)
    for n in (0, 1):
        few = Statistics()
        few.update(features(n, 3, 0)) if n else None
        with pytest.raises(InputError, match=f"from {n} features"):
            _ = few.moments


def test_moments_have_a_hash_of_their_own() -> None:
    one = moments(100, 5, 0)
    assert moments(100, 5, 0).hash == one.hash
    assert len({one.hash, moments(100, 5, 1).hash, Moments(100, one.mean, one.covariance, "a").hash}) == 3
