"""The CRPS by sorting is that of the library `scores`, which forms all differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scorefield.metrics.ensemble import fair_crps


@pytest.mark.parametrize("members", [2, 3, 20])
def test_the_sorted_closed_form_is_the_double_sum(members: int) -> None:
    """On temperatures in K, in single precision, to single precision; ties, as of dry points, included."""
    probability, xarray = pytest.importorskip("scores.probability"), pytest.importorskip("xarray")
    random = np.random.default_rng(members)
    x = (280 + 5 * random.normal(size=(members, 50, 6))).astype(np.float32)
    y = (280 + 5 * random.normal(size=(50, 6))).astype(np.float32)
    x[:, :10], y[:5] = x[:1, :10], x[0, :5]
    arrays = (
        xarray.DataArray(x.astype(float), dims=("member", "a", "b")),
        xarray.DataArray(y.astype(float), dims=("a", "b")),
    )
    expected = probability.crps_for_ensemble(*arrays, "member", method="fair", preserve_dims=("a", "b")).to_numpy()
    found = fair_crps(torch.from_numpy(x), torch.from_numpy(y))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)
