"""Files that tell the same in other ways are compared; others are refused, not scored."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scorefield.errors import InputError
from scorefield.verification.grid import nearest
from scorefield.verification.pair import pair_up
from scorefield.verification.score import Options, score

KILOMETRES = 12000.0


def on_a_plane(n: int = 4, rows: int = 6, columns: int = 24) -> xr.Dataset:
    """Random fields on a grid of 12 km in metres."""
    axes = {
        name: (name, np.arange(size) * KILOMETRES, {"units": "m", "standard_name": f"projection_{name}_coordinate"})
        for name, size in (("y", rows), ("x", columns))
    }
    values = np.random.default_rng(0).normal(size=(n, rows, columns)).astype(np.float32)
    times = xr.date_range("2001-01-01", periods=n)
    return xr.Dataset({"tas": (("time", "y", "x"), values, {"units": "K"})}, {"time": times} | axes)


def test_the_truth_itself_scores_zero_on_a_grid_in_metres() -> None:
    truth = on_a_plane()
    found = score(pair_up(truth.copy(), truth), Options(replicates=0))["tas"].record["all"]
    assert found["crps"]["value"] == 0 and found["rmse_of_mean"]["value"] == 0
    with pytest.raises(InputError, match="grids differ along x"):  # 360 m and 360 degrees are not the same
        pair_up(truth, truth.assign_coords(x=truth["x"] + 360.0 * 12))


def test_longitudes_are_turned_only_where_they_do_not_fit_as_they_are() -> None:
    around = np.array([-180.0, -90.0, 0.0, 90.0, 180.0])
    np.testing.assert_array_equal(nearest(around, around, "x", turning=True), np.arange(5))
    np.testing.assert_array_equal(nearest(np.array([270.0, 0.0]), around, "x", turning=True), [1, 2])
    with pytest.raises(InputError, match="grids differ along x"):
        nearest(np.array([270.0]), around, "x", turning=False)
