"""Histograms, quantiles, transport and correlation against exact values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from scorefield.metrics.marginal import correlation, counted, quantile_edges, quantiles, wasserstein

LEVELS = torch.tensor([0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999], dtype=torch.float64)


@pytest.mark.parametrize("law", ["normal", "rain"])
def test_quantiles_of_the_histogram_are_those_of_the_values(law: str) -> None:
    random = np.random.default_rng(0)
    x = 280 + 5 * random.normal(size=400_000) if law == "normal" else random.gamma(0.3, 4, 400_000) ** 1.5
    if law == "rain":
        x[random.random(x.size) < 0.6] = 0.0
    x = torch.from_numpy(x.astype(np.float32))
    edges = quantile_edges(x[::4], float(x.min()), float(x.max()))  # the edges know a part of the values only
    counts = counted(x[None], torch.ones(1, len(x)), edges)
    assert float(counts.sum()) == len(x)
    exact = np.quantile(x.double(), LEVELS)
    spread = float(x.std())  # in the tails a bin is as wide as the gap between the values that the edges know
    np.testing.assert_allclose(quantiles(counts[0], edges, LEVELS), exact, rtol=1e-2, atol=1e-3 * spread)


def test_weights_count_and_values_beyond_the_sample_are_not_lost() -> None:
    x, weight = torch.tensor([[1.0, 2.0, 3.0, 100.0]]), torch.tensor([[1.0, 1.0, 1.0, 5.0]])
    edges = quantile_edges(torch.tensor([1.0, 2.0, 3.0]), 1.0, 100.0)
    counts = counted(x, weight, edges)
    assert float(counts.sum()) == 8
    assert float(quantiles(counts[0], edges, torch.tensor([0.99]))[0]) > 97
    same = torch.full((9,), 273.0)
    edges = quantile_edges(same, 273.0, 273.0)
    torch.testing.assert_close(
        quantiles(counted(same[None], torch.ones(1, 9), edges)[0], edges, LEVELS), same[:7].double()
    )


def test_transport_equals_scipy_and_a_shift_is_its_length() -> None:
    random = np.random.default_rng(0)
    members, truth = torch.from_numpy(random.gamma(2, size=(3, 11, 4))), torch.from_numpy(random.normal(size=(11, 4)))
    found = wasserstein(members, truth)
    expected = [wasserstein_distance(members[..., i].flatten(), truth[:, i]) for i in range(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    torch.testing.assert_close(wasserstein((truth + 2.5)[None], truth), torch.full((4,), 2.5, dtype=torch.float64))


def test_correlation_of_a_pair_and_of_a_series_with_its_own_past() -> None:
    random = np.random.default_rng(0)
    noise = torch.from_numpy(random.normal(size=(2, 60_000, 3)))
    torch.testing.assert_close(correlation(noise[0], noise[0] * 2 + 1), torch.ones(3).double())
    mixed = 0.6 * noise[0] + 0.8 * noise[1]
    assert (correlation(noise[0], mixed) - 0.6).abs().max() < 0.02
    x = torch.zeros_like(noise[0])
    for t in range(1, len(x)):
        x[t] = 0.7 * x[t - 1] + noise[0][t]
    assert (correlation(x[:-1], x[1:]) - 0.7).abs().max() < 0.02
    assert correlation(noise[0], torch.ones_like(noise[0])).isnan().all()
